"""Policies that look at users: whoever has had least goes first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ....errors import ModelInputError
from ..jobs import Job
from .base import Action, Policy, Start, View, place


class _ByUser(Policy):
    """The first job of the user with the lowest share goes first; nobody overtakes it."""

    def group(self, job: Job) -> Any:
        """Return its user."""
        return job.user

    def share(self, view: View, user: str, now_s: float) -> float:
        """Return what counts against a user."""
        raise NotImplementedError

    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Start the first job of the user who has had least, while it fits."""
        while view.queue:
            job = min(view.queue.heads(), key=lambda j: (self.share(view, j.user, now_s), j.submit_s, j.seq))
            if (nodes := place(view, job)) is None:
                return
            yield Start(job, nodes)


class FairShare(_ByUser):
    """Users who have used little lately go first.

    Usage is in accelerator-seconds, and what was used one half-life ago counts half. All usage decays at the same rate, so
    time alone never changes who is next, and no wake-up is needed.

    Args:
        half_life_s: After which usage counts half; infinite for "since the beginning".

    Source: Kay and Lauder 1988; the decayed usage of Slurm's multifactor plugin.
    """

    name, title = "fair_share", "Fair share"

    def __init__(self, half_life_s: float = 7 * 86400.0) -> None:
        if not half_life_s > 0:
            raise ModelInputError(f"half_life_s must be > 0, got {half_life_s}; inf for usage that never fades")
        self._decay_per_s = math.log(2) / half_life_s
        self._usage: dict[str, float] = {}
        self._held: dict[str, int] = {}  # slots that a user holds now
        self._since: dict[str, float] = {}
        self._slots_of: dict[int, int] = {}

    def share(self, view: View, user: str, now_s: float) -> float:
        """Return the decayed usage in accelerator-seconds."""
        return self._settled(user, now_s)

    def started(self, job: Job, now_s: float) -> None:
        """Let usage grow by what the job holds."""
        self._hold(job.user, len(job.on) * job.slots, now_s)
        self._slots_of[job.id] = len(job.on) * job.slots

    def ended(self, job: Job, now_s: float) -> None:
        """Let usage grow no more by it."""
        self._hold(job.user, -self._slots_of.pop(job.id), now_s)

    def _hold(self, user: str, slots: int, now_s: float) -> None:
        self._usage[user] = self._settled(user, now_s)
        self._since[user] = now_s
        self._held[user] = self._held.get(user, 0) + slots

    def _settled(self, user: str, now_s: float) -> float:
        dt = now_s - self._since.get(user, now_s)
        if self._decay_per_s == 0:
            return self._usage.get(user, 0.0) + self._held.get(user, 0) * dt
        kept = math.exp(-self._decay_per_s * dt)
        return self._usage.get(user, 0.0) * kept + self._held.get(user, 0) * (1 - kept) / self._decay_per_s


class Drf(_ByUser):
    """Dominant resource fairness: the user goes first whose largest share of any resource is smallest.

    Resources are accelerators and memory, as held now; what was used in the past does not count.

    Source: Ghodsi et al. 2011 (NSDI), algorithm 1.
    """

    name, title = "drf", "Dominant resource fairness"

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._memory_bytes: dict[str, float] = {}
        self._parts: dict[int, int] = {}

    def share(self, view: View, user: str, now_s: float) -> float:
        """Return the dominant share, 0 to 1."""
        cluster = view.cluster
        slots = self._slots.get(user, 0) / cluster.num_slots
        return max(slots, self._memory_bytes.get(user, 0.0) / (cluster.memory_bytes * len(cluster.free)))

    def started(self, job: Job, now_s: float) -> None:
        """Count what it holds."""
        self._parts[job.id] = len(job.on)
        self._count(job, len(job.on))

    def ended(self, job: Job, now_s: float) -> None:
        """Count it no more."""
        self._count(job, -self._parts.pop(job.id))

    def _count(self, job: Job, parts: int) -> None:
        self._slots[job.user] = self._slots.get(job.user, 0) + parts * job.slots
        self._memory_bytes[job.user] = self._memory_bytes.get(job.user, 0.0) + parts * job.memory_bytes
