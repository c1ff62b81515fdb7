"""The scheduler: takes what happens, asks the policy, says what to do. It has no clock, no threads and no I/O.

The same object drives a simulation (`simulate.py`) and real ranks. Whoever drives it tells it what happened, with the
time, then calls `decide` and carries out the actions in their order:

    Start    the ranks begin (or go on); later the driver calls `finish` or `fail`
    Preempt  the ranks write a checkpoint; when they are free the driver calls `stopped`
    Stop     the ranks give up (cancelled or killed); when they are free the driver calls `stopped`
    Resize   the job goes on with other nodes; when it does the driver calls `resized`

A node counts as held until the driver has said that it is free, so no slot is ever given away twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from ...errors import ControlError, ModelInputError
from .books import WITHDRAWN, Books
from .jobs import Job, State, check_dependencies
from .policies.base import Action, Policy, Preempt, Stop
from .queue import WaitingQueue


class Scheduler(Books):
    """Jobs, a machine and a policy; see `Books` for what it knows (`jobs`, `queue`, `held`, `running` ...) and how it is made."""

    # --- what a user asks

    def submit(self, job: Job, now_s: float) -> Job:
        """Take a new job; look at its state: it waits, or is refused with a reason.

        Raises:
            ModelInputError: Its id was used before, or it closes a circle of dependencies.
            ControlError: The job object was submitted before.
        """
        self._advance(now_s)
        if job.id in self.jobs or job.id in self.finals:
            raise ModelInputError(f"there was a job {job.id} already; give each job an id of its own")
        if job.state is not State.WAITING or job.seq >= 0:
            raise ControlError(f"job {job.id} was submitted before; make a new Job")
        if job.id in self._waits_for or job.id in job.depends_on:  # else nobody waits for it, and it closes no circle
            check_dependencies([*self.jobs.values(), job])
        job.seq = self._num_submitted
        self._num_submitted += 1
        self.jobs[job.id] = job
        why = self._never(job)
        if not why and job.deadline_s is not None and job.deadline_s <= now_s:
            why = f"its deadline, {job.deadline_s:g} s, has passed: it is {now_s:g} s; submit it with a later one"
        if why := why or self.policy.admit(self, job, now_s):
            self._end(job, State.REFUSED, now_s, why)
            return job
        for other in job.depends_on:
            if other not in self.finals:
                self._waits_for.setdefault(other, []).append(job.id)
        self._wait(job, now_s)
        return job

    def cancel(self, job_id: int, now_s: float) -> Job:
        """Withdraw a job. One that waits is cancelled at once, one that runs when it has left its nodes.

        Raises:
            ControlError: There is no such job, or it has ended.
        """
        return self._withdraw(job_id, now_s, "cancel")

    def kill(self, job_id: int, now_s: float) -> Job:
        """End a job by force, for good. Otherwise as `cancel`."""
        return self._withdraw(job_id, now_s, "kill")

    def set_priority(self, job_id: int, priority: float, now_s: float) -> Job:
        """Change the priority of a job that has not ended.

        Raises:
            ControlError: There is no such job, or it has ended.
            ModelInputError: Not a finite number.
        """
        self._advance(now_s)
        job = self._job(job_id)
        if not math.isfinite(priority):
            raise ModelInputError(f"priority of job {job_id} must be a finite number, got {priority}")
        waits = job in self.queue
        if waits:
            self.queue.remove(job)
        job.priority = priority
        if waits:
            self.queue.add(job, now_s)
        return job

    def set_policy(self, policy: Policy, now_s: float) -> None:
        """Go on with another policy. Running jobs stay where they are until it decides otherwise."""
        self._advance(now_s)
        waiting = list(self.queue)
        for job in waiting:
            self.queue.remove(job)
        self.policy, self.queue = policy, WaitingQueue(policy.key, policy.group)
        for job in self.running.values():
            policy.started(job, now_s)
        for job in waiting:
            self.queue.add(job, now_s)
        self._refit(now_s)

    # --- what happens to the machine

    def add_nodes(self, nodes: Iterable[int], now_s: float) -> None:
        """Add empty nodes; jobs that were waiting for a larger machine go into the queue.

        Raises:
            ModelInputError: A node that is there already.
        """
        self._advance(now_s)
        self.cluster.add(nodes)
        self.most_nodes = max(self.most_nodes, self.cluster.num_nodes)
        self._refit(now_s)

    def remove_nodes(self, nodes: Iterable[int], now_s: float) -> None:
        """Take nodes away: jobs there are preempted by checkpoint and go back to the queue; then the nodes leave.

        Raises:
            ControlError: There is no such node.
        """
        nodes = list(nodes)
        for job in [self.running[job_id] for node in nodes for job_id in self.cluster.jobs_on(node)]:
            if not job.stopping:
                self._tell_to_leave(job, "preempt")
                self._outbox.append(Preempt(job))
        self.drain_nodes(nodes, now_s)

    def drain_nodes(self, nodes: Iterable[int], now_s: float) -> None:
        """Start no more jobs on these nodes; each leaves when its last job has ended.

        Raises:
            ControlError: There is no such node.
        """
        self._advance(now_s)
        nodes = list(nodes)
        for node in nodes:
            self.cluster.jobs_on(node)  # all or none: one that is not there is refused before any is drained
        for node in nodes:
            self.cluster.drain(node)
        self._refit(now_s)

    def node_died(self, node: int, now_s: float) -> list[Job]:
        """Take note of a dead node. Its jobs lose what they did since their last checkpoint and wait again.

        Returns:
            Those jobs. The driver must end what is left of them on other nodes: they are free from now on.

        Raises:
            ControlError: There is no such node.
        """
        self._advance(now_s)
        victims = [self.running[i] for i in self.cluster.jobs_on(node)]
        self.cluster.drain(node)
        for job in victims:
            self._leave(job, now_s)
        self.most_nodes -= 1
        for job in victims:
            job.remaining_s = job.saved_s
            if job.stopping in {"cancel", "kill"}:
                self._end(job, WITHDRAWN[job.stopping], now_s, f"node {node} died")
            else:
                job.stopping = ""
                job.move(State.PREEMPTED if job.saved_s < job.work_s else State.WAITING, f"node {node} died")
                self._wait(job, now_s)
        self._refit(now_s)
        return victims

    # --- what the driver reports of jobs

    def finish(self, job_id: int, now_s: float) -> Job:
        """Take note that a running job has done its work and left its nodes.

        Raises:
            ControlError: It does not run.
        """
        self._advance(now_s)
        job = self._running(job_id)
        job.remaining_s = 0.0
        self._end(job, State.DONE, now_s)
        return job

    def fail(self, job_id: int, now_s: float, reason: str) -> Job:
        """Take note that a running job broke by itself and left its nodes. It is final: it would break again.

        Raises:
            ControlError: It does not run.
        """
        self._advance(now_s)
        job = self._running(job_id)
        job.remaining_s = job.left_s(now_s)
        self._end(job, State.FAILED, now_s, reason)
        return job

    def stopped(self, job_id: int, now_s: float, remaining_s: float | None = None) -> Job:
        """Take note that a job has left its nodes, after `Preempt` or `Stop`.

        Args:
            job_id: Of that job.
            now_s: Now.
            remaining_s: Work left as of its checkpoint; by its speed and nodes, if not given.

        Raises:
            ControlError: It does not run, was not told to stop, or has more left than its whole work.
        """
        self._advance(now_s)
        job = self._running(job_id)
        if not job.stopping:
            raise ControlError(f"job {job_id} was not told to stop; report its end with finish or fail")
        job.remaining_s = _remaining_s(job, remaining_s, now_s)
        if job.stopping == "preempt":
            job.saved_s = job.remaining_s
            self._leave(job, now_s)
            job.stopping = ""
            job.move(State.PREEMPTED)
            self._wait(job, now_s)
        else:
            self._end(job, WITHDRAWN[job.stopping], now_s)
        return job

    def resized(self, job_id: int, now_s: float, remaining_s: float | None = None) -> Job:
        """Take note that a job goes on with its new nodes, after `Resize`, and that those it gave up are free.

        Args:
            job_id: Of that job.
            now_s: Now.
            remaining_s: Work left; by its speed and nodes, if not given.

        Raises:
            ControlError: It does not run, was not told to resize, or has more left than its whole work.
        """
        self._advance(now_s)
        job = self._running(job_id)
        if job.target is None:
            raise ControlError(f"job {job_id} was not told to resize")
        job.remaining_s = _remaining_s(job, remaining_s, now_s)
        given_up = tuple(n for n in job.on if n not in job.target)
        self.policy.ended(job, now_s)
        self.holdings.give_back(job, given_up, now_s)
        job.target = None
        self._begin(job, now_s)
        return job

    def progress(self, job_id: int, remaining_s: float, now_s: float, *, saved: bool = False) -> Job:
        """Take note of how much work a running job has left.

        Args:
            job_id: Of that job.
            remaining_s: Work left, in seconds on its demanded nodes.
            now_s: Now.
            saved: It has just written a checkpoint: this is where it would go on if its node died.

        Raises:
            ControlError: It does not run, or has more left than its whole work.
        """
        self._advance(now_s)
        job = self._running(job_id)
        job.remaining_s, job.since_s = _remaining_s(job, remaining_s, now_s), now_s
        if saved:
            job.saved_s = job.remaining_s
        return job

    # --- what to do

    def decide(self, now_s: float) -> list[Action]:
        """Return what is to be done now, in order. It is already entered in the books: carry it out."""
        self._advance(now_s)
        self.meters.decisions += 1
        if not (self.queue or self._outbox or self.policy.plans_for_none):
            return []
        actions = [a for a in self._outbox if a.job.state is State.RUNNING]
        self._outbox = []
        actions += [self._carry_out(action, now_s) for action in self.policy.plan(self, now_s)]
        return actions

    def next_wakeup_s(self, now_s: float) -> float | None:
        """Return when to call `decide` again although nothing has happened by then, or None."""
        return self.policy.next_wakeup_s(self, now_s)

    def close(self, now_s: float, why: str = "the run is over") -> None:
        """Refuse whatever still waits: no capacity will come back, and no job is forgotten."""
        self._advance(now_s)
        for job in [*self.queue, *self.held.values()]:
            if not job.final:  # it may have depended on one before it
                self._end(job, State.REFUSED, now_s, f"{why}; {job.reason}" if job.reason else why)

    def _withdraw(self, job_id: int, now_s: float, why: Literal["cancel", "kill"]) -> Job:
        self._advance(now_s)
        job = self._job(job_id)
        if job.state is State.RUNNING:
            if job.stopping != why:
                self._tell_to_leave(job, why)
                self._outbox.append(Stop(job, why))
        else:
            self._end(job, WITHDRAWN[why], now_s)
        return job


def _remaining_s(job: Job, reported_s: float | None, now_s: float) -> float:
    """Return the work left as it was reported, or by speed and time if it was not."""
    if reported_s is None:
        return job.left_s(now_s)
    if not 0 <= reported_s <= job.work_s:
        raise ControlError(
            f"remaining_s of job {job.id} must be from 0 to {job.work_s:g}, its whole work, got {reported_s}; report what is "
            "left in seconds on its demanded nodes"
        )
    return reported_s
