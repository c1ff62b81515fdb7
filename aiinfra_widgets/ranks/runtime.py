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

from ..errors import StateLostError
from ..experiment import Experiment, Spec, experiment
from ..runs.jobs import write_job
from ..runs.layout import RunDir, write_json
from ..runs.reader import last_segment
from ..runs.writer import EventWriter, RecordWriter, SampleWriter
from ..texts import N_
from . import checkpoint, failures
from .chaos import Chaos
from .checkpoint import Head
from .controller import Controller, Plan
from .membership import JOIN, Membership
from .metering import Meter, ResidentMemory
from .node import Node, Program, broadcast_json, program_of, receive_json, send_json, wait_for
from .watch import Pulse

WAKE = 62
PAUSE_S = 0.004


class Runtime(Membership):
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
        self.base = world.Dup()  # may be revoked, which the world must never be
        self.base.Set_errhandler(MPI.ERRORS_RETURN)
        self._given_up = []
        self.paused = self.lost = False
        self.word = np.zeros(1, np.int64)
        self.plan: Plan | None = None
        self.event("started", pid=os.getpid(), incarnation=self.incarnation)
        self.program: Program = program_of(self.exp.program)(self.spec, self.node)
        if restored:
            self._restore(restored[0]["tick"], restored[1])
        self.chaos = Chaos(self.node, self.program, pool)
        self.checkpoints = checkpoint.CheckpointWriter(
            self.run, self.event, world.rank, lambda: failures.look_alive(world)
        )
        self.controller = Controller(
            self.run, self.exp, self.node.machine, self.event, self.program, self.chaos, lambda: self.checkpoints.busy
        )
        self.meter = Meter(self.event, leader=world.Split_type(MPI.COMM_TYPE_SHARED).rank == 0)
        self.memory, self._metered_s = ResidentMemory(), 0.0
        self.pulse = Pulse(self.run, self.incarnation, world.rank, lambda: self.program.tick)

    def carry(self) -> str:
        """Run to the end and return how it ended: done, stopped, relaunch."""
        self.pulse.start()
        self._enter(self.members)
        if self.node.comm != MPI.COMM_NULL:
            self._begin_segment("start" if self.incarnation == 0 else "resume")
        while True:
            try:
                if self.lost:
                    self._recover()
                ended = self._active() if self.node.comm != MPI.COMM_NULL else self._idle()
            except MPI.Exception as error:
                if not self.program.replicated or not failures.is_loss(error, self.node.world):
                    raise
                self.lost, ended = self.node.comm != MPI.COMM_NULL, ""  # also of another one, while this is mended
                if not self.lost:  # it was about to join: the others will ask again
                    failures.acknowledge(self.node.world)
                    if failures.alive(self.node.world)[0] == self.node.id:  # as in `_idle`
                        ended = self._abandoned()
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
            slept_s = self.chaos.drag(clock() - begun_s)
            gap_s, ended_s = begun_s - ended_s, clock()
            values["runtime_time_s"] = gap_s
            if total:
                values[total] += gap_s + slept_s
            if slept_s:
                where = "injected_time_s" if "injected_time_s" in values else "runtime_time_s"
                values[where] += slept_s
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
            if "leave_out" in message:
                self._asked_to_regroup(message["leave_out"])
                return ""
            if "give_up" in message:
                self._asked_to_give_up(message["give_up"])
                return ""
        except MPI.Exception as error:
            if not failures.is_loss(error, world):
                raise
            failures.acknowledge(world)
            self._degrade()
            if not set(self._ids(self.base)) <= set(failures.alive(world)):
                self.base.Revoke()  # somebody may wait in it for this node, and not touch who died
            # Those at work are always the first of the living: when an idle node is the first, nobody is at work.
            return self._abandoned() if failures.alive(world)[0] == self.node.id else ""
        if message.get("end"):
            return str(message["end"])
        if self.base in self._given_up:  # of a controller that died
            return ""
        plan = Plan(**message)
        self.members = []  # who was at work when this node left may have changed, and changed back
        self.paused = plan.paused
        self.chaos.adopt(plan.going)
        self._move(plan)
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
        plan = self.controller.decide(self.program.tick, self.spec, self.members, self._available)
        if plan and plan.members != self.members:
            plan.regroup, plan.going = self._dead_to_leave_out(plan.members), self.chaos.going()
        return plan

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
            waits_s = time.perf_counter()
            self.program.gather()
            self._checkpoint(plan, waits_s)
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
        changed = self.chaos.calm(plan.calm) if plan.calm else False
        # Last: it may be the end of this node.
        struck = [self.chaos.strike(request, arguments) for request, arguments in plan.faults]
        if changed or any(struck):
            self.program.join(self.spec)
        return ""

    def _move(self, plan: Plan) -> None:
        """Change Spec and membership: leavers go idle, newcomers get the state, everyone re-shards."""
        begun_s, old, before = time.perf_counter(), self.members, self.spec
        if self.node.comm != MPI.COMM_NULL:
            then, regrouped = self.exp.spec.make(plan.spec), plan.members != old
            if regrouped:  # all of them know the plan, or none goes on with it
                self._together(self.node.comm, lambda: self.program.leave(then, regrouped=True))
            else:
                self.program.leave(then, regrouped=False)
            if plan.regroup:
                plan = self._regroup_for(plan)
        if self.node.controller and not set(plan.members) <= set(old):
            # Also who stays idle: a communicator is made by all.
            self._tell([n for n in self._ids(self.base) if n not in old], asdict(plan))
        self.spec, self.members = self.exp.spec.make(plan.spec), plan.members
        if plan.members == old:
            self.program.join(self.spec)
        else:
            try:
                self._enter(plan.members, old)
            except MPI.Exception:
                self.spec, self.members = before, old
                raise
        if self.node.comm == MPI.COMM_NULL:
            return
        cost_s = time.perf_counter() - begun_s
        if plan.members != old and self.node.controller:
            sizes = {"nodes": self.spec.nodes, "before": len(old) - self.spec.coordinators}
            spare = {"spare": [n for n in plan.members if n not in old]} if plan.cause else {}
            self.event("resized", tick=self.program.tick, **sizes, **spare, resize_time_s=cost_s)
        self._begin_segment(",".join(plan.requests) or plan.cause or "change")

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
    def _checkpoint(self, plan: Plan, begun_s: float) -> None:
        """Begin a checkpoint: of all active nodes where each holds the whole state, else of the first. A last one is waited for."""
        node, writer = self.node, self.checkpoints
        owners = self.members if self.program.sharded_checkpoints else self.members[:1]
        if node.id not in owners:
            return
        spec = {**plan.spec, "nodes": plan.relaunch or plan.spec["nodes"]}
        head = Head(self.program.tick, spec, self.segment, int(spec.get("checkpoints_kept", checkpoint.KEEP)))
        number = np.array([writer.begin(head.tick) if node.controller else 0], np.int64)
        if len(owners) > 1:
            node.comm.Bcast(number, 0)
        writer.write(int(number[0]), head, self.program.state(), owners, begun_s)
        if (plan.end or plan.relaunch) and not writer.wait() and node.controller:
            # Somebody died while the last one was written, and there is no next: what this node holds is whole.
            writer.write(writer.begin(head.tick), head, self.program.state(), [node.id])
            writer.wait()

    def _restore(self, tick: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for name, array in self.program.state().items():
            array[...] = arrays[name]
        self.program.tick = tick

    # --- the end ------------------------------------------------------------------------------------------------
    def _finish(self, state: str, message: str, **more: Any) -> str:
        """Write the outcome, then wake the idle nodes so that they return too."""
        self.program.gather()
        self.program.close()
        self.samples.flush()
        self.meter.read(force=True)
        if state == "done":
            self._checkpoint(Plan(self.spec.model_dump(), self.members, 0.0, end="done"), time.perf_counter())
        if self.node.size > 1:
            self.node.comm.Barrier()  # nobody is past its last sample before all are
        if self.node.controller:
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

    def _close(self) -> None:
        self.pulse.stop()
        self.checkpoints.wait()  # of a node that left meanwhile
        if self.node.comm != MPI.COMM_NULL:
            self.node.comm.Free()
        self.samples.close()
        self.event.close()

    def failed(self, error: BaseException) -> None:
        """Record why this node ends the job: its traceback, where a reader looks for it. Makes room on a full disk first."""
        with contextlib.suppress(OSError):  # a StorageError is one, too
            self.run.reserve.unlink(missing_ok=True)
            self.samples.flush()
        text = "".join(traceback.format_exception(error))
        tick = self.program.tick if hasattr(self, "program") else None
        if tick is not None and (why := self._state_lost(error)):
            idle = self.node.comm == MPI.COMM_NULL  # how far the others were is not known here
            self.event("state-lost", tick=None if idle else tick, message=why)
            return
        self.event("error", tick=tick, message=f"{type(error).__name__}: {error}", traceback=text)

    def _state_lost(self, error: BaseException) -> str:
        """Say whose death took along what nobody else holds, "" where an error has another reason."""
        world = self.node.world
        if isinstance(error, StateLostError):
            return str(error)
        if self.program.replicated or (isinstance(error, MPI.Exception) and not failures.is_loss(error, world)):
            return ""
        lost = ", ".join(str(n) for n in range(world.size) if n not in failures.look_alive(world))
        return N_(f"node {lost} died, and its share of the state with it") if lost else ""

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
