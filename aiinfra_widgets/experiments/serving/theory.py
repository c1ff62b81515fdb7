"""The figures of a service by formula, by simulation, and as a course over time where the load is too high to settle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ModelInputError
from ...models import (
    QueueResult,
    RequestOutcome,
    allen_cunneen_wait_s,
    arrival_times,
    ggc_response_percentile_s,
    ggc_response_tail_frac,
    mdc_wait_s,
    mg1_wait_s,
    mmc_response_percentile_s,
    mmc_response_tail_frac,
    mmc_wait_s,
    service_kind,
    service_times,
    simulate_queue,
    transient_queue_length,
)
from .load import arrival_options, read_trace
from .service_time import ServiceTime
from .spec import ServingSpec

SWEPT = ("arrival_rate_per_s", "nodes")
#: Requests of a simulation, and of each point of a sweep; the first tenth is warm-up.
SIMULATED, SIMULATED_EACH = 30_000, 8_000
#: Not the run's own draws: theory speaks of the process, not of one day's luck.
SEED = 20_260
PERCENTILES = (("p50_response_s", 0.5), ("p95_response_s", 0.95), ("p99_response_s", 0.99))


@dataclass(frozen=True, slots=True)
class Figures:
    """Quantities by name (floats or arrays over a sweep), by which model, and what a reader must know."""

    values: dict[str, Any]
    how: str
    notes: tuple[str, ...] = ()


def has_formula(spec: ServingSpec, cores: int | None) -> bool:
    """Whether a formula covers this: one queue, no batches, nobody turned away or giving up, equal servers with a core each."""
    plain = spec.dispatch == "central" or spec.nodes == 1
    endless = not spec.queue_limit and not spec.timeout_s
    alike = spec.slow_node < 0 or spec.slow_factor == 1
    return (
        plain and endless and alike and spec.batching == "none" and spec.arrivals in {"poisson", "http"}
        and (cores is None or spec.nodes <= cores)
    )  # fmt: skip


def closed_form_figures(
    spec: ServingSpec, mean_s: float, scv: float, cores: int | None, over: dict[str, Any]
) -> Figures:
    """Return what M/G/c theory says. See `predict.predict` for the arguments; `mean_s` and `scv` are of the service."""
    rate, servers = _point(spec, over)
    mu = 1 / mean_s
    wait, how = _mean_wait(rate, mu, servers, scv)
    if scv == 1:
        percentile: Callable[..., Any] = mmc_response_percentile_s
        late = mmc_response_tail_frac(rate, mu, servers, spec.slo_s)
        extra: tuple[Any, ...] = ()
    else:
        percentile, extra = ggc_response_percentile_s, (1.0, scv)
        late = ggc_response_tail_frac(rate, mu, servers, spec.slo_s, 1.0, scv)
    done = np.minimum(rate, servers * mu)
    stable = rate * mean_s < servers
    values = {
        "mean_response_s": wait + mean_s, "mean_wait_s": wait, "mean_service_s": np.full_like(wait, mean_s)[()],
        "utilization_frac": np.minimum(rate * mean_s / servers, 1.0), "queue_length": rate * wait, "completed_per_s": done,
        "slo_goodput_per_s": done * np.where(stable, 1 - np.where(stable, late, 1.0), 0.0), "failed_frac": np.zeros_like(wait)[()],
        **{name: percentile(rate, mu, servers, q, *extra) for name, q in PERCENTILES},
    }  # fmt: skip
    notes = (
        () if scv == 1 else ("Percentiles for a service that is not exponential are an approximation, up to 20 % off.",)
    )
    return Figures(values, how, notes)


def _mean_wait(rate: Any, mu: float, servers: Any, scv: float) -> tuple[Any, str]:
    """Return the mean wait by the most exact formula that covers it, and its name."""
    if scv == 1:
        return mmc_wait_s(rate, mu, servers), "M/M/c, exact"
    if np.all(np.asarray(servers) == 1):
        return mg1_wait_s(rate, mu, scv), "M/G/1 (Pollaczek-Khinchine), exact"
    if scv == 0:
        return mdc_wait_s(rate, mu, servers), "M/D/c (Cosmetatos)"
    return allen_cunneen_wait_s(rate, mu, servers, 1.0, scv), "G/G/c (Allen-Cunneen)"


def transient_figures(spec: ServingSpec, mean_s: float, scv: float, cores: int | None) -> Figures:
    """Return the means over the run of a load that the servers cannot follow: the queue grows as long as it lasts."""
    servers = min(spec.nodes, cores) if cores else spec.nodes
    rate, mu = spec.arrival_rate_per_s, 1 / mean_s
    at_s = (np.arange(50) + 0.5) / 50 * spec.duration_s
    queue = transient_queue_length(rate, mu, servers, at_s, 1.0, scv)
    wait = queue / (servers * mu)  # of who arrives then
    mean_wait = float(np.mean(wait))
    values = {
        "mean_response_s": mean_wait + mean_s, "mean_wait_s": mean_wait, "mean_service_s": mean_s, "utilization_frac": 1.0,
        "queue_length": float(np.mean(queue)), "completed_per_s": servers * mu,
    }  # fmt: skip
    load = rate * mean_s / servers
    grows = rate - servers * mu
    notes = (
        f"Unstable: the load is {load:.0%} of what the servers can do. There is no steady state: the queue grows by about "
        f"{max(grows, 0):.3g} requests each second. Shown are the means over {spec.duration_s:g} s from an empty queue.",
    )
    return Figures(values, f"a queue that grows for {spec.duration_s:g} s (reflected Brownian motion)", notes)


def continuous_figures(spec: ServingSpec, time: ServiceTime, cores: int | None, over: dict[str, Any]) -> Figures:
    """Return what a chain of states says of requests that share every step: with b of them a server answers b / batch_s[b - 1] a second.

    Valid when: Poisson arrivals, sizes near exponential, servers loaded alike. Off by: prompts that hold up the others' tokens.
    Source: a birth-death process with rates that depend on the state (Kleinrock 1975, chapter 3).
    """
    rate, servers = (np.atleast_1d(v) for v in np.broadcast_arrays(*_point(spec, over)))
    found = [_chain(spec, time, cores, float(r), int(n)) for r, n in zip(rate.ravel(), servers.ravel(), strict=True)]
    shape = np.broadcast_shapes(*(np.shape(v) for v in _point(spec, over)))
    values = {name: np.array([f[name] for f in found]).reshape(shape)[()] for name in found[0]}
    return Figures(values, "birth-death chain over the requests in the system")


#: States of the chain: so many requests may wait.
MOST_WAITING = 3000


def _chain(spec: ServingSpec, time: ServiceTime, cores: int | None, rate: float, servers: int) -> dict[str, float]:
    most = spec.max_batch
    number = np.arange(1, servers * most + MOST_WAITING + 1)
    each = np.minimum(number / servers, most)
    busy = np.minimum(number, servers)
    speed = min(1.0, cores / servers) if cores else 1.0
    per_batch = np.interp(np.maximum(each, 1.0), np.arange(1, len(time.batch_s) + 1), time.batch_s)
    answers = busy * np.maximum(each, 1.0) / per_batch * np.where(busy > (cores or servers), speed, 1.0)
    if rate >= answers[-1]:
        return dict.fromkeys(("mean_response_s", "mean_wait_s", "queue_length"), np.inf) | {
            "mean_service_s": float(time.batch_s[-1]), "utilization_frac": 1.0, "completed_per_s": float(answers[-1]),
        }  # fmt: skip
    log = np.concatenate([[0.0], np.cumsum(np.log(rate) - np.log(answers))])
    share = np.exp(log - log.max())
    share /= share.sum()
    state = np.arange(len(share))
    waiting = float((share * np.maximum(state - servers * most, 0)).sum())
    inside = float((share * state).sum())
    return {
        "mean_response_s": inside / rate, "mean_wait_s": waiting / rate, "mean_service_s": (inside - waiting) / rate,
        "queue_length": waiting, "utilization_frac": float((share * np.minimum(state / servers, 1)).sum()), "completed_per_s": rate,
    }  # fmt: skip


def simulated_figures(
    spec: ServingSpec, time: ServiceTime, mean_s: float, cores: int | None, over: dict[str, Any]
) -> Figures:
    """Return what a simulation of many requests says, one for each point of a sweep."""
    rate, servers = (np.atleast_1d(v) for v in np.broadcast_arrays(*_point(spec, over)))
    count = SIMULATED_EACH if over else SIMULATED
    found = [
        _one(spec, time, mean_s, cores, float(r), int(n), count)
        for r, n in zip(rate.ravel(), servers.ravel(), strict=True)
    ]
    shape = np.broadcast_shapes(*(np.shape(v) for v in _point(spec, over)))
    values = {name: np.array([f[name] for f in found]).reshape(shape)[()] for name in found[0]}
    how = f"simulation of {count} requests (seed {SEED})"
    note = "There is no formula for this dispatch, batching, arrival or limit: it was simulated."
    return Figures(values, how, (note,))


def _one(
    spec: ServingSpec, time: ServiceTime, mean_s: float, cores: int | None, rate: float, servers: int, count: int
) -> dict[str, float]:
    arrivals = _arrivals(spec, rate, count)
    scale = mean_s / time.mean_s
    batched = spec.batching in {"fixed", "dynamic"}
    each_s = time.per_item_s * scale if batched else mean_s
    service = service_times(len(arrivals), service_kind(time.scv), max(each_s, 1e-9), scv=time.scv, seed=SEED + 1)
    slow = spec.slow_factor if 0 <= spec.slow_node < servers else 1.0
    result = simulate_queue(
        arrivals, service, num_servers=servers, dispatch=spec.dispatch,
        batching=spec.batching if batched else "none", max_batch=spec.max_batch if batched else 1,
        batch_wait_s=spec.batch_wait_s if spec.batching == "dynamic" else 0.0,
        batch_base_s=time.base_s * scale if batched else 0.0, queue_limit=spec.queue_limit or None,
        timeout_s=spec.timeout_s or None, retry_budget_frac=spec.retry_budget_frac, slow_server=max(spec.slow_node, 0),
        slow_factor=slow, num_cores=cores if cores and cores < servers else None, seed=SEED,
    )  # fmt: skip
    return _read(spec, result.after(float(arrivals[len(arrivals) // 10])))


def _read(spec: ServingSpec, result: QueueResult) -> dict[str, float]:
    failed = result.share(RequestOutcome.REJECTED) + result.share(RequestOutcome.TIMED_OUT)
    response, wait = result.mean_response_s, result.mean_wait_s
    return {
        "mean_response_s": response, "mean_wait_s": wait, "mean_service_s": response - wait,
        "utilization_frac": result.utilization, "queue_length": result.queue_length, "completed_per_s": result.throughput_per_s,
        "slo_goodput_per_s": result.throughput_per_s * result.within_frac(spec.slo_s), "failed_frac": failed,
        **{name: float(result.response_percentile_s(q)) for name, q in PERCENTILES},
    }  # fmt: skip


def _arrivals(spec: ServingSpec, rate: float, count: int) -> Any:
    if spec.arrivals == "trace":
        return np.asarray(read_trace(spec.trace_file))
    kind, options = arrival_options(spec)
    return arrival_times(count, kind, rate, seed=SEED, **options)


def _point(spec: ServingSpec, over: dict[str, Any]) -> tuple[Any, Any]:
    """Return offered load and number of servers, arrays where they are swept."""
    if unknown := [n for n in over if n not in SWEPT]:
        raise ModelInputError(
            f"{unknown[0]} cannot be swept here; allowed: {', '.join(SWEPT)}; predict one Spec at a time"
        )
    rate = np.asarray(over.get("arrival_rate_per_s", spec.arrival_rate_per_s), float)[()]
    return rate, np.asarray(over.get("nodes", spec.nodes))[()]
