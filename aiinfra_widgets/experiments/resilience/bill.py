"""What an hour of useful work costs, failures and all."""

from __future__ import annotations

from typing import Any

from ...bill import bill as bill_of
from ...bill import share
from ...machine.profile import Machine
from ...quantities import Value
from .spec import ResilienceSpec

HOUR_S = 3600.0


def bill(
    spec: ResilienceSpec, machine: Machine, nodes: Any, goodput: Any, busy: Any, counter_w: float | None = None
) -> dict[str, Value]:
    """Return energy and cost of an hour of useful work, and what of the price is due to failures and checkpoints.

    Args:
        spec: Region and price.
        machine: Whose power is charged.
        nodes: Held and paid for.
        goodput: Useful share of the wall time.
        busy: Processors kept busy, all nodes.
        counter_w: Power by a counter; None models it.
    """
    paid = {"region": spec.region, "price_usd_per_node_hour": spec.price_usd_per_node_hour, "nodes": nodes}
    counted = None if counter_w is None else counter_w * HOUR_S
    hour = bill_of(machine, wall_s=HOUR_S, cpu_s=busy * HOUR_S, counter_j=counted, **paid)
    price = hour["cost_usd"]
    return {
        "energy_per_useful_hour_j": share(hour["energy_j"], "energy_per_useful_hour_j", goodput),
        "cost_per_useful_hour_usd": share(price, "cost_per_useful_hour_usd", goodput),
        "resilience_cost_usd": Value(
            "resilience_cost_usd", price.value * (1 / goodput - 1), method=price.method, how=price.how
        ),
    }
