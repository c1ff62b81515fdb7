"""How long requests wait where arrivals or service are not exponential, and how the queue grows.

An SCV is a squared coefficient of variation, variance over squared mean: 0 deterministic, 1 exponential, above 1 bursty.
For arrivals that are correlated (bursts) take the limiting index of dispersion (`Arrivals.scv`) in its place.
Waits are in the queue; the response is the wait plus 1 / service rate.
"""

from __future__ import annotations

import math

import numpy as np

from ._check import Number, magnitude, need
from .queueing import mmc_wait_s, offered, over_room


def md1_wait_s(arrival_rate_per_s: Number, service_rate_per_s: Number) -> Number:
    """Return the mean wait before one server whose service time is constant (M/D/1), in seconds: half that of M/M/1.

    Args:
        arrival_rate_per_s: Requests.
        service_rate_per_s: 1 / service time.

    Raises:
        ModelInputError: A negative arrival rate, or a service rate that is not positive.

    Valid when: Poisson arrivals, nobody leaves, long after the start. Off by: exact.
    Source: Pollaczek 1930, Khinchine 1932.
    """
    return mg1_wait_s(arrival_rate_per_s, service_rate_per_s, 0.0)


def mg1_wait_s(arrival_rate_per_s: Number, service_rate_per_s: Number, service_scv: Number) -> Number:
    """Return the mean wait before one server by Pollaczek and Khinchine (M/G/1), in seconds.

    Args:
        arrival_rate_per_s: Requests.
        service_rate_per_s: 1 / mean service time.
        service_scv: Variance of the service time over its squared mean.

    Raises:
        ModelInputError: A negative rate or variability, or a service rate that is not positive.

    Valid when: Poisson arrivals, served in order (or in any order that ignores the service time), nobody leaves.
    Off by: exact. Source: Pollaczek 1930, Khinchine 1932.
    """
    _, _, rho = offered(arrival_rate_per_s, service_rate_per_s, 1)
    need("service_scv", service_scv)
    return over_room(rho * ((1 + magnitude(service_scv)) / 2), 1 - rho) / service_rate_per_s


