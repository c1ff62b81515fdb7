"""What an answer costs in energy and money."""

from __future__ import annotations

from typing import Any

from ...bill import bill as bill_of
from ...bill import share
from ...machine.profile import Machine
from ...quantities import Value
from .spec import ServingSpec


def bill(
    spec: ServingSpec,
    machine: Machine,
    nodes: Any,
    answers_per_s: Any,
    cpu_frac: Any,
    wall_s: Any,
    counter_j: float | None = None,
) -> dict[str, Value]:
    """Return energy, cost and carbon of `wall_s` seconds of service, and of one answer.

    Args:
        spec: Region and price.
        machine: Whose power is charged.
        nodes: Servers that are held and paid for.
        answers_per_s: How many share the bill.
        cpu_frac: Processors that the ranks keep busy, all of them together.
        wall_s: How long.
        counter_j: Energy by a counter; None models it.
    """  # fmt: skip
    paid = {"region": spec.region, "price_usd_per_node_hour": spec.price_usd_per_node_hour, "nodes": nodes}
    whole = bill_of(machine, wall_s=wall_s, cpu_s=cpu_frac * wall_s, counter_j=counter_j, **paid)
    answers = answers_per_s * wall_s
    return {
        **whole,
        "energy_per_request_j": share(whole["energy_j"], "energy_per_request_j", answers),
        "cost_per_million_requests_usd": share(whole["cost_usd"], "cost_per_million_requests_usd", answers / 1e6),
    }
