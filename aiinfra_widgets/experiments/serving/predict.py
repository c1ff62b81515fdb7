"""What queueing theory says of a service under load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...machine.profile import Machine
from ...models import allen_cunneen_wait_s
from ...quantities import Prediction, Value
from .spec import ServingSpec

MODEL = "serving 1"


def predict(spec: ServingSpec, machine: Machine, **over: Any) -> Prediction:
    """Return mean response and its parts."""
    rate = over.get("arrival_rate_per_s", spec.arrival_rate_per_s)
    nodes = over.get("nodes", spec.nodes)
    wait = allen_cunneen_wait_s(rate, 1 / spec.mean_service_s, nodes, spec.service_scv, 1.0)
    rho = np.minimum(rate * spec.mean_service_s / nodes, 1.0)
    values = {
        "mean_response_s": Value("mean_response_s", wait + spec.mean_service_s, how="Allen-Cunneen"),
        "mean_wait_s": Value("mean_wait_s", wait, how="Allen-Cunneen"),
        "mean_service_s": Value("mean_service_s", spec.mean_service_s, how="as asked"),
        "utilization_frac": Value("utilization_frac", rho, how="load over capacity"),
        "queue_length": Value("queue_length", rate * wait, how="Little"),
    }
    return Prediction(values, model=MODEL, machine_id=machine.id)


def sweep(spec: ServingSpec, machine: Machine) -> Sequence[float]:
    """Return loads to draw."""
    most = spec.nodes / spec.mean_service_s
    return list(np.linspace(0.02, 1.05, 40) * most)


def references(spec: ServingSpec, machine: Machine, quantity: str, values: Sequence[float]) -> dict[str, Any]:
    """Return other curves."""
    return {}
