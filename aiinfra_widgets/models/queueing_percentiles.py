"""How long the slow ones take: distributions and percentiles of wait and response.

A quantile is a share: 0.95 is the 95th percentile. Quantile 1 of a time without upper limit is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._check import Number, magnitude, need, need_fraction
from .queue_services import balanced_branches
from .queueing import offered, waiting_share

_HALVINGS = 60  # more than a float has digits
_POINTS = 241


def mmc_wait_tail_frac(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, wait_s: Number
) -> Number:
    """Return the share of requests that wait longer than `wait_s` (M/M/c); 1 where the servers cannot follow.

    Args:
        arrival_rate_per_s, service_rate_per_s, num_servers: As for `mmc_wait_s`.
        wait_s: In the queue.

    Raises:
        ModelInputError: As `mmc_wait_s`, or a negative time.

    Valid when: as `mmc_wait_s`, first come first served. Off by: exact. Source: Kleinrock 1975, section 3.5.
    """
    need("wait_s", wait_s)
    share, leaving = _exponential_wait(arrival_rate_per_s, service_rate_per_s, num_servers, 1.0)
    return (share * np.exp(-leaving * magnitude(service_rate_per_s * wait_s)))[()]


def mmc_response_tail_frac(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, response_s: Number
) -> Number:
    """Return the share of requests whose response takes longer than `response_s` (M/M/c).

    Arguments, errors, domain and source as `mmc_wait_tail_frac`. Exact, also where the wait leaves at the service rate.
    """
    need("response_s", response_s)
    share, leaving = _exponential_wait(arrival_rate_per_s, service_rate_per_s, num_servers, 1.0)
    return _with_exponential_service(share, leaving, 1.0, magnitude(service_rate_per_s * response_s))[()]


def mmc_wait_percentile_s(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, quantile: Number
) -> Number:
    """Return the wait that a share `quantile` of the requests do not exceed (M/M/c), in seconds.

    Args:
        arrival_rate_per_s, service_rate_per_s, num_servers: As for `mmc_wait_s`.
        quantile: 0.95 for the 95th percentile.

    Raises:
        ModelInputError: As `mmc_wait_s`, or a quantile outside 0 to 1.

    Valid when: as `mmc_wait_s`, first come first served. Off by: exact. Source: as `mmc_wait_tail_frac`, inverted.
    """
    return ggc_wait_percentile_s(arrival_rate_per_s, service_rate_per_s, num_servers, quantile)


def mmc_response_percentile_s(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, quantile: Number
) -> Number:
    """Return the response that a share `quantile` of the requests do not exceed (M/M/c), in seconds.

    Arguments, errors, domain and source as `mmc_wait_percentile_s`. Exact to a float's digits (bisection); with one
    server it is the exponential with rate service less arrival rate.
    """
    need_fraction("quantile", quantile)
    share, leaving = _exponential_wait(arrival_rate_per_s, service_rate_per_s, num_servers, 1.0)

    def tail(time: Any) -> Any:
        return _with_exponential_service(share, leaving, 1.0, time)

    return _invert(tail, quantile, leaving) / service_rate_per_s


def ggc_wait_percentile_s(
    arrival_rate_per_s: Number,
    service_rate_per_s: Number,
    num_servers: Number,
    quantile: Number,
    arrival_scv: Number = 1.0,
    service_scv: Number = 1.0,
) -> Number:
    """Return the wait that a share `quantile` of the requests do not exceed (G/G/c), in seconds, approximately.

    Erlang C requests wait, each an exponential time, with the mean of `allen_cunneen_wait_s` over all.

    Args:
        arrival_rate_per_s, service_rate_per_s, num_servers, arrival_scv, service_scv: As for `allen_cunneen_wait_s`.
        quantile: 0.95 for the 95th percentile.

    Raises:
        ModelInputError: As `allen_cunneen_wait_s`, or a quantile outside 0 to 1.

    Valid when: as `allen_cunneen_wait_s`, first come first served.
    Off by: exact for M/M/c. With Poisson arrivals and 1 to 4 servers at utilisation 0.5 to 0.9, p99: up to 16 % too high for
        constant service, up to 22 % too low for service SCV 4. Lower quantiles only from utilisation 0.7 on: below, they
        fall where few wait at all. As far off as the mean for arrivals that are not Poisson.
    Source: exponential tails of waits: Kingman 1962, Abate, Choudhury & Whitt 1995 (Operations Research 43-5).
    """
    need_fraction("quantile", quantile)
    factor = _factor(arrival_scv, service_scv)
    share, leaving = _exponential_wait(arrival_rate_per_s, service_rate_per_s, num_servers, factor)
    left = 1 - magnitude(quantile)
    share, leaving, left = np.broadcast_arrays(share, leaving, left)
    waits = share > left
    with np.errstate(divide="ignore"):
        time = np.log(np.where(waits, share, 1.0) / np.where(waits, left, 1.0)) / leaving
    return np.where(waits, time, 0.0)[()] / service_rate_per_s


def ggc_response_percentile_s(
    arrival_rate_per_s: Number,
    service_rate_per_s: Number,
    num_servers: Number,
    quantile: Number,
    arrival_scv: Number = 1.0,
    service_scv: Number = 1.0,
) -> Number:
    """Return the response that a share `quantile` of the requests do not exceed (G/G/c), in seconds, approximately.

    The wait of `ggc_wait_percentile_s` plus an independent service time: gamma with the asked variability below 1,
    two exponentials with balanced means above.

    Arguments and errors as `ggc_wait_percentile_s`.

    Valid when: as `ggc_wait_percentile_s`, and the service time looks like that.
    Off by: exact for M/M/c. With Poisson arrivals and 1 to 4 servers at utilisation 0.5 to 0.9, p90 to p99: up to 13 % too
        high for constant service, up to 20 % too low for service SCV 4; p50 within 10 % and 30 %.
    Source: as `ggc_wait_percentile_s`; two-moment fits, Tijms 2003, appendix B.
    """
    need_fraction("quantile", quantile)
    tail, leaving = _response(arrival_rate_per_s, service_rate_per_s, num_servers, arrival_scv, service_scv)
    return _invert(tail, quantile, leaving) / service_rate_per_s


def ggc_response_tail_frac(
    arrival_rate_per_s: Number,
    service_rate_per_s: Number,
    num_servers: Number,
    response_s: Number,
    arrival_scv: Number = 1.0,
    service_scv: Number = 1.0,
) -> Number:
    """Return the share of requests whose response takes longer than `response_s` (G/G/c), approximately.

    1 less this share is the goodput under an objective; where the servers cannot follow, everything is late in the end.

    Arguments, domain and source as `ggc_response_percentile_s`; the same distribution read the other way.

    Raises:
        ModelInputError: As `allen_cunneen_wait_s`, or a negative time.

    Off by: exact for M/M/c; as `ggc_response_percentile_s` otherwise.
    """
    need("response_s", response_s)
    tail, leaving = _response(arrival_rate_per_s, service_rate_per_s, num_servers, arrival_scv, service_scv)
    return np.where(leaving == 0, 1.0, tail(magnitude(service_rate_per_s * response_s)))[()]


def _response(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, arrival_scv: Number, scv: Number
) -> tuple[Callable[[Any], Any], Any]:
    """Return (tail of the response as a function of time, rate at which waits end), in units of the service time."""
    factor = _factor(arrival_scv, scv)
    share, leaving = _exponential_wait(arrival_rate_per_s, service_rate_per_s, num_servers, factor)
    scv, share, leaving = np.broadcast_arrays(magnitude(scv), share, leaving)
    branch, one, other = balanced_branches(np.maximum(scv, 1.0))
    regular = _gamma_points(np.minimum(scv, 1.0)) if np.any(scv < 1) else None

    def tail(time: Any) -> Any:
        mixed = branch * _with_exponential_service(share, leaving, 1 / one, time)
        mixed += (1 - branch) * _with_exponential_service(share, leaving, 1 / other, time)
        return mixed if regular is None else np.where(scv >= 1, mixed, _with_points(share, leaving, regular, time))

    return tail, leaving


def _factor(arrival_scv: Number, service_scv: Number) -> Any:
    need("arrival_scv", arrival_scv)
    need("service_scv", service_scv)
    return (magnitude(arrival_scv) + magnitude(service_scv)) / 2


def _exponential_wait(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, factor: Any) -> Any:
    """Return (share that waits, rate at which waits end in units of the service rate).

    The mean wait is that of M/M/c times `factor`. Where there is no room the rate is 0: waits never end.
    """
    load, servers, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    share = waiting_share(arrival_rate_per_s, service_rate_per_s, num_servers)
    share, room, factor = np.broadcast_arrays(share, np.maximum(servers - load, 0.0), factor)
    clockwork = (factor < 1e-12) & (room > 0)  # nobody waits
    return np.where(clockwork, 0.0, share), np.where(clockwork, 1.0, room / np.maximum(factor, 1e-12))


def _with_exponential_service(share: Any, leaving: Any, rate: Any, time: Any) -> Any:
    """P(wait + service > time), service exponential with `rate`; no difference of nearly equal rates is divided by."""
    apart = np.abs(rate - leaving) * time
    slope = np.where(apart > 1e-12, -np.expm1(-apart) / np.where(apart > 1e-12, apart, 1.0), 1.0)
    return np.exp(-rate * time) + share * rate * time * np.exp(-np.minimum(rate, leaving) * time) * slope


def _gamma_points(scv: Any) -> tuple[Any, Any]:
    """Return (points, weights) on a last axis that stand for a gamma distribution of mean 1 and an SCV up to 1."""
    spread = np.sqrt(scv)[..., None]
    first, last = np.maximum(1 - 6 * spread, 0.0), 1 + 14 * spread
    points = first + (last - first) * (
        (np.arange(_POINTS) + 0.5) / _POINTS
    )  # middles: the density may begin with a jump
    order = 1 / np.maximum(scv, 1e-9)[..., None]
    log_density = np.where(spread > 0, (order - 1) * np.log(points) - order * points, 0.0)
    density = np.exp(log_density - log_density.max(axis=-1, keepdims=True))
    return points, density / density.sum(axis=-1, keepdims=True)


def _with_points(share: Any, leaving: Any, service: tuple[Any, Any], time: Any) -> Any:
    points, weights = service
    left = np.asarray(time)[..., None] - points
    waiting = np.asarray(share)[..., None] * np.exp(-np.asarray(leaving)[..., None] * np.maximum(left, 0.0))
    width = np.maximum(points[..., -1:] - points[..., -2:-1], 1e-12)
    longer = np.clip(0.5 - left / width, 0.0, 1.0)  # share of a point's surroundings that is service alone
    return (weights * (longer + (1 - longer) * waiting)).sum(axis=-1)


def _invert(tail: Callable[[Any], Any], quantile: Number, leaving: Any) -> Any:
    """Return the time (in units of the service time) whose tail is 1 - quantile; infinite where there is none."""
    goal = 1 - magnitude(quantile)
    never = (goal == 0) | (np.asarray(leaving) == 0)
    high = np.ones(np.broadcast_shapes(np.shape(goal), np.shape(leaving)))
    while np.any(short := (tail(high) > goal) & ~never):
        high = np.where(short, 2 * high, high)
    low = np.zeros_like(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = tail(middle) > goal
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return np.where(never, math.inf, low)[()]
