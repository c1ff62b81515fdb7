"""Elastic jobs: they shrink to let others in, and grow to fill what nobody wants."""

from __future__ import annotations

from collections.abc import Iterator

from ....errors import ModelInputError
from ..jobs import Job
from ..room import Room
from .base import Action, Policy, Resize, Start, View, place


class Elastic(Policy):
    """First in, first out, with jobs that change their size.

    The head starts on what is free, if that is at least its `min_nodes`; on more than it demands if the others that wait
    leave that over. If too little is free, running jobs give nodes up, those with the most above their own `min_nodes`
    first. When nobody waits, running jobs grow up to their `max_nodes`.

    Args:
        resize_cost_s: What a resize costs a job; it grows only if it would be done earlier by more than that.

    Source: the idea of Pollux and of Optimus, without their models of progress: speed is proportional to nodes.
    """

    name, title = "elastic", "Elastic"
    plans_for_none = True

    def __init__(self, resize_cost_s: float = 0.0) -> None:
        if not resize_cost_s >= 0:
            raise ModelInputError(f"resize_cost_s must be >= 0, got {resize_cost_s}; what one resize costs, in seconds")
        self.resize_cost_s = resize_cost_s
        self._elastic: dict[int, Job] = {}  # those that run

    def least_nodes(self, job: Job) -> int:
        """Return its `min_nodes`."""
        return job.min_nodes

    def started(self, job: Job, now_s: float) -> None:
        """Remember it if it can change its size."""
        if job.elastic:
            self._elastic[job.id] = job

    def ended(self, job: Job, now_s: float) -> None:
        """Forget it."""
        self._elastic.pop(job.id, None)

    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Let the head in, at the cost of others if need be; if nobody waits, grow."""
        while (head := view.queue.head()) is not None:
            fitting = view.cluster.num_fitting(head.slots, head.memory_bytes)
            if fitting < head.min_nodes:
                yield from self._shrink(view, head)
                return
            most = head.nodes
            if head.max_nodes > head.nodes:
                left_over = fitting - sum(job.nodes for job in view.queue if job is not head)
                most = max(head.nodes, min(head.max_nodes, left_over))
            nodes = place(view, head, min(fitting, most))
            assert nodes is not None
            yield Start(head, nodes)
        yield from self._grow(view, now_s)

    def _shrink(self, view: View, head: Job) -> list[Resize]:
        """Return how running jobs make room for the head; nothing if they cannot, or if enough is coming free anyway."""
        room = Room(view.cluster, head)
        for job in view.leaving.values():
            room.leave(job)
        for job in self._elastic.values():
            if job.target is not None and not job.stopping:
                room.leave(job, [n for n in job.on if n not in job.target])
        rich = [j for j in self._elastic.values() if not j.stopping and j.target is None and len(j.on) > j.min_nodes]
        rich.sort(key=lambda j: j.min_nodes - len(j.on))
        plan = []
        for job in rich:
            left = len(job.on)
            while room.num_fitting < head.min_nodes and left > job.min_nodes:
                left -= 1
                room.leave(job, job.on[left : left + 1])
            if left < len(job.on):
                plan.append(Resize(job, job.on[:left]))
        return plan if room.num_fitting >= head.min_nodes else []

    def _grow(self, view: View, now_s: float) -> Iterator[Action]:
        """Let running jobs take what is free, those with the smallest part of what they could use first."""
        hungry = [j for j in self._elastic.values() if not j.stopping and j.target is None and len(j.on) < j.max_nodes]
        for job in sorted(hungry, key=lambda j: len(j.on) / j.max_nodes):
            fitting = view.cluster.num_fitting(job.slots, job.memory_bytes)
            free = (place(view, job, fitting) or ()) if fitting else ()
            more = tuple(n for n in free if n not in job.on)[: job.max_nodes - len(job.on)]
            left_s = job.estimated_left_s(now_s) * job.nodes
            if more and left_s / len(job.on) - left_s / (len(job.on) + len(more)) > self.resize_cost_s:
                yield Resize(job, job.on + more)
