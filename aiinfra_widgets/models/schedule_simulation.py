"""One training step of a pipeline, event by event: who works when, and how long each rank has nothing to do."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ..errors import ModelInputError
from ._check import need, need_ranks
from .kinds import BACKWARD, BUBBLE, COMMUNICATION, DATA, FORWARD, UPDATE
from .schedules import Operation, order, virtual_stage

#: In place of a micro-batch and a chunk, where a stretch belongs to none.
NONE = -1
#: Seconds: one number for all stages, one for each stage, or one for each stage and chunk.
Seconds = float | Sequence[float] | Sequence[Sequence[float]] | np.ndarray[Any, Any]


class Interval(NamedTuple):
    """What a stage does from `start_s` to `end_s`, in seconds since the step began; `kind` is a code of `kinds.KINDS`.

    Waiting and communication carry the micro-batch that was waited for; what belongs to no micro-batch has -1.
    """

    rank: int
    kind: int
    microbatch: int
    chunk: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class SimulatedStep:
    """One step. Each tuple has a number for each stage; the four add up to `step_time_s` on every stage.

    Attributes:
        intervals: By stage, then by time, without gaps.
        step_time_s: Until the slowest stage is done.
        compute_time_s: Forward, backward and update; longer than asked where ranks share cores.
        data_time_s: Fetching the batch.
        exposed_comm_time_s: Messages and the exchange of gradients, as far as the stage stands still for them.
        bubble_time_s: Nothing to do, and nothing under way to it: the pipeline bubble.
    """

    intervals: tuple[Interval, ...]
    step_time_s: float
    compute_time_s: tuple[float, ...]
    data_time_s: tuple[float, ...]
    exposed_comm_time_s: tuple[float, ...]
    bubble_time_s: tuple[float, ...]

    def columns(self) -> dict[str, list[float]]:
        """Return the intervals as columns by field name, as a record and `Prediction.extra` hold them."""
        found = zip(*self.intervals, strict=True)
        return {name: list(values) for name, values in zip(Interval._fields, found, strict=True)}


def simulate(
    schedule: str,
    num_microbatches: int,
    forward_s: Seconds,
    backward_s: Seconds,
    *,
    p2p_s: float | Sequence[float] = 0.0,
    cores: float | None = None,
    ranks_per_stage: int = 1,
    data_s: float | Sequence[float] = 0.0,
    sync_s: float | Sequence[float] = 0.0,
    update_s: float | Sequence[float] = 0.0,
) -> SimulatedStep:
    """Return one step under a schedule; a simulation of events, without chance.

    Args:
        schedule: One of `schedules.SCHEDULES`.
        num_microbatches: Micro-batches m of a step.
        forward_s, backward_s: Seconds of one micro-batch on a core of its own: of shape (stages,) or (stages, chunks).
        p2p_s: From the end of a pass until the next stage has its result: one number, or one for each of the
            stages * chunks - 1 boundaries. 0 between two chunks of one rank.
        cores: That all ranks share; None or at least as many as ranks: one for each.
        ranks_per_stage: Ranks that do the same as each stage (tensor and data parallel) and need a core, too.
        data_s, sync_s, update_s: Before the first pass, between the last pass and the update (exchange of gradients, which takes
            no core), and the update; one number or one for each stage.

    Raises:
        UnknownNameError, ModelInputError: As `schedules.order`; times that are negative or of a wrong shape.

    Valid when: sends are buffered, messages do not slow each other down, and a rank that waits takes no core. Ranks that
        share cores run at the same speed, cores / ranks that work (processor sharing).
    Off by: too low where a rank that waits spins, or where copying a message takes the time of a core that others want.
    Source: the schedules of Huang et al. 2019 and Narayanan et al. 2021; processor sharing as in Kleinrock 1967.
    """
    forward, backward = _passes("forward_s", forward_s), _passes("backward_s", backward_s)
    if forward.shape != backward.shape:
        raise ModelInputError(
            f"forward_s and backward_s must have one shape, got {forward.shape} and {backward.shape}; "
            "give both per stage, or both per stage and chunk"
        )
    pp_size, chunks = forward.shape
    need_ranks("ranks_per_stage", ranks_per_stage)
    slots = math.inf if cores is None else cores
    need("cores", slots, above=True, infinite=True, hint="at least a share of one core")
    hops = _per("p2p_s", p2p_s, pp_size * chunks - 1, "boundary") if pp_size > 1 else [0.0] * (chunks - 1)
    before, after, last = (
        _per(name, value, pp_size, "stage")
        for name, value in (("data_s", data_s), ("sync_s", sync_s), ("update_s", update_s))
    )
    plans = []
    for stage in range(pp_size):
        passes = [
            _pass(o, stage, pp_size, chunks, (forward if o.kind == "forward" else backward)[stage][o.chunk])
            for o in order(schedule, pp_size, num_microbatches, stage, chunks)
        ]
        ends = [_Task(COMMUNICATION, after[stage], core=False), _Task(UPDATE, last[stage])]
        plans.append([t for t in (_Task(DATA, before[stage]), *passes, *ends) if t.made or t.seconds])
    return _Simulation(plans, hops, slots / ranks_per_stage).run()


class _Task(NamedTuple):
    """One entry of a stage's plan. A message is (kind, micro-batch, virtual stage that sent it)."""

    kind: int
    seconds: float
    microbatch: int = NONE
    chunk: int = NONE
    needed: tuple[int, int, int] | None = None
    made: tuple[int, int, int] | None = None
    core: bool = True


