"""The desk between the load and the servers: queues, dispatch, batches, admission, timeouts and retries.

Pure: every call is told the time, nothing is sent and nothing sleeps. Rank 0 runs it on real requests. Whatever is asked of
it, what was due before comes before: who gave up at that time is gone, who came back waits.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from .spec import ServingSpec

#: A client waits this long before its second try, and twice as long before each further one.
BACKOFF_S = 0.05
#: A client tries at most so often, whatever its budget.
MOST_TRIES = 4


class Outcome(IntEnum):
    """How a request ended, as the record has it."""

    OK = 0
    REJECTED = 1
    TIMED_OUT = 2
    UNFINISHED = 3


@dataclass(slots=True)
class Request:
    """One request from its intended arrival to its one outcome. Times are monotonic seconds, NaN while unknown.

    Attributes:
        arrived_s: When it was meant to arrive; its response time counts from here, however late the generator was.
        size: Seconds of synthetic service, or tokens.
        segment: Of the run, when it arrived.
        tries: Attempts so far; each gets a ticket of its own.
        call: Of the web front, where it came from there.
        sent_s: When the load came to it.
    """

    id: int
    arrived_s: float
    size: float
    segment: int
    tries: int = 0
    started_s: float = math.nan
    ended_s: float = math.nan
    first_token_s: float = math.nan
    received_s: float = math.nan
    server: int = -1
    batch: int = 0
    outcome: Outcome | None = None
    call: int = -1
    sent_s: float = math.nan


@dataclass(slots=True)
class Ticket:
    """One attempt of a request.

    Attributes:
        queue: Where it waits; -1 with a server, or gone.
        batch: With a server: of so many. 0 in a queue.
        dead: Its client no longer waits for it.
    """

    number: int
    request: Request
    queued_s: float
    queue: int = -1
    batch: int = 0
    dead: bool = False


@dataclass
class Desk:
    """Everything that waits and everything that is being served.

    Attributes:
        finished: Requests that got their outcome since the caller last cleared this list.
        waiting: Live tickets in all queues.
    """

    spec: ServingSpec
    servers: int
    seed: int = 0
    finished: list[Request] = field(default_factory=list)
    waiting: int = 0
    arrived: int = 0
    retried: int = 0

    def __post_init__(self) -> None:
        self._numbers = 0
        self._turn = -1
        self._rng = np.random.default_rng(self.seed)
        self._alarms: list[tuple[float, int, Ticket]] = []  # when clients give up
        self._returns: list[tuple[float, int, Request]] = []  # when clients try again
        self._queues: list[deque[Ticket]] = [deque()]
        self._live: list[int] = []  # who waits in each queue; those who gave up lie there, but do not count
        self.busy: list[dict[int, Ticket]] = []
        self.configure(self.spec, self.servers)

    # --- what changes the desk ----------------------------------------------------------------------------------
    def configure(self, spec: ServingSpec, servers: int) -> None:
        """Take up a changed Spec or number of servers: what was with a server is queued again, first, and so is its order."""
        live = self._tickets()
        self.spec, self.servers = spec, servers
        self._queues = [deque() for _ in range(1 if spec.dispatch == "central" else servers)]
        self._live = [0] * len(self._queues)
        self.busy = [{} for _ in range(servers)]
        self._idle: deque[int] = deque(range(servers))
        self.waiting = 0
        for ticket in sorted(live, key=lambda t: (not t.batch, t.number)):
            ticket.batch = 0
            self._put(ticket)

    def _tickets(self) -> list[Ticket]:
        """Every attempt that somebody waits for."""
        return [t for part in (*(b.values() for b in self.busy), *self._queues) for t in part if not t.dead]

    def postpone(self, by_s: float) -> None:
        """Stand still for so long, because the run was held: nobody waited meanwhile, and nobody's patience ran out."""
        tickets = self._tickets()
        for ticket in tickets:
            ticket.queued_s += by_s
        for request in [t.request for t in tickets] + [r for _, _, r in self._returns]:
            request.arrived_s += by_s
            request.sent_s += by_s
        self._alarms = [(at_s + by_s, number, ticket) for at_s, number, ticket in self._alarms]
        self._returns = [(at_s + by_s, number, request) for at_s, number, request in self._returns]

    def arrive(self, request: Request, now: float) -> None:
        """Take a request that arrived at `request.arrived_s`, or reject it. Hand out before the next one: a free server counts."""
        self.tend(request.arrived_s)
        self.arrived += 1
        self._try(request, request.arrived_s, now)

    def _try(self, request: Request, asked_s: float, now: float) -> None:
        request.tries += 1
        limit = self.spec.queue_limit
        if limit and self.waiting >= limit:
            self._fail(request, Outcome.REJECTED, now)
            return
        self._numbers += 1
        ticket = Ticket(self._numbers, request, asked_s)
        if self.spec.timeout_s:
            heapq.heappush(self._alarms, (asked_s + self.spec.timeout_s, ticket.number, ticket))
        self._put(ticket)

    def _put(self, ticket: Ticket) -> None:
        ticket.queue = self._choose()
        self._queues[ticket.queue].append(ticket)
        self._live[ticket.queue] += 1
        self.waiting += 1

    def _leave(self, ticket: Ticket) -> None:
        self._live[ticket.queue] -= 1
        self.waiting -= 1
        ticket.queue = -1

    def _choose(self) -> int:
        """Return the queue of a newcomer."""
        count = len(self._queues)
        match self.spec.dispatch:
            case "round-robin":
                self._turn = (self._turn + 1) % count
                return self._turn
            case "shortest-queue":
                return min(range(count), key=self._load)
            case "two-choices" if count > 1:
                first = int(self._rng.integers(count))
                second = (first + 1 + int(self._rng.integers(count - 1))) % count
                return first if self._load(first) <= self._load(second) else second
            case _:
                return 0

    def _load(self, server: int) -> int:
        return self._live[server] + len(self.busy[server])

    def tend(self, now: float) -> None:
        """Let clients give up whose time is over, and try again whose pause is over."""
        while self._alarms and self._alarms[0][0] <= now:
            ticket = heapq.heappop(self._alarms)[2]
            if ticket.dead or ticket.request.outcome is not None:
                continue
            ticket.dead = True
            if ticket.queue >= 0:
                self._leave(ticket)
            self._fail(ticket.request, Outcome.TIMED_OUT, now)
        while self._returns and self._returns[0][0] <= now:
            at_s, _, request = heapq.heappop(self._returns)
            self._try(request, at_s, now)

    def _fail(self, request: Request, outcome: Outcome, now: float) -> None:
        if request.tries < MOST_TRIES and self.retried + 1 <= self.spec.retry_budget_frac * self.arrived:
            self.retried += 1
            pause_s = BACKOFF_S * 2 ** (request.tries - 1) * (0.5 + float(self._rng.random()))
            heapq.heappush(self._returns, (now + pause_s, request.id, request))
            return
        self._end(request, outcome, now)

    def _end(self, request: Request, outcome: Outcome, now: float) -> None:
        request.outcome, request.received_s = outcome, now
        self.finished.append(request)

    # --- towards the servers ------------------------------------------------------------------------------------
    def assign(self, now: float) -> Iterator[tuple[int, list[Ticket]]]:
        """Yield (server, tickets) for every batch that can begin now; the caller sends it at once."""
        if not self.waiting:
            return
        if self.spec.batching == "continuous":
            yield from self._join()
            return
        for server in list(self._idle):
            queue = self._queue_of(server)
            if count := self._ready(queue, now):
                self._idle.remove(server)
                yield server, self._give(server, queue, count)

    def _join(self) -> Iterator[tuple[int, list[Ticket]]]:
        """Let requests join one by one, each the server that holds the fewest."""
        most = self.spec.max_batch
        while where := [s for s in range(self.servers) if len(self.busy[s]) < most and self._live[self._queue_of(s)]]:
            server = min(where, key=lambda s: len(self.busy[s]))
            yield server, self._give(server, self._queue_of(server), 1)

    def _queue_of(self, server: int) -> int:
        return server if len(self._queues) > 1 else 0

    def _ready(self, queue: int, now: float) -> int:
        """Return how many of a queue an idle server takes now."""
        live = self._live[queue]
        most = 1 if self.spec.batching == "none" else self.spec.max_batch
        if not live or live >= most:
            return min(live, most)
        return live if self.spec.batching == "dynamic" and now >= self._due_s(queue) else 0

    def _due_s(self, queue: int) -> float:
        """When the first who waits in a queue has waited long enough for a fuller batch; somebody waits there."""
        tickets = self._queues[queue]
        while tickets[0].queue < 0:
            tickets.popleft()
        return tickets[0].queued_s + self.spec.batch_wait_s

    def _give(self, server: int, queue: int, count: int) -> list[Ticket]:
        batch: list[Ticket] = []
        while len(batch) < count:
            ticket = self._queues[queue].popleft()
            if ticket.queue >= 0:
                self._leave(ticket)
                batch.append(ticket)
        self.busy[server].update((ticket.number, ticket) for ticket in batch)
        for ticket in batch:
            ticket.batch = len(self.busy[server])
        return batch

    def ready_s(self, batch: list[Ticket]) -> float:
        """Return when a batch that is about to go was meant to begin: at its deadline where it waited for that, else 0."""
        if self.spec.batching != "dynamic" or len(batch) >= self.spec.max_batch:
            return 0.0
        return batch[0].queued_s + self.spec.batch_wait_s

    def next_s(self) -> float:
        """Return when the desk must look again though nothing arrives and nothing is answered; inf for never."""
        times = [self._alarms[0][0]] if self._alarms else []
        if self._returns:
            times.append(self._returns[0][0])
        if self.spec.batching == "dynamic" and self.waiting:
            times += [self._due_s(q) for q in {self._queue_of(s) for s in self._idle} if self._live[q]]
        return min(times, default=math.inf)

    def answered(self, server: int, number: int, times: tuple[float, float, float], now: float) -> None:
        """Take an answer.

        Args:
            server: Whose it is.
            number: The ticket's.
            times: Begin and end of the service and first token, by the server's clock.
            now: When it got here.
        """
        self.tend(now)
        ticket = self.busy[server].pop(number)
        if not self.busy[server] and self.spec.batching != "continuous":
            self._idle.append(server)
        request = ticket.request
        if ticket.dead or request.outcome is not None:
            return  # its client is gone: work for nothing
        request.started_s, request.ended_s, request.first_token_s = times
        request.server, request.batch = server, ticket.batch
        ticket.dead = True  # its alarm rings for nobody
        self._end(request, Outcome.OK, now)

    def unfinished(self) -> None:
        """End every request that still waits, is served or is about to try again: the run is over."""
        for request in [t.request for t in self._tickets()] + [r for _, _, r in self._returns]:
            self._end(request, Outcome.UNFINISHED, math.nan)
