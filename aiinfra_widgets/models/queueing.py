"""How long requests wait, exactly: Little's law, Erlang's formulas, and queues with Poisson arrivals and exponential service.

Every function takes the arrival rate of all servers together and the service rate of *one* server, 1 / mean service time.
At or above the load that the servers can carry no stationary mean exists: waits and lengths are infinite there, never
negative. What really happens then is `transient_queue_length`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._check import Number, magnitude, need

MOST_SERVERS = 100_000  # the loss recursion takes one step for each


def utilization(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number = 1) -> Number:
    """Return the offered load over the number of servers; above 1 the servers cannot follow.

    Args:
        arrival_rate_per_s: All requests.
        service_rate_per_s: What one busy server completes.
        num_servers: Number of servers.

    Raises:
        ModelInputError: A negative arrival rate, a service rate that is not positive, or no server.

    Valid when: any queue that loses nothing. Off by: exact. Source: definition.
    """
    return offered(arrival_rate_per_s, service_rate_per_s, num_servers)[2][()]


def little_length(arrival_rate_per_s: Number, time_s: Number) -> Number:
    """Return how many are there on average: rate times the time each one stays.

    Args:
        arrival_rate_per_s: What enters (and is not turned away).
        time_s: In the queue for the queue's length, in the system for the number in the system.

    Raises:
        ModelInputError: A negative argument.

    Valid when: the averages exist; any order of service, any distribution. Off by: exact. Source: Little 1961.
    """
    need("arrival_rate_per_s", arrival_rate_per_s)
    need("time_s", time_s, infinite=True)
    return arrival_rate_per_s * time_s


def little_time_s(length: Number, arrival_rate_per_s: Number) -> Number:
    """Return how long each one stays, in seconds: length over rate.

    Raises:
        ModelInputError: A negative length, or a rate that is not positive.

    Valid when: as `little_length`. Off by: exact. Source: Little 1961.
    """
    need("length", length, infinite=True)
    need("arrival_rate_per_s", arrival_rate_per_s, above=True)
    return length / arrival_rate_per_s


def little_rate_per_s(length: Number, time_s: Number) -> Number:
    """Return how many go through per second: length over the time that each one stays.

    Raises:
        ModelInputError: A negative length, or a time that is not positive.

    Valid when: as `little_length`. Off by: exact. Source: Little 1961.
    """
    need("length", length)
    need("time_s", time_s, above=True)
    return length / time_s


def erlang_b(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> Number:
    """Return the share of requests turned away where none may wait (M/G/c/c).

    Arguments and errors as `utilization`.

    Valid when: Poisson arrivals; any distribution of the service time. Off by: exact; stable to 100 000 servers.
    Source: Erlang 1917; the recursion over servers, Jagerman 1974.
    """
    load, servers, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    return loss_and_queue(load, servers, 0)[0][()]


def erlang_c(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> Number:
    """Return the share of requests that must wait (M/M/c); 1 where the servers cannot follow.

    Arguments and errors as `utilization`.

    Valid when: Poisson arrivals, exponential service, one queue, nobody leaves.
    Off by: exact; stable to 100 000 servers. Source: Erlang 1917, from Erlang B.
    """
    return waiting_share(arrival_rate_per_s, service_rate_per_s, num_servers)[()]


def mm1_wait_s(arrival_rate_per_s: Number, service_rate_per_s: Number) -> Number:
    """Return the mean wait in the queue of one server (M/M/1), in seconds.

    Arguments, errors, domain and bias as `mmc_wait_s`.
    """
    _, _, rho = offered(arrival_rate_per_s, service_rate_per_s, 1)
    return over_room(rho, 1 - rho) / service_rate_per_s


def mm1_response_s(arrival_rate_per_s: Number, service_rate_per_s: Number) -> Number:
    """Return the mean response (wait and service) of one server (M/M/1), in seconds.

    Arguments, errors, domain and bias as `mmc_wait_s`. The mean is the same where the server is shared by all who
    are there (processor sharing) instead of serving one after the other.
    """
    _, _, rho = offered(arrival_rate_per_s, service_rate_per_s, 1)
    return over_room(1.0, 1 - rho) / service_rate_per_s


def mmc_wait_s(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> Number:
    """Return the mean wait in the one queue before c servers (M/M/c), in seconds; infinite from utilisation 1 on.

    Args:
        arrival_rate_per_s: All requests.
        service_rate_per_s: What one busy server completes.
        num_servers: Number of servers c.

    Raises:
        ModelInputError: A negative arrival rate, a service rate that is not positive, or no server.

    Valid when: Poisson arrivals, exponential service, one queue, equal servers, nobody leaves, long after the start.
    Off by: exact. Too high where service varies less than exponentially; too low for bursts and for a queue per server.
    Source: Erlang 1917; Kleinrock 1975, Queueing Systems 1, section 3.5.
    """
    load, servers, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    wait = waiting_share(arrival_rate_per_s, service_rate_per_s, num_servers)
    return over_room(wait, servers - load) / service_rate_per_s


def mmc_response_s(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> Number:
    """Return the mean response (wait and service) of M/M/c, in seconds.

    Arguments, errors, domain, bias and source as `mmc_wait_s`.
    """
    return mmc_wait_s(arrival_rate_per_s, service_rate_per_s, num_servers) + 1 / service_rate_per_s


def mmc_queue_length(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> Number:
    """Return the mean number of requests that wait in M/M/c, those in service not counted.

    Arguments, errors, domain, bias and source as `mmc_wait_s`.
    """
    load, servers, _ = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    wait = waiting_share(arrival_rate_per_s, service_rate_per_s, num_servers)
    return over_room(load * wait, servers - load)


def naive_response_s(node_capacity_per_s: Number, offered_load_per_s: Number) -> Number:
    """Return the articles' T = C / L, to be drawn beside the others. It is not a time.

    C (requests per second) over L (requests per second) has no unit; 1 / utilisation of one node is called seconds.
    It falls as the load grows, where every queue's response rises; the number of nodes cancels out of it; it knows no
    queue, and no load at which the servers cannot follow. Its own example (100 TPS: load 100 gives 1 s, load 200 gives
    0.5 s) is commented there as "response time doubled".

    Args:
        node_capacity_per_s: C, of one node.
        offered_load_per_s: L, of one node.

    Raises:
        ModelInputError: A negative capacity, or a load that is not positive.

    Valid when: never. Off by: everything: unit, direction and size. Source: the articles, row S0-T.
    """
    need("node_capacity_per_s", node_capacity_per_s)
    need("offered_load_per_s", offered_load_per_s, above=True)
    return node_capacity_per_s / offered_load_per_s


def offered(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> tuple[Any, Any, Any]:
    """Return (offered load in erlangs, servers, utilisation) as plain arrays, after validating all three."""
    need("arrival_rate_per_s", arrival_rate_per_s, hint="no request at all is 0")
    need(
        "service_rate_per_s", service_rate_per_s, above=True, infinite=True, hint="1 / mean service time of one server"
    )
    need("num_servers", num_servers, 1, MOST_SERVERS, whole=True, hint="a service has at least one server")
    load, servers = magnitude(arrival_rate_per_s / service_rate_per_s), magnitude(num_servers)
    return load, servers, load / servers


def loss_and_queue(load: Any, servers: Any, places: Any) -> tuple[Any, Any]:
    """Return (share turned away, mean number waiting) with so many waiting places.

    Adds one place at a time: a place more takes its share from all states below it, so that nothing is subtracted
    but from 1 and nothing overflows, at any load.
    """
    load, servers, places = np.broadcast_arrays(load, servers, places)
    lost, waiting = np.ones(load.shape), np.zeros(load.shape)
    last = servers + places
    for n in range(1, int(last.max(initial=0)) + 1):
        share = load * lost / (np.minimum(n, servers) + load * lost)
        inside = n <= last
        waiting = np.where(inside, (1 - share) * waiting + np.maximum(n - servers, 0) * share, waiting)
        lost = np.where(inside, share, lost)
    return lost, waiting


def waiting_share(arrival_rate_per_s: Number, service_rate_per_s: Number, num_servers: Number) -> Any:
    """Erlang C as a plain array."""
    load, servers, rho = offered(arrival_rate_per_s, service_rate_per_s, num_servers)
    lost = loss_and_queue(load, servers, 0)[0]
    return np.where(rho < 1, lost / (1 - np.minimum(rho, 1) * (1 - lost)), 1.0)


def over_room(amount: Any, room: Any) -> Any:
    """Return amount / room, infinite where there is no room left."""
    stable = np.asarray(room) > 0
    return np.where(stable, amount / np.where(stable, room, 1.0), math.inf)[()]
