"""A queue simulated request by request, for what has no closed form: dispatch, batches, limits, retries, slow servers.

Arrivals and service times are given (see `arrival_times` and `service_times`), so that a simulation is a function of them and
of a seed. The simplest cases take a shortcut that is exact; `queue_engine` does the rest event by event.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ModelInputError, near
from ._check import need
from .queue_arrivals import read_trace
from .queue_engine import Engine, uniforms
from .queue_result import QueueResult, RequestOutcome

Dispatch = Literal["central", "round-robin", "random", "shortest-queue", "two-choices"]
Batching = Literal["none", "fixed", "dynamic"]
DISPATCH: tuple[str, ...] = ("central", "round-robin", "random", "shortest-queue", "two-choices")
BatchTakes = Literal["sum", "longest"]
BATCHING: tuple[str, ...] = ("none", "fixed", "dynamic")
BATCH_TAKES: tuple[str, ...] = ("sum", "longest")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """What a service does with its requests.

    Attributes:
        num_servers: Number of servers.
        dispatch: "central": one queue, the server that has been idle longest takes the first. The others choose a
            server for each newcomer: "round-robin", "random", "shortest-queue" (fewest waiting and in service, the first
            on a tie), "two-choices" (the shorter of two drawn by chance).
        batching: "none", "fixed" (wait until `max_batch` are there), "dynamic" (until then, or until the oldest
            has waited `batch_wait_s`).
        max_batch: Most requests in one batch.
        batch_wait_s: dynamic: longest wait for a fuller batch.
        batch_base_s: What a batch takes in addition to the service times of its requests.
        batch_takes: "sum" of the service times of its requests (one after the other), or the "longest" (all at once).
        queue_limit: A newcomer that would have to wait is rejected when so many wait already; None: no limit.
        timeout_s: A client gives up after so long; None: never.
        timeout_in_service: Clients give up also while they are served, and the server works on in vain; False: only
            those that still wait leave (abandonment).
        retry_budget_frac: Rejected and timed-out requests try again while retries stay under this share of arrivals.
        max_tries: Attempts of one request at most.
        backoff_s: Mean pause before the second attempt, then twice as long before each further one; drawn from half to
            one and a half times that.
        slow_server: Position of a server that takes `slow_factor` times as long.
        slow_factor: 1 is a server like the others.
        num_cores: Cores that busy servers share evenly; None: one for each.
        seed: Of the draws of dispatch and backoff.
    """

    num_servers: int = 1
    dispatch: Dispatch = "central"
    batching: Batching = "none"
    max_batch: int = 1
    batch_wait_s: float = 0.0
    batch_base_s: float = 0.0
    batch_takes: BatchTakes = "sum"
    queue_limit: int | None = None
    timeout_s: float | None = None
    timeout_in_service: bool = True
    retry_budget_frac: float = 0.0
    max_tries: int = 4
    backoff_s: float = 0.05
    slow_server: int = 0
    slow_factor: float = 1.0
    num_cores: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dispatch not in DISPATCH:
            raise ModelInputError(f"no dispatch {self.dispatch!r}; {near(self.dispatch, DISPATCH)}")
        if self.batching not in BATCHING:
            raise ModelInputError(f"no batching {self.batching!r}; {near(self.batching, BATCHING)}")
        if self.batch_takes not in BATCH_TAKES:
            raise ModelInputError(f"no batch_takes {self.batch_takes!r}; {near(self.batch_takes, BATCH_TAKES)}")
        need("num_servers", self.num_servers, 1, whole=True, hint="a service has at least one server")
        need("max_batch", self.max_batch, 1, whole=True)
        for name in ("batch_wait_s", "batch_base_s", "backoff_s", "retry_budget_frac"):
            need(name, getattr(self, name))
        need("seed", self.seed, whole=True)
        need("max_tries", self.max_tries, 1, whole=True)
        need("slow_server", self.slow_server, 0, self.num_servers - 1, whole=True)
        need("slow_factor", self.slow_factor, above=True)
        if self.queue_limit is not None:
            fewest = self.max_batch if self.batching == "fixed" and self.max_batch > 1 else 0
            need("queue_limit", self.queue_limit, fewest, whole=True, hint="a fixed batch must fit into the queue")
        if self.timeout_s is not None:
            need("timeout_s", self.timeout_s, above=True, hint="None is no timeout")
        if self.num_cores is not None:
            need("num_cores", self.num_cores, 1, whole=True)

    @property
    def batch_size(self) -> int:
        """Most requests that a server takes at once."""
        return 1 if self.batching == "none" else self.max_batch

    @property
    def stateless(self) -> bool:
        """Whether a request's server and start follow from those before it alone."""
        fed_back = self.queue_limit is not None or self.timeout_s is not None or self.num_cores is not None
        return self.batch_size == 1 and not fed_back and self.dispatch in {"central", "round-robin", "random"}

    def slowdown(self, server: int) -> float:
        """Return how many times as long `server` takes."""
        return self.slow_factor if server == self.slow_server else 1.0


