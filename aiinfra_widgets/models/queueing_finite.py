"""How long requests wait where the queue is finite, and where more servers compute than there are cores."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._check import Number, magnitude, need
from .queueing import MOST_SERVERS, loss_and_queue, mmc_response_s, offered, over_room, waiting_share


def mmck_rejected_frac(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, queue_limit: Number
) -> Number:
    """Return the share of requests turned away where only so many may wait (M/M/c/K, K = c + queue limit).

    Args:
        arrival_rate_per_s, service_rate_per_s, num_servers: As for `mmc_wait_s`; any load, also above what servers carry.
        queue_limit: Waiting places, without those in service; 0 is Erlang B.

    Raises:
        ModelInputError: As `mmc_wait_s`, or a limit that is negative, not whole or above 100 000.

    Valid when: Poisson arrivals, exponential service, and who is turned away does not come back.
    Off by: exact; too low where clients retry at once. Source: birth-death chain, Kleinrock 1975, section 3.
    """
    return _finite(arrival_rate_per_s, service_rate_per_s, num_servers, queue_limit)[0][()]


def mmck_throughput_per_s(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, queue_limit: Number
) -> Number:
    """Return what a finite queue lets through, per second.

    Arguments, errors, domain, bias and source as `mmck_rejected_frac`.
    """
    lost = _finite(arrival_rate_per_s, service_rate_per_s, num_servers, queue_limit)[0]
    return arrival_rate_per_s * (1 - lost)


def mmck_queue_length(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, queue_limit: Number
) -> Number:
    """Return the mean number that wait in a finite queue.

    Arguments, errors, domain, bias and source as `mmck_rejected_frac`.
    """
    return _finite(arrival_rate_per_s, service_rate_per_s, num_servers, queue_limit)[1][()]


def mmck_wait_s(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, queue_limit: Number
) -> Number:
    """Return the mean wait of the requests that a finite queue admits, in seconds.

    Arguments, errors, domain, bias and source as `mmck_rejected_frac`.
    """
    lost, waiting = _finite(arrival_rate_per_s, service_rate_per_s, num_servers, queue_limit)
    load, _, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    admitted = load * (1 - lost)
    return np.where(admitted > 0, waiting / np.where(admitted > 0, admitted, 1.0), 0.0)[()] / service_rate_per_s


def mmc_shared_cores_wait_s(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, num_cores: Number
) -> Number:
    """Return the mean wait in the queue where c servers compute on fewer cores, in seconds.

    n requests in service progress together at min(n, cores) times the rate of one. What waits for a server and what
    waits for a core differ: the rest of `mmc_shared_cores_response_s` is time in service, longer than 1 / rate.

    Args:
        arrival_rate_per_s, service_rate_per_s, num_servers: As for `mmc_wait_s`; the rate is that of a server with a
            core of its own.
        num_cores: Cores that the servers share evenly.

    Raises:
        ModelInputError: As `mmc_wait_s`, or no core.

    Valid when: as `mmc_wait_s`, and a switch between processes costs nothing.
    Off by: exact for that chain; too low where switching, caches or memory are contended.
    Source: birth-death chain with death rate min(n, c, cores) x service rate.
    """
    need("num_cores", num_cores, 1, whole=True)
    load, servers, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    at_once = np.minimum(servers, magnitude(num_cores))
    wait = waiting_share(arrival_rate_per_s, service_rate_per_s, at_once)
    all_busy = wait * np.minimum(load / at_once, 1.0) ** (servers - at_once)  # those beyond the cores are in service
    return over_room(all_busy, at_once - load) / service_rate_per_s


def mmc_shared_cores_response_s(
    arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, num_cores: Number
) -> Number:
    """Return the mean response where c servers compute on fewer cores, in seconds: that of min(c, cores) servers.

    Arguments, errors, domain, bias and source as `mmc_shared_cores_wait_s`.
    """
    need("num_cores", num_cores, 1, whole=True)
    need("num_servers", num_servers, 1, MOST_SERVERS, whole=True)
    return mmc_response_s(arrival_rate_per_s, service_rate_per_s, np.minimum(num_servers, num_cores))


def _finite(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number, limit: Number) -> Any:
    load, servers, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    need("queue_limit", limit, 0, 100_000, whole=True, hint="waiting places; leave it out for a queue without limit")
    return loss_and_queue(load, servers, magnitude(limit))
