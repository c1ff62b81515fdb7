"""How long a training step takes while others train on the same cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from ...errors import ModelInputError
from ...machine.profile import Machine
from ...quantities import show
from ...workloads import catalog
from ...workloads.step_times import StepTimes
from .spec import SchedulingSpec


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step of a job, as a function of its nodes and of all nodes that train, and what a reader must know of it."""

    seconds: Callable[[int, int], float]
    notes: tuple[str, ...] = ()


def step_time(spec: SchedulingSpec, machine: Machine) -> StepTime:
    """Return the time of a step: as injected, or longer where the nodes' arithmetic does not fit on the cores.

    Args:
        spec: What is asked.
        machine: For the arithmetic; where it is not calibrated that is taken as free, and a note says so.

    Valid when: nodes are ranks of one thread on one machine; the cores are shared evenly.
    Off by: low when arithmetic takes more than half of an injected step, for then chance makes some steps late; low where a
        rank that waits for another one spins.
    """
    facts = catalog.facts(spec.workload)
    try:
        times = StepTimes(machine)
        alone_s = float(
            times.forward_backward_s(facts.layers(), facts.task, float(spec.batch))
            + times.gather_s(math.prod(facts.sample_shape), spec.batch)
            + (times.glue_s + times.update_s(facts.params, 1.0) + times.tail_s(1.0) + times.runtime_s())
        )
    except ModelInputError:
        note = (
            "This machine is not calibrated: arithmetic is taken as free, and a step lasts as long as it is injected."
        )
        return StepTime(lambda nodes, busy: spec.step_s, (note,))

    @cache
    def seconds(nodes: int, busy: int) -> float:
        work_s = alone_s + float(times.allreduce_s(facts.gradient_bytes + 8.0 + 8.0 * nodes, float(nodes)))
        return max(spec.step_s, work_s * max(1.0, busy / machine.cores))

    longest_s = seconds(min(spec.most_demand, spec.nodes), spec.nodes)
    if longest_s <= spec.step_s:
        return StepTime(seconds)
    took, asked = show("step_time_s", longest_s), show("step_time_s", spec.step_s)
    note = f"{spec.nodes} nodes share {machine.cores} cores: while all of them train, a step takes {took} instead of {asked}."
    return StepTime(seconds, (note,))