def simulate_queue(arrival_s: ArrayLike, service_s: ArrayLike, **rules: Any) -> QueueResult:
    """Return what a service does with these requests, one by one.

    Args:
        arrival_s: When they arrive, sorted.
        service_s: What each of them takes on a server of its own, at normal speed.
        **rules: Fields of `QueueRules`.

    Raises:
        ModelInputError: Times that are negative, unsorted, missing or of different number, or rules that are not allowed.

    Valid when: handing over costs nothing, and service times do not depend on who serves.
    Off by: the noise of one sequence: compare over thousands of requests, without the first (`after`).
    Source: Kiefer & Wolfowitz 1955 for the shortcut; event by event otherwise. Checked against ciw and the closed forms.
    """
    if wrong := [name for name in rules if name not in QueueRules.__dataclass_fields__]:
        raise ModelInputError(f"no rule {wrong[0]!r}; {near(wrong[0], QueueRules.__dataclass_fields__)}")
    how = QueueRules(**rules)
    arrivals = read_trace("arrival_s", arrival_s)
    services = read_trace("service_s", service_s, ordered=False)
    if len(arrivals) != len(services):
        raise ModelInputError(
            f"each request needs one service time, got {len(services)} for {len(arrivals)} arrivals; draw as many"
        )
    if not how.stateless:
        return Engine(arrivals, services, how).run()
    one_by_one = _central if how.dispatch == "central" else _own_queues
    server, start, end = one_by_one(arrivals.tolist(), (services + how.batch_base_s).tolist(), how)
    starts, ends, servers = np.array(start), np.array(end), np.array(server)
    count = len(arrivals)
    return QueueResult(
        arrival_s=arrivals,
        start_s=starts,
        end_s=ends,
        server=servers,
        outcome=np.full(count, int(RequestOutcome.OK)),
        tries=np.ones(count, dtype=np.int64),
        busy=np.stack([servers, starts, ends], axis=1),
        num_servers=how.num_servers,
    )


_Served = tuple[list[int], list[float], list[float]]


def _central(arrivals: list[float], services: list[float], how: QueueRules) -> _Served:
    """One queue: each request in turn takes the server that is free first, the one idle longest among the free."""
    free = [(0.0, server) for server in range(how.num_servers)]
    slowdown = [how.slowdown(server) for server in range(how.num_servers)]
    chosen, start, end = [], [], []
    for at, work in zip(arrivals, services, strict=True):
        free_at, server = free[0]
        begin = at if at > free_at else free_at
        done = begin + work * slowdown[server]
        heapq.heapreplace(free, (done, server))
        chosen.append(server)
        start.append(begin)
        end.append(done)
    return chosen, start, end


def _own_queues(arrivals: list[float], services: list[float], how: QueueRules) -> _Served:
    """A queue for each server, chosen without looking."""
    free = [-math.inf] * how.num_servers
    chosen, start, end = list(islice(_blind(how), len(arrivals))), [], []
    for at, work, server in zip(arrivals, services, chosen, strict=True):
        begin = max(at, free[server])
        free[server] = begin + work * how.slowdown(server)
        start.append(begin)
        end.append(free[server])
    return chosen, start, end


def _blind(how: QueueRules) -> Iterator[int]:
    if how.dispatch == "round-robin":
        return cycle(range(how.num_servers))
    return (int(u * how.num_servers) for u in uniforms(how.seed))
