"""Rank 0 schedules: it tells the scheduler what happens on the nodes, and the nodes what the scheduler decides."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from mpi4py import MPI

from ...errors import ControlError, LabError
from ...ranks.node import Node
from . import wire
from .cluster import Cluster
from .jobs import Job
from .journal import Journal, recorded
from .measure_task import steps_on_disk
from .measure_worker import SAMPLE
from .policies import make_policy
from .policies.base import Action, Preempt, Resize, Start
from .scheduler import Scheduler
from .setup import most_nodes, policy_of, traces_of
from .spec import SchedulingSpec
from .stream import stream
from .vocabulary import STATES
from .wire import POLL_S, Said, Word


class HeadRole:
    """The scheduler's side of the conversation."""

    def __init__(self, spec: SchedulingSpec, node: Node, clock: np.ndarray) -> None:
        self.node, self.clock, self.spec = node, clock, spec
        self._last_end_s = 0.0
        self._over: list[Job] = []
        self._written = 0
        self._wakeup_s: float | None = None
        self._to_start: list[Job] = []
        self._begun = self._announced = self._fresh = False
        self.scheduler = Scheduler(
            Cluster(node.ids()[1:]),
            make_policy("fifo"),
            most_nodes=most_nodes(spec, node.machine),
            traces=traces_of(spec),
            on_end=self._ended,
        )
        self.journal = Journal(node.folder)
        known = self._remember()
        jobs = stream(spec.make(node.run.read_manifest()["spec"]))  # as asked: `spec` may have changed since
        self._next_id = max([0, *known, *(job.id for job in jobs)]) + 1
        self._coming = sorted((j for j in jobs if j.id not in known), key=lambda j: -j.submit_s)

    def _remember(self) -> set[int]:
        """Take up what an earlier scheduler of this run knew; return the numbers of the jobs that have arrived."""
        known, past = self.journal.read(), recorded(self.node.run)
        self.clock[0] = now = max(float(self.clock[0]), past.last_s)
        self._origin_s = time.monotonic() - now - self.node.paused_s  # again when all nodes are ready
        self.scheduler.finals.update(past.ends)
        for segment, bar in past.open:
            self.node.record("intervals", segment, tuple(bar))
        for job in known:
            if job.id in past.ends:
                continue
            past.tell(job)
            job.remaining_s = job.saved_s = self._left_s(job)
            due_s, job.deadline_s = job.deadline_s, None  # it was accepted once: it is not refused now for being late
            self.scheduler.submit(job, now)
            job.deadline_s = due_s
        return {job.id for job in known}

    def _left_s(self, job: Job, steps: float | None = None) -> float:
        """Return the work that so many steps are, by default those that its checkpoint has left."""
        if steps is None:
            steps = steps_on_disk(self.node.folder, job.id)
        return job.work_s if steps is None else min(max(steps * self.spec.step_s, 0.0), job.work_s)

    def _now_s(self) -> float:
        return time.monotonic() - self._origin_s - self.node.paused_s

    # --- what the runtime asks ----------------------------------------------------------------------------------
    def join(self, spec: SchedulingSpec) -> None:
        """Take up a changed Spec or set of nodes: every job that holds nodes rests; those that keep theirs go on."""
        scheduler = self.scheduler
        for _ in range(1, self.node.size):
            self.node.comm.Recv(np.empty(0), MPI.ANY_SOURCE, wire.REPORT)
        if not self._begun:
            self._origin_s = time.monotonic() - float(self.clock[0]) - self.node.paused_s
            for job in self._unfinished():  # of a scheduler that died; its nodes have saved them by now
                job.remaining_s = job.saved_s = self._left_s(job)
        now = self._now_s()
        for job in scheduler.running.values():
            scheduler.progress(job.id, self._left_s(job), now, saved=True)
        here, before = set(self.node.ids()[1:]), set(scheduler.cluster.free) - scheduler.cluster.draining
        lost = self._begun and not self._announced  # nobody announces a death
        for node in sorted(before - here):
            scheduler.node_died(node, now) if lost else scheduler.remove_nodes([node], now)
        if new := sorted(here - before):
            scheduler.add_nodes(new, now)
        for job in list(scheduler.leaving.values()):
            scheduler.stopped(job.id, now, job.remaining_s)
        self._take_policy(spec, now)
        self.spec, self._begun = spec, True
        self._to_start.clear()
        for job in list(scheduler.running.values()):
            if job.target is not None:
                scheduler.resized(job.id, now, job.remaining_s)
            self._start(job)
        self._wakeup_s = now

    def _take_policy(self, spec: SchedulingSpec, now: float) -> None:
        names = ("policy", "ageing_per_s", "quantum_s")
        if not self._begun or any(getattr(spec, n) != getattr(self.spec, n) for n in names):
            self.scheduler.set_policy(policy_of(spec), now)

    def window(self) -> dict[str, float] | None:
        """Schedule for one window; None when every job has its final state."""
        spec, node = self.spec, self.node
        end_s = time.monotonic() + spec.window_s
        meters = self.scheduler.meters
        waiting, begun_s = meters.waiting_job_s, self._now_s()
        self._announced = False
        while True:
            self._turn()
            if time.monotonic() >= end_s or node.ballot:
                break
            next_s = self._coming[-1].submit_s if self._coming else math.inf
            rest_s = min(end_s - time.monotonic(), next_s - self._now_s(), POLL_S)
            time.sleep(max(rest_s, 0.0))
        now = self._now_s()
        over = self._all_done(now)
        self.clock[0] = now
        message = np.array([node.ballot, over, now], float)
        for rank in range(1, node.size):
            node.comm.Send(message, rank, wire.WINDOW_END)
        if node.ballot:
            self._wait_ready()
            self.clock[0] = self._now_s()
            self._announced = True
        node.verdict = node.ballot
        self._write()
        self._read_meters()
        if over:
            return None
        waited = (meters.waiting_job_s - waiting) / max((meters.now_s or now) - begun_s, 1e-9)
        running = len(self.scheduler.running)
        return {**SAMPLE, "waiting_jobs": waited, "running_jobs": float(running)}

    def close(self) -> None:
        """Write what is known; a run that is stopped keeps its waiting jobs for whoever resumes it."""
        for bar in self.scheduler.holdings.open_intervals(float(self.clock[0])):
            self._record("intervals", tuple(bar))
        self._write()
        self.journal.close()

    # --- one turn -----------------------------------------------------------------------------------------------
    def _turn(self) -> None:
        """Take reports, take arrivals, decide, tell."""
        now = self._now_s()
        news = self._receive(now)
        while self._to_start:
            self._start(self._to_start.pop())
        while self._coming and self._coming[-1].submit_s <= now:
            self._submit(self._coming.pop(), now)
            news = True
        if news or (self._wakeup_s is not None and now >= self._wakeup_s):
            for action in self.scheduler.decide(now):
                self._tell(action)
            self._wakeup_s = self.scheduler.next_wakeup_s(now)
        self._write()

    def _submit(self, job: Job, now: float) -> None:
        self.journal.submitted(job)
        self.scheduler.submit(job, now)
        self.node.event("submitted", job=job.id, nodes=job.nodes, work_s=job.work_s, state=job.state, reason=job.reason)

    def _tell(self, action: Action) -> None:
        job = action.job
        if isinstance(action, Start):
            self._start(job)
        else:
            word = Word.PREEMPT if isinstance(action, Preempt | Resize) else Word.GIVE_UP
            self.node.comm.Send(np.array([job.id, word], float), self._rank(job.on[0]), wire.STOP)

    def _start(self, job: Job) -> None:
        """Hand a job to its nodes, and open its bars in the timeline."""
        members = [self._rank(n) for n in job.on]
        head = [job.id, job.remaining_s / self.spec.step_s, len(members) / job.nodes]
        message = np.array([*head, *members], float)
        for rank in members:
            self.node.comm.Send(message, rank, wire.START)
        for bar in self.scheduler.holdings.open_intervals(math.nan):
            if bar.job == job.id:
                self._record("intervals", tuple(bar))
        self.journal.changed(job)

    def _rank(self, node: int) -> int:
        return self.node.ids().index(node)

    def _receive(self, now: float) -> bool:
        """Take what leaders say; return whether anything changed for the scheduler."""
        comm, status, news = self.node.comm, MPI.Status(), False
        while comm.Iprobe(MPI.ANY_SOURCE, wire.STATUS, status):
            message = np.empty(4)
            comm.Recv(message, status.Get_source(), wire.STATUS)
            said, job_id, steps, loss = Said(int(message[0])), int(message[1]), float(message[2]), float(message[3])
            if job_id not in self.scheduler.running:
                continue
            job = self.scheduler.running[job_id]
            left_s = self._left_s(job, steps)
            if said is Said.FINISHED:
                job.payload = loss
                self.scheduler.finish(job_id, now)
            elif said is Said.LEFT and job.stopping:
                self.scheduler.stopped(job_id, now, left_s)
            elif said is Said.LEFT:
                self.scheduler.resized(job_id, now, left_s)
                self._to_start.append(job)  # in the next turn: before a boundary nobody takes it up
            else:
                self.scheduler.progress(job_id, left_s, now, saved=said is Said.SAVED)
                continue
            news = True
        return news

    def _wait_ready(self) -> None:
        """Something may change at this boundary: wait until every job rests."""
        left = self.node.size - 1
        while left:
            if self.node.comm.Iprobe(MPI.ANY_SOURCE, wire.READY):
                self.node.comm.Recv(np.empty(0), MPI.ANY_SOURCE, wire.READY)
                left -= 1
            else:
                time.sleep(POLL_S)
            now = self._now_s()
            if self._receive(now):  # after the last READY too: a job that has ended must not be handed out again
                self._wakeup_s = now

    def _unfinished(self) -> list[Job]:
        return [job for job in self.scheduler.jobs.values() if not job.final]

    def _all_done(self, now: float) -> bool:
        if self._coming or any(job.id not in self.scheduler.held for job in self._unfinished()):
            return False
        if now < self._last_end_s + self.spec.open_s:
            return False
        self.scheduler.close(now)
        return True

    # --- the record ---------------------------------------------------------------------------------------------
    def _ended(self, job: Job) -> None:
        self._over.append(job)
        self._last_end_s = self._now_s()

    def _write(self) -> None:
        """Record the bars that are over, and the jobs that are final."""
        bars = self.scheduler.holdings.intervals
        for bar in bars[self._written :]:
            self._record("intervals", tuple(bar))
        self._written = len(bars)
        for job in self._over:
            nan = math.nan
            start_s, due_s = (nan if v is None else v for v in (job.start_s, job.deadline_s))
            times = (job.submit_s, start_s, nan if job.end_s is None else job.end_s)
            user = float("".join(c for c in job.user if c.isdigit()) or 0)
            loss = job.payload if isinstance(job.payload, float) else nan
            asked = (job.nodes, job.work_s, job.priority, user, due_s)
            row = (job.id, *times, STATES.index(job.state), job.segments, job.held_s, job.held_node_s, *asked, loss)
            self._record("jobs", row)
            self.node.event("job-ended", job=job.id, state=job.state, reason=job.reason)
        self._over.clear()
        if self._fresh:
            self.node.record.flush()  # whoever takes over reads it there
            self._fresh = False

    def _record(self, table: str, row: tuple[float, ...]) -> None:
        self.node.record(table, self.node.segment, row)
        self._fresh = True

    def _read_meters(self) -> None:
        """Record the integrals; the difference of two rows is what was between them."""
        m = self.scheduler.meters
        hours = [x for name in ("carbon", "price") for x in m.weighted.get(name, (0.0, 0.0))]
        row = (m.slot_s, m.busy_slot_s, m.partly_free_slot_s, m.node_s, m.waiting_job_s, *hours)
        self.node.record("meters", self.node.segment, (m.now_s or 0.0, *row))

    # --- what a person asks -------------------------------------------------------------------------------------
    def accept(self, verb: str, arguments: Mapping[str, Any]) -> None:
        """Refuse what cannot be done to a job.

        Raises:
            ControlError: There is no such job, or it has ended; a job that can never run here.
        """
        known = self.scheduler
        if verb == "submit":
            if arguments["nodes"] > known.most_nodes:
                raise ControlError(
                    f"submit: nodes is {arguments['nodes']}; this machine takes {known.most_nodes} at most; ask for fewer"
                )
            if arguments["due_in_s"] < 0:
                raise ControlError(
                    f"submit: due_in_s is {arguments['due_in_s']:g} s, which has passed; give a time to come, or 0"
                )
            after = arguments["after"]
            if after and after not in known.jobs and after not in known.finals:
                raise ControlError(
                    f"submit: after is {after}, and there is no such job yet; the last one is {self._next_id - 1}"
                )
        elif verb in {"cancel", "end", "priority"}:
            job_id = arguments["job"]
            if job_id in {j.id for j in self._coming}:
                raise ControlError(f"{verb}: job {job_id} has not arrived yet; wait until it has")
            if job_id in known.finals:
                raise ControlError(
                    f"{verb}: job {job_id} has ended: it is {known.finals[job_id]}; nothing can change that"
                )
            if job_id not in known.jobs:
                raise ControlError(f"{verb}: there is no job {job_id}; the last one is {self._next_id - 1}")

    def act(self, verb: str, arguments: Mapping[str, Any]) -> None:
        """Do what was accepted; the next turn carries it out."""
        now = self._now_s()
        try:
            match verb:
                case "submit":
                    self._submit(self._made(arguments, now), now)
                case "cancel":
                    self.scheduler.cancel(arguments["job"], now)
                case "end":
                    self.scheduler.kill(arguments["job"], now)
                case "priority":
                    self.journal.changed(self.scheduler.set_priority(arguments["job"], arguments["priority"], now))
        except LabError as error:  # it ended in the very moment
            self.node.event("not-done", verb=verb, reason=str(error))
        self._wakeup_s = now

    def _made(self, arguments: Mapping[str, Any], now: float) -> Job:
        steps = max(round(arguments["work_s"] / self.spec.step_s), 1)
        due_s = now + arguments["due_in_s"] if arguments["due_in_s"] else None
        after = (arguments["after"],) if arguments["after"] else ()
        job = Job(
            self._next_id, now, arguments["nodes"], steps * self.spec.step_s, priority=arguments["priority"],
            user="user 0", deadline_s=due_s, depends_on=after,
        )  # fmt: skip
        self._next_id += 1
        return job
