"""The desk driven by a clock of its own: what rank 0 does with real servers, here with servers that take exactly their time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from aiinfra_widgets.experiments.serving.desk import Desk, Request, Ticket
from aiinfra_widgets.experiments.serving.spec import ServingSpec


@dataclass
class Played:
    """What became of a stream of requests, in the order of arrival, and how the queue stood over time."""

    requests: list[Request]
    desk: Desk
    batches: list[tuple[float, int, list[int]]] = field(default_factory=list)  # when, which server, which requests
    queue: list[tuple[float, int]] = field(default_factory=list)  # from then on so many waited

    def column(self, name: str) -> list[Any]:
        return [getattr(r, name) for r in self.requests]


def play_stream(
    spec: ServingSpec,
    arrivals: Sequence[float],
    sizes: Sequence[float],
    work: Callable[[list[float]], float] = max,
    until_s: float = math.inf,
) -> Played:
    """Let requests of `sizes` arrive; a batch takes `work` of its sizes. What happens at one time happens in this order:
    a server is done, a client's patience ends, a request arrives."""
    desk = Desk(spec, spec.nodes, seed=spec.seed)
    requests = [Request(i, at, size, 0) for i, (at, size) in enumerate(zip(arrivals, sizes, strict=True))]
    played, serving, order, came = Played(requests, desk), [], itertools.count(), 0
    while True:
        arrives = requests[came].arrived_s if came < len(requests) else math.inf
        ends = serving[0][0] if serving else math.inf
        now = min(arrives, desk.next_s(), ends)
        if now > until_s or now == math.inf:
            break
        if ends == now:
            _, _, server, begun_s, batch = heapq.heappop(serving)
            for ticket in batch:
                desk.answered(server, ticket.number, (begun_s, now, math.nan), now)
        elif arrives == now:
            desk.arrive(requests[came], now)
            came += 1
        else:
            desk.tend(now)
        for server, batch in desk.assign(now):
            took: list[Ticket] = list(batch)
            played.batches.append((now, server, [t.request.id for t in took]))
            heapq.heappush(serving, (now + work([t.request.size for t in took]), next(order), server, now, took))
        played.queue.append((now, desk.waiting))
    desk.unfinished()
    return played


@pytest.fixture(scope="session")
def play() -> Callable[..., Played]:
    """See `play_stream`."""
    return play_stream


@pytest.fixture(scope="session")
def spec() -> Callable[..., ServingSpec]:
    """A Spec of the given values."""
    return lambda **values: ServingSpec.make(values)
