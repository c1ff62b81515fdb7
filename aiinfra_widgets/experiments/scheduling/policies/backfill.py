"""EASY backfill: the head of the queue has a reservation, and others may overtake it if they do not delay that."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any

from sortedcontainers import SortedList

from ..cluster import Cluster
from ..jobs import Job
from ..room import Room
from .base import Action, Start, View, place, start_in_order
from .ordered import Fifo

#: (when it should end, number of submission, job)
Ending = tuple[float, int, Job]


class Reservation:
    """When the head of the queue can start at the latest, if every running job ends when its user said.

    Kept up to date while jobs start and end, because finding it anew at each event would cost a walk over the running jobs.

    Attributes:
        head: Whose reservation it is.
        start_s: When enough nodes are free; a time that has passed means "any moment now".
    """

    def __init__(self, cluster: Cluster, head: Job, endings: list[Ending]) -> None:
        """Find it.

        Args:
            cluster: The machine.
            head: For whom.
            endings: A heap of what runs; entries of jobs that have ended are thrown out as they are met.
        """
        self.head, self._cluster = head, cluster
        self._version = cluster.version
        self._room = Room(cluster, head)  # as it will be at `start_s`
        self._awaited: SortedList = SortedList()  # who is gone by then
        self.start_s = -math.inf
        met: list[Ending] = []
        while endings and (self._room.num_fitting < head.nodes or endings[0][0] <= self.start_s):
            ending = heapq.heappop(endings)
            if ending[0] == ending[2].expected_end_s and ending not in met[-1:]:
                self._room.leave(ending[2])
                met.append(ending)
                self.start_s = ending[0]
        self._awaited.update(met)
        for ending in met:
            heapq.heappush(endings, ending)

    def holds(self, head: Job) -> bool:
        """Whether this is still the reservation of the head, on the same machine."""
        return self.head is head and self._version == self._cluster.version

    def spares(self, job: Job) -> bool:
        """Whether the head can do without the nodes that a job, which fits now, would get."""
        if self._room.num_fitting - job.nodes >= self.head.nodes:
            return True
        if job.slots == self._cluster.slots:
            return False  # it takes whole nodes, each of which the head could have used
        nodes = self._cluster.place(job.nodes, job.slots, job.memory_bytes)
        return nodes is not None and self._room.num_fitting_beside(job, nodes) >= self.head.nodes

    def started(self, ending: Ending) -> None:
        """A job has started: it is gone in time, or takes room from then on."""
        if ending[0] <= self.start_s:
            self._awaited.add(ending)
        else:
            self._room.come(ending[2], ending[2].on)

    def ended(self, ending: Ending) -> None:
        """A job has ended, maybe before its user said: then the head may be able to start earlier."""
        if ending in self._awaited:
            self._awaited.remove(ending)
            if ending[0] < self.start_s:
                return  # the last of those whom the head waits for is still there, and still needed
        else:
            self._room.leave(ending[2])
        while self._awaited:
            last_s = self._awaited[-1][0]
            group = list(self._awaited.irange((last_s, -1)))
            for _, _, job in group:
                self._room.come(job, job.on)
            if self._room.num_fitting < self.head.nodes:
                for _, _, job in group:
                    self._room.leave(job)
                break
            del self._awaited[-len(group) :]
        self.start_s = self._awaited[-1][0] if self._awaited else -math.inf


class EasyBackfill(Fifo):
    """First in, first out, with holes filled: a job may overtake if the head can still start when it could have.

    That is: it ends, by its user's estimate, before the head's reservation, or leaves the head enough nodes. Of those that
    may, the first in the queue starts, until none may.

    Off by: users' estimates; one that is too low delays the head, one that is too high hides a hole.
    Source: Lifka 1995 (the ANL/IBM SP scheduler); Mu'alem and Feitelson 2001.
    """

    name, title = "easy", "EASY backfill"

    def __init__(self) -> None:
        self._endings: list[Ending] = []  # a heap; entries of jobs that have ended stay until they are met
        self._num_running = 0
        self._reservation: Reservation | None = None

    def key(self, job: Job, now_s: float) -> Any:
        """Return when it came. What its estimate leaves is never compared: it is there because the search asks it so often."""
        return (job.submit_s, job.seq, job.estimated_left_s(now_s))

    def group(self, job: Job) -> Any:
        """Return its shape: jobs of one shape fit, or do not, together."""
        return (job.nodes, job.slots, job.memory_bytes)

    def started(self, job: Job, now_s: float) -> None:
        """Note when the job should end."""
        ending = (job.expected_end_s, job.seq, job)
        heapq.heappush(self._endings, ending)
        self._num_running += 1
        if len(self._endings) > 2 * self._num_running + 64:
            self._endings = sorted(e for e in self._endings if e[0] == e[2].expected_end_s)
        if self._reservation is not None:
            if self._reservation.head is job:
                self._reservation = None
            else:
                self._reservation.started(ending)

    def ended(self, job: Job, now_s: float) -> None:
        """Forget it."""
        self._num_running -= 1
        if self._reservation is not None:
            self._reservation.ended((job.expected_end_s, job.seq, job))

    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Start the head while it fits; then fill the holes before its reservation."""
        yield from start_in_order(view)
        head = view.queue.head()
        if head is None or len(view.queue) == 1:
            return
        if self._reservation is None or not self._reservation.holds(head):
            self._reservation = Reservation(view.cluster, head, self._endings)
        while (found := self._next(view, self._reservation, now_s)) is not None:
            yield found

    def _next(self, view: View, reservation: Reservation, now_s: float) -> Start | None:
        """Return the start of the first job in the queue that may overtake the head."""
        best: Any = None
        for (num_nodes, slots, memory_bytes), entries in view.queue.groups.items():
            if best is not None and best < entries[0]:
                continue
            if view.cluster.num_fitting(slots, memory_bytes) < num_nodes:
                continue
            latest_s = math.inf if reservation.spares(entries[0][2]) else reservation.start_s
            for entry in entries:
                if best is not None and best < entry:
                    break
                if now_s + entry[0][2] <= latest_s and entry[2] is not reservation.head:
                    best = entry
                    break
        if best is None:
            return None
        nodes = place(view, best[2])
        assert nodes is not None
        return Start(best[2], nodes)
