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
from .theory import (
    PERCENTILES,
    Figures,
    capacity_per_s,
    closed_form_figures,
    continuous_figures,
    course_figures,
    has_formula,
    simulated_figures,
    trace_rate_per_s,
    transient_figures,
    unstable,
)

MODEL = "serving 1"
#: Assumed: processors that the desk keeps busy, and each server beside its service: they look for messages all the time.
DESK_CPU, SERVER_CPU = 0.15, 0.04
#: Assumed: an answer takes so long from the end of its service to the desk: one look at a message on either side.
WAY_BACK_S = 3e-4
#: A service shorter than this many ways there and back hides behind them.
SHORT = 5
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

    Valid when: the load lasts long enough to settle, and a service is long against the way to the server and back (0.6 ms).
    Off by: what the ranks take from each other's cores; `notes` say which formula was used and where it is known to be wrong.
    """
    time = service_time(spec, machine)
    figures = {s: _figures(spec, machine, s, time, over) for s in {time.mean_s, time.low_s, time.high_s}}
    middle, low, high = (figures[s] for s in (time.mean_s, time.low_s, time.high_s))
    values = {}
    for name in NAMES:
        at = middle.values.get(name, np.nan)
        if np.all(np.isnan(at)):  # no model tells it, or nobody would be answered
            continue
        edges = np.sort(np.broadcast_arrays(at, *(f.values.get(name, at) for f in (low, high))), axis=0)
        values[name] = Value(name, _plain(at), _plain(edges[0]), _plain(edges[-1]), "modelled", middle.how)
    values["dispatch_time_s"] = Value(
        "dispatch_time_s", WAY_BACK_S, method="assumed", how="one look at a message on either side"
    )
    if not over:
        values.update(_bill(spec, machine, values))
    return Prediction(values, (*middle.notes, *_notes(spec, time)), MODEL, machine.id)


def _figures(spec: ServingSpec, machine: Machine, mean_s: Any, time: ServiceTime, over: dict[str, Any]) -> Figures:
    """Return the figures for one mean service time, with the way back of an answer."""
    cores = machine.cores if spec.service != "synthetic" else None
    slo_s = max(spec.slo_s - WAY_BACK_S, 0.0)
    found = _steady(spec, mean_s, time, cores, over, slo_s) if over else _here(spec, mean_s, time, cores, slo_s)
    responses = ("mean_response_s", *(name for name, _ in PERCENTILES))
    later = {name: found.values[name] + WAY_BACK_S for name in responses if name in found.values}
    return Figures({**found.values, **later}, found.how, found.notes)


def _steady(
    spec: ServingSpec, mean_s: float, time: ServiceTime, cores: int | None, over: dict[str, Any], slo_s: float
) -> Figures:
    """Return figures long after the start, by formula or simulation; without end where the load is too much."""
    if spec.batching == "continuous":
        return continuous_figures(spec, time, cores, over)
    if has_formula(spec, cores, over.get("nodes")):
        return closed_form_figures(spec, mean_s, time.scv, over, slo_s)
    return simulated_figures(spec, time, mean_s, cores, over, slo_s)


def _here(spec: ServingSpec, mean_s: float, time: ServiceTime, cores: int | None, slo_s: float) -> Figures:
    """Return the figures of this one Spec: their course over the run where they do not settle."""
    trace = spec.arrivals == "trace"
    rate = trace_rate_per_s(spec) if trace else spec.arrival_rate_per_s
    capacity = float(capacity_per_s(spec, time, mean_s, spec.nodes, cores))
    growing = bool(unstable(spec, rate, capacity))
    if not growing and not trace:
        return _steady(spec, mean_s, time, cores, {}, slo_s)
    if has_formula(spec, cores):
        servers = min(spec.nodes, cores or spec.nodes)
        return transient_figures(spec, rate, capacity, servers, mean_s, time.scv)
    if spec.batching == "continuous":
        return transient_figures(spec, rate, capacity, spec.nodes, float(time.batch_s[-1]), time.scv)
    return course_figures(spec, time, mean_s, cores, rate, capacity, slo_s)


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
    if spec.batching == "none" and time.mean_s < SHORT * 2 * WAY_BACK_S:
        notes.append(
            f"A service of {time.mean_s * 1e3:.2g} ms hides behind the way to the server and back, some {2 * WAY_BACK_S * 1e3:.1g} ms, "
            "in which it is idle and which no formula here knows: expect more utilisation and wait, or take batches."
        )
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
    most = float(capacity_per_s(spec, time, time.mean_s, spec.nodes, cores))
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