def mdc_wait_s(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> Number:
    """Return the mean wait before c servers whose service time is constant (M/D/c), in seconds, approximately.

    Arguments and errors as `mmc_wait_s`.

    Valid when: Poisson arrivals, one queue, equal servers, nobody leaves.
    Off by: under 3 % from utilisation 0.5 on with up to 32 servers; up to 12 % too high at 0.3 with many servers, where both
        waits are next to nothing. Exact for one server.
    Source: Cosmetatos 1975 (OR Quarterly 26), never above the exact limit of light traffic, M/M/c times c / (c + 1).
    """
    _, servers, rho = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    busy = np.maximum(rho, 1e-12)
    correction = np.maximum(1 - rho, 0) * (servers - 1) * (np.sqrt(4 + 5 * servers) - 2) / (16 * servers * busy)
    ratio = np.minimum((1 + correction) / 2, servers / (servers + 1))
    return mmc_wait_s(arrival_rate_per_s, service_rate_per_s, num_servers) * ratio[()]


def allen_cunneen_wait_s(
    arrival_rate_per_s: Number,
    service_rate_per_s: Number,
    num_servers: Number,
    arrival_scv: Number = 1.0,
    service_scv: Number = 1.0,
) -> Number:
    """Return the mean wait before c servers for any variability (G/G/c), in seconds, approximately.

    M/M/c times the mean of both variabilities. With one server this is Kingman's heavy-traffic formula.

    Args:
        arrival_rate_per_s, service_rate_per_s, num_servers: As for `mmc_wait_s`.
        arrival_scv: Of the times between arrivals; 1 for Poisson.
        service_scv: Of the service times; 1 for exponential.

    Raises:
        ModelInputError: As `mmc_wait_s`, or a negative variability.

    Valid when: one queue, equal servers, nobody leaves, high utilisation.
    Off by: exact for M/M/c and M/G/1, and in the limit of utilisation 1. With Poisson arrivals and 4 servers: service SCV 4
        too high by 8 % at utilisation 0.7, 21 % at 0.5, 38 % at 0.3; constant service too low by 7, 14 and 24 % (take
        `mdc_wait_s`). Clockwork arrivals (D/M/1): too high by 30 % at 0.7, twice the wait at 0.5, five times at 0.3.
        For bursts it is the limit of high load: too high where a burst is short against the queue.
    Source: Allen 1978 (after Cunneen), Probability, Statistics and Queueing Theory; Kingman 1962.
    """
    need("arrival_scv", arrival_scv)
    need("service_scv", service_scv)
    both = (magnitude(arrival_scv) + magnitude(service_scv)) / 2
    wait = mmc_wait_s(arrival_rate_per_s, service_rate_per_s, num_servers)
    _, _, rho = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    return wait * np.where(rho < 1, both, 1.0)[()]  # infinite stays infinite, also for clockwork


def kingman_bound_wait_s(
    arrival_rate_per_s: Number, service_rate_per_s: Number, arrival_scv: Number = 1.0, service_scv: Number = 1.0
) -> Number:
    """Return what the mean wait before one server never exceeds (GI/GI/1), in seconds.

    Arguments and errors as `allen_cunneen_wait_s`, with one server.

    Valid when: times between arrivals are independent, and so are service times; served in order.
    Off by: a bound: tight towards utilisation 1, far too high at low load (infinite without load, unless arrivals are
        clockwork).
    Source: Kingman 1962 (Biometrika 49), J.F.C. Kingman's inequality.
    """
    need("arrival_scv", arrival_scv)
    need("service_scv", service_scv)
    _, _, rho = offered(arrival_rate_per_s, service_rate_per_s, 1)
    from_arrivals = over_room(magnitude(arrival_scv), rho)
    from_arrivals = np.where(magnitude(arrival_scv) == 0, 0.0, from_arrivals)
    return over_room((from_arrivals + rho * magnitude(service_scv)) / 2, 1 - rho) / service_rate_per_s


def transient_queue_length(
    arrival_rate_per_s: Number,
    service_rate_per_s: Number,
    num_servers: Number,
    elapsed_s: Number,
    arrival_scv: Number = 1.0,
    service_scv: Number = 1.0,
) -> Number:
    """Return how many wait on average `elapsed_s` after the start, at any load; also where no stationary mean exists.

    The queue is taken as a Brownian motion kept above 0 that drifts by arrivals less capacity. Above utilisation 1 it grows by
    that difference per second, at 1 as the square root of time, below 1 it settles near its stationary mean.

    Args:
        arrival_rate_per_s, service_rate_per_s, num_servers: As for `mmc_wait_s`.
        elapsed_s: Since all servers were busy and nobody waited.
        arrival_scv, service_scv: As for `allen_cunneen_wait_s`.

    Raises:
        ModelInputError: As `allen_cunneen_wait_s`, or a negative time.

    Valid when: many requests have arrived, and the servers are busy nearly all the time (utilisation from about 0.9).
    Off by: too high by one request for one server, by two for four, whatever the time.
    Source: Harrison 1985, Brownian Motion and Stochastic Flow Systems, section 1.8: the mean of the running maximum.
    """
    load, servers, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    need("elapsed_s", elapsed_s)
    need("arrival_scv", arrival_scv)
    need("service_scv", service_scv)
    services = magnitude(service_rate_per_s * elapsed_s)  # that one busy server completes
    drift = (load - servers) * services
    spread = np.sqrt((load * magnitude(arrival_scv) + servers * magnitude(service_scv)) * services)
    drift, spread = np.broadcast_arrays(drift, spread)
    moving = (spread > 0) & (np.abs(drift) > 1e-6 * spread)
    ratio = np.where(spread > 0, drift / np.where(spread > 0, spread, 1.0), 0.0)
    below = np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2, otypes=[float])(ratio)
    density = np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    level = np.where(moving, (below - 0.5) / np.where(moving, ratio, 1.0), 1 / math.sqrt(2 * math.pi))
    return np.where(spread > 0, drift * below + spread * (density + level), np.maximum(drift, 0.0))[()]
