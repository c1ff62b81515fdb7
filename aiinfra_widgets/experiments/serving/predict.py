"""What queueing theory says of a service under load: formulas where there are any, a simulation that says so elsewhere.

# L loads of a sweep (any shape that broadcasts)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...machine.profile import Machine
from ...models import (
    knee_rate_per_s,
    mdc_wait_s,
    mmc_queue_length,
    mmc_response_percentile_s,
    mmc_response_s,
    naive_response_s,
)
from ...quantities import Prediction, Value
from .bill import bill
from .service_time import ServiceTime, service_time
from .spec import ServingSpec
from .theory import Figures, closed_form_figures, continuous_figures, has_formula, simulated_figures, transient_figures

MODEL = "serving 1"
#: Assumed: processors that the desk keeps busy, and each server beside its service: they look for messages all the time.
DESK_CPU, SERVER_CPU = 0.15, 0.04
#: Assumed: an answer takes so long from the end of its service to the desk: one look at a message on either side.
WAY_BACK_S = 3e-4
#: From this share of the capacity on a queue does not settle while anybody watches.
NEARLY = 0.999
SWEEP_POINTS, SIMULATED_POINTS = 40, 14
NAMES = (
    "mean_response_s", "mean_wait_s", "mean_service_s", "p50_response_s", "p95_response_s", "p99_response_s", "utilization_frac",
    "queue_length", "completed_per_s", "slo_goodput_per_s", "failed_frac",
)  # fmt: skip


def predict(spec: ServingSpec, machine: Machine, **over: Any) -> Prediction:
    """Return response times, queue and utilisation; at a load that cannot be served, their course over the run.

    Args:
        spec: What is asked.
        machine: For the time of a real service, for cores and power.
        over: Fields of `theory.SWEPT` replaced by arrays that broadcast together.

    Raises:
        ModelInputError: A field that cannot be swept, or a service whose time was never calibrated.

    Valid when: the load lasts long enough to settle. Off by: what the ranks take from each other's cores; `notes` say which
    formula was used and where it is known to be wrong.
    """
    time = service_time(spec, machine)
    middle = _figures(spec, machine, time.mean_s, time, over)
    low, high = (_figures(spec, machine, t, time, over) for t in (time.low_s, time.high_s))
    values = {}
    for name in NAMES:
        if name not in middle.values:
            continue
        at, *ends = (f.values.get(name, middle.values[name]) for f in (middle, low, high))
        edges = np.sort(np.broadcast_arrays(at, *ends), axis=0)
        values[name] = Value(name, _plain(at), _plain(edges[0]), _plain(edges[-1]), "modelled", middle.how)
    values["dispatch_time_s"] = Value(
        "dispatch_time_s", WAY_BACK_S, method="assumed", how="one look at a message on either side"
    )
    if not over:
        values.update(_bill(spec, machine, values))
    return Prediction(values, (*middle.notes, *_notes(spec, time)), MODEL, machine.id)


def _figures(spec: ServingSpec, machine: Machine, mean_s: Any, time: ServiceTime, over: dict[str, Any]) -> Figures:
    """Return the figures for one mean service time, by formula, simulation, or as a course where the load is too high."""
    cores = machine.cores if spec.service != "synthetic" else None
    if spec.batching == "continuous":
        found = continuous_figures(spec, time, cores, over)
    elif has_formula(spec, cores):
        found = closed_form_figures(spec, mean_s, time.scv, cores, over)
    else:
        found = simulated_figures(spec, time, mean_s, cores, over)
    rate = over.get("arrival_rate_per_s", spec.arrival_rate_per_s)
    endless = not (spec.queue_limit or spec.timeout_s)
    if not over and endless and rate * mean_s >= NEARLY * _capacity(spec, cores) and spec.batching == "none":
        found = transient_figures(spec, mean_s, time.scv, cores)
    response = found.values["mean_response_s"] + WAY_BACK_S
    return Figures({**found.values, "mean_response_s": response}, found.how, found.notes)


def _capacity(spec: ServingSpec, cores: int | None) -> int:
    return min(spec.nodes, cores) if cores else spec.nodes


def _bill(spec: ServingSpec, machine: Machine, values: dict[str, Value]) -> dict[str, Value]:
    busy = values["utilization_frac"].value if spec.service != "synthetic" else 0.0
    cpu = min(DESK_CPU + spec.nodes * (SERVER_CPU + busy), float(machine.cores))
    answers = values["completed_per_s"].value
    if not answers:
        return {}
    found = bill(spec, machine, spec.nodes, answers, cpu, spec.duration_s)
    return {n: v for n, v in found.items() if n in {"energy_per_request_j", "cost_per_million_requests_usd"}}


def _notes(spec: ServingSpec, time: ServiceTime) -> list[str]:
    notes = [time.how] if spec.service != "synthetic" else []
    if spec.batching == "none" and spec.arrivals != "http":
        knee = float(knee_rate_per_s(1 / time.mean_s, spec.nodes, _arrival_scv(spec), time.scv))
        notes.append(f"The knee: at {knee:.3g} requests/s the mean response is twice the bare service time.")
    if spec.arrivals == "http":
        notes.append(
            "Who calls, and when, is up to the caller: the prediction is for Poisson arrivals at the offered load."
        )
    if spec.autoscaler != "none":
        notes.append(
            "Predicted for the present number of servers; each number that the autoscaler chooses has a prediction of its own."
        )
    return notes


def _arrival_scv(spec: ServingSpec) -> float:
    return 0.0 if spec.arrivals == "constant" else 1.0


def sweep(spec: ServingSpec, machine: Machine) -> Sequence[float]:
    """Return loads to draw, from nearly none to what the servers can do; more of them where the curve bends."""
    time = service_time(spec, machine)
    cores = machine.cores if spec.service != "synthetic" else None
    points = SWEEP_POINTS if has_formula(spec, cores) else SIMULATED_POINTS
    most = _capacity(spec, cores) / time.mean_s
    if spec.batching != "none":
        most = _capacity(spec, cores) * spec.max_batch / (time.base_s + spec.max_batch * time.per_item_s)
    bent = 1 - (1 - np.linspace(0.03, 1.0, points)) ** 1.5
    return [float(share * most * 0.995) for share in bent]


def references(spec: ServingSpec, machine: Machine, quantity: str, values: Sequence[float]) -> dict[str, Any]:
    """Return other theories over the offered load: memoryless and clockwork services, and the articles' T = C / L."""
    time = service_time(spec, machine)
    rate, mu, servers = np.asarray(values, float), 1 / time.mean_s, spec.nodes
    match quantity:
        case "mean_response_s":
            return {
                "M/M/c": mmc_response_s(rate, mu, servers),
                "M/D/c": mdc_wait_s(rate, mu, servers) + time.mean_s,
                "T = C / L, times one service": naive_response_s(mu, rate / servers) * time.mean_s,
            }
        case "p99_response_s":
            return {"M/M/c": mmc_response_percentile_s(rate, mu, servers, 0.99)}
        case "queue_length":
            return {"M/M/c": mmc_queue_length(rate, mu, servers)}
    return {}


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value, float)
