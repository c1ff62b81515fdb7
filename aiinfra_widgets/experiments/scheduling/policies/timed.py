"""Policies in which time itself matters: deadlines, and hours that are cleaner or cheaper than others."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Any

from ....errors import ModelInputError
from ..hourly import HourlyTrace
from ..jobs import Job
from .base import Action, Policy, Start, View, place
from .ordered import Fifo


class Deadline(Fifo):
    """Earliest deadline first, with admission: a job is refused at once if it, or an admitted one, would be late.

    Jobs without a deadline come last. The test plays the queue forward with the users' estimates.

    Valid when: estimates are not too low.
    Off by: it counts free accelerators, not on which nodes they are; a job on a fragmented machine may still be late.
    Source: Liu and Layland 1973 (the order); admission as in Mok's planning tests, for gangs and without preemption.
    """

    name, title = "deadline", "Earliest deadline first"

    def key(self, job: Job, now_s: float) -> Any:
        """Return the deadline, then when it came."""
        return (math.inf if job.deadline_s is None else job.deadline_s, job.submit_s)

    def admit(self, view: View, job: Job, now_s: float) -> str:
        """Return why the job cannot be had without somebody being late, or ""."""
        alone_s = now_s + job.estimate_s
        if job.deadline_s is not None and alone_s > job.deadline_s:
            return (
                f"its deadline, {job.deadline_s:g} s, cannot be met: started now, {now_s:g} s, it would be done at "
                f"{alone_s:g} s; allow more time or ask for more nodes"
            )
        if job.deadline_s is None or (not view.queue and place(view, job) is not None):
            return ""  # it comes last of all, or can start at once: nobody is late because of it
        line = list(view.queue)
        before = self._late(view, line, now_s)
        rank = (self.key(job, now_s), math.inf)
        line.insert(sum(1 for j in line if (self.key(j, now_s), j.seq) < rank), job)
        for late, done_s in self._late(view, line, now_s).items():
            if late == job.id:
                return f"its deadline, {job.deadline_s:g} s, cannot be met: with those before it, it would be done at {done_s:g} s"
            if late not in before:
                return f"job {late}, admitted before, would miss its deadline: it would be done at {done_s:g} s"
        return ""

    def _late(self, view: View, line: Iterable[Job], now_s: float) -> dict[int, float]:
        """Return who in the line would be late, and when they would be done, if no other job came."""
        free = view.cluster.num_slots - view.cluster.num_busy
        ends = [(max(now_s, job.expected_end_s), len(job.on) * job.slots) for job in view.running.values()]
        heapq.heapify(ends)
        late: dict[int, float] = {}
        at_s = now_s
        for job in line:
            while free < job.nodes * job.slots and ends:
                end_s, slots = heapq.heappop(ends)
                at_s, free = max(at_s, end_s), free + slots
            done_s = at_s + job.estimated_left_s(now_s)
            free -= job.nodes * job.slots
            heapq.heappush(ends, (done_s, job.nodes * job.slots))
            if job.deadline_s is not None and done_s > job.deadline_s:
                late[job.id] = done_s
        return late


class _BestHours(Policy):
    """Each job waits for the start from which the mean of a trace over its estimate is least, then first in, first out.

    It waits no longer than its deadline allows, or `max_delay_s` if it has none.

    Args:
        trace: For each hour, what is to be little.
        max_delay_s: Longest wait for a better hour of a job without a deadline; 0 never waits.

    Off by: jobs that choose the same hour wait for each other there, and may miss deadlines that are tight.
    Source: Wiesner et al. 2021, "Let's wait awhile" (Middleware): shifting by a forecast, here taken as perfect.
    """

    def __init__(self, trace: HourlyTrace, max_delay_s: float = 86400.0) -> None:
        if not 0 <= max_delay_s < math.inf:
            raise ModelInputError(f"max_delay_s must be >= 0 and finite, got {max_delay_s}; a day is 86400")
        self.trace, self.max_delay_s = trace, max_delay_s

    def key(self, job: Job, now_s: float) -> Any:
        """Return when it should start."""
        left_s = job.estimated_left_s(now_s)
        latest_s = job.submit_s + self.max_delay_s if job.deadline_s is None else job.deadline_s - left_s
        return self.trace.best_start_s(now_s, latest_s, left_s or job.estimate_s)

    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Start those whose time has come, in its order."""
        while (job := view.queue.head()) is not None and job.entry[0] <= now_s:
            if (nodes := place(view, job)) is None:
                return
            yield Start(job, nodes)

    def next_wakeup_s(self, view: View, now_s: float) -> float | None:
        """Return when the next job's time comes; one that only waits for nodes needs no wake-up."""
        job = view.queue.head()
        return float(job.entry[0]) if job is not None and job.entry[0] > now_s else None


class CarbonAware(_BestHours):
    """Jobs move to the hours in which the grid emits least, in gCO2e per kilowatt-hour."""

    name, title = "carbon", "Carbon-aware"


class PriceAware(_BestHours):
    """Jobs move to the hours in which electricity or nodes cost least."""

    name, title = "price", "Price-aware"
