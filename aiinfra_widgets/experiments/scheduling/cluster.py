"""The machine: nodes with slots (accelerators), who holds which, and where the next job fits best.

Placement is best fit: among the nodes with enough free slots those with the fewest, and of equals the lowest id. So it is
a function of what is free now, and of nothing else.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence

from ...errors import ControlError, ModelInputError

Nodes = tuple[int, ...]


class Cluster:
    """Nodes of one kind.

    Attributes:
        slots: Accelerators of a node.
        memory_bytes: Of a node; infinite where memory is no limit.
        free: Free slots of every node there is, by node id.
        held: Of every node, the slots that each job holds there.
        num_slots, num_busy: All slots, and those held.
        draining: Nodes that take no new job, and leave with their last one.
        version: Changes whenever nodes come, or begin to leave.
        num_partly_free: Free slots on nodes that also have busy ones: what a gang of whole nodes cannot have.
    """

    def __init__(self, nodes: int | Iterable[int], slots: int = 1, memory_bytes: float = math.inf) -> None:
        """Make a machine.

        Args:
            nodes: How many (their ids are 0, 1, ...), or their ids.
            slots: Accelerators of each node.
            memory_bytes: Of each node.

        Raises:
            ModelInputError: No slot, no memory, or an id twice.
        """
        if slots < 1 or not memory_bytes > 0:
            raise ModelInputError(
                f"a node has {slots} slots and {memory_bytes} bytes; allowed: at least 1 slot, and memory above 0"
            )
        self.slots, self.memory_bytes = slots, memory_bytes
        self.free: dict[int, int] = {}
        self.free_memory: dict[int, float] = {}
        self.held: dict[int, dict[int, int]] = {}
        self.draining: set[int] = set()
        self.version = 0
        self.num_slots = self.num_busy = self.num_partly_free = 0
        self._memory_of: dict[tuple[int, int], float] = {}
        self._count = [0] * (slots + 1)  # nodes that take jobs, by free slots
        self._heaps: list[list[int]] = [[] for _ in range(slots + 1)]  # their ids; entries may be out of date
        self._pushed = 0  # since they were tidied
        self.add(range(nodes) if isinstance(nodes, int) else nodes)

    @property
    def num_nodes(self) -> int:
        """Nodes that take jobs: there, and not draining."""
        return len(self.free) - len(self.draining)

    def add(self, nodes: Iterable[int]) -> None:
        """Add empty nodes. A node that was draining takes jobs again.

        Raises:
            ModelInputError: A node that is there already.
        """
        nodes = list(nodes)
        there = [n for n in nodes if n in self.free and n not in self.draining]
        if there or len(set(nodes)) < len(nodes):
            raise ModelInputError(
                f"nodes {nodes[:20]}: {there[:5] or 'some'} would be in the machine twice; give each node an id of its own"
            )
        self.version += 1
        for node in nodes:
            if node in self.draining:
                self.draining.discard(node)
            else:
                self.free[node], self.held[node] = self.slots, {}
                self.free_memory[node] = self.memory_bytes
                self.num_slots += self.slots
            self._count[self.free[node]] += 1
            heapq.heappush(self._heaps[self.free[node]], node)

    def drain(self, node: int) -> None:
        """Take no new job on `node`; it leaves the machine when its last job has left it, at once if it is empty.

        Raises:
            ControlError: There is no such node.
        """
        self._need(node)
        self.version += 1
        if node not in self.draining:
            self.draining.add(node)
            self._count[self.free[node]] -= 1
        self._leave_if_empty(node)

    def jobs_on(self, node: int) -> list[int]:
        """Return the ids of the jobs on `node`.

        Raises:
            ControlError: There is no such node.
        """
        self._need(node)
        return list(self.held[node])

    def num_fitting(self, slots: int, memory_bytes: float = 0.0) -> int:
        """Return how many nodes could take a job of that many slots and bytes a node, now."""
        if memory_bytes <= 0 or self.memory_bytes == math.inf:
            return sum(self._count[slots:])
        return len([n for n in self.free if self._takes(n, slots, memory_bytes)])

    def place(self, num_nodes: int, slots: int, memory_bytes: float = 0.0) -> Nodes | None:
        """Return the nodes that best fit takes, or None where there are too few. Nothing is allocated."""
        if memory_bytes > 0 and self.memory_bytes < math.inf:
            fitting = [n for n in self.free if self._takes(n, slots, memory_bytes)]
            if len(fitting) < num_nodes:
                return None
            return tuple(heapq.nsmallest(num_nodes, fitting, key=lambda n: (self.free[n], n)))
        if sum(self._count[slots:]) < num_nodes:
            return None
        if num_nodes == 1:
            for free in range(slots, self.slots + 1):
                if self._count[free]:
                    return (self._first(free),)
        found: list[int] = []
        for free in range(slots, self.slots + 1):
            wanted = min(num_nodes - len(found), self._count[free])
            if wanted:
                found += self._smallest(free, wanted)
        return tuple(found)

    def allocate(self, job: int, nodes: Sequence[int], slots: int, memory_bytes: float = 0.0) -> None:
        """Give `slots` and the memory on each of `nodes` to a job.

        Raises:
            ControlError: A node that is not there, takes no jobs, is too full, or holds this job already.
        """
        free, held, counts, heaps = self.free, self.held, self._count, self._heaps
        for node in nodes:
            if free.get(node, -1) < slots or node in self.draining or job in held[node]:
                raise ControlError(f"job {job} cannot have {slots} slots on node {node}: {self._state_of(node)}")
            if memory_bytes > self.free_memory[node]:
                raise ControlError(
                    f"job {job} cannot have {memory_bytes:g} bytes on node {node}: {self.free_memory[node]:g} free"
                )
        for node in nodes:
            before = free[node]
            free[node] = after = before - slots
            held[node][job] = slots
            counts[before] -= 1
            counts[after] += 1
            self.num_partly_free += after - (before if before < self.slots else 0)
            if after:
                heapq.heappush(heaps[after], node)
        self._tidy(len(nodes))
        self.num_busy += slots * len(nodes)
        if memory_bytes:
            for node in nodes:
                self.free_memory[node] -= memory_bytes
                self._memory_of[job, node] = memory_bytes

    def release(self, job: int, nodes: Sequence[int]) -> None:
        """Take back what a job holds on each of `nodes`; a draining node that is empty now leaves.

        Raises:
            ControlError: The job holds nothing there: every slot is given back exactly once.
        """
        free, held, counts, heaps = self.free, self.held, self._count, self._heaps
        for node in nodes:
            slots = held[node].pop(job, 0) if node in held else 0
            if not slots:
                raise ControlError(f"job {job} holds nothing on node {node}, so it cannot give it back")
            before = free[node]
            free[node] = after = before + slots
            self.num_busy -= slots
            self.num_partly_free += (after if after < self.slots else 0) - before
            if self._memory_of:
                self.free_memory[node] += self._memory_of.pop((job, node), 0.0)
            if node in self.draining:
                self._leave_if_empty(node)
            else:
                counts[before] -= 1
                counts[after] += 1
                heapq.heappush(heaps[after], node)
        self._tidy(len(nodes))

    def _need(self, node: int) -> None:
        if node not in self.free:
            raise ControlError(f"there is no node {node}; there are {sorted(self.free)[:20]}")

    def _state_of(self, node: int) -> str:
        if node not in self.free:
            return "it is not in the machine"
        return f"{self.free[node]} of {self.slots} free" + (", and it takes no jobs" * (node in self.draining))

    def _takes(self, node: int, slots: int, memory_bytes: float) -> bool:
        return self.free[node] >= slots and self.free_memory[node] >= memory_bytes and node not in self.draining

    def _leave_if_empty(self, node: int) -> None:
        if not self.held[node]:
            self.num_slots -= self.slots
            self.draining.discard(node)
            del self.free[node], self.held[node], self.free_memory[node]

    def _tidy(self, pushed: int) -> None:
        """Old entries stay in the heaps until they are met: now and then, throw them out where they are too many."""
        self._pushed += pushed
        if self._pushed < len(self.free) + 64:
            return
        self._pushed, most = 0, 2 * len(self.free) + 64
        for slots, heap in enumerate(self._heaps):
            if len(heap) > most:
                heap[:] = sorted({n for n in heap if self.free.get(n) == slots and n not in self.draining})

    def _first(self, free: int) -> int:
        """Return the lowest node with that many free slots; there is one."""
        heap, now = self._heaps[free], self.free
        while now.get(heap[0]) != free or heap[0] in self.draining:
            heapq.heappop(heap)
        return heap[0]

    def _smallest(self, free: int, wanted: int) -> list[int]:
        """Return the `wanted` lowest nodes with that many free slots; there are as many."""
        heap = self._heaps[free]
        found: list[int] = []
        while len(found) < wanted:
            node = self._first(free)
            heapq.heappop(heap)
            if not found or found[-1] != node:
                found.append(node)
        for node in found:
            heapq.heappush(heap, node)
        return found
