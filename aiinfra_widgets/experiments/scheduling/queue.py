"""Jobs that wait, in the order of the policy, and in groups where a policy wants the first of each group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sortedcontainers import SortedList

from .jobs import Job


class WaitingQueue:
    """Waiting jobs, sorted by a key; of equal keys the one submitted first comes first.

    Attributes:
        groups: By group, its entries (key, number of submission, job) in order; none is empty.
    """

    def __init__(self, key: Callable[[Job, float], Any], group: Callable[[Job], Any]) -> None:
        self._key, self._group = key, group
        self.groups: dict[Any, SortedList] = {}
        self._spare: list[SortedList] = []  # empty ones; making one takes longer than using it
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, job: Job) -> bool:
        return job.entry is not None

    def __iter__(self) -> Iterator[Job]:
        """Yield all jobs in order."""
        lists = list(self.groups.values())
        entries = lists[0] if len(lists) == 1 else sorted(e for entries in lists for e in entries)
        return iter([entry[2] for entry in entries])

    def add(self, job: Job, now_s: float) -> None:
        """Take a job in; its key is made now and holds until it leaves."""
        job.entry = (self._key(job, now_s), job.seq, job)
        group = self._group(job)
        entries = self.groups.get(group)
        if entries is None:
            entries = self.groups[group] = self._spare.pop() if self._spare else SortedList()
        entries.add(job.entry)
        self._size += 1

    def remove(self, job: Job) -> None:
        """Let a job go."""
        group = self._group(job)
        entries = self.groups[group]
        entries.remove(job.entry)
        if not entries:
            self._spare.append(self.groups.pop(group))
        job.entry = None
        self._size -= 1

    def head(self) -> Job | None:
        """Return the first job of all, or None."""
        if self._size == 0:
            return None
        job: Job = min([entries[0] for entries in self.groups.values()])[2]
        return job

    def heads(self) -> list[Job]:
        """Return the first job of each group, in order."""
        return [entry[2] for entry in sorted(entries[0] for entries in self.groups.values())]
