"""How long requests wait where servers take several at once, and where one request is work for several servers.

A batch of b requests takes base + b x item seconds. Arrivals are Poisson.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._check import Number, magnitude, need
from .queueing import offered, over_room
from .queueing_general import allen_cunneen_wait_s
from .stragglers import expected_max_time_s

_MOST_BATCH = 4096


def fixed_batch_response_s(
    arrival_rate_per_s: Number,
    max_batch: Number,
    batch_base_s: Number,
    batch_item_s: Number,
    num_servers: Number = 1,
    item_scv: Number = 0.0,
) -> Number:
    """Return the mean response where a server waits for a full batch, in seconds; infinite without load.

    The mean request waits for half of its batch; then the batch queues as one customer of G/G/c, whose arrivals are more
    regular than Poisson (Erlang with as many stages as the batch has requests).

    Args:
        arrival_rate_per_s: Requests, all servers.
        max_batch: Requests in each batch, from 1 to 4096.
        batch_base_s: What a batch takes whatever its size.
        batch_item_s: What each of its requests adds on average.
        num_servers: Number of servers.
        item_scv: Variability of what a request adds.

    Raises:
        ModelInputError: A negative argument, no server, a batch size out of range, or a batch that takes no time.

    Valid when: Poisson arrivals, one queue, equal servers, nobody leaves, the load goes on (the last batch fills).
    Off by: waiting for the batch is exact; the queue is that of `allen_cunneen_wait_s`: response within 10 %, too high, for
        batches of 2 to 16 at utilisation up to 0.9 with 1 to 4 servers.
    Source: the sum of both; M/G/c with batches as customers, Chaudhry & Templeton 1983.
    """
    _need_batch(arrival_rate_per_s, max_batch, batch_base_s, batch_item_s, item_scv)
    size = magnitude(max_batch)
    service_s = batch_base_s + batch_item_s * size
    scv = size * magnitude(batch_item_s / service_s) ** 2 * magnitude(item_scv)
    wait = allen_cunneen_wait_s(arrival_rate_per_s / size, 1 / service_s, num_servers, 1 / size, scv)
    in_service = magnitude(arrival_rate_per_s * service_s)
    forming = np.where(size > 1, over_room((size - 1) / 2, in_service), 0.0)[()]
    return service_s * forming + wait + service_s


def dynamic_batch_response_s(
    arrival_rate_per_s: Number,
    max_batch: Number,
    batch_base_s: Number,
    batch_item_s: Number,
    batch_wait_s: Number = 0.0,
    num_servers: Number = 1,
) -> Number:
    """Return the mean response of dynamic batches, in seconds, approximately; infinite where full batches cannot follow.

    A batch begins when a server is free and it is full or its first request has waited `batch_wait_s`. It gathers for
    that long or until a server is free, whichever is later; what does not fit queues like full batches.

    Args:
        arrival_rate_per_s, max_batch, batch_base_s, batch_item_s, num_servers: As for `fixed_batch_response_s`.
        batch_wait_s: Longest wait for a fuller batch while a server is free; 0 takes what is there.

    Raises:
        ModelInputError: As `fixed_batch_response_s`.

    Valid when: as `fixed_batch_response_s`, and equal items.
    Off by: within 20 % for one or two servers up to utilisation 0.9 (batches of 2 to 32, base from a tenth to ten times
        an item); up to a third too low for four servers with batches of 32 near capacity. `simulate_queue` has no bias.
    Source: mean-value argument of this lab, checked by simulation; linear batch times as in Inoue 2021 (Perf. Evaluation 147).
    """
    seen, sizes, gather = _gathered(
        arrival_rate_per_s, max_batch, batch_base_s, batch_item_s, batch_wait_s, num_servers
    )
    one_s = batch_base_s + batch_item_s
    size = magnitude(max_batch)
    full_s = batch_base_s + batch_item_s * size
    overflow = allen_cunneen_wait_s(arrival_rate_per_s / size, 1 / full_s, num_servers, 1 / size, 0.0)
    return one_s * gather + overflow + batch_base_s + batch_item_s * (seen / sizes)


def dynamic_batch_size(
    arrival_rate_per_s: Number,
    max_batch: Number,
    batch_base_s: Number,
    batch_item_s: Number,
    batch_wait_s: Number = 0.0,
    num_servers: Number = 1,
) -> Number:
    """Return the mean number of requests in a dynamic batch, approximately.

    Arguments, errors, domain and source as `dynamic_batch_response_s`. Off by: within 10 % up to utilisation 0.5, up to 30 %
    too low near capacity.
    """
    return _gathered(arrival_rate_per_s, max_batch, batch_base_s, batch_item_s, batch_wait_s, num_servers)[1][()]


def bulk_service_response_s(arrival_rate_per_s: Number, batch_rate_per_s: Number, max_batch: Number) -> Number:
    """Return the mean response where one server takes all that wait, up to a limit (M/M[1,B]/1), in seconds.

    Args:
        arrival_rate_per_s: Requests.
        batch_rate_per_s: Batches that the busy server completes, whatever their size.
        max_batch: Most requests in one batch, from 1 to 4096.

    Raises:
        ModelInputError: A negative arrival rate, a batch rate that is not positive, or a batch size out of range.

    Valid when: Poisson arrivals, exponential service of a batch that nobody joins any more, a batch of one is worth it.
    Off by: exact; too high for service times that vary less. Source: Bailey 1954; Chaudhry & Templeton 1983, section 3.
    """
    load, _, _ = offered(arrival_rate_per_s, batch_rate_per_s, 1)
    need("max_batch", max_batch, 1, _MOST_BATCH, whole=True)
    load, size = np.broadcast_arrays(load, magnitude(max_batch))
    carried = np.where(load < size, load, 0.0)
    low, high = np.zeros(load.shape), np.ones(load.shape)
    for _ in range(50):  # the root below 1 of r + r^2 + ... + r^B = load
        root = (low + high) / 2
        below = root * -np.expm1(size * np.log(root)) / (1 - root) < carried
        low, high = np.where(below, root, low), np.where(below, high, root)
    room = np.where(load < size, 1 - low, 0.0)
    return (over_room(low, room**2 + load * room) + 1.0) / batch_rate_per_s


def fork_join_lower_s(arrival_rate_per_s: Number, service_rate_per_s: Number, num_branches: Number) -> Number:
    """Return what the mean response of a request that forks into n parts never falls below, in seconds.

    Arguments, errors and domain as `fork_join_response_s`, with any number of branches.

    Off by: a bound: the larger of the slowest part without a queue, and of one part with its queue.
    Source: Nelson & Tantawi 1988.
    """
    rho, slowest = _branches(arrival_rate_per_s, service_rate_per_s, num_branches)
    return np.maximum(slowest, over_room(1.0, 1 - rho)) / service_rate_per_s


def fork_join_upper_s(arrival_rate_per_s: Number, service_rate_per_s: Number, num_branches: Number) -> Number:
    """Return what the mean response of a request that forks into n parts never exceeds, in seconds.

    Arguments, errors and domain as `fork_join_response_s`, with any number of branches.

    Off by: a bound: parts that all arrive together do not wait independently; tight at low load.
    Source: Nelson & Tantawi 1988 (association).
    """
    rho, slowest = _branches(arrival_rate_per_s, service_rate_per_s, num_branches)
    return over_room(slowest, 1 - rho) / service_rate_per_s


def fork_join_response_s(arrival_rate_per_s: Number, service_rate_per_s: Number, num_branches: Number) -> Number:
    """Return the mean response of a request that forks into n parts and ends with the slowest, in seconds.

    Args:
        arrival_rate_per_s: Requests; each sends one part to every branch.
        service_rate_per_s: Parts that one busy branch completes.
        num_branches: Branches n, each one server with its own queue, up to 32.

    Raises:
        ModelInputError: A negative arrival rate, a service rate that is not positive, or no branch or too many.

    Valid when: Poisson arrivals, exponential and independent parts.
    Off by: exact for one and two branches; under 5 % for up to 32. For more take the bounds.
    Source: Flatto & Hahn 1984 for two; Nelson & Tantawi 1988 (IEEE Trans. Computers 37-6).
    """
    hint = "beyond 32 take fork_join_lower_s and fork_join_upper_s"
    need("num_branches", num_branches, 1, 32, whole=True, hint=hint)
    rho, slowest = _branches(arrival_rate_per_s, service_rate_per_s, num_branches)
    over_two = slowest / 1.5
    several = (over_two + 4 / 11 * (1 - over_two) * rho) * (12 - rho) / 8
    return over_room(np.where(magnitude(num_branches) == 1, 1.0, several), 1 - rho) / service_rate_per_s


def _branches(arrival_rate_per_s: Number, service_rate_per_s: Number, num_branches: Number) -> tuple[Any, Any]:
    """Return (utilisation, mean of the slowest of n parts in units of the mean part)."""
    need("num_branches", num_branches, 1, whole=True)
    return offered(arrival_rate_per_s, service_rate_per_s, 1)[2], expected_max_time_s(
        1.0, 1.0, magnitude(num_branches), "exponential"
    )


def _need_batch(arrival_rate_per_s: Number, max_batch: Number, base_s: Number, item_s: Number, scv: Number) -> None:
    need("arrival_rate_per_s", arrival_rate_per_s)
    need("max_batch", max_batch, 1, _MOST_BATCH, whole=True)
    need("batch_base_s", base_s)
    need("batch_item_s", item_s)
    need("item_scv", scv)
    need("batch_base_s + batch_item_s", base_s + item_s, above=True, hint="a batch takes some time")


def _gathered(
    arrival_rate_per_s: Number,
    max_batch: Number,
    base_s: Number,
    item_s: Number,
    wait_s: Number,
    num_servers: Number,
) -> tuple[Any, Any, Any]:
    """Return (mean square size, mean size, mean wait for the batch to begin), times in units of a batch of one.

    A batch gathers for a window that begins with its first request: the deadline, or longer where servers are
    busy. Then a server gets free once in service / servers; the window is what is left of that at the first arrival.
    The mean size and the service time that depends on it are found together, by iteration.
    """
    _need_batch(arrival_rate_per_s, max_batch, base_s, item_s, 0.0)
    need("batch_wait_s", wait_s)
    need("num_servers", num_servers, 1, whole=True)
    one_s = base_s + item_s
    values = (arrival_rate_per_s * one_s, max_batch, item_s / one_s, wait_s / one_s, num_servers)
    rate, size, item, deadline, servers = np.broadcast_arrays(*(magnitude(v) for v in values))
    extra = np.arange(int(size.max()))
    mean = np.ones(rate.shape)
    for _ in range(100):
        busy = np.maximum((1 - item + item * mean) / servers - deadline, 0.0)
        passed = rate * busy
        small = passed < 1e-6
        left = np.where(small, passed / 2, 1 + np.expm1(-passed) / np.where(small, 1.0, passed))
        window = deadline + busy * left
        shares = _truncated_poisson(rate * window, size, extra)
        mean = (mean + (shares * (extra + 1)).sum(axis=-1)) / 2
    more = np.maximum(1 - np.cumsum(shares, axis=-1), 0.0)  # of a batch with more than so many others
    arrived = (more * (extra + 1)).sum(axis=-1) / mean
    expected = rate * window
    rare = expected < 1e-6
    gather = np.where(rare, window * (size > 1), arrived / np.where(rare, 1.0, rate))
    return (shares * (extra + 1) ** 2).sum(axis=-1), mean, gather[()]


def _truncated_poisson(mean: Any, size: Any, extra: Any) -> Any:
    """Shares of batches with 0, 1 .. size - 1 other requests (last axis); a full batch takes all that is beyond."""
    logs = np.array([math.lgamma(n + 1) for n in extra])
    mean, last = np.asarray(mean)[..., None], np.asarray(size)[..., None] - 1
    shares = np.exp(extra * np.log(np.maximum(mean, 1e-300)) - mean - logs) * (extra < last)
    return np.where(extra == last, np.maximum(1 - shares.sum(axis=-1, keepdims=True), 0.0), shares)
