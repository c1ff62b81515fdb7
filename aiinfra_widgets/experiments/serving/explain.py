"""Causes of a difference that only this experiment can name."""

from __future__ import annotations

from collections.abc import Mapping

from ...machine.profile import Machine
from ...quantities import Prediction, Value, show
from .spec import ServingSpec


def explain(spec: ServingSpec, machine: Machine, predicted: Prediction, measured: Mapping[str, Value]) -> list[str]:
    """Return sentences, best first."""

    def number(name: str) -> float | None:
        found = measured.get(name)
        return None if found is None else found.value

    found = []
    offered, late, response = number("arrived_per_s"), number("lateness_s"), measured.get("mean_response_s")
    if offered is not None and spec.arrivals in {"poisson", "constant", "bursty"}:
        off = offered / spec.arrival_rate_per_s - 1
        if abs(off) > 0.05:
            more = "more" if off > 0 else "less"
            found.append(
                f"By chance the load was {abs(off):.0%} {more} than asked: {show('arrived_per_s', offered)} arrived."
            )
    if late is not None and response is not None and response.value and late > 0.1 * response.value:
        found.append(
            f"The generator was up to {show('s', late)} late, which counts as waiting: these cores are too busy to offer this load."
        )
    mean = predicted.get("mean_response_s")
    if response is not None and response.low is not None and response.high is not None and mean and response.value:
        width = (response.high - response.low) / response.value
        if response.low <= mean <= response.high and abs(mean / response.value - 1) > 0.05:
            found.append(
                f"The difference is within chance: the measured mean is known to {width / 2:.0%} only; a longer segment narrows it."
            )
    return found
