"""What a kernel or a command does with runs: start, find again, change, stop, resume. The same for the lab, the CLI and tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ControlError, RunFormatError
from ..experiment import Spec, experiment
from ..machine import limits
from ..machine.limits import admit
from ..machine.profile import Machine
from ..runs import control, layout
from ..runs.home import runs_folder
from ..runs.layout import RunDir
from ..runs.reader import RunReader
from ..runs.status import Status, latest_checkpoint_tick, status
from . import local
from . import pool as pools
from .machines import this_machine as this_machine  # whoever has sessions asks for it here
from .place import Place
from .pool import Pool


class Session:
    """The runs of one owner, and the pool of warm ranks that they share. Cheap to make: ranks start with the first run.

    Args:
        machine: What predictions are made from; None takes `this_machine(place)`.
        grace_s: How long a run goes on after this process died (60 in a notebook, 0 headless).
        runs: Folder for run directories; None is the user's own.
        place: Where the ranks are to be, such as an allocation of Slurm; None is this machine.
    """

    def __init__(
        self,
        machine: Machine | None = None,
        *,
        grace_s: float = 0.0,
        runs: Path | None = None,
        place: Place | None = None,
    ) -> None:
        self.machine = machine or this_machine(place)
        self.grace_s = grace_s
        self.runs = (runs or runs_folder()).resolve()
        self.place = place
        self.pool: Pool | None = None

    def launch(
        self, name: str, spec: Spec, *, room: int | None = None, note: str = "", detached: bool = False
    ) -> RunReader:
        """Start a run and return its reader at once; the ranks come up meanwhile.

        Args:
            name: Of the experiment.
            spec: What is asked.
            room: Ranks to hold, so that the node count can grow without a relaunch; None is twice the cores, 8 at most.
            note: Kept with the run.
            detached: Outlive this process.

        Raises:
            AdmissionError: More nodes, or memory, than this machine has; nothing was started.
            LaunchError: No launcher.
            StorageError: No place for the run.
        """
        if self.place is None:
            for ranks in (spec.ranks, *([] if room is None else [room])):
                admit(ranks, self.machine, replaces=self._reused())
        elif self.pool is None or not self.pool.alive:
            self.place.admit(max(spec.ranks, room or 0))
        else:
            self.pool.admit(spec.ranks)
        experiment(name).admit(spec, self.machine)
        local.mpiexec()
        run = layout.create(self.runs, name, spec, self.machine, note=note)
        return self._submit(run, spec, room, detached)

    def resume(self, run: RunDir, *, room: int | None = None, detached: bool = False) -> RunReader:
        """Continue a run from its last checkpoint, as its next incarnation.

        Raises:
            ControlError: It still goes on, is done, or never wrote a checkpoint.
        """
        reader = RunReader(run)
        reader.poll()
        now = status(reader)
        if not now.final and now.state != "new":
            raise ControlError(f"run {run.id} is {now.state}; stop it before you resume it")
        if now.state == "done":
            raise ControlError(f"run {run.id} is done; start a new run, for example with more steps")
        if now.state != "new" and latest_checkpoint_tick(reader) is None:
            raise ControlError(
                f"run {run.id} has no checkpoint to resume from; what it measured is kept; start a new run"
            )
        control.discard(run)
        return self._submit(run, reader.spec, room, detached)

    def _submit(self, run: RunDir, spec: Spec, room: int | None, detached: bool) -> RunReader:
        roomy = min(2 * self.machine.cores, 8) + spec.coordinators
        if room is None:  # an allocation is paid for: no more than is asked
            room = spec.ranks if self.place else limits.room(roomy, spec.ranks, self.machine, replaces=self._reused())
        size = max(spec.ranks, room)
        self.ready(size)
        assert self.pool is not None
        self.pool.submit(run, spec, room=size, detached=detached)
        return RunReader(run)

    def _reused(self) -> Path | None:
        """The pool that a run of this owner will take, whose ranks are no more of them."""
        if self.pool is not None and self.pool.alive:
            return self.pool.path
        return next((p.path for p in pools.ours() if p.idle), None)

    def ready(self, size: int) -> Pool:
        """Return a live pool of this owner, started with `size` ranks if there is none; its size may still differ."""
        if self.pool is None or not self.pool.alive:
            # A pool whose owner is gone is taken over warm, but not one that still carries that owner's run.
            warm = [p for p in pools.ours() if p.idle]
            warm = [p for p in warm if self._suits(p, size)]
            self.pool = warm[0] if warm else pools.start(size, self.machine, grace_s=self.grace_s, place=self.place)
        self.pool.adopt(self.grace_s)
        return self.pool

    def _suits(self, pool: Pool, size: int) -> bool:
        """Whether a warm pool is where this owner's ranks are to be, and large enough where it cannot grow."""
        placed = pool.placed
        if placed is None or self.place is None:
            return placed is None and self.place is None
        return placed.place == self.place and placed.size >= size

    def attach(self) -> RunReader | None:
        """Take over a run whose kernel died within its grace, or find this process's own; None where there is none."""
        for pool in pools.ours():
            where = pool.state.get("run")
            if where and Path(where).is_dir():
                pool.adopt(self.grace_s)
                self.pool = pool
                return RunReader(Path(where))
        return None

    def ask(
        self,
        reader: RunReader,
        changes: Mapping[str, Any] | None = None,
        *,
        verb: str = "",
        by: str = "lab",
        **more: Any,
    ) -> control.Request:
        """Ask something of a run; see `runs.control.ask`. A node count beyond this machine is refused here."""
        reader.poll()
        if status(reader).final:
            raise ControlError(f"run {reader.run.id} has ended; resume it or start a new one")
        nodes = (changes or {}).get("nodes")
        if isinstance(nodes, str):  # as a form or a command line may hand it in
            nodes = reader.spec.knobs()["nodes"].parse(nodes)
        if isinstance(nodes, int) and nodes >= 1:  # what is no node count at all, the Spec refuses below
            self.admit(nodes + reader.asked.coordinators, pools.pool_of(reader.run))
        return control.ask(reader.run, reader.spec, changes, verb=verb, by=by, **more)

    def admit(self, ranks: int, pool: Pool | None) -> None:
        """Refuse more ranks than this machine has, or than the place holds to which the run's pool was handed.

        Raises:
            AdmissionError: With the most there is and the next step.
        """
        if pool is not None and pool.placed:
            pool.admit(ranks)
        else:
            admit(ranks, self.machine, replaces=pool.path if pool else None)

    def stop(self, reader: RunReader, *, wait_s: float = 10.0, by: str = "lab") -> Status:
        """Ask a run to stop after this tick, wait, and end its ranks where it does not; return its status."""
        reader.poll()
        if not status(reader).final:
            control.ask(reader.run, reader.spec, verb="stop", by=by)
        end = time.monotonic() + wait_s
        for now in watch(reader, until=lambda s: s.final or time.monotonic() > end):
            last = now
        if not last.final:
            pool = pools.pool_of(reader.run)
            if pool:
                pool.close()
            reader.poll()
            last = status(reader)
        return last

    def close(self) -> None:
        """End this owner's pool, and with it whatever still runs there."""
        if self.pool is not None:
            self.pool.close()
            self.pool = None


def watch(
    reader: RunReader, *, every_s: float = 0.05, until: Callable[[Status], bool] = lambda s: s.final
) -> Iterator[Status]:
    """Yield the status after every look at the run, the last one when `until` says so."""
    while True:
        reader.poll()
        pools.look_at(reader)
        now = status(reader)
        if now.final and reader.poll():  # the last samples came between the look at them and the look at the outcome
            now = status(reader)
        yield now
        if until(now):
            return
        time.sleep(every_s)


def delete(run: RunDir) -> None:
    """Remove a run that has ended, for good.

    Raises:
        ControlError: It still goes on.
        RunFormatError: It is not a run directory (nothing is removed).
    """
    import shutil

    reader = RunReader(run)
    reader.poll()
    now = status(reader)
    if not now.final and now.state != "new":
        raise ControlError(f"run {run.id} is {now.state}; stop it before you delete it")
    if run.path.is_symlink():
        raise RunFormatError(f"{run.path} is a link; delete the folder that it names")
    shutil.rmtree(run.path)


def spec_of(name: str, values: Mapping[str, Any]) -> Spec:
    """Return the validated Spec of experiment `name`."""
    return experiment(name).spec.make(values)
