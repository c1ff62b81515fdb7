"""Who takes part in a run: communicators of the nodes at work, what survivors of a dead node do, and spare nodes that take its place.

No communicator can be made of an Open MPI world with a dead rank, but one can of what `Shrink` leaves of that world. So spare nodes
join after a death too: all the living shrink the world once (`regroup`), and then things are as before.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from ..errors import LabError, StateLostError
from ..experiment import Spec
from ..runs.layout import RunDir
from ..runs.writer import EventWriter, SampleWriter
from . import failures
from .chaos import Chaos
from .checkpoint import CheckpointWriter
from .controller import SPARE, Controller, Plan
from .node import Node, Program, broadcast_json, send_json

JOIN = 61


class Membership:
    """The part of a runtime that knows which nodes are at work."""

    run: RunDir
    incarnation: int
    pool: Path
    generation: int
    node: Node
    program: Program
    controller: Controller
    chaos: Chaos
    spec: Spec
    event: EventWriter
    samples: SampleWriter
    checkpoints: CheckpointWriter
    segment: int
    members: list[int]
    lost: bool
    plan: Plan | None
    paused: bool
    base: MPI.Intracomm
    #: Communicators of which all their living have agreed, once, that they are of no use any more. They are never freed.
    _given_up: list[MPI.Intracomm]

    def _begin_segment(self, cause: str) -> None:
        raise NotImplementedError

    def _move(self, plan: Plan) -> None:
        raise NotImplementedError

    def _sentinel(self, state: str, message: str, **more: Any) -> None:
        raise NotImplementedError

    # --- communicators ------------------------------------------------------------------------------------------
    def _enter(self, members: list[int], old: list[int] | None = None) -> None:
        """Make the communicator of `members`; where there was an `old` one, everyone takes the state of its first node.

        All of a parent take part: those at work where only some of them stay, else every living node, also the idle. Where one dies
        meanwhile this raises on all of them alike: who was at work is on the communicator of before, and the others are idle.
        (`Create_group` among the members alone waits forever for one that died.)
        """
        node, left = self.node, self.node.comm
        fewer = old is not None and left != MPI.COMM_NULL and set(members) <= set(old)
        parent = left if fewer else self.base
        made = MPI.COMM_NULL

        def split() -> None:
            nonlocal made
            here = node.id in members
            made = parent.Split(0 if here else MPI.UNDEFINED, members.index(node.id) if here else 0)

        def join() -> None:
            if made == MPI.COMM_NULL:
                return
            made.Set_errhandler(MPI.ERRORS_RETURN)
            node.comm = made
            try:
                if old is not None:
                    self._share(0)
                self.program.join(self.spec)
                made.Barrier()
            except MPI.Exception:
                made.Revoke()
                raise

        try:
            self._together(parent, split)
            self._together(parent, join)
        except MPI.Exception:
            node.comm = left
            raise
        node.comm = made
        if made == MPI.COMM_NULL:
            self.samples.flush()
        if left not in (MPI.COMM_NULL, MPI.COMM_WORLD):
            left.Free() if not left.Is_revoked() else None

    # --- together or not at all ---------------------------------------------------------------------------------
    def _together(self, comm: MPI.Intracomm, do: Callable[[], None]) -> None:
        """Do what takes messages among all of `comm`, and raise on all of them where it failed on one, or one has died.

        Without an agreement some would go on and wait for others who gave up. Every living one of `comm` must come here or to
        `_give_up`.
        """
        problem: MPI.Exception | None = None
        try:
            do()
        except MPI.Exception as error:
            problem = error
            self._call_back(comm)
        try:
            if comm.Agree(int(problem is None)) and problem is None:
                return
        except MPI.Exception as error:
            problem = problem or error
        self._given_up.append(comm)
        raise problem or MPI.Exception(MPI.ERR_PROC_FAILED)

    def _give_up(self, comm: MPI.Intracomm) -> None:
        """The part in `_together` of who failed before it came there, or was not asked to."""
        if comm not in self._given_up:
            self._given_up.append(comm)
            comm.Revoke()
            with contextlib.suppress(MPI.Exception):
                comm.Agree(0)

    def _call_back(self, comm: MPI.Intracomm) -> None:
        """Call back who waits in `comm` for this node, and tell who may know nothing yet that all must agree to give it up."""
        comm.Revoke()
        if comm == self.base:
            self._tell(ids := self._ids(comm), {"give_up": ids})

    def _asked_to_give_up(self, ids: list[int]) -> None:
        """On an idle node: others failed to make a communicator with it, and it may not have heard why."""
        if ids == self._ids(self.base):
            self._give_up(self.base)

    def _tell(self, others: Iterable[int], message: Mapping[str, Any]) -> None:
        """Send each of the others what an idle node listens for. Who died needs no telling: all learn of it when they next meet."""
        for other in others:
            if other != self.node.id:
                with contextlib.suppress(MPI.Exception):
                    send_json(self.node.world, message, other, JOIN)

    def _ids(self, comm: MPI.Intracomm) -> list[int]:
        """Return the number in the pool of each rank of a communicator."""
        ranks = list(range(comm.size))
        return [int(i) for i in MPI.Group.Translate_ranks(comm.Get_group(), ranks, self.node.world.Get_group())]

    def _available(self) -> list[int]:
        """Nodes that may work in this generation: all the living, where they can be regrouped after a death."""
        alive = failures.alive(self.node.world)
        can = self.program.replicated and not self.spec.coordinators
        return alive if can or alive == self._ids(self.base) else self.members

    def _dead_to_leave_out(self, members: list[int]) -> list[int]:
        """Return the dead that a new communicator of `members` must not know of, [] where nothing is in the way."""
        alive = failures.alive(self.node.world)
        if set(members) <= set(self.members) or alive == self._ids(self.base):
            return []
        return [n for n in range(self.node.world.size) if n not in alive]

    def _regroup(self, dead: list[int]) -> None:
        """Leave the dead behind: every living node shrinks the world, those at work and the idle ones, who are told so."""
        self._tell_idle(dead)
        self.base = failures.living(self.node.world)

    def _tell_idle(self, dead: list[int]) -> None:
        """Everyone who is about to shrink the world tells everyone who may not know: whoever told first may have died meanwhile."""
        at_work = [] if self.node.comm == MPI.COMM_NULL else self._ids(self.node.comm)
        self._tell([n for n in failures.alive(self.node.world) if n not in at_work], {"leave_out": dead})

    def _regroup_for(self, plan: Plan) -> Plan:
        """Regroup, and return the plan without newcomers of whom it shows only now that they are dead, too.

        Raises:
            MPI.Exception: One of those at work died meanwhile; on all the others alike, for it may be the one who tells the newcomers.
        """
        self._regroup(plan.regroup)
        living = self._ids(self.base)
        if not set(self._ids(self.node.comm)) <= set(living):
            raise MPI.Exception(MPI.ERR_PROC_FAILED)
        there = [m for m in plan.members if m in living]
        if there == plan.members:
            return plan
        return replace(
            plan, members=there, spec=failures.spec_for(type(self.spec).make(plan.spec), len(there)).model_dump()
        )

    def _asked_to_regroup(self, dead: list[int]) -> None:
        """The same on an idle node. Asked by several, it may have been done."""
        if not set(dead) <= set(range(self.node.world.size)) - set(self._ids(self.base)):
            self._regroup(dead)

    def _share(self, root: int) -> None:
        """Broadcast tick, segment and state from `root` of the active nodes."""
        comm = self.node.comm
        head = np.array([self.program.tick, self.segment], np.int64)
        comm.Bcast(head, root)
        for _, array in sorted(self.program.state().items()):
            comm.Bcast(array, root)
        self.program.tick, self.segment = int(head[0]), int(head[1])

    # --- a node died --------------------------------------------------------------------------------------------
    def _recover(self) -> None:
        """A node died: the survivors revoke, shrink, agree on the state furthest ahead, and go on. No tick is lost.

        Where the state is shared out, it is put together from copies of some ticks ago instead.
        """
        begun_s, node, before = time.perf_counter(), self.node, self.members
        self.plan, node.ballot, node.verdict = None, 0, 0
        self.controller.again(self.paused)
        self.chaos.links_whole()
        self.program.abandon()
        self._give_up(node.comm)
        node.comm = failures.survivors(node.comm)
        seen = np.empty((node.size, 3), np.int64)
        node.comm.Allgather(np.array([node.id, self.program.tick, self.segment], np.int64), seen)
        self.members = [int(i) for i in seen[:, 0]]
        lost = [n for n in before if n not in self.members]
        self.checkpoints.lost(lost, heir=node.controller and before[0] in lost)
        if self.program.mend():
            self.segment = int(seen[:, 2].max())
            self._go_back(begun_s, before, int(seen[:, 1].max()))
            return
        self._share(int(np.argmax(seen[:, 1])))
        if self.program.replicated and not self.spec.coordinators:
            self.controller.missing = max(self.controller.missing, self.spec.nodes)
        self.spec = failures.spec_for(self.spec, len(self.members))
        self.program.join(self.spec)
        node.comm.Barrier()
        self.lost = False
        if node.controller:
            self._degrade()
            cost_s = time.perf_counter() - begun_s
            dead = self._died(before)
            self.event("rank-lost", lost=dead, tick=self.program.tick, nodes=node.size, recovery_time_s=cost_s)
        self._begin_segment("rank-lost")

    def _go_back(self, begun_s: float, before: list[int], furthest: int) -> None:
        """The state is whole again, as it was some ticks ago: go on from there, on as many nodes as the Spec allows."""
        node, plan = self.node, self._plan_of_survivors()
        if node.controller:
            self._degrade()
            tick, cost_s = self.program.tick, time.perf_counter() - begun_s
            self.event(
                "rank-lost", lost=self._died(before), tick=tick, nodes=len(plan.members), redone=max(furthest - tick, 0),
                recovery_time_s=cost_s,
            )  # fmt: skip
        self._move(plan)
        self.lost = False

    def _died(self, before: list[int]) -> list[int]:
        """Return who died of those at work, or else of the idle with whom they were to make a communicator."""
        if lost := [n for n in before if n not in self.members]:
            return lost
        alive = failures.alive(self.node.world)
        return [n for n in self._ids(self.base) if n not in alive]

    def _plan_of_survivors(self) -> Plan:
        """Return the plan for as many nodes as before, spare ones among them, or the most below that the Spec takes.

        Raises:
            StateLostError: It takes none; on every survivor.
        """
        comm, plan = self.node.comm, None
        if self.node.controller:
            there = self._available()
            for ranks in range(min(self.spec.ranks, len(there)), self.spec.coordinators, -1):
                with contextlib.suppress(LabError):
                    spec = failures.spec_for(self.spec, ranks)
                    self.program.accept(spec)
                    plan = Plan(spec.model_dump(), there[:ranks], time.monotonic(), paused=self.paused)
                    plan.cause = "rank-lost" if set(plan.members) <= set(self.members) else SPARE
                    plan.regroup, plan.going = self._dead_to_leave_out(plan.members), self.chaos.going()
                    break
        told = asdict(plan) if plan else None
        size = np.array([len(json.dumps(told).encode()) if told else 0])
        comm.Bcast(size, 0)
        if not size[0]:
            raise StateLostError(
                f"the plan of {self.spec.nodes} nodes cannot be carried out by the {comm.size} that are left, and no node is spare"
            )
        return Plan(**broadcast_json(comm, told, int(size[0])))

    def _abandoned(self) -> str:
        """Every node at work died: whoever is left says so in their place.

        Raises:
            StateLostError: The run had not come to its end before.
        """
        alive = failures.alive(self.node.world)
        lost = [n for n in range(self.node.world.size) if n not in alive]
        self.members = []  # who lives is idle, and to be told
        self.event("rank-lost", lost=lost, tick=None, nodes=0)
        if not self.run.outcome(self.incarnation).exists():
            raise StateLostError(f"every node at work died ({', '.join(map(str, lost))}), and the state with them")
        self._send_home("failed")
        return "failed"

    def _send_home(self, state: str) -> None:
        """Tell the idle nodes that the run is over; one that died meanwhile needs no telling."""
        world = self.node.world
        if len(alive := failures.alive(world)) < world.size:
            self._degrade()
        self._tell([n for n in alive if n not in self.members], {"end": state})

    def _degrade(self) -> None:
        """Tell the supervisor that a rank of this generation is dead: it gets no other run."""
        (self.pool / f"degraded-{self.generation}").touch()
