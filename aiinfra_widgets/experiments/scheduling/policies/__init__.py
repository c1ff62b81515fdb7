"""Who gets the nodes: one class for one idea, and the registry of them by name."""

from __future__ import annotations

from typing import Any

from ....errors import UnknownNameError, near
from .base import Action, Policy, Preempt, Resize, Start, Stop, View
from .ordered import Fifo, Priority, Sjf

POLICIES: dict[str, type[Policy]] = {p.name: p for p in (Fifo, Priority, Sjf)}


def make_policy(name: str, **options: Any) -> Policy:
    """Return a new policy.

    Args:
        name: In the registry.
        options: Of its constructor (`ageing_per_s`, `quantum_s`, `trace` ...).

    Raises:
        UnknownNameError: With the near matches.
        ModelInputError: An option outside its range.
    """
    if name not in POLICIES:
        raise UnknownNameError(f"no policy {name!r}; {near(name, POLICIES)}")
    return POLICIES[name](**options)


__all__ = ["POLICIES", "Action", "Policy", "Preempt", "Resize", "Start", "Stop", "View", "make_policy"]
