"""What a programme sees of the machine it runs on: its communicator, its place, the link, and where to say things."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mpi4py import MPI

from ..experiment import Spec
from ..machine.profile import Machine
from ..runs.control import ask
from ..runs.layout import RunDir
from ..runs.writer import EventWriter, RecordWriter
from .link import InjectedLink

Arrays = dict[str, np.ndarray[Any, Any]]


class Node:
    """One rank of the pool, in one run.

    Attributes:
        id: Its number in the pool; stays when ranks join, leave or die.
        comm: The active nodes; replaced at a boundary when membership changes. COMM_NULL while idle.
        world: Every rank of the pool.
        machine: The profile kept with the run (what is here; for choosing a device, never for predicting).
        link: Injected delay between nodes.
        cache: Folder for generated data.
        event: Appends to this node's event log.
        record: Appends a row to a record of the experiment: table, segment, numbers.
        folder: Where the programme may keep files of its own, inside the run.
        segment: Index of the segment that goes on.
        paused_s: Seconds that the run was held, so that a programme with a clock of its own can leave them out.
        ballot: Set by the runtime before each tick: not 0 on the controller when it has a plan.
        verdict: Sum of the ballots; a programme that `agrees` sets it on every active node during the tick.
    """

    def __init__(
        self, world: MPI.Intracomm, machine: Machine, cache: Path, event: EventWriter, run: RunDir, record: RecordWriter
    ) -> None:
        self.world = world
        self.id: int = world.rank
        self.comm: Any = MPI.COMM_NULL  # an Intracomm while active
        self.machine = machine
        self.cache = cache
        self.link = InjectedLink()
        self.event = event
        self.record = record
        self.run = run
        self.folder = run.work
        self.segment = -1
        self.paused_s = 0.0
        self.ballot = 0
        self.verdict = 0

    def ask(self, spec: Spec, changes: Mapping[str, Any], by: str) -> str:
        """Ask for live changes of the run, as a person would, and return the request's id.

        Raises:
            ControlError, SpecError: See `runs.control.ask`.
        """
        return ask(self.run, spec, changes, by=by, predicted=False).id

    @property
    def rank(self) -> int:
        """Place among the active nodes."""
        return int(self.comm.rank)

    @property
    def size(self) -> int:
        """Number of active nodes."""
        return int(self.comm.size)

    def ids(self, ranks: Sequence[int] | None = None) -> list[int]:
        """Return the numbers in the pool of these active nodes, all of them if not given."""
        of = list(range(self.size)) if ranks is None else list(ranks)
        return [int(i) for i in MPI.Group.Translate_ranks(self.comm.Get_group(), of, self.world.Get_group())]

    @property
    def controller(self) -> bool:
        """Whether this node decides: the first of the active ones."""
        return bool(self.comm != MPI.COMM_NULL and self.comm.rank == 0)


class Program(ABC):
    """What one node does, in ticks. The runtime calls it; it never looks at files, requests or membership itself.

    Every node of the pool builds one at the start of a run, also those that idle, so that joining costs one broadcast.

    Attributes:
        tick: Ticks done. Moves only when the state is whole, so a collective may fail anywhere before that.
        replicated: Every active node holds the same state, or its neighbour a copy of it: then survivors of a dead node can go on.
        agrees: Its tick has a collective anyway and sums `node.ballot` in it, which spares a broadcast at each boundary -
            a second point where ranks that share cores would wait for each other.
        sharded_checkpoints: After `gather` every active node holds the same state to the bit: each writes its slice of a
            checkpoint. Elsewhere the first node writes everything.
    """

    replicated: ClassVar[bool] = True
    agrees: ClassVar[bool] = False
    sharded_checkpoints: ClassVar[bool] = False
    tick: int = 0

    @abstractmethod
    def __init__(self, spec: Spec, node: Node) -> None: ...

    @abstractmethod
    def state(self) -> Arrays:
        """Return the state as named arrays that share memory with the programme: writing into them restores it."""

    @abstractmethod
    def join(self, spec: Spec) -> None:
        """Take up `spec` on `node.comm`: re-shard, set threads, learning rate ... Called at the start and after each change."""

    @abstractmethod
    def advance(self) -> Mapping[str, float] | None:
        """Do one tick on all active nodes and return what was measured, or None when there is nothing left to do."""

    def gather(self) -> None:  # noqa: B027 - replicas have nothing to collect
        """Make `state()` whole on every active node, before a checkpoint; each of them calls it at the same boundary."""

    def leave(self, spec: Spec, *, regrouped: bool) -> None:  # noqa: B027 - as above
        """Active nodes are about to take up `spec`; `regrouped`: with other members. Make `state()` whole while all can be asked."""

    def abandon(self) -> None:  # noqa: B027 - most have no communicator but the node's
        """A node died: call back whoever still waits in the programme's own communicators, before the survivors meet."""

    def mend(self) -> bool:
        """Make state and tick whole and alike on all survivors, on their new `node.comm`, from copies in each other's memory.

        Returns:
            False where each has the whole state in place already, and none is touched.

        Raises:
            LabError: What died with its only copies; on every survivor.
        """
        return False

    def accept(self, spec: Spec) -> None:  # noqa: B027 - most programmes take whatever the Spec allows
        """Refuse, by raising a LabError, a change of `spec` that only the programme can see to be impossible."""

    def accept_verb(self, spec: Spec, verb: str, arguments: Mapping[str, Any]) -> None:  # noqa: B027 - as above
        """Refuse, by raising a LabError, a verb that only the programme can see to be impossible; asked on the controller."""

    def between(self) -> None:  # noqa: B027 - most programmes have nothing to do here
        """Do what is not part of a tick (evaluate, write a summary); its time is not counted."""

    def poison(self, *, here: bool) -> None:  # noqa: B027 - most programmes have no parameters
        """Turn this node's parameters into NaN where `here`; called on every active node at a boundary, for the fault of that name."""

    def close(self) -> None:  # noqa: B027 - as above
        """Write down what is unfinished: the run ends here, by its own end or because it was asked to."""

    def act(self, verb: str, arguments: Mapping[str, Any]) -> None:
        """Carry out a verb that the experiment declares; called on every active node at a boundary."""
        raise NotImplementedError(verb)


