"""The scheduler's figures as values that say where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ...bill import BAND
from ...quantities import Value

#: Figures of `metrics` under their names in the vocabulary.
NAMES = {
    "mean_wait_s": "mean_wait_s", "p95_wait_s": "p95_wait_s", "mean_turnaround_s": "mean_response_s",
    "mean_slowdown": "mean_slowdown", "makespan_s": "makespan_s", "utilization_frac": "utilization_frac",
    "fairness_frac": "fairness_frac", "jobs_ended": "num_ended", "jobs_done": "num_done", "jobs_late": "num_late", "energy_j": "energy_j",
    "cost_usd": "cost_usd", "operational_gco2e": "operational_gco2e",
}  # fmt: skip
ENERGY = {
    "energy_j": "a node is one processor of this machine, busy while a job holds it",
    "cost_usd": "rent of all nodes, and electricity at the assumed hours' prices",
    "operational_gco2e": "the grid's yearly mean over an assumed day",
}


def to_values(
    figures: Mapping[str, float | None], *, method: Literal["measured", "modelled"], how: str, n: int | None = None
) -> dict[str, Value]:
    """Return `metrics` as values; energy, cost and carbon are modelled on either side."""
    found = {}
    for name, figure in NAMES.items():
        number = figures.get(figure)
        if number is None:
            continue
        if name in ENERGY:
            band = (1 - BAND, 1 + BAND) if name != "cost_usd" else (1.0, 1.0)
            kind: Literal["measured", "modelled", "assumed"] = "assumed" if name == "cost_usd" else "modelled"
            found[name] = Value(name, number, number * band[0], number * band[1], kind, ENERGY[name])
        else:
            found[name] = Value(name, number, method=method, how=how, n=n)
    return found
