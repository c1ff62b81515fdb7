"""What a step costs in energy, money and carbon."""

from __future__ import annotations

from typing import Any

from ...bill import bill as bill_of
from ...bill import share
from ...machine.profile import Machine
from ...quantities import Value
from .spec import TrainingSpec


def bill(
    spec: TrainingSpec,
    machine: Machine,
    nodes: Any,
    step_s: Any,
    cpu_s: Any,
    steps: Any = 1,
    counter_j: float | None = None,
) -> dict[str, Value]:
    """Return energy, cost and carbon of `steps` steps, and energy and cost of one.

    Args:
        spec: Region and price.
        machine: Whose idle power is charged for as long as the steps last.
        nodes: How many are held and paid for.
        step_s: Seconds of one step.
        cpu_s: Processor seconds of one step, all nodes.
        steps: How many steps.
        counter_j: Energy by a counter, for all steps; None models it.
    """  # fmt: skip
    paid = {"region": spec.region, "price_usd_per_node_hour": spec.price_usd_per_node_hour, "nodes": nodes}
    whole = bill_of(machine, wall_s=step_s * steps, cpu_s=cpu_s * steps, counter_j=counter_j, **paid)
    count = max(steps, 1)
    return {
        **whole,
        "energy_per_step_j": share(whole["energy_j"], "energy_per_step_j", count),
        "cost_per_step_usd": share(whole["cost_usd"], "cost_per_step_usd", count),
    }
