"""A job: what its user asked for, and how far it has come. Pure data with one rule: which state may follow which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ...errors import ControlError, ModelInputError


class State(StrEnum):
    """Where a job is. The last five are final: a job enters exactly one of them, once."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    DONE = "done"
    CANCELLED = "cancelled"
    KILLED = "killed"
    FAILED = "failed"
    REFUSED = "refused"


FINAL = frozenset({State.DONE, State.CANCELLED, State.KILLED, State.FAILED, State.REFUSED})
#: A running job goes back to `waiting` when its node died before it had a checkpoint, else to `preempted`.
_NEXT: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.RUNNING, State.CANCELLED, State.KILLED, State.REFUSED}),
    State.PREEMPTED: frozenset({State.RUNNING, State.CANCELLED, State.KILLED, State.REFUSED}),
    State.RUNNING: frozenset(
        {State.WAITING, State.PREEMPTED, State.DONE, State.CANCELLED, State.KILLED, State.FAILED, State.REFUSED}
    ),
}


@dataclass(slots=True, eq=False)
class Job:
    """One job of the stream.

    Attributes:
        id: Unique whole number.
        submit_s: When it arrives.
        nodes: Nodes demanded, all at once or none (a gang).
        work_s: Run time on its demanded nodes. Only a driver may read it: policies see the estimate.
        estimate_s: Run time as its user says, maybe wrong; `work_s` if not given.
        slots: Accelerators on each node; a node may have more, and hold several jobs then.
        memory_bytes: On each node.
        min_nodes, max_nodes: What an elastic job can run on; `nodes` if not given.
        priority: Higher goes first.
        user: Who pays for it in fair shares.
        deadline_s: When it must be done, on the clock of `submit_s`, or None.
        depends_on: Jobs that must be done before it may start.
        payload: Whatever the driver needs to run it; the scheduler never looks.
        state, reason: Where it is, and why where that needs a word.
        remaining_s: Work left, in seconds on its demanded nodes, as of `since_s`.
        speed: Work done in a second, in seconds on its demanded nodes: the nodes it has over those, unless a driver knows better.
        saved_s: Work left as of its last checkpoint.
        on: Nodes it holds now.
        target: Nodes it will hold when a resize that is under way is over, else None.
        stopping: "preempt", "cancel" or "kill" while it is told to leave its nodes and has not left them yet.
        start_s, end_s: First start, final state; None before.
        segments: How often it was started or resized: pieces of its run with one set of nodes.
        held_s, held_node_s: For how long it held nodes, and node-seconds, up to `charged_s`.
        expected_end_s: When its estimate says that it ends; only while it runs.
        seq, entry: Number of its submission, and its place in the queue; for the scheduler.
        event: For the driver, e.g. the number of its pending end event.
    """

    id: int
    submit_s: float
    nodes: int
    work_s: float
    estimate_s: float = -1.0
    slots: int = 1
    memory_bytes: float = 0.0
    min_nodes: int = 0
    max_nodes: int = 0
    priority: float = 0.0
    user: str = ""
    deadline_s: float | None = None
    depends_on: tuple[int, ...] = ()
    payload: Any = None
    state: State = field(default=State.WAITING, init=False)
    reason: str = field(default="", init=False)
    remaining_s: float = field(default=0.0, init=False)
    saved_s: float = field(default=0.0, init=False)
    speed: float = field(default=0.0, init=False)
    since_s: float = field(default=0.0, init=False)
    on: tuple[int, ...] = field(default=(), init=False)
    target: tuple[int, ...] | None = field(default=None, init=False)
    stopping: str = field(default="", init=False)
    start_s: float | None = field(default=None, init=False)
    end_s: float | None = field(default=None, init=False)
    segments: int = field(default=0, init=False)
    held_s: float = field(default=0.0, init=False)
    held_node_s: float = field(default=0.0, init=False)
    charged_s: float = field(default=0.0, init=False)
    expected_end_s: float = field(default=math.inf, init=False)
    seq: int = field(default=-1, init=False)
    entry: Any = field(default=None, init=False)
    event: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        if self.estimate_s == -1.0:
            self.estimate_s = self.work_s
        self.min_nodes = self.min_nodes or self.nodes
        self.max_nodes = self.max_nodes or self.nodes
        self.remaining_s = self.saved_s = self.work_s
        if not (
            isinstance(self.nodes, int)
            and isinstance(self.slots, int)
            and 1 <= self.min_nodes <= self.nodes <= self.max_nodes
            and self.slots >= 1
            and 0 < self.work_s < math.inf
            and 0 < self.estimate_s < math.inf
            and -math.inf < self.submit_s < math.inf
            and self.memory_bytes >= 0
            and -math.inf < self.priority < math.inf
            and (self.deadline_s is None or self.deadline_s > -math.inf)
        ):
            raise ModelInputError("; ".join(_problems(self)))

    @property
    def final(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in FINAL

    @property
    def elastic(self) -> bool:
        """Whether it can run on more or fewer nodes than it demands."""
        return self.min_nodes < self.max_nodes

    def move(self, state: State, reason: str = "") -> None:
        """Change the state.

        Raises:
            ControlError: That state may not follow the present one.
        """
        if state not in _NEXT.get(self.state, ()):
            allowed = ", ".join(sorted(_NEXT.get(self.state, ()))) or "nothing: it is final"
            raise ControlError(f"job {self.id} is {self.state} and cannot become {state}; allowed: {allowed}")
        self.state, self.reason = state, reason

    def left_s(self, now_s: float) -> float:
        """Return the work left now, in seconds on its demanded nodes, by its speed since it was last known."""
        if self.state is not State.RUNNING or now_s <= self.since_s:
            return self.remaining_s
        return max(0.0, self.remaining_s - (now_s - self.since_s) * self.speed)

    def estimated_left_s(self, now_s: float) -> float:
        """Return what is left by the user's estimate: that minus the work done, at least 0."""
        return max(0.0, self.estimate_s - (self.work_s - self.left_s(now_s)))


def _problems(job: Job) -> list[str]:
    """Return one sentence for each field that is wrong."""
    found = []

    def check(fine: bool, name: str, allowed: str) -> None:
        if not fine:
            found.append(f"job {job.id}: {name} is {getattr(job, name)!r}; allowed: {allowed}")

    check(isinstance(job.nodes, int) and job.nodes >= 1, "nodes", "a whole number from 1")
    check(1 <= job.min_nodes <= job.nodes, "min_nodes", f"1 to nodes ({job.nodes})")
    check(job.max_nodes >= job.nodes, "max_nodes", f"at least nodes ({job.nodes})")
    check(isinstance(job.slots, int) and job.slots >= 1, "slots", "accelerators on each node, a whole number from 1")
    check(0 < job.work_s < math.inf, "work_s", "seconds, above 0 and finite")
    check(0 < job.estimate_s < math.inf, "estimate_s", "seconds, above 0 and finite; leave it out to use work_s")
    check(-math.inf < job.submit_s < math.inf, "submit_s", "seconds, finite")
    check(job.memory_bytes >= 0, "memory_bytes", "bytes on each node, from 0")
    check(-math.inf < job.priority < math.inf, "priority", "a finite number, higher goes first")
    check(job.deadline_s is None or job.deadline_s > -math.inf, "deadline_s", "seconds, or None for no deadline")
    return found


def check_dependencies(jobs: Iterable[Job]) -> None:
    """Refuse a set of jobs in which a job waits, over others, for itself.

    Args:
        jobs: All that may depend on each other; a job may depend on one that is submitted later.

    Raises:
        ModelInputError: Names the jobs of one cycle, in order.
    """
    waits_for = {job.id: job.depends_on for job in jobs if job.depends_on}
    clear: set[int] = set()
    for first in waits_for:
        path: list[int] = []
        stack = [(first, iter(waits_for[first]))] if first not in clear else []
        while stack:
            job_id, rest = stack[-1]
            if not path or path[-1] != job_id:
                path.append(job_id)
            following = next((i for i in rest if i in waits_for and i not in clear), None)
            if following is None:
                stack.pop()
                clear.add(path.pop())
            elif following in path:
                cycle = " -> ".join(map(str, [*path[path.index(following) :], following]))
                raise ModelInputError(
                    f"jobs wait for each other in a circle: {cycle}; a job can only depend on one that does not "
                    "depend on it; take one of these depends_on away"
                )
            else:
                stack.append((following, iter(waits_for[following])))
