"""The event loop behind `simulate_queue`: arrivals, alarms and completions in the order of time."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .queue_arrivals import Array
from .queue_result import QueueResult, RequestOutcome

if TYPE_CHECKING:
    from .queue_simulation import QueueRules

_PENDING = -1
_GIVE_UP, _RETURN, _BATCH = range(3)  # what an alarm is for
_Ticket = tuple[int, int, float]  # request, which of its attempts, since when in the queue


def uniforms(seed: int) -> Iterator[float]:
    """Yield numbers from 0 to below 1 without end, the same ones for the same seed."""
    rng = np.random.default_rng([seed, 3])  # not the draws of arrivals or services with the same seed
    while True:
        yield from rng.random(1024).tolist()


class Engine:
    """One simulation. Busy servers advance together, in *progress*: seconds of work that each of them has been given.

    With a core each, progress is time. With fewer cores it is slower than time, but still the same for all, so that the
    order in which they finish never changes and a heap of progress at the end is enough.
    """

    def __init__(self, arrivals: Array, services: Array, how: QueueRules) -> None:
        self.arrivals, self.services, self.how = arrivals.tolist(), services.tolist(), how
        self.central = how.dispatch == "central"
        self.queues: list[deque[_Ticket]] = [deque() for _ in range(1 if self.central else how.num_servers)]
        self.live = [0] * len(self.queues)  # waiting in each queue, those that gave up not counted
        self.load = [0] * how.num_servers  # waiting for a server and with it
        self.idle: dict[int, None] = dict.fromkeys(range(how.num_servers))  # in the order in which they fell idle
        self.serving: list[list[_Ticket]] = [[] for _ in range(how.num_servers)]
        self.began = [0.0] * how.num_servers
        self.alarms: list[tuple[float, int, int, int, int]] = []  # when, number, what for, request or queue, attempt
        self.finishing: list[tuple[float, int]] = []  # progress at the end, server
        self.now, self.progress, self.speed = 0.0, 0.0, 1.0
        self.alarm_count, self.arrived, self.retried, self.turn = 0, 0, 0, -1
        self.draw = uniforms(how.seed)
        count = len(self.arrivals)
        self.start, self.end = [math.nan] * count, [math.nan] * count
        self.server, self.tries, self.outcome = [-1] * count, [0] * count, [_PENDING] * count
        self.queue_of = [-1] * count  # where a request waits
        self.away: set[int] = set()  # gave up, and will try again
        self.busy: list[tuple[float, float, float]] = []

    def run(self) -> QueueResult:
        """Return what happened, when nothing can happen any more."""
        next_arrival, count = 0, len(self.arrivals)
        while True:
            arrives = self.arrivals[next_arrival] if next_arrival < count else math.inf
            rings = self.alarms[0][0] if self.alarms else math.inf
            ends = math.inf
            if self.finishing:
                ends = self.now + max(self.finishing[0][0] - self.progress, 0.0) / self.speed
            then = min(arrives, rings, ends)
            if then == math.inf:
                return self._result()
            self.progress += (then - self.now) * self.speed
            self.now = then
            if ends == then:
                self._finish()
            elif rings == then:
                self._ring()
            else:
                self.arrived += 1
                self._try(next_arrival)
                next_arrival += 1

    def _try(self, request: int) -> None:
        how = self.how
        self.tries[request] += 1
        self.away.discard(request)
        waiting = sum(self.live) if how.queue_limit is not None else 0
        if how.queue_limit is not None and waiting >= how.queue_limit and not (waiting == 0 and self.idle):
            self._fail(request, RequestOutcome.REJECTED)
            return
        queue = self._choose()
        self.queues[queue].append((request, self.tries[request], self.now))
        self.queue_of[request] = queue
        self.live[queue] += 1
        self.load[queue] += 1
        if how.timeout_s is not None:
            self._alarm(how.timeout_s, _GIVE_UP, request, self.tries[request])
        if how.batching == "dynamic":
            self._alarm(how.batch_wait_s, _BATCH, queue)
        self._serve(queue)

    def _choose(self) -> int:
        count = self.how.num_servers
        match self.how.dispatch:
            case "central":
                return 0
            case "round-robin":
                self.turn = (self.turn + 1) % count
                return self.turn
            case "shortest-queue":
                return min(range(count), key=self.load.__getitem__)
            case "two-choices" if count > 1:
                first = int(next(self.draw) * count)
                second = (first + 1 + int(next(self.draw) * (count - 1))) % count
                return first if self.load[first] <= self.load[second] else second
            case _:
                return int(next(self.draw) * count)

    def _fail(self, request: int, outcome: RequestOutcome) -> None:
        how, tries = self.how, self.tries[request]
        if tries < how.max_tries and self.retried + 1 <= how.retry_budget_frac * self.arrived:
            self.retried += 1
            pause_s = how.backoff_s * 2 ** (tries - 1) * (0.5 + next(self.draw))
            self._alarm(pause_s, _RETURN, request)
            self.away.add(request)
            return
        self.outcome[request], self.end[request] = outcome, self.now

    def _alarm(self, after_s: float, purpose: int, about: int, attempt: int = 0) -> None:
        self.alarm_count += 1
        heapq.heappush(self.alarms, (self.now + after_s, self.alarm_count, purpose, about, attempt))

    def _ring(self) -> None:
        _, _, purpose, about, attempt = heapq.heappop(self.alarms)
        if purpose == _BATCH:
            self._serve(about)
        elif purpose == _RETURN:
            self._try(about)
        elif self.outcome[about] == _PENDING and self.tries[about] == attempt:
            queue = self.queue_of[about]
            if queue >= 0:
                self.queue_of[about] = -1
                self.live[queue] -= 1
                self.load[queue] -= 1
            elif not self.how.timeout_in_service:
                return
            self._fail(about, RequestOutcome.TIMED_OUT)

    def _waits(self, ticket: _Ticket) -> bool:
        return self.queue_of[ticket[0]] >= 0 and self.tries[ticket[0]] == ticket[1]

    def _ready(self, queue: int) -> int:
        """Return how many of a queue a server takes now."""
        tickets, size = self.queues[queue], self.how.batch_size
        while tickets and not self._waits(tickets[0]):
            tickets.popleft()
        count = min(self.live[queue], size)
        if not count or count == size:
            return count
        late = self.how.batching == "dynamic" and self.now >= tickets[0][2] + self.how.batch_wait_s
        return count if late else 0

    def _serve(self, queue: int) -> None:
        """Begin every batch of a queue that a server can take now."""
        while self.idle:
            server = next(iter(self.idle)) if self.central else queue
            if server not in self.idle or not (count := self._ready(queue)):
                return
            batch: list[_Ticket] = []
            while len(batch) < count:
                ticket = self.queues[queue].popleft()
                if self._waits(ticket):
                    batch.append(ticket)
                    self.queue_of[ticket[0]] = -1
            self.live[queue] -= count
            del self.idle[server]
            each = [self.services[ticket[0]] for ticket in batch]
            work = self.how.batch_base_s + (sum(each) if self.how.batch_takes == "sum" else max(each))
            heapq.heappush(self.finishing, (self.progress + work * self.how.slowdown(server), server))
            self.serving[server], self.began[server] = batch, self.now
            self._set_speed()

    def _finish(self) -> None:
        self.progress, server = heapq.heappop(self.finishing)
        batch, self.serving[server] = self.serving[server], []
        self.busy.append((server, self.began[server], self.now))
        for request, attempt, _ in batch:
            wanted = self.tries[request] == attempt and request not in self.away
            if wanted and self.outcome[request] == _PENDING:
                self.outcome[request], self.end[request] = RequestOutcome.OK, self.now
                self.start[request], self.server[request] = self.began[server], server
        queue = 0 if self.central else server
        self.load[queue] -= len(batch)
        self.idle[server] = None
        self._set_speed()
        self._serve(queue)

    def _set_speed(self) -> None:
        working = self.how.num_servers - len(self.idle)
        self.speed = 1.0 if self.how.num_cores is None else min(1.0, self.how.num_cores / max(working, 1))

    def _result(self) -> QueueResult:
        outcome = np.array(self.outcome)
        return QueueResult(
            arrival_s=np.array(self.arrivals),
            start_s=np.array(self.start),
            end_s=np.array(self.end),
            server=np.array(self.server),
            outcome=np.where(outcome == _PENDING, int(RequestOutcome.UNFINISHED), outcome),
            tries=np.array(self.tries),
            busy=np.array(self.busy).reshape(-1, 3),
            num_servers=self.how.num_servers,
        )
