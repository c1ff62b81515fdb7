"""What one rank did in a step, and - compared with the others afterwards - for whom it waited.

All ranks of a machine share one clock. A rank that enters a collective waits until the last one is there; what is left of
its time was communication. A stage that receives waits until the sender has handed the message over: that is a pipeline's
bubble; what is left was the way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

AXES = ("tp", "cp", "data", "pp", "mirror")


@dataclass(slots=True)
class Call:
    """One collective or message of this rank."""

    axis: str
    enter_s: float
    leave_s: float = 0.0
    sent_bytes: int = 0
    key: int = -1
    source: int = -1

    @property
    def time_s(self) -> float:
        """How long it took, waiting included."""
        return self.leave_s - self.enter_s


@dataclass(slots=True)
class Ledger:
    """The notes of one step.

    Attributes:
        calls: Collectives and arrivals, in order.
        posts: Messages handed over: (receiver's place, key, when).
        operations: (kind as in `models.schedules`, micro-batch, begin, end) of what a timeline shows; empty unless `tracing`.
        tracing: Whether this step's operations are kept.
    """

    calls: list[Call] = field(default_factory=list)
    posts: list[tuple[int, int, float]] = field(default_factory=list)
    operations: list[tuple[int, int, float, float]] = field(default_factory=list)
    tracing: bool = False
    microbatch: int = -1
    sent_bytes: int = 0

    def begin(self, tracing: bool) -> None:
        """Forget the step before."""
        self.calls.clear()
        self.posts.clear()
        self.operations.clear()
        self.tracing, self.sent_bytes, self.microbatch = tracing, 0, -1

    @contextmanager
    def collective(self, axis: str) -> Iterator[Call]:
        """Note a collective; the caller fills in the bytes."""
        call = Call(axis, time.perf_counter())
        try:
            yield call
        finally:
            call.leave_s = time.perf_counter()
            self.calls.append(call)
            self.sent_bytes += call.sent_bytes

    @contextmanager
    def arrival(self, axis: str, source: int, to: int, tag: int) -> Iterator[Call]:
        """Note the wait for a message."""
        call = Call(axis, time.perf_counter(), key=tag, source=source)
        try:
            yield call
        finally:
            call.leave_s = time.perf_counter()
            self.calls.append(call)

    def sent(self, axis: str, me: int, to: int, tag: int, size_bytes: int) -> None:
        """Note a message that was handed over."""
        self.posts.append((to, tag, time.perf_counter()))
        self.sent_bytes += size_bytes

    @contextmanager
    def operation(self, kind: int, microbatch: int = -1) -> Iterator[None]:
        """Note an operation for the timeline."""
        before, self.microbatch = self.microbatch, microbatch
        begun_s = time.perf_counter()
        try:
            yield
        finally:
            self.microbatch = before
            if self.tracing:
                self.operations.append((kind, microbatch, begun_s, time.perf_counter()))
