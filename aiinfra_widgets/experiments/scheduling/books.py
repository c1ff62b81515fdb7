"""The scheduler's books: where each job is, and how it gets from one place to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ...errors import ControlError
from .cluster import Cluster
from .holdings import Holdings
from .hourly import HourlyTrace
from .jobs import Job, State
from .meters import Meters
from .policies.base import Action, Policy, Preempt, Resize, Start
from .queue import WaitingQueue

#: How a job ends that was told to stop.
WITHDRAWN: Mapping[str, State] = {"cancel": State.CANCELLED, "kill": State.KILLED}


class Books:
    """Jobs, a machine and a policy.

    Attributes:
        cluster: The machine.
        policy: Who gets the nodes; change it with `set_policy`.
        jobs: Every job that is not final; all jobs if `keep`.
        finals: How every job ended that has ended.
        queue: Jobs that could start if nodes were free, in the policy's order.
        held: Jobs that wait for another job or for a larger machine; `job.reason` says for what.
        running: Jobs that hold nodes.
        leaving: Those of them that were told to leave and have not left yet.
        holdings: Who holds which nodes; `holdings.intervals` are the bars of a Gantt chart.
        meters: Integrals of utilisation, fragmentation and queue length.
        on_end: Called with each job that has just become final.
    """

    def __init__(
        self,
        cluster: Cluster,
        policy: Policy,
        *,
        most_nodes: int | None = None,
        record: bool = True,
        keep: bool = True,
        on_end: Callable[[Job], None] | None = None,
        traces: Mapping[str, HourlyTrace] | None = None,
    ) -> None:
        """Open the books.

        Args:
            cluster: The machine as it is now.
            policy: A fresh one.
            most_nodes: Nodes there may ever be; a job that needs more is refused. The nodes of now, if not given.
            record: Keep the intervals for a Gantt chart. Memory: one row for each job and node.
            keep: Keep final jobs. Without, memory is bounded by the jobs in the system, and one entry for each that ended.
            on_end: See above.
            traces: Values over time by name, for the meters to weigh the accelerators' time with.
        """
        self.cluster, self.policy = cluster, policy
        self.most_nodes = max(most_nodes or 0, cluster.num_nodes)
        self.jobs: dict[int, Job] = {}
        self.finals: dict[int, State] = {}
        self.held: dict[int, Job] = {}
        self.running: dict[int, Job] = {}
        self.leaving: dict[int, Job] = {}
        self.queue = WaitingQueue(policy.key, policy.group)
        self.holdings = Holdings(cluster, record)
        self.meters = Meters(traces=dict(traces or {}))
        self.on_end = on_end
        self._keep = keep
        self._waits_for: dict[int, list[int]] = {}  # of a job that is not done, those that depend on it
        self._outbox: list[Action] = []
        self._num_submitted = 0

    def _advance(self, now_s: float) -> None:
        if now_s != self.meters.now_s:
            self.meters.advance(now_s, self.cluster, len(self.queue) + len(self.held))

    def _job(self, job_id: int) -> Job:
        if job_id in self.finals:
            raise ControlError(f"job {job_id} has ended: it is {self.finals[job_id]}; nothing can change that")
        if job_id not in self.jobs:
            raise ControlError(f"there is no job {job_id}; submit it first")
        return self.jobs[job_id]

    def _running(self, job_id: int) -> Job:
        if job_id not in self.running:
            raise ControlError(f"job {job_id} does not run: it is {self._job(job_id).state}")
        return self.running[job_id]

    def _never(self, job: Job) -> str:
        """Return why the job cannot ever run on this machine, or ""."""
        if job.slots > self.cluster.slots:
            return f"it needs {job.slots} slots on a node, a node has {self.cluster.slots}; spread it over more nodes"
        if job.memory_bytes > self.cluster.memory_bytes:
            return f"it needs {job.memory_bytes:g} bytes on a node, a node has {self.cluster.memory_bytes:g}"
        if job.min_nodes > self.most_nodes:
            return f"it needs {job.min_nodes} nodes, the machine has at most {self.most_nodes}; ask for fewer"
        return ""

    def _wait(self, job: Job, now_s: float) -> None:
        """Let a job that does not run wait where it belongs, or refuse it because of a job that it depends on."""
        if why := self._place_in_line(job, now_s):
            self._end(job, State.REFUSED, now_s, why)

    def _place_in_line(self, job: Job, now_s: float) -> str:
        """Put a job into the queue, or hold it with a reason; return why it can do neither, or ""."""
        for other in job.depends_on:
            end = self.finals.get(other)
            if end is None:
                self.held[job.id], job.reason = job, f"it waits for job {other}"
                return ""
            if end is not State.DONE:
                return f"it depends on job {other}, which is {end}"
        least = self.policy.least_nodes(job)
        if least > self.cluster.num_nodes:
            self.held[job.id], job.reason = job, f"it needs {least} nodes, the machine has {self.cluster.num_nodes} now"
        else:
            self.queue.add(job, now_s)
        return ""

    def _refit(self, now_s: float) -> None:
        """Look again at every job that waits, because the machine or the policy is another one."""
        for job in [*self.queue, *self.held.values()]:
            if job.final:
                continue  # it depended on one that was refused a moment ago
            if why := self._never(job):
                self._end(job, State.REFUSED, now_s, why)
                continue
            self._unqueue(job)
            job.reason = ""
            self._wait(job, now_s)

    def _unqueue(self, job: Job) -> None:
        if job in self.queue:
            self.queue.remove(job)
        else:
            self.held.pop(job.id, None)

    def _carry_out(self, action: Action, now_s: float) -> Action:
        """Enter an action of the policy in the books."""
        job = action.job
        if isinstance(action, Start):
            job.move(State.RUNNING)
            self.queue.remove(job)
            self.holdings.take(job, action.nodes, now_s)
            self.running[job.id] = job
            if job.start_s is None:
                job.start_s = now_s
            self._begin(job, now_s)
        elif job.state is not State.RUNNING or job.stopping or job.target is not None:
            raise ControlError(f"policy {self.policy.name}: job {job.id} does not run, or is told to change already")
        elif isinstance(action, Preempt):
            self._tell_to_leave(job, "preempt")
        elif isinstance(action, Resize):
            job.target = action.nodes
            self.holdings.take(job, tuple(n for n in action.nodes if n not in job.on), now_s)
        return action

    def _tell_to_leave(self, job: Job, why: str) -> None:
        job.stopping = why
        self.leaving[job.id] = job

    def _begin(self, job: Job, now_s: float) -> None:
        """Begin a segment: from now on the job works with the nodes that it holds."""
        job.since_s = now_s
        job.speed = len(job.on) / job.nodes
        job.segments += 1
        job.expected_end_s = now_s + job.estimated_left_s(now_s) / job.speed
        self.policy.started(job, now_s)

    def _leave(self, job: Job, now_s: float) -> None:
        """Let a running job give back all its nodes."""
        del self.running[job.id]
        self.leaving.pop(job.id, None)
        self.policy.ended(job, now_s)
        self.holdings.give_back(job, job.on, now_s)
        job.target, job.expected_end_s = None, math.inf

    def _end(self, job: Job, state: State, now_s: float, reason: str = "") -> None:
        """Make a job final, and refuse or release those that depend on it, and so on."""
        self._make_final(job, state, now_s, reason)
        ended = [job.id]
        while ended:
            for other in self._waits_for.pop(ended.pop(), ()):
                if other in self.held:
                    dependent = self.held.pop(other)
                    dependent.reason = ""
                    if why := self._place_in_line(dependent, now_s):
                        self._make_final(dependent, State.REFUSED, now_s, why)
                        ended.append(other)

    def _make_final(self, job: Job, state: State, now_s: float, reason: str) -> None:
        if job.id in self.running:
            self._leave(job, now_s)
        else:
            self._unqueue(job)
        job.move(state, reason)
        job.end_s, job.stopping = now_s, ""
        self.finals[job.id] = state
        if not self._keep:
            del self.jobs[job.id]
        if self.on_end is not None:
            self.on_end(job)
