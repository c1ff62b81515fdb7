"""Pipeline schedules: in which order a stage does its work, and what a step costs then. The runner and the prediction share them.

p stages work on m micro-batches. With v chunks per stage, chunk c of stage s is virtual stage c*p + s: the layers are cut
into p*v pieces and a micro-batch goes round the stages v times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import ModelInputError, UnknownNameError, near
from ._check import Number, need
from .kinds import BACKWARD, FORWARD

SCHEDULES = ("gpipe", "1f1b", "interleaved")


@dataclass(frozen=True, slots=True)
class Operation:
    """One pass of one micro-batch through one chunk of a stage.

    Attributes:
        kind: forward or backward.
        microbatch: From 0.
        chunk: Of this stage, from 0.
    """

    kind: Literal["forward", "backward"]
    microbatch: int
    chunk: int = 0

    @property
    def code(self) -> int:
        """Its index in `KINDS`."""
        return FORWARD if self.kind == "forward" else BACKWARD


def virtual_stage(stage: int, chunk: int, pp_size: int) -> int:
    """Return which piece of the net chunk `chunk` of `stage` is, from 0 at the input."""
    return chunk * pp_size + stage


def order(schedule: str, pp_size: int, num_microbatches: int, stage: int, chunks: int = 1) -> tuple[Operation, ...]:
    """Return what one stage does in a step, first to last.

    Sends must be buffered (they do not wait for the receiver) and receives wait; then no order here can deadlock. Between two
    ranks, messages of one kind are asked for in the order in which they were sent; forward and backward are not, so they need
    a tag each.

    - gpipe: every forward pass, then every backward pass, both from micro-batch 0. GPipe's own figure goes backwards through
      the backward passes; here all schedules add gradients up in the same order, so that they give the same sums bit by bit.
      Time and memory are the same either way.
    - 1f1b: min(m, p-1-stage) forward passes, then one forward and one backward in turn, then the backward passes that are left.
    - interleaved: the same over chunks, in rounds of p micro-batches per chunk; the warm-up is 2(p-1-stage) + (v-1)p passes.
      One chunk is 1f1b.

    Args:
        schedule: One of `SCHEDULES`.
        pp_size: Stages p.
        num_microbatches: Micro-batches m of a step.
        stage: Which stage asks, from 0.
        chunks: Model chunks v per stage; more than 1 only where interleaved.

    Raises:
        UnknownNameError: No such schedule.
        ModelInputError: Chunks where nothing is interleaved, m that is no multiple of p where it is, or a stage that is not there.

    Valid when: any p, m and v that are allowed. Off by: exact by definition.
    Source: Huang et al. 2019 (GPipe); Narayanan et al. 2021 (SC21), section 2.2.
    """
    _need_plan(schedule, pp_size, num_microbatches, chunks)
    need("stage", stage, 0, pp_size - 1, whole=True, hint=f"there are {pp_size} stages, counted from 0")
    passes = num_microbatches * chunks
    forward = [Operation("forward", *_nth(i, pp_size, chunks)) for i in range(passes)]
    mirrored = [_nth(i, pp_size, chunks) for i in range(passes)]
    backward = [Operation("backward", microbatch, chunks - 1 - chunk) for microbatch, chunk in mirrored]
    if schedule == "gpipe":
        return (*forward, *backward)
    behind = pp_size - 1 - stage
    warm_up = min(passes, behind if chunks == 1 else 2 * behind + (chunks - 1) * pp_size)
    steady = passes - warm_up
    turns = (one for pair in zip(forward[warm_up:], backward[:steady], strict=True) for one in pair)
    return (*forward[:warm_up], *turns, *backward[steady:])


def in_flight(operations: Iterable[Operation]) -> int:
    """Return how many forward passes a stage has to remember at most: their activations are alive until the backward pass.

    Args:
        operations: What `order` returned. With chunks, one is a pass through one chunk: 1/v of the stage's layers.
    """
    alive = most = 0
    for operation in operations:
        alive += 1 if operation.kind == "forward" else -1
        most = max(most, alive)
    return most


def bubble_frac(schedule: str, pp_size: Number, num_microbatches: Number, chunks: Number = 1) -> Number:
    """Return the share of a step in which a stage has nothing to do: (p-1)/(m+p-1), interleaved (p-1)/(v m + p-1).

    It is a share of the whole step; `models.transformer.pipeline.bubble_frac` is idle time against busy time, (p-1)/m.

    Args:
        schedule: One of `SCHEDULES`.
        pp_size: Stages p.
        num_microbatches: Micro-batches m; interleaved: a multiple of p.
        chunks: Chunks v per stage; 1 where nothing is interleaved.

    Raises:
        UnknownNameError: No such schedule.
        ModelInputError: A plan that `order` refuses, too.

    Valid when: stages take equal time, messages take none, and each rank has a core or a device of its own.
    Off by: too low where stages differ, where a message is waited for, or where m is small and fixed costs count.
    Source: Narayanan et al. 2021 (SC21), section 2.2: idle against ideal time is (p-1)/(v m); here against the sum of the two.
    """
    _need_plan(schedule, pp_size, num_microbatches, chunks)
    return (pp_size - 1) / (num_microbatches * chunks + pp_size - 1)


def _nth(i: int, pp_size: int, chunks: int) -> tuple[int, int]:
    """Return micro-batch and chunk of the i-th pass: p micro-batches through one chunk, the same through the next, the next p."""
    if chunks == 1:
        return i, 0
    group, inside = divmod(i, pp_size * chunks)
    chunk, microbatch = divmod(inside, pp_size)
    return group * pp_size + microbatch, chunk


def _need_plan(schedule: str, pp_size: Number, num_microbatches: Number, chunks: Number) -> None:
    if schedule not in SCHEDULES:
        raise UnknownNameError(f"no pipeline schedule {schedule!r}; {near(schedule, SCHEDULES)}")
    need("pp_size", pp_size, 1, whole=True, hint="a pipeline has at least one stage")
    need("num_microbatches", num_microbatches, 1, whole=True, hint="a step has at least one micro-batch")
    need("chunks", chunks, 1, whole=True, hint="a stage holds at least one chunk of the net")
    if schedule != "interleaved":
        if np.any(np.asarray(chunks) != 1):
            most = int(np.max(chunks))
            raise ModelInputError(
                f"chunks must be 1 with schedule {schedule!r}, got {most}; "
                "only 'interleaved' gives a stage several chunks of the net"
            )
        return
    p, m = np.broadcast_arrays(np.asarray(pp_size), np.asarray(num_microbatches))
    wrong = m % p != 0
    if np.any(wrong):
        stages, given = int(p[wrong][0]), int(m[wrong][0])
        below, above = given // stages * stages, (given // stages + 1) * stages
        allowed = f"{below} or {above}" if below else f"{above}"
        raise ModelInputError(
            f"num_microbatches must be a multiple of the {stages} stages with schedule 'interleaved', got {given}; "
            f"use {allowed}, or schedule '1f1b', which takes any number"
        )
