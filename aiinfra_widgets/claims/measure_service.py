"""A real service of threads that sleep, under an open load: response times at several loads, seconds in all."""

from __future__ import annotations

import queue
import threading
import time

import numpy as np

from .claim import Evidence
from .rig import Clock, mean_of, sleep_until

#: Requests per second of one node: services of 5 ms on average, long against a late sleep and short against the budget.
CAPACITY_PER_S = 200.0
NODES = 4
LOADS = (0.3, 0.6, 0.8)
#: This share of the requests comes first and does not count: the queue was empty when they came.
WARM_UP = 0.1


def responses_s(nodes: int, capacity_per_s: float, load_per_s: float, seconds: float, seed: int) -> list[float]:
    """Offer Poisson arrivals to `nodes` servers with one queue, and return the response times in order of arrival.

    A response counts from the moment at which the request was meant to come. Services are exponential; a server sleeps to absolute
    deadlines, one after the other, so that late sleeps do not add up.

    Args:
        nodes: Servers.
        capacity_per_s: Of one of them.
        load_per_s: Offered to each of them, on average.
        seconds: Of load.
        seed: Of the draws.
    """
    draw = np.random.default_rng(seed)
    count = max(20, int(seconds * load_per_s * nodes))
    arrivals = np.cumsum(draw.exponential(1 / (load_per_s * nodes), count))
    services = draw.exponential(1 / capacity_per_s, count)
    found = np.full(count, np.nan)
    line: queue.SimpleQueue[int] = queue.SimpleQueue()
    begun = time.perf_counter() + 0.02

    def serve() -> None:
        free = begun
        while (i := line.get()) >= 0:
            come = begun + arrivals[i]
            free = max(free, come) + services[i]
            sleep_until(free)
            found[i] = time.perf_counter() - come

    servers = [threading.Thread(target=serve, daemon=True, name=f"aiinfra-claims-server-{n}") for n in range(nodes)]
    for server in servers:
        server.start()
    for i, at in enumerate(arrivals):
        sleep_until(begun + at)
        line.put(i)
    for _ in servers:
        line.put(-1)
    for server in servers:
        server.join()
    return [float(v) for v in found]


def measure_responses(budget_s: float) -> Evidence:
    """Measure the mean response of four servers at three loads, within about `budget_s` seconds."""
    clock, each = Clock(), max(0.5, budget_s / len(LOADS) - 0.1)
    points = []
    for seed, share in enumerate(LOADS):
        found = responses_s(NODES, CAPACITY_PER_S, share * CAPACITY_PER_S, each, seed)
        points.append(mean_of(share * CAPACITY_PER_S, found[int(WARM_UP * len(found)) :]))
    method = (
        f"Four threads serve one queue; a service is a sleep of 5 ms on average, exponential, so a node carries {CAPACITY_PER_S:g} "
        f"requests a second. {sum(p.n for p in points)} requests came at random, {each:.3g} s at each load."
    )
    return clock.evidence(points, {"nodes": float(NODES), "capacity_per_s": CAPACITY_PER_S}, method)