def program_of(name: str) -> type[Program]:
    """Return the class that an experiment names as `module:Class`."""
    module, _, attribute = name.partition(":")
    found: type[Program] = getattr(import_module(module), attribute)
    return found


def send_json(comm: MPI.Comm, data: Any, dest: int, tag: int) -> None:
    """Send plain JSON types to one rank. No pickle."""
    comm.Send(np.frombuffer(json.dumps(data).encode(), np.uint8), dest, tag)


def receive_json(comm: MPI.Comm, status: MPI.Status, tag: int) -> Any:
    """Receive what `send_json` sent, after a probe that filled `status`."""
    buffer = np.empty(status.Get_count(MPI.BYTE), np.uint8)
    comm.Recv(buffer, status.Get_source(), tag)
    return json.loads(buffer.tobytes())


def broadcast_json(comm: MPI.Intracomm, data: Any, size: int, root: int = 0) -> Any:
    """Broadcast plain JSON types whose encoding has `size` bytes on every rank (see Runtime.agree)."""
    buffer = (
        np.frombuffer(json.dumps(data).encode(), np.uint8).copy() if comm.rank == root else np.empty(size, np.uint8)
    )
    comm.Bcast(buffer, root)
    return json.loads(buffer.tobytes())


def wait_for(comm: MPI.Comm, tag: int, source: int = MPI.ANY_SOURCE, *, pause_s: float = 0.01) -> MPI.Status | None:
    """Look once for a message and sleep if there is none: an idle rank must not spin.

    Returns:
        The status to receive with, or None.
    """
    status = MPI.Status()
    if comm.Iprobe(source, tag, status):
        return status
    time.sleep(pause_s)
    return None
