"""One run on the ranks of a pool: tick, boundary, tick. Knows nothing of what the programme does.

At every boundary one word says whether there is a plan: it rides on the programme's own collective where that has one,
else it is a broadcast. Nodes that do not take part sleep and look for a message; waiting in a broadcast would spin.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from ..errors import StorageError
from ..experiment import Experiment, Spec, experiment
from ..runs.jobs import write_job
from ..runs.layout import RunDir, write_json
from ..runs.reader import last_segment
from ..runs.writer import EventWriter, RecordWriter, SampleWriter
from . import checkpoint, failures
from .controller import Controller, Plan
from .metering import Meter, ResidentMemory
from .node import Node, Program, broadcast_json, program_of, receive_json, send_json, wait_for

JOIN, WAKE = 61, 62
PAUSE_S = 0.004


class Runtime:
    """Carries one run from its first boundary to its outcome, on this node."""

    def __init__(self, world: MPI.Intracomm, job: Mapping[str, Any], pool: Path, generation: int, cache: Path) -> None:
        self.run = RunDir(Path(job["run"]))
        self.incarnation, self.detached = int(job["incarnation"]), bool(job.get("detached"))
        self.pool, self.generation = pool, generation
        self.event = EventWriter(self.run, self.incarnation, world.rank)
        manifest = self.run.read_manifest()
        self.exp: Experiment = experiment(manifest["experiment"])
        records = RecordWriter(self.run, self.incarnation, world.rank, self.exp.records)
        self.samples = SampleWriter(self.run, self.incarnation, world.rank, records)
        self.node = Node(world, self.run.read_machine(), cache, self.event, self.run, records)
        restored = checkpoint.load(self.run)
        self.spec: Spec = self.exp.spec.make(job.get("spec") or (restored[0]["spec"] if restored else manifest["spec"]))
        self.segment = last_segment(self.run)
        self.members = list(range(self.spec.ranks))
        self.paused = self.lost = False
        self.word = np.zeros(1, np.int64)
        self.plan: Plan | None = None
        self.event("started", pid=os.getpid(), incarnation=self.incarnation)
        self.program: Program = program_of(self.exp.program)(self.spec, self.node)
        if restored:
            self._restore(restored[0]["tick"], restored[1])
        self.controller = Controller(self.run, self.exp, self.node.machine, self.event, self.program)
        self.checkpoints = checkpoint.CheckpointWriter(self.run, self.event)
        self.meter = Meter(self.event, leader=world.Split_type(MPI.COMM_TYPE_SHARED).rank == 0)
        self.memory, self._metered_s = ResidentMemory(), 0.0

    def carry(self) -> str:
        """Run to the end and return how it ended: done, stopped, relaunch."""
        self._enter(self.members)
        if self.node.comm != MPI.COMM_NULL:
            self._begin_segment("start" if self.incarnation == 0 else "resume")
        while True:
            try:
                if self.lost:
                    self._recover()
                ended = self._active() if self.node.comm != MPI.COMM_NULL else self._idle()
            except MPI.Exception as error:
                here = self.program.replicated and self.node.comm != MPI.COMM_NULL
                if not here or not failures.is_loss(error, self.node.world):
                    raise
                self.lost, ended = True, ""  # also when another one dies while this is mended
            if ended:
                self._close()
                return ended

    def _active(self) -> str:
        """Tick until this node leaves or the run ends; "" means that it now idles."""
        total = self.exp.compared[0] if "runtime_time_s" in self.exp.parts else ""
        clock, cpu_clock = time.perf_counter, time.process_time
        ended_s, cpu_s = clock(), cpu_clock()
        while True:
            plan = self._agree()
            if plan is not None:
                ended = self._execute(plan)
                if ended or self.node.comm == MPI.COMM_NULL:
                    return ended
                ended_s, cpu_s = clock(), cpu_clock()
                continue
            begun_s = clock()
            sample = self.program.advance()
            if sample is None:
                return self._finish("done", "")
            values = dict(sample)
            gap_s, ended_s = begun_s - ended_s, clock()
            values["runtime_time_s"] = gap_s
            if total:
                values[total] += gap_s
            cpu_now = cpu_clock()
            values["cpu_time_s"], cpu_s = cpu_now - cpu_s, cpu_now
            values["memory_bytes"] = self._meter(ended_s)
            self.samples(self.program.tick, len(self.members), self.segment, values)
            between_s = clock()
            self.program.between()
            if (spent_s := clock() - between_s) > 1e-4:  # its time is not the tick's
                ended_s += spent_s
                cpu_s = cpu_clock()

    def _idle(self) -> str:
        """Sleep until called to join, or until the run ends."""
        world = self.node.world
        try:
            status = wait_for(world, JOIN)
            self.samples.beat_if_due()
            self.meter.read()
            if status is None:
                return ""
            message = receive_json(world, status, JOIN)
        except MPI.Exception as error:
            if not failures.is_loss(error, world):
                raise
            failures.acknowledge(world)
            self._degrade()
            # Those at work are always the first of the living: when an idle node is the first, nobody is at work.
            return self._abandoned() if failures.alive(world)[0] == self.node.id else ""
        if message.get("end"):
            return str(message["end"])
        self.paused = bool(message["paused"])
        self._move(Plan(**message))
        return ""

    # --- boundaries ---------------------------------------------------------------------------------------------
    def _agree(self) -> Plan | None:
        """Return the plan for this boundary, on every active node, or None.

        Where the programme agrees by itself, the controller's plan of the boundary before is announced in the tick's own
        collective, and taken here; elsewhere, and while paused, a broadcast of one word announces it.
        """
        comm, node = self.node.comm, self.node
        if self.program.agrees and not self.paused:
            announced, node.verdict = node.verdict, 0
            if not announced:
                if node.controller and self.plan is None:
                    self.plan = self._decide()
                    node.ballot = _size(self.plan)
                return None
        else:
            if node.controller and self.plan is None:
                self.plan = self._decide()
            self._wake_paused()
            self.word[0] = _size(self.plan) if node.controller else 0
            if comm.size > 1:
                comm.Bcast(self.word, 0)
            announced = int(self.word[0])
            if not announced:
                return None
        mine, self.plan, node.ballot = self.plan, None, 0
        return Plan(**broadcast_json(comm, asdict(mine) if mine else None, announced))

    def _decide(self) -> Plan | None:
        return self.controller.decide(self.program.tick, self.spec, self.members, self._available)

    def _available(self) -> list[int]:
        """Nodes that may work in this generation. No communicator can be made of a world with a dead rank: nobody can join."""
        alive = failures.alive(self.node.world)
        return alive if len(alive) == self.node.world.size else self.members

    def _wake_paused(self) -> None:
        """While paused: the controller sleeps until it has a plan and then wakes the others, who sleep too."""
        if not self.paused:
            return
        comm, begun_s = self.node.comm, time.monotonic()
        if self.node.controller:
            while self.plan is None:
                time.sleep(PAUSE_S)
                self.samples.beat_if_due()
                self.plan = self._decide()
            for rank in range(1, comm.size):
                send_json(comm, {}, rank, WAKE)
        else:
            while (status := wait_for(comm, WAKE, 0)) is None:
                self.samples.beat_if_due()
            receive_json(comm, status, WAKE)
        self.node.paused_s += time.monotonic() - begun_s

    def _execute(self, plan: Plan) -> str:
        """Carry out a plan; return how the run ended, or ""."""
        begun_s, before = time.perf_counter(), self.spec
        self.samples.flush()  # a boundary that does something is where people look
        for verb, arguments in plan.verbs:
            self.program.act(verb, arguments)
        if plan.checkpoint or plan.end or plan.relaunch:
            self.program.gather()
            self._checkpoint(plan)
        if plan.end:
            self._acknowledge(plan, begun_s)
            return self._finish(plan.end, plan.message)
        if plan.relaunch:
            self._acknowledge(plan, begun_s)
            return self._finish("relaunch", "", nodes=plan.relaunch)
        paused, self.paused = self.paused, plan.paused
        if plan.spec != before.model_dump() or plan.members != self.members:
            self._move(plan)
        if self.node.controller:
            self._acknowledge(plan, begun_s)
            if paused != self.paused:
                self.event("paused" if self.paused else "resumed", tick=self.program.tick)
        return ""

    def _move(self, plan: Plan) -> None:
        """Change Spec and membership: leavers go idle, newcomers get the state, everyone re-shards."""
        begun_s, old = time.perf_counter(), self.members
        if self.node.controller:
            for node in plan.members:
                if node not in old:
                    send_json(self.node.world, asdict(plan), node, JOIN)
        self.spec, self.members = self.exp.spec.make(plan.spec), plan.members
        if self.node.comm != MPI.COMM_NULL:
            self.program.leave(self.spec, regrouped=plan.members != old)
        if plan.members == old:
            self.program.join(self.spec)
        else:
            self._enter(plan.members, old)
        if self.node.comm == MPI.COMM_NULL:
            return
        cost_s = time.perf_counter() - begun_s
        if plan.members != old and self.node.controller:
            sizes = {"nodes": self.spec.nodes, "before": len(old) - self.spec.coordinators}
            self.event("resized", tick=self.program.tick, **sizes, resize_time_s=cost_s)
        self._begin_segment(",".join(plan.requests) or "change")

    def _enter(self, members: list[int], old: list[int] | None = None) -> None:
        """Make the communicator of `members`; where there was an `old` one, everyone takes the state of its first node."""
        node, left = self.node, self.node.comm
        if node.id in members:
            fewer = old is not None and set(members) <= set(old)
            parent, ranks = (left, [old.index(m) for m in members]) if old and fewer else (node.world, members)
            node.comm = parent.Create_group(parent.Get_group().Incl(ranks), tag=JOIN)
            node.comm.Set_errhandler(MPI.ERRORS_RETURN)
            if old is not None:
                self._share(0)
            self.program.join(self.spec)
            node.comm.Barrier()
        else:
            node.comm = MPI.COMM_NULL
            self.samples.flush()
        if left not in (MPI.COMM_NULL, MPI.COMM_WORLD):
            left.Free() if not left.Is_revoked() else None

    def _share(self, root: int) -> None:
        """Broadcast tick, segment and state from `root` of the active nodes."""
        comm = self.node.comm
        head = np.array([self.program.tick, self.segment], np.int64)
        comm.Bcast(head, root)
        for _, array in sorted(self.program.state().items()):
            comm.Bcast(array, root)
        self.program.tick, self.segment = int(head[0]), int(head[1])

    def _begin_segment(self, cause: str) -> None:
        self.segment += 1
        self.node.segment = self.segment
        self.meter.read(force=True)
        if self.node.controller:
            about = {"tick": self.program.tick, "spec": self.spec.model_dump(), "members": self.members, "cause": cause}
            self.event("segment", segment=self.segment, **about)

    def _acknowledge(self, plan: Plan, begun_s: float) -> None:
        if self.node.controller:
            for request in plan.requests:
                self.event("applied", request=request, tick=self.program.tick, cost_s=time.perf_counter() - begun_s)
            self.controller.settled(plan.paused)

    # --- state --------------------------------------------------------------------------------------------------
    def _checkpoint(self, plan: Plan) -> None:
        if not self.node.controller:
            return
        spec = {**plan.spec, "nodes": plan.relaunch or plan.spec["nodes"]}
        self.checkpoints.write(self.program.tick, spec, self.segment, self.program.state())
        if plan.end or plan.relaunch:
            self.checkpoints.wait()

    def _restore(self, tick: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for name, array in self.program.state().items():
            array[...] = arrays[name]
        self.program.tick = tick

    def _recover(self) -> None:
        """A node died: the survivors revoke, shrink, agree on the state furthest ahead, and go on. No tick is lost."""
        begun_s, node, before = time.perf_counter(), self.node, self.members
        self.plan, node.ballot, node.verdict = None, 0, 0
        self.controller.again(self.paused)
        node.comm = failures.survivors(node.comm)
        seen = np.empty((node.size, 2), np.int64)
        node.comm.Allgather(np.array([node.id, self.program.tick], np.int64), seen)
        self.members = [int(i) for i in seen[:, 0]]
        self._share(int(np.argmax(seen[:, 1])))
        self.spec = failures.spec_for(self.spec, len(self.members))
        self.program.join(self.spec)
        node.comm.Barrier()
        self.lost = False
        if node.controller:
            self._degrade()
            lost = [n for n in before if n not in self.members]
            cost_s = time.perf_counter() - begun_s
            self.event("rank-lost", lost=lost, tick=self.program.tick, nodes=node.size, recovery_time_s=cost_s)
        self._begin_segment("rank-lost")

    def _abandoned(self) -> str:
        """Every node at work died, and with them the state. Say so in their place, so that the run can be resumed."""
        alive = failures.alive(self.node.world)
        lost = [n for n in range(self.node.world.size) if n not in alive]
        self.event("rank-lost", lost=lost, tick=None, nodes=0)
        if not self.run.outcome(self.incarnation).exists():
            self._sentinel("failed", f"every node at work died ({', '.join(map(str, lost))}), and the state with them")
        self._send_home("failed")
        return "failed"

    # --- the end ------------------------------------------------------------------------------------------------
    def _finish(self, state: str, message: str, **more: Any) -> str:
        """Write the outcome, then wake the idle nodes so that they return too."""
        self.program.gather()
        self.program.close()
        self.samples.flush()
        self.meter.read(force=True)
        if self.node.size > 1:
            self.node.comm.Barrier()  # nobody is past its last sample before all are
        if self.node.controller:
            if state == "done":
                self._checkpoint(Plan(self.spec.model_dump(), self.members, 0.0, end="done"))
            if state == "relaunch":
                size = int(more["nodes"]) + self.spec.coordinators
                write_job(self.pool, self.run, self.incarnation + 1, size, detached=self.detached)
            else:
                self.controller.refuse_rest(self.program.tick, scheduled=state == "done")
            self._sentinel(state, message, **more)
            self._send_home(state)
        return state

    def _sentinel(self, state: str, message: str, **more: Any) -> None:
        """Write how this incarnation ended, for good."""
        self.run.reserve.unlink(missing_ok=True)
        outcome = {"state": state, "tick": self.program.tick, "message": message, "nodes": len(self.members), **more}
        self.event("end", **outcome)
        stamped = {**outcome, "t_s": time.monotonic(), "wall_s": time.time()}
        write_json(self.run.outcome(self.incarnation), stamped, durable=True)

    def _send_home(self, state: str) -> None:
        """Tell the idle nodes that the run is over; one that died meanwhile needs no telling."""
        world = self.node.world
        if len(alive := failures.alive(world)) < world.size:
            self._degrade()
        for other in alive:
            if other not in self.members and other != self.node.id:
                with contextlib.suppress(MPI.Exception):
                    send_json(world, {"end": state}, other, JOIN)

    def _degrade(self) -> None:
        """Tell the supervisor that a rank of this generation is dead: it gets no other run."""
        (self.pool / f"degraded-{self.generation}").touch()

    def _close(self) -> None:
        if self.node.comm != MPI.COMM_NULL:
            self.node.comm.Free()
        self.samples.close()
        self.event.close()

    def failed(self, error: BaseException) -> None:
        """Record why this node ends the job: its traceback, where a reader looks for it. Makes room on a full disk first."""
        self.run.reserve.unlink(missing_ok=True)
        with contextlib.suppress(StorageError):
            self.samples.flush()
        text = "".join(traceback.format_exception(error))
        tick = self.program.tick if hasattr(self, "program") else None
        self.event("error", tick=tick, message=f"{type(error).__name__}: {error}", traceback=text)

    def _meter(self, now: float) -> int:
        """Once a second, read the energy counter and the resident memory; return the latter in bytes."""
        if now - self._metered_s > 1.0:
            self._metered_s = now
            self.meter.read()
            self.memory.read()
        return self.memory.bytes


def _size(plan: Plan | None) -> int:
    """Bytes of a plan's encoding, 0 for none."""
    return len(json.dumps(asdict(plan)).encode()) if plan else 0
