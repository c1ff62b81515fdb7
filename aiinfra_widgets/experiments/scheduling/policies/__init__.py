"""Who gets the nodes: one class for one idea, and the registry of them by name."""

from __future__ import annotations

from typing import Any

from ....errors import UnknownNameError, near
from .backfill import EasyBackfill
from .base import Action, Policy, Preempt, Resize, Start, Stop, View
from .elastic import Elastic
from .fair import Drf, FairShare
from .ordered import Fifo, Priority, Sjf
from .preemptive import Gang, Srtf
from .timed import CarbonAware, Deadline, PriceAware

_ALL = (Fifo, Priority, Sjf, Srtf, EasyBackfill, FairShare, Drf, Gang, Elastic, Deadline, CarbonAware, PriceAware)
POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in _ALL}


def make_policy(name: str, **options: Any) -> Policy:
    """Return a new policy.

    Args:
        name: In the registry.
        options: Of its constructor: `ageing_per_s` (priority), `cost_s` (srtf), `half_life_s` (fair_share), `quantum_s`
            (gang), `resize_cost_s` (elastic), `trace` and `max_delay_s` (carbon, price).

    Raises:
        UnknownNameError: With the near matches.
        ModelInputError: An option outside its range.
    """
    if name not in POLICIES:
        raise UnknownNameError(f"no policy {name!r}; {near(name, POLICIES)}")
    return POLICIES[name](**options)


__all__ = ["POLICIES", "Action", "Policy", "Preempt", "Resize", "Start", "Stop", "View", "make_policy"]