def _pass(operation: Operation, stage: int, pp_size: int, chunks: int, seconds: float) -> _Task:
    here, code, mine = virtual_stage(stage, operation.chunk, pp_size), operation.code, operation.microbatch
    source = here - 1 if code == FORWARD else here + 1
    needed = (code, mine, source) if 0 <= source < pp_size * chunks else None
    return _Task(code, float(seconds), mine, operation.chunk, needed, (code, mine, here))


class _Simulation:
    """Two queues of events: passes that end after so much work, and messages and exchanges that end at a time.

    All passes under way proceed at one speed, so they end in the order of the work (per pass) at which they are through.
    """

    def __init__(self, plans: list[list[_Task]], hops: list[float], slots: float) -> None:
        self.plans, self.hops, self.slots = plans, hops, slots
        self.now = self.work = 0.0
        self.at = [-1] * len(plans)
        self.free_s = [0.0] * len(plans)
        self.working: list[tuple[float, int]] = []
        self.timed: list[tuple[float, int, bool]] = []
        self.sent: dict[tuple[int, int, int], tuple[float, float]] = {}
        self.wanted: dict[tuple[int, int, int], int] = {}
        self.found: list[list[Interval]] = [[] for _ in plans]

    def run(self) -> SimulatedStep:
        """Work everything off."""
        for rank in range(len(self.plans)):
            self._next(rank)
        while self.working or self.timed:
            rate = min(1.0, self.slots / len(self.working)) if self.working else 1.0
            done_s = self.now + (self.working[0][0] - self.work) / rate if self.working else math.inf
            if not self.timed or done_s <= self.timed[0][0]:
                self.work, rank = heapq.heappop(self.working)
                self.now = done_s
                self._end(rank)
            else:
                at_s, rank, arrived = heapq.heappop(self.timed)
                self.work += (at_s - self.now) * rate
                self.now = at_s
                self._begin(rank) if arrived else self._end(rank)
        assert not self.wanted, f"stages wait for each other: {self.wanted}"
        return self._result()

    def _next(self, rank: int) -> None:
        """Let a rank go on to its next task, as soon as it has what that needs."""
        self.at[rank] += 1
        if self.at[rank] == len(self.plans[rank]):
            return
        needed = self.plans[rank][self.at[rank]].needed
        if needed is None:
            self._begin(rank)
        elif needed not in self.sent:
            self.wanted[needed] = rank
        elif self.sent[needed][1] > self.now:
            heapq.heappush(self.timed, (self.sent[needed][1], rank, True))
        else:
            self._begin(rank)

    def _begin(self, rank: int) -> None:
        task = self.plans[rank][self.at[rank]]
        if task.needed is not None and self.now > self.free_s[rank]:
            sent_s = min(max(self.sent[task.needed][0], self.free_s[rank]), self.now)
            self._note(rank, BUBBLE, task, self.free_s[rank], sent_s)
            self._note(rank, COMMUNICATION, task, sent_s, self.now)
        self.free_s[rank] = self.now
        if task.core:
            heapq.heappush(self.working, (self.work + task.seconds, rank))
        else:
            heapq.heappush(self.timed, (self.now + task.seconds, rank, False))

    def _end(self, rank: int) -> None:
        task = self.plans[rank][self.at[rank]]
        self._note(rank, task.kind, task, self.free_s[rank], self.now)
        self.free_s[rank] = self.now
        if task.made is not None:
            kind, _, here = task.made
            boundary = here if kind == FORWARD else here - 1
            hop_s = self.hops[boundary] if 0 <= boundary < len(self.hops) else 0.0
            self.sent[task.made] = (self.now, self.now + hop_s)
            receiver = self.wanted.pop(task.made, None)
            if receiver is not None:
                heapq.heappush(self.timed, (self.now + hop_s, receiver, True))
        self._next(rank)

    def _note(self, rank: int, kind: int, task: _Task, start_s: float, end_s: float) -> None:
        if end_s > start_s or kind in (FORWARD, BACKWARD):
            self.found[rank].append(Interval(rank, kind, task.microbatch, task.chunk, start_s, end_s))

    def _result(self) -> SimulatedStep:
        idle = _Task(BUBBLE, 0.0)
        for rank, free_s in enumerate(self.free_s):
            self._note(rank, BUBBLE, idle, free_s, self.now)  # the step ends with the slowest

        def total(*kinds: int) -> tuple[float, ...]:
            return tuple(math.fsum(i.end_s - i.start_s for i in mine if i.kind in kinds) for mine in self.found)

        return SimulatedStep(
            tuple(chain.from_iterable(self.found)),
            self.now,
            total(FORWARD, BACKWARD, UPDATE),
            total(DATA),
            total(COMMUNICATION),
            total(BUBBLE),
        )


def _passes(name: str, value: Seconds) -> Any:
    """Return seconds by stage and chunk."""
    need(name, value, hint="seconds of one micro-batch")
    found = np.asarray(value, dtype=float)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.size:
        raise ModelInputError(
            f"{name} must have one number per stage, or per stage and chunk, got the shape {found.shape}"
        )
    return found


def _per(name: str, value: float | Sequence[float], count: int, what: str) -> list[float]:
    need(name, value, hint="seconds")
    found = np.asarray(value, dtype=float)
    if found.shape not in ((), (count,)):
        raise ModelInputError(f"{name} must be one number or one per {what} ({count}), got the shape {found.shape}")
    return [float(x) for x in np.broadcast_to(found, (count,))]
