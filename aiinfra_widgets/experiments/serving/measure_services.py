"""What a server does with the requests that it is given: sleep for their time, or compute an answer with a net.

A service is blocking and knows no queue: who gets a request, and when, is decided before it is called.

# B requests in a batch
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ...workloads import nets
from .spec import ServingSpec

#: A synthetic service that wakes up late makes good for it, but never for more than this: after a stall there is no rush.
MOST_BEHIND_S = 0.005


@dataclass(frozen=True, slots=True)
class Demand:
    """One request, as a server sees it.

    Attributes:
        id: Comes back with the answer, and chooses what a net is asked.
        size: Work: seconds (synthetic), new tokens (gpt-tiny); ignored by digits-cnn.
        arrived_s: Monotonic time at which it was meant to arrive.
    """

    id: int
    size: float
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        id: Of the demand.
        started_s, ended_s: Monotonic time at which its service began and was over.
        first_token_s: Monotonic time of the first token; NaN where there are none.
        result: The class of the picture, the last token, or 0.
    """

    id: int
    started_s: float
    ended_s: float
    first_token_s: float = math.nan
    result: float = 0.0


class Service(Protocol):
    """What one server does."""

    def configure(self, spec: ServingSpec, slow: bool) -> None:
        """Take up a changed Spec between two calls; `spec.service` stays what it was."""

    def serve(self, batch: Sequence[Demand], *, ready_s: float = 0.0) -> list[Answer]:
        """Answer a batch in one go, and return when it is done.

        Args:
            batch: At least one request; their answers come in the same order.
            ready_s: Monotonic time before which the batch was not meant to begin (it waited for more requests).
        """


class Continuous(Protocol):
    """A service that requests may join and leave between two tokens."""

    @property
    def active(self) -> int:
        """Number of requests added that are not answered yet."""

    def add(self, demand: Demand) -> None:
        """Take one request more; the next step begins it."""

    def step(self) -> list[Answer]:
        """Do one iteration: begin what is new, one token for all others; return what is finished."""


class SyntheticService:
    """Sleeps to absolute deadlines, so that it needs no core, and waking up late does not add up.

    A batch takes as long as the largest request in it; one more request in a batch costs nothing.
    """

    def __init__(self, spec: ServingSpec, slow: bool) -> None:
        self._free_s = 0.0
        self.configure(spec, slow)

    def configure(self, spec: ServingSpec, slow: bool) -> None:
        """Take up whether this server is slow; the sizes come with the requests."""
        self._factor = spec.slow_factor if slow else 1.0

    def serve(self, batch: Sequence[Demand], *, ready_s: float = 0.0) -> list[Answer]:
        """Sleep from when all was there and the last batch was due, not from when the message came through."""
        meant_s = max(self._free_s, ready_s, *(d.arrived_s for d in batch))
        start_s = max(meant_s, time.monotonic() - MOST_BEHIND_S)
        self._free_s = start_s + self._factor * max(d.size for d in batch)
        sleep_until(self._free_s)
        ended_s = time.monotonic()
        return [Answer(d.id, start_s, ended_s) for d in batch]


class PictureService:
    """The small CNN on held-out digits: one forward for the batch.

    The weights are those that training starts from: how long an answer takes does not depend on how right it is.
    """

    def __init__(self, spec: ServingSpec, cache: Path, slow: bool) -> None:
        torch.set_num_threads(1)
        work = nets.load(spec.service, seed=spec.seed, cache=cache)
        self.net, self.pictures = work.module.eval(), work.test[0]
        self._warm = 0
        self.configure(spec, slow)

    def configure(self, spec: ServingSpec, slow: bool) -> None:
        """Take up the largest batch: the first forward of a size chooses its kernels, which is not part of any answer."""
        self._factor = spec.slow_factor if slow else 1.0
        largest = 1 if spec.batching == "none" else spec.max_batch
        for size in range(self._warm + 1, largest + 1):
            self._classes(list(range(size)))
        self._warm = max(self._warm, largest)

    def serve(self, batch: Sequence[Demand], *, ready_s: float = 0.0) -> list[Answer]:
        """Classify picture `id` (modulo their number) for each request."""
        start_s = time.monotonic()
        classes = self._classes([d.id for d in batch])
        ended_s = _slowed(start_s, self._factor)
        return [Answer(d.id, start_s, ended_s, result=float(c)) for d, c in zip(batch, classes, strict=True)]

    @torch.inference_mode()
    def _classes(self, ids: list[int]) -> list[int]:
        found: list[int] = self.net(self.pictures[[i % len(self.pictures) for i in ids]]).argmax(1).tolist()
        return found


def make_service(spec: ServingSpec, cache: Path, slow: bool) -> Service:
    """Return what a server of `spec` does.

    Args:
        spec: Says which service; `seed` decides the weights.
        cache: Folder for data that are made once.
        slow: Whether this is the server that `slow_factor` slows down.
    """
    if spec.service == "synthetic":
        return SyntheticService(spec, slow)
    return PictureService(spec, cache, slow)


def sleep_until(deadline_s: float) -> None:
    """Return at the monotonic time `deadline_s`, or at once if it is over."""
    while (left_s := deadline_s - time.monotonic()) > 0:
        time.sleep(left_s)


def _slowed(start_s: float, factor: float) -> float:
    """Sleep `factor - 1` times as long as it took since `start_s`, and return the time."""
    now_s = time.monotonic()
    if factor > 1:
        sleep_until(now_s + (factor - 1) * (now_s - start_s))
        return time.monotonic()
    return now_s
