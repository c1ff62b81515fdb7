"""The figures of a service by formula, by simulation, and as a course over time where the load is too high to settle.

None of them knows the way back of an answer: `predict` adds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import ModelInputError
from ...models import (
    Arrivals,
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
#: Requests of a simulation, and of each point of a sweep; the first tenth is warm-up. Bursts need more to even out.
SIMULATED, SIMULATED_EACH, BURSTY = 30_000, 8_000, 4
#: Requests of a course at most: of a very high load only the first seconds are simulated.
COURSE = 100_000
#: From this share of the capacity on a queue does not settle while anybody watches.
NEARLY = 0.999
#: Not the run's own draws: theory speaks of the process, not of one day's luck.
SEED = 20_260
PERCENTILES = (("p50_response_s", 0.5), ("p95_response_s", 0.95), ("p99_response_s", 0.99))


@dataclass(frozen=True, slots=True)
class Figures:
    """Quantities by name (floats or arrays over a sweep), by which model, and what a reader must know."""

    values: dict[str, Any]
    how: str
    notes: tuple[str, ...] = ()


def has_formula(spec: ServingSpec, cores: int | None, servers: Any = None) -> bool:
    """Whether a formula covers this: one queue, no batches, nobody turned away or giving up, equal servers with a core each.

    Args:
        spec: What is asked.
        cores: For computing servers; None where they need none.
        servers: How many, where they are swept; None is as asked.
    """
    most = int(np.max(spec.nodes if servers is None else servers))
    plain = spec.dispatch == "central" or most == 1
    endless = not spec.queue_limit and not spec.timeout_s
    alike = spec.slow_node < 0 or spec.slow_factor == 1
    return (
        plain and endless and alike and spec.batching == "none" and spec.arrivals in {"poisson", "http"}
        and (cores is None or most <= cores)
    )  # fmt: skip


def capacity_per_s(spec: ServingSpec, time: ServiceTime, mean_s: float, servers: Any, cores: int | None) -> Any:
    """Return how many answers a second so many servers can give; more than this cannot be served for long.

    With a queue for each server that is chosen blindly, the slowest one decides.
    """
    each: Any = 1 / mean_s
    if spec.batching == "continuous":
        each = spec.max_batch / float(time.batch_s[-1])
    elif spec.batching != "none":
        line_s = time.base_s + spec.max_batch * time.per_item_s
        batch_s = float(time.batch_s[-1]) if spec.service == "synthetic" else line_s
        each = spec.max_batch / batch_s * time.mean_s / mean_s
    whole: Any = servers
    if 0 <= spec.slow_node < np.min(servers):
        whole = servers - 1 + 1 / spec.slow_factor
        whole = servers / spec.slow_factor if spec.dispatch == "round-robin" else whole
    return each * (np.minimum(whole, cores) if cores else whole)


def unstable(spec: ServingSpec, rate: Any, capacity: Any) -> Any:
    """Whether a queue grows without end: too much is asked, and nobody is turned away or gives up."""
    return (np.asarray(rate) >= NEARLY * np.asarray(capacity)) & (not spec.queue_limit and not spec.timeout_s)


def closed_form_figures(spec: ServingSpec, mean_s: float, scv: float, over: dict[str, Any], slo_s: float) -> Figures:
    """Return what M/G/c theory says. See `predict.predict` for the arguments; `mean_s` and `scv` are of the service."""
    rate, servers = point(spec, over)
    mu = 1 / mean_s
    wait, how = _mean_wait(rate, mu, servers, scv)
    if scv == 1:
        percentile: Callable[..., Any] = mmc_response_percentile_s
        late = mmc_response_tail_frac(rate, mu, servers, slo_s)
        extra: tuple[Any, ...] = ()
    else:
        percentile, extra = ggc_response_percentile_s, (1.0, scv)
        late = ggc_response_tail_frac(rate, mu, servers, slo_s, 1.0, scv)
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


def transient_figures(
    spec: ServingSpec, rate: float, capacity: float, servers: int, service_s: float, scv: float
) -> Figures:
    """Return the means over the run of a load that the servers cannot follow: the queue grows as long as it lasts.

    Args:
        spec: How long it lasts.
        rate, capacity: Arrivals, and answers at most, per second.
        servers: At work at the same time.
        service_s, scv: Mean and variability of the time that a request is served.

    Valid when: from an empty queue. Off by: as `models.transient_queue_length`.
    """
    at_s = (np.arange(200) + 0.5) / 200 * spec.duration_s
    queue = transient_queue_length(rate, capacity / servers, servers, at_s, 1.0, scv)
    wait = queue / capacity  # of who arrives then
    answered = at_s + wait + service_s <= spec.duration_s  # only they have a response time to be measured
    mean_wait = float(np.mean(wait[answered])) if answered.any() else float(wait[0])
    values = {
        "mean_response_s": mean_wait + service_s, "mean_wait_s": mean_wait, "mean_service_s": service_s, "utilization_frac": 1.0,
        "queue_length": float(np.mean(queue)), "completed_per_s": min(capacity, rate), "failed_frac": 0.0,
    }  # fmt: skip
    how = f"a queue that grows for {spec.duration_s:g} s (reflected Brownian motion)"
    return Figures(values, how, (too_much(rate, capacity, spec.duration_s),))


def too_much(rate: float, capacity: float, until_s: float) -> str:
    """Say that there is no steady state, and what is shown in its place."""
    return (
        f"Unstable: the load is {rate / capacity:.0%} of what the servers can do. There is no steady state: the queue grows by about "
        f"{max(rate - capacity, 0):.3g} requests each second. Shown are the means over who is answered within {until_s:.3g} s, "
        "from an empty queue."
    )


def continuous_figures(spec: ServingSpec, time: ServiceTime, cores: int | None, over: dict[str, Any]) -> Figures:
    """Return what a chain of states says of requests that share every step: with b of them a server answers b / batch_s[b - 1] a second.

    Valid when: Poisson arrivals, sizes near exponential, servers loaded alike. Off by: prompts that hold up the others' tokens.
    Source: a birth-death process with rates that depend on the state (Kleinrock 1975, chapter 3).
    """
    rate, servers = (np.atleast_1d(v) for v in np.broadcast_arrays(*point(spec, over)))
    found = [_chain(spec, time, cores, float(r), int(n)) for r, n in zip(rate.ravel(), servers.ravel(), strict=True)]
    shape = np.broadcast_shapes(*(np.shape(v) for v in point(spec, over)))
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
    spec: ServingSpec, time: ServiceTime, mean_s: float, cores: int | None, over: dict[str, Any], slo_s: float
) -> Figures:
    """Return what a simulation of many requests says, one for each point of a sweep; no end of waiting where it is too much."""
    rate, servers = (np.atleast_1d(v) for v in np.broadcast_arrays(*point(spec, over)))
    count = (SIMULATED_EACH if over else SIMULATED) * (BURSTY if spec.arrivals == "bursty" else 1)
    found = []
    for r, n in zip(rate.ravel().tolist(), servers.ravel().tolist(), strict=True):
        most = capacity_per_s(spec, time, mean_s, n, cores)
        if unstable(spec, r, most):
            found.append(_endless(time, most))
            continue
        arrivals = _arrivals(spec, r, count)
        result = _simulate(spec, time, mean_s, cores, int(n), arrivals).after(float(arrivals[len(arrivals) // 10]))
        found.append(_read(result, slo_s))
    shape = np.broadcast_shapes(*(np.shape(v) for v in point(spec, over)))
    values = {name: np.array([f[name] for f in found]).reshape(shape)[()] for name in found[0]}
    how = f"simulation of {count} requests (seed {SEED})"
    note = "There is no formula for this dispatch, batching, arrival or limit: it was simulated."
    return Figures(values, how, (note,))


def course_figures(
    spec: ServingSpec,
    time: ServiceTime,
    mean_s: float,
    cores: int | None,
    rate: float,
    capacity: float,
    slo_s: float,
) -> Figures:
    """Return what happens from an empty queue until the run is over: of a trace, or of a load that the servers cannot follow."""
    until_s = min(spec.duration_s, COURSE / rate)
    if spec.arrivals == "trace":
        arrivals = np.asarray(read_trace(spec.trace_file))
        arrivals = arrivals[arrivals <= until_s]
    else:
        kind, options = arrival_options(spec)
        arrivals = Arrivals(kind, rate, seed=SEED, **options).next_until(until_s)
    if not len(arrivals):
        raise ModelInputError(f"nothing arrives within {until_s:g} s; let the run last longer")
    result = _simulate(spec, time, mean_s, cores, spec.nodes, arrivals)
    how = f"simulation of the {len(arrivals)} requests of {until_s:.3g} s, from an empty queue"
    notes = (too_much(rate, capacity, until_s),) if unstable(spec, rate, capacity) else ()
    return Figures({**_read(_until(result, until_s), slo_s), "queue_length": result.queue_length}, how, notes)


def _until(result: QueueResult, end_s: float) -> QueueResult:
    """Return the same as it is known at a time: who is not answered by then has no response."""
    open_ = result.end_s > end_s
    outcome = np.where(open_, int(RequestOutcome.UNFINISHED), result.outcome)
    return replace(result, outcome=outcome, end_s=np.where(open_, np.nan, result.end_s))


def _simulate(
    spec: ServingSpec, time: ServiceTime, mean_s: float, cores: int | None, servers: int, arrivals: Any
) -> QueueResult:
    batched, together = spec.batching in {"fixed", "dynamic"}, spec.service == "synthetic"
    scale = mean_s / time.mean_s
    each_s = time.per_item_s * scale if batched and not together else mean_s
    service = service_times(len(arrivals), service_kind(time.scv), max(each_s, 1e-9), scv=time.scv, seed=SEED + 1)
    service *= max(each_s, 1e-9) / service.mean()
    slow = spec.slow_factor if 0 <= spec.slow_node < servers else 1.0
    return simulate_queue(
        arrivals, service, num_servers=servers, dispatch=spec.dispatch,
        batching=spec.batching if batched else "none", max_batch=spec.max_batch if batched else 1,
        batch_wait_s=spec.batch_wait_s if spec.batching == "dynamic" else 0.0,
        batch_base_s=time.base_s * scale if batched and not together else 0.0, batch_takes="longest" if together else "sum",
        queue_limit=spec.queue_limit or None,
        timeout_s=spec.timeout_s or None, retry_budget_frac=spec.retry_budget_frac, slow_server=min(max(spec.slow_node, 0), servers - 1),
        slow_factor=slow, num_cores=cores if cores and cores < servers else None, seed=SEED,
    )  # fmt: skip


def _read(result: QueueResult, slo_s: float) -> dict[str, float]:
    failed = result.share(RequestOutcome.REJECTED) + result.share(RequestOutcome.TIMED_OUT)
    response, wait = result.mean_response_s, result.mean_wait_s
    begin_s, end_s = result.window_s
    offered = float(result.counted.sum()) / (end_s - begin_s) if end_s > begin_s else np.nan
    return {
        "mean_response_s": response, "mean_wait_s": wait, "mean_service_s": response - wait,
        "utilization_frac": result.utilization, "queue_length": result.queue_length, "completed_per_s": result.throughput_per_s,
        "slo_goodput_per_s": offered * result.within_frac(slo_s), "failed_frac": failed,
        **{name: float(result.response_percentile_s(q)) for name, q in PERCENTILES},
    }  # fmt: skip


def _endless(time: ServiceTime, capacity: float) -> dict[str, float]:
    """The figures of a load that is too much, were it to last for ever."""
    without_end = ("mean_response_s", "mean_wait_s", "queue_length", *(name for name, _ in PERCENTILES))
    return dict.fromkeys(without_end, np.inf) | {
        "mean_service_s": time.mean_s, "utilization_frac": 1.0, "completed_per_s": capacity, "slo_goodput_per_s": 0.0, "failed_frac": 0.0,
    }  # fmt: skip


def _arrivals(spec: ServingSpec, rate: float, count: int) -> Any:
    if spec.arrivals == "trace":  # stretched to the rate of a sweep
        return Arrivals("trace", rate, times_s=read_trace(spec.trace_file)).take(count)
    kind, options = arrival_options(spec)
    drawn = arrival_times(count, kind, rate, seed=SEED, **options)
    return drawn * (count / rate / drawn[-1])  # a high load is too sensitive to leave its mean to chance


def trace_rate_per_s(spec: ServingSpec) -> float:
    """Return the mean rate of a trace, as far as the run gets.

    Raises:
        ModelInputError: The run is over before the first request.
    """
    times = np.asarray(read_trace(spec.trace_file))
    came = int((times <= spec.duration_s).sum())
    if not came:
        raise ModelInputError(
            f"nothing arrives within {spec.duration_s:g} s: the trace begins at {times[0]:g} s; let the run last longer"
        )
    return came / min(spec.duration_s, float(times[-1]))


def point(spec: ServingSpec, over: dict[str, Any]) -> tuple[Any, Any]:
    """Return offered load and number of servers, arrays where they are swept."""
    if unknown := [n for n in over if n not in SWEPT]:
        raise ModelInputError(
            f"{unknown[0]} cannot be swept here; allowed: {', '.join(SWEPT)}; predict one Spec at a time"
        )
    rate = np.asarray(over.get("arrival_rate_per_s", spec.arrival_rate_per_s), float)[()]
    return rate, np.asarray(over.get("nodes", spec.nodes))[()]
