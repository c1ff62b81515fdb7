"""Policies that are nothing but an order of the queue: the head starts when it fits, and nobody overtakes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....errors import ModelInputError
from ..jobs import Job
from .base import Action, Policy, View, start_in_order


class Fifo(Policy):
    """First come, first served. A wide job at the head holds up all behind it: the convoy effect."""

    name, title = "fifo", "First in, first out"

    def plan(self, view: View, now_s: float) -> Iterator[Action]:
        """Start the head while it fits."""
        return start_in_order(view)


class Sjf(Fifo):
    """Shortest job first, by the user's estimate. Least mean wait on one node; long jobs may starve."""

    name, title = "sjf", "Shortest job first"

    def key(self, job: Job, now_s: float) -> Any:
        """Return what the estimate leaves: a job that was preempted is shorter now."""
        return job.estimated_left_s(now_s)


class Priority(Fifo):
    """Highest priority first; waiting makes up for a low one.

    A job's rank is its priority plus `ageing_per_s` for each second since it was submitted. All waiting jobs age at the
    same rate, so the order of two of them never changes, and a sorted queue is enough: no wake-up is needed.

    Args:
        ageing_per_s: Priority gained by one second of waiting; 0 lets low priorities starve.
    """

    name, title = "priority", "Priority with ageing"

    def __init__(self, ageing_per_s: float = 0.0) -> None:
        if not ageing_per_s >= 0:
            raise ModelInputError(f"ageing_per_s must be >= 0, got {ageing_per_s}; 0 switches ageing off")
        self.ageing_per_s = ageing_per_s

    def key(self, job: Job, now_s: float) -> Any:
        """Return the rank at time 0, negated: the highest comes first."""
        return (self.ageing_per_s * job.submit_s - job.priority, job.submit_s)
