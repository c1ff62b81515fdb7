"""What would be free if some jobs left: the question behind every reservation and every preemption."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from .cluster import Cluster, Nodes
from .jobs import Job


class Room:
    """A copy of what is free, in which jobs may leave and come without anything happening to the machine.

    Args:
        cluster: The machine as it is now; its draining nodes are not room.
        job: For whom the room is sought.

    Attributes:
        num_fitting: Nodes on which one part of that job would fit.
    """

    def __init__(self, cluster: Cluster, job: Job) -> None:
        self._slots, self._memory_bytes = job.slots, job.memory_bytes
        self._free = dict(cluster.free)
        for node in cluster.draining:
            del self._free[node]
        # Memory is looked at only where it is a limit.
        self._free_memory = dict(cluster.free_memory) if cluster.memory_bytes < math.inf else None
        self.num_fitting = len([n for n in self._free if self._takes(n)])

    def leave(self, job: Job, nodes: Iterable[int] | None = None) -> None:
        """Let a job leave some of its nodes, or all."""
        self._change(job, job.on if nodes is None else nodes, 1)

    def come(self, job: Job, nodes: Iterable[int]) -> None:
        """Let a job come to nodes that have room for it."""
        self._change(job, nodes, -1)

    def num_fitting_beside(self, job: Job, nodes: Nodes) -> int:
        """Return `num_fitting` if a job came to these nodes."""
        self.come(job, nodes)
        found = self.num_fitting
        self.leave(job, nodes)
        return found

    def place(self, job: Job, num_nodes: int) -> Nodes | None:
        """Return where best fit would put a job of any shape, or None where it has no room."""
        fitting = [n for n in self._free if self._free[n] >= job.slots and self._has_memory(n, job.memory_bytes)]
        if len(fitting) < num_nodes:
            return None
        return tuple(heapq.nsmallest(num_nodes, fitting, key=lambda n: (self._free[n], n)))

    def _takes(self, node: int) -> bool:
        return self._free[node] >= self._slots and self._has_memory(node, self._memory_bytes)

    def _has_memory(self, node: int, memory_bytes: float) -> bool:
        return self._free_memory is None or self._free_memory[node] >= memory_bytes

    def _change(self, job: Job, nodes: Iterable[int], sign: int) -> None:
        free, least, step = self._free, self._slots, sign * job.slots
        for node in nodes:
            before = free.get(node)
            if before is None:
                continue  # it is draining: whoever leaves it leaves no room
            free[node] = before + step
            if self._free_memory is not None:
                fitted = before >= least and self._has_memory(node, self._memory_bytes)
                self._free_memory[node] += sign * job.memory_bytes
                self.num_fitting += self._takes(node) - fitted
            elif (before >= least) != (before + step >= least):
                self.num_fitting += sign
