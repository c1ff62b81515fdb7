"""What a server does with the requests that it is given: sleep for their time, or compute an answer with a net.

A service is blocking and knows no queue: who gets a request, and when, is decided before it is called.

# B requests in a batch
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ...workloads import nets
from ...workloads.gpt import Decoder, Gpt
from ...workloads.gpt_facts import gpt_facts
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


@runtime_checkable
class Continuous(Protocol):
    """A service that requests may join and leave between two tokens."""

    def configure(self, spec: ServingSpec, slow: bool) -> None:
        """Take up a changed Spec between two steps; `spec.service` and whether it is continuous stay what they were."""

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


class _Language:
    """The small language model, greedy. A slow server sleeps after each pass through the net: its tokens are slow one by one."""

    def __init__(self, spec: ServingSpec, slow: bool) -> None:
        torch.set_num_threads(1)
        self.facts = gpt_facts(spec.service)
        self.decoder = Decoder(Gpt(self.facts, spec.seed).eval(), int(spec.knobs()["max_batch"].high or 1))
        self._warm = 0
        self.configure(spec, slow)

    def configure(self, spec: ServingSpec, slow: bool) -> None:
        """Take up the largest batch, and try it where nothing is under way: a first pass is slower than all others."""
        self._factor, self._prompt = 1.0, spec.prompt_tokens
        largest = 1 if spec.batching == "none" else spec.max_batch
        if largest > self._warm and not self.decoder.lengths:
            tokens = self._pass(self.decoder.prefill, self._prompts([Demand(i, 1.0, 0.0) for i in range(largest)]))
            self._pass(self.decoder.decode_step, torch.tensor(tokens))
            self.decoder.clear()
            self._warm = largest
        self._factor = spec.slow_factor if slow else 1.0

    def _pass(self, through: Callable[[Tensor], Tensor], tokens: Tensor) -> list[int]:
        """Go through the net once; return the token that follows for each sequence."""
        begun_s = time.monotonic()
        following: list[int] = through(tokens).argmax(1).tolist()
        _slowed(begun_s, self._factor)
        return following

    def _prompts(self, batch: Sequence[Demand]) -> Tensor:
        """Return (B, T) tokens; what they say depends on the request's id alone."""
        ids = torch.tensor([d.id for d in batch])
        return (ids[:, None] * 31 + torch.arange(self._prompt) * 17) % self.facts.vocab

    def _wanted(self, demand: Demand) -> int:
        """Whole tokens, at least one; prompt and answer together fit into the context."""
        return min(max(1, round(demand.size)), self.facts.context - self._prompt)


class LanguageService(_Language):
    """Whole batches: each stays together until its longest answer is done, and its answers are given out together."""

    def serve(self, batch: Sequence[Demand], *, ready_s: float = 0.0) -> list[Answer]:
        """Read all prompts, then decode until the longest answer is done, as if each had asked for that many tokens."""
        start_s = time.monotonic()
        wanted = [self._wanted(d) for d in batch]
        tokens = [self._pass(self.decoder.prefill, self._prompts(batch))]
        first_s = time.monotonic()
        for _ in range(1, max(wanted)):
            tokens.append(self._pass(self.decoder.decode_step, torch.tensor(tokens[-1])))
        ended_s = time.monotonic()
        self.decoder.clear()
        results = [float(tokens[n - 1][i]) for i, n in enumerate(wanted)]
        return [Answer(d.id, start_s, ended_s, first_s, r) for d, r in zip(batch, results, strict=True)]


@dataclass(slots=True)
class _Sequence:
    """One answer in the making."""

    demand: Demand
    wanted: int
    started_s: float
    last: int
    first_token_s: float
    tokens: int = 1


class ContinuousLanguageService(_Language):
    """Requests join and leave between two tokens."""

    def __init__(self, spec: ServingSpec, slow: bool) -> None:
        self._new: list[Demand] = []
        self._running: list[_Sequence] = []  # in the order of the decoder's slots
        super().__init__(spec, slow)

    @property
    def active(self) -> int:
        """Number of requests added that are not answered yet."""
        return len(self._new) + len(self._running)

    def add(self, demand: Demand) -> None:
        """Take one request more; the next step reads its prompt."""
        self._new.append(demand)

    def step(self) -> list[Answer]:
        """Give each sequence one token: the running ones theirs, then the new ones their first."""
        if self._running:
            following = self._pass(self.decoder.decode_step, torch.tensor([r.last for r in self._running]))
            for running, token in zip(self._running, following, strict=True):
                running.last, running.tokens = token, running.tokens + 1
        if self._new:
            begun_s = time.monotonic()
            first = self._pass(self.decoder.prefill, self._prompts(self._new))
            now_s = time.monotonic()
            self._running += [
                _Sequence(d, self._wanted(d), begun_s, token, now_s) for d, token in zip(self._new, first, strict=True)
            ]
            self._new = []
        return self._leavers(time.monotonic())

    def _leavers(self, now_s: float) -> list[Answer]:
        """Take out who has all its tokens; the last slot's sequence moves into the gap, here as in the decoder."""
        answers = []
        for slot in reversed(range(len(self._running))):
            done = self._running[slot]
            if done.tokens == done.wanted:
                self.decoder.drop(slot)
                self._running[slot] = self._running[-1]
                self._running.pop()
                answers.append(Answer(done.demand.id, done.started_s, now_s, done.first_token_s, float(done.last)))
        return answers


def make_service(spec: ServingSpec, cache: Path, slow: bool) -> Service | Continuous:
    """Return what a server of `spec` does: a `Service`, or a `Continuous` where the batching is.

    Args:
        spec: Says which service; `seed` decides the weights.
        cache: Folder for data that are made once.
        slow: Whether this is the server that `slow_factor` slows down.
    """
    match spec.service:
        case "synthetic":
            return SyntheticService(spec, slow)
        case "digits-cnn":
            return PictureService(spec, cache, slow)
        case _:
            return (ContinuousLanguageService if spec.batching == "continuous" else LanguageService)(spec, slow)


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
