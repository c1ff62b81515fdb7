"""Policies that take nodes away from running jobs, which go on later from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sortedcontainers import SortedList

from ....errors import ModelInputError
from ..jobs import Job
from ..room import Room
from .base import Action, Policy, Preempt, Start, View, place


class Srtf(Policy):
    """Shortest remaining time first: a job that has less left than a running one takes its nodes.

    Jobs with the most left are preempted first, and only as many as the head of the queue needs.

    Args:
        cost_s: A job is preempted only if it has at least that much more left than the head: what a preemption costs.

    Off by: users' estimates. Long jobs may starve. Source: Schrage 1968 (least mean response on one machine).
    """

    name, title = "srtf", "Shortest remaining time first"

    def __init__(self, cost_s: float = 0.0) -> None:
        if not cost_s >= 0:
            raise ModelInputError(f"cost_s must be >= 0, got {cost_s}; it is what one preemption costs, in seconds")
        self.cost_s = cost_s
        self._endings: SortedList = SortedList()
        self._ending_of: dict[int, tuple[float, int, Job]] = {}

    def key(self, job: Job, now_s: float) -> Any:
        """Return what its estimate leaves."""
        return job.estimated_left_s(now_s)

    def started(self, job: Job, now_s: float) -> None:
        """Note when the job should end: that orders the running jobs by what they have left."""
        self._ending_of[job.id] = (job.expected_end_s, job.seq, job)
        self._endings.add(self._ending_of[job.id])

    def ended(self, job: Job, now_s: float) -> None:
        """Forget it."""
        self._endings.remove(self._ending_of.pop(job.id))

    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Start the shortest; if it does not fit, make room for it at the cost of the longest that run."""
        while (head := view.queue.head()) is not None:
            if (nodes := place(view, head)) is not None:
                yield Start(head, nodes)
                continue
            for victim in self._victims(view, head, now_s):
                yield Preempt(victim)
            return  # the head starts when they have left

    def _victims(self, view: View, head: Job, now_s: float) -> list[Job]:
        """Return whom to preempt for the head; nobody if all who may be are not enough, or enough are leaving anyway."""
        limit_s = now_s + head.estimated_left_s(now_s) + self.cost_s
        if not self._endings or self._endings[-1][0] <= limit_s:
            return []
        room, chosen = Room(view.cluster, head), []
        for job in view.leaving.values():
            room.leave(job)
        for end_s, _, job in reversed(self._endings):
            if room.num_fitting >= head.nodes or end_s <= limit_s:
                break
            if not job.stopping and job.target is None:
                room.leave(job)
                chosen.append(job)
        if room.num_fitting < head.nodes:
            return []
        needed = []
        for job in chosen:  # one whose nodes are no help after all may stay
            room.come(job, job.on)
            if room.num_fitting < head.nodes:
                room.leave(job)
                needed.append(job)
        return needed


class Gang(Policy):
    """Time slicing of gangs: all nodes of a job get it, and lose it, at the same moment, in turns of one quantum.

    Jobs wait in the order in which they had their last turn; whoever fits runs, until somebody has waited for a quantum.
    A job that has had its quantum makes room when others wait, the one that has run longest first.

    Args:
        quantum_s: Least time that a job runs before it is preempted.

    Source: Ousterhout 1982 (coscheduling); the rows of his matrix are packed anew at each turn here.
    """

    name, title = "gang", "Gang time slicing"

    def __init__(self, quantum_s: float = 60.0) -> None:
        if not quantum_s > 0:
            raise ModelInputError(f"quantum_s must be > 0, got {quantum_s}; it is the length of a turn, in seconds")
        self.quantum_s = quantum_s
        self._last_turn: dict[int, float] = {}
        self._began: dict[int, float] = {}  # of running jobs, in the order of their turns

    def key(self, job: Job, now_s: float) -> Any:
        """Return when it had its last turn, or when it came."""
        return self._last_turn.get(job.id, job.submit_s)

    def started(self, job: Job, now_s: float) -> None:
        """Note when the turn began."""
        self._last_turn.pop(job.id, None)
        self._began[job.id] = now_s

    def ended(self, job: Job, now_s: float) -> None:
        """Note when the turn ended, of a job that will have another."""
        del self._began[job.id]
        if job.stopping == "preempt":
            self._last_turn[job.id] = now_s

    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Start whoever fits, in turn; then let those whose quantum is over make room for the rest."""
        for job in view.queue:
            if (nodes := place(view, job)) is not None:
                yield Start(job, nodes)
            elif self.key(job, now_s) + self.quantum_s <= now_s:
                break  # it has waited long enough: nobody overtakes it any more
        for job in self._victims(view, now_s):
            yield Preempt(job)

    def next_wakeup_s(self, view: View, now_s: float) -> float | None:
        """Return when the next quantum ends, if anybody waits for it."""
        ends = (began_s + self.quantum_s for began_s in self._began.values())
        return next((end_s for end_s in ends if end_s > now_s), None) if view.queue else None

    def _victims(self, view: View, now_s: float) -> list[Job]:
        if not view.queue:
            return []
        over = []
        for job_id, began_s in self._began.items():
            if began_s + self.quantum_s > now_s:
                break
            job = view.running[job_id]
            if not job.stopping and job.target is None:
                over.append(job)
        if not over:
            return []
        room, chosen = Room(view.cluster, over[0]), []
        for job in view.leaving.values():
            room.leave(job)
        for job in view.queue:
            tried = 0
            while (nodes := room.place(job, job.nodes)) is None and tried < len(over):
                room.leave(over[tried])
                tried += 1
            if nodes is None:
                break  # it would not fit even then: nobody is preempted for nothing
            room.come(job, nodes)
            chosen += over[:tried]
            del over[:tried]
        return chosen
