"""Who holds which nodes since when: the one place where a job gets nodes and gives them back."""

from __future__ import annotations

from typing import NamedTuple

from .cluster import Cluster, Nodes
from .jobs import Job


class Interval(NamedTuple):
    """One bar of a Gantt chart: a job held a node from start to end."""

    job: int
    node: int
    start_s: float
    end_s: float


class Holdings:
    """The books of a cluster.

    Attributes:
        intervals: Who held which node when, as far as it is over; empty unless `record`.
    """

    def __init__(self, cluster: Cluster, record: bool) -> None:
        self.cluster, self._record = cluster, record
        self.intervals: list[Interval] = []
        self._since: dict[tuple[int, int], float] = {}

    def take(self, job: Job, nodes: Nodes, now_s: float) -> None:
        """Give a job more nodes."""
        self.cluster.allocate(job.id, nodes, job.slots, job.memory_bytes)
        self.charge(job, now_s)
        job.on = job.on + nodes if job.on else nodes
        if self._record:
            for node in nodes:
                self._since[job.id, node] = now_s

    def give_back(self, job: Job, nodes: Nodes, now_s: float) -> None:
        """Free some nodes of a job, or all."""
        self.cluster.release(job.id, nodes)
        self.charge(job, now_s)
        job.on = () if nodes == job.on else tuple(n for n in job.on if n not in nodes)
        if self._record:
            self.intervals += [Interval(job.id, n, self._since.pop((job.id, n)), now_s) for n in nodes]

    def charge(self, job: Job, now_s: float) -> None:
        """Bring up to date for how long a job has held how many nodes."""
        if job.on:
            job.held_s += now_s - job.charged_s
            job.held_node_s += len(job.on) * (now_s - job.charged_s)
        job.charged_s = now_s

    def open_intervals(self, now_s: float) -> list[Interval]:
        """Return the bars that are not over, as if they ended now."""
        return [Interval(job, node, start_s, now_s) for (job, node), start_s in self._since.items()]
