"""A discrete-event simulation that drives the very scheduler that drives real ranks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ...errors import ModelInputError
from .cluster import Cluster
from .holdings import Interval
from .hourly import HourlyTrace
from .jobs import Job, State, check_dependencies
from .meters import Meters
from .policies.base import Policy, Preempt, Resize, Start
from .scheduler import Scheduler

#: Seconds for the whole work of a job on that many nodes, while that many slots of the machine are busy, its own included.
Duration = Callable[[Job, int, int], float]


@dataclass(frozen=True, slots=True)
class Costs:
    """What scheduling itself takes, in seconds; nodes are held meanwhile.

    Attributes:
        start_s: Before a job begins to work, each time it is started.
        checkpoint_s: To write a checkpoint when preempted.
        restart_s: To read it, before going on, on top of `start_s`.
        resize_s: Without work, from a resize until the job goes on.
        checkpoint_every_s: Work between two checkpoints that a job writes by itself; infinite for none.
    """

    start_s: float = 0.0
    checkpoint_s: float = 0.0
    restart_s: float = 0.0
    resize_s: float = 0.0
    checkpoint_every_s: float = math.inf

    def __post_init__(self) -> None:
        for name in ("start_s", "checkpoint_s", "restart_s", "resize_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ModelInputError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if not self.checkpoint_every_s > 0:
            raise ModelInputError(f"checkpoint_every_s must be > 0, got {self.checkpoint_every_s}; inf for none")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens to the scheduler at a known time: `do(scheduler, now_s)`."""

    at_s: float
    do: Callable[[Scheduler, float], object]


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation found.

    Attributes:
        jobs: All, in the order in which they ended; empty unless they were kept.
        intervals: Bars of a Gantt chart; empty unless recorded.
        meters: Integrals over time.
        start_s, end_s: First submission, last event.
        num_by_state: How many jobs ended how.
    """

    jobs: list[Job]
    intervals: list[Interval]
    meters: Meters
    start_s: float
    end_s: float
    num_by_state: dict[State, int] = field(default_factory=dict)


def simulate(
    jobs: Iterable[Job],
    cluster: Cluster | int,
    policy: Policy,
    *,
    duration_s: Duration | None = None,
    costs: Costs | None = None,
    changes: Iterable[Change] = (),
    most_nodes: int | None = None,
    record: bool = True,
    on_end: Callable[[Job], None] | None = None,
    traces: Mapping[str, HourlyTrace] | None = None,
) -> Result:
    """Run a stream of jobs to its end.

    Args:
        jobs: Fresh ones. A list may be in any order; anything else is read as needed and must be sorted by `submit_s`.
        cluster: The machine, or how many nodes of one slot.
        policy: A fresh one.
        duration_s: Of a job, see `Duration`; asked for all running jobs at each event. If not given, a job's speed is
            proportional to its nodes and nothing else.
        costs: Overheads; none if not given.
        changes: What else happens, and when.
        most_nodes: See `Scheduler`.
        record: Keep jobs and intervals. Without, memory is bounded by the jobs in the system plus one entry for each job.
        on_end: Called with each job that has become final.
        traces: Values over time by name (`carbon`, `price`), for the meters.

    Raises:
        ModelInputError: Bad jobs: unsorted, an id twice, a circle of dependencies.
    """
    machine = Cluster(cluster) if isinstance(cluster, int) else cluster
    scheduler = Scheduler(machine, policy, most_nodes=most_nodes, record=record, keep=record, traces=traces)
    return Simulation(scheduler, jobs, duration_s, costs or Costs(), changes, record, on_end).run()


# What happens first when several things happen at the same time.
_END, _CHANGE, _ARRIVAL, _WAKEUP = range(4)


class Simulation:
    """One run of `simulate`."""

    def __init__(
        self,
        scheduler: Scheduler,
        jobs: Iterable[Job],
        duration_s: Duration | None,
        costs: Costs,
        changes: Iterable[Change],
        record: bool,
        on_end: Callable[[Job], None] | None,
    ) -> None:
        self.scheduler = scheduler
        self.scheduler.on_end = self._note_end
        self.ended: list[Job] = []
        self.num_by_state: dict[State, int] = {}
        self._on_end, self._record = on_end, record
        self._duration_s, self._costs = duration_s, costs
        self._arrivals = _in_order(jobs)
        self._events: list[tuple[float, int, int, Any]] = []
        self._numbers = count()
        self._wakeup_s = math.inf
        for change in changes:
            self._push(change.at_s, _CHANGE, change)

    def run(self) -> Result:
        """Process events until there are none."""
        start_s: float | None = None
        now_s = 0.0
        self._next_arrival()
        while self._events:
            if self._outdated():
                _, kind, _, _ = heapq.heappop(self._events)
                self._wakeup_s = math.inf if kind == _WAKEUP else self._wakeup_s
                continue
            now_s = self._events[0][0]
            start_s = now_s if start_s is None else start_s
            while self._events and self._events[0][0] <= now_s:
                _, kind, number, what = heapq.heappop(self._events)
                self._happen(kind, number, what, now_s)
            if self.scheduler.queue or self.scheduler.running or self.scheduler.held:
                self._act(now_s)
        self.scheduler.close(now_s, "nothing more will happen on this machine")
        return Result(
            self.ended,
            self.scheduler.holdings.intervals,
            self.scheduler.meters,
            start_s or 0.0,
            now_s if self.scheduler.meters.now_s is None else self.scheduler.meters.now_s,
            self.num_by_state,
        )

    def _outdated(self) -> bool:
        """Whether the next event is an end that will not come, or a wake-up of nobody: no time passes until then."""
        _, kind, number, what = self._events[0]
        if kind == _END:
            return what.event != number or what.state is not State.RUNNING
        return kind == _WAKEUP and not (self.scheduler.queue or self.scheduler.running or self.scheduler.held)

    def _push(self, at_s: float, kind: int, what: object) -> int:
        number = next(self._numbers)
        heapq.heappush(self._events, (at_s, kind, number, what))
        return number

    def _next_arrival(self) -> None:
        job = next(self._arrivals, None)
        if job is not None:
            self._push(job.submit_s, _ARRIVAL, job)

    def _happen(self, kind: int, number: int, what: Any, now_s: float) -> None:
        if kind == _ARRIVAL:
            self.scheduler.submit(what, now_s)
            self._next_arrival()
        elif kind == _END:
            if what.event == number and what.state is State.RUNNING:
                self._end_segment(what, now_s)
        elif kind == _CHANGE:
            self._write_checkpoints(now_s)
            what.do(self.scheduler, now_s)
        else:
            self._wakeup_s = math.inf

    def _end_segment(self, job: Job, now_s: float) -> None:
        """A job is through with what it was doing: its work, its checkpoint or its resize."""
        if job.stopping:
            self.scheduler.stopped(job.id, now_s, job.remaining_s)
        elif job.target is not None:
            self.scheduler.resized(job.id, now_s, job.remaining_s)
            self._work(job, now_s)
        else:
            self.scheduler.finish(job.id, now_s)

    def _act(self, now_s: float) -> None:
        """Let the scheduler decide, and carry it out, until it has nothing more to do at this moment."""
        for action in self.scheduler.decide(now_s):
            job = action.job
            if isinstance(action, Start):
                resumed = self._costs.restart_s if job.remaining_s < job.work_s else 0.0
                self._work(job, now_s + self._costs.start_s + resumed)
            else:
                self._settle(job, now_s)
                job.since_s = math.inf  # it does not work meanwhile
                pause = {Preempt: self._costs.checkpoint_s, Resize: self._costs.resize_s}.get(type(action), 0.0)
                job.event = self._push(now_s + pause, _END, job)
        if self._duration_s is not None:
            self._contend(now_s)
        wakeup_s = self.scheduler.next_wakeup_s(now_s)
        if wakeup_s is not None and now_s < wakeup_s < self._wakeup_s:
            self._wakeup_s = wakeup_s
            self._push(wakeup_s, _WAKEUP, None)

    def _work(self, job: Job, from_s: float) -> None:
        """Let a job work from then on, with the nodes that it holds."""
        job.since_s = from_s
        if self._duration_s is not None:
            job.speed = self._contended_speed(job)
        job.event = self._push(from_s + job.remaining_s / job.speed, _END, job)

    def _contended_speed(self, job: Job) -> float:
        assert self._duration_s is not None
        seconds = self._duration_s(job, len(job.on), self.scheduler.cluster.num_busy)
        if not 0 < seconds < math.inf:
            raise ModelInputError(f"duration_s of job {job.id} on {len(job.on)} nodes must be > 0, got {seconds}")
        return job.work_s / seconds

    def _settle(self, job: Job, now_s: float) -> None:
        """Tell the scheduler how much work a job has left; in its overhead a job has not begun yet."""
        if now_s > job.since_s:
            self.scheduler.progress(job.id, job.left_s(now_s), now_s)

    def _contend(self, now_s: float) -> None:
        """Change the speed of all that work, because more or fewer of them share the machine now."""
        for job in self.scheduler.running.values():
            if not job.stopping and job.target is None and self._contended_speed(job) != job.speed:
                self._settle(job, now_s)
                self._work(job, max(now_s, job.since_s))

    def _write_checkpoints(self, now_s: float) -> None:
        """Note what jobs have saved by themselves so far: only a change can make that matter."""
        every_s = self._costs.checkpoint_every_s
        if every_s == math.inf:
            return
        for job in self.scheduler.running.values():
            self._settle(job, now_s)
            saved_s = job.work_s - every_s * math.floor((job.work_s - job.remaining_s) / every_s)
            job.saved_s = min(job.saved_s, saved_s)

    def _note_end(self, job: Job) -> None:
        self.num_by_state[job.state] = self.num_by_state.get(job.state, 0) + 1
        if self._record:
            self.ended.append(job)
        if self._on_end is not None:
            self._on_end(job)


def _in_order(jobs: Iterable[Job]) -> Iterator[Job]:
    """Yield jobs by submission.

    Raises:
        ModelInputError: A stream that goes back in time, or a list with a circle of dependencies.
    """
    if isinstance(jobs, Sequence):
        check_dependencies(jobs)
        jobs = sorted(jobs, key=lambda job: job.submit_s)
    last_s = -math.inf
    for job in jobs:
        if job.submit_s < last_s:
            raise ModelInputError(
                f"job {job.id} is submitted at {job.submit_s} s, after one at {last_s} s; sort the stream by submit_s, "
                "or give a list"
            )
        last_s = job.submit_s
        yield job
