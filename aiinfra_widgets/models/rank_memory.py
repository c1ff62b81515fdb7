"""Tensor storage of one rank in training: parameters, gradients, optimiser state, and what comes and goes within a step.

A *unit* is what is gathered and summed at once: one part of the net, as this rank's tensor parallelism cuts it. Everything
is counted, nothing is fitted: a test holds it against the storage of real ranks, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..errors import ModelInputError
from ._check import need, need_ranks
from .rank_grid import share


@dataclass(frozen=True, slots=True)
class RankMemory:
    """Bytes of one rank.

    Attributes:
        parameters_bytes, gradients_bytes, optimizer_bytes: Held all the time.
        transient_bytes: Most that a step holds beside them at one moment: the whole gradient of one unit, its gathered
            parameters, a sum that was just received.
        activations_bytes: Most that forward passes keep for their backward passes.
    """

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    transient_bytes: int
    activations_bytes: float = 0.0

    @property
    def held_bytes(self) -> int:
        """Held between two steps."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def peak_bytes(self) -> float:
        """All of it at once: activations are fullest when backward begins, and so is the last, often largest, unit."""
        return self.held_bytes + self.transient_bytes + self.activations_bytes


def rank_memory(
    sizes: Sequence[int],
    *,
    zero_stage: int = 0,
    data_size: int = 1,
    data_rank: int | None = None,
    element_bytes: int = 4,
    state_tensors: int = 1,
    activations_bytes: float = 0.0,
) -> RankMemory:
    """Return the tensor storage of one rank, in bytes.

    Args:
        sizes: Trained numbers of each unit on this rank: of its pipeline stage only, its share under tensor parallelism.
        zero_stage: 0 nothing is sharded over the replicas; 1 the optimiser's state; 2 gradients too; 3 parameters too.
        data_size: Ranks that hold the same units (replicas times context-parallel ranks).
        data_rank: Which of them; None for the fullest.
        element_bytes: Of a parameter, a gradient and an optimiser's number.
        state_tensors: Numbers that the optimiser keeps per parameter: 1 for momentum, 2 for Adam's moments.
        activations_bytes: From `activation_bytes`.

    Raises:
        ModelInputError: An unknown stage, a size that is not a whole number, a rank that is not among data_size.

    Valid when: one type for parameters, gradients and state; each stage's collectives work in place, unit by unit from stage 2.
    Off by: exact for tensor storage. Too low for a process: it leaves out numbers that are not trained (a fixed base under
        adapters), temporary tensors inside one operation (a weight's gradient before it is added: one parameter), packed
        sums of norms under sequence parallel, host copies of tensors on a GPU, and the libraries' own buffers.
        Under autocast the 16-bit copies that autograd keeps of weights count as activations.
    Source: Rajbhandari et al. 2020, section 5, with uneven slices instead of division; transients from the implementation.
    """
    if zero_stage not in {0, 1, 2, 3}:
        raise ModelInputError(f"zero_stage must be 0, 1, 2 or 3, got {zero_stage}; 0 shards nothing")
    need("sizes", list(sizes), whole=True, hint="count the trained parameters of each part")
    need_ranks("data_size", data_size)
    need("element_bytes", element_bytes, 1, whole=True)
    need("state_tensors", state_tensors, whole=True)
    need("activations_bytes", activations_bytes)
    rank = data_size - 1 if data_rank is None else data_rank  # the last slice is never the smaller one
    need("data_rank", rank, 0, data_size - 1, whole=True, hint=f"there are {data_size} ranks, counted from 0")

    def mine(size: int) -> int:
        part = share(size, data_size, rank)
        return int(part.stop - part.start)

    whole = sum(sizes)
    # Stages 0 and 1 keep one flat buffer of all units, and cut that; stages 2 and 3 cut each unit.
    slices = mine(whole) if zero_stage < 2 else sum(mine(size) for size in sizes)
    numbers = {
        "parameters_bytes": slices if zero_stage == 3 else whole,
        "gradients_bytes": slices if zero_stage >= 2 else whole,
        "optimizer_bytes": state_tensors * (slices if zero_stage else whole),
        "transient_bytes": _transient(sizes, zero_stage, 0 if data_size == 1 else 1, mine),
    }
    return RankMemory(**{k: n * element_bytes for k, n in numbers.items()}, activations_bytes=activations_bytes)


def _transient(sizes: Sequence[int], zero_stage: int, shared: int, mine: Callable[[int], int]) -> int:
    """Return the most numbers that come and go at one moment of a step.

    Args:
        sizes, zero_stage: As in `rank_memory`.
        shared: 1 if sums are received, 0 if this rank is alone.
        mine: The size of this rank's slice of so many numbers.
    """
    if zero_stage == 0:
        return 0
    if zero_stage == 1:
        return shared * mine(sum(sizes))
    if zero_stage == 2:
        return max((size + shared * mine(size) for size in sizes), default=0)
    return 2 * max(
        sizes, default=0
    )  # gathered parameters and whole gradient; the sum comes when the parameters are gone


def activation_bytes(
    kept_bytes: Sequence[float], *, num_in_flight: int = 1, input_bytes: Sequence[float] | None = None
) -> float:
    """Return the most bytes that forward passes keep for their backward passes.

    Args:
        kept_bytes: What autograd keeps of each unit for one micro-batch, each tensor counted at the first unit that keeps it.
        num_in_flight: Micro-batches whose forward pass is done and whose backward pass is not, at most (`schedules.in_flight`).
        input_bytes: Recomputation: the input of each unit for one micro-batch, which alone is kept; 0 where the unit before
            keeps the same memory. None: nothing is computed again.

    Raises:
        ModelInputError: A negative value, no micro-batch, or not one input for each unit.

    Valid when: one micro-batch is in backward at a time, and every unit is recomputed by itself.
    Off by: exact without recomputation if the kept bytes are. With it too high by the input of the unit that is largest when it
        is computed again, if autograd keeps that input too (a few percent for a transformer's block). Workspaces of
        operations are left out.
    Source: Chen et al. 2016, with one segment per unit.
    """
    need("kept_bytes", list(kept_bytes), hint="bytes of one micro-batch, for each unit")
    need_ranks("num_in_flight", num_in_flight)
    if input_bytes is None:
        return num_in_flight * sum(kept_bytes)
    need("input_bytes", list(input_bytes), hint="bytes of one micro-batch, for each unit")
    if len(input_bytes) != len(kept_bytes):
        raise ModelInputError(
            f"input_bytes must have one value for each of {len(kept_bytes)} units, got {len(input_bytes)}"
        )
    # Backward frees the inputs from the last unit on; when it comes to a unit, all of that is there once more.
    again = (before + kept for before, kept in zip(accumulate(input_bytes), kept_bytes, strict=True))
    return (num_in_flight - 1) * sum(input_bytes) + max([sum(input_bytes), *again])


def local_params(cut: int, whole: int, tp_size: int) -> int:
    """Return how many trained numbers of a unit the fullest tp rank has.

    Args:
        cut: Numbers that tensor parallelism cuts: matrices and tables, and the biases of those cut by columns.
        whole: Numbers that every tp rank holds: norms, biases of matrices cut by rows, what is not cut at all.
        tp_size: Ranks that share the unit.

    Raises:
        ModelInputError: Negative or broken numbers.

    Valid when: tp_size divides the heads, channels or columns that are cut.
    Off by: exact then. With uneven cuts the fullest rank has ceil(n / tp_size) of n heads: of the cut numbers
        too low by a share of tp_size / n at most. Counting everything as cut is too low by the whole numbers that are left out.
    Source: Shoeybi et al. 2019.
    """
    need("cut", cut, whole=True)
    need("whole", whole, whole=True)
    need_ranks("tp_size", tp_size)
    return math.ceil(cut / tp_size) + whole
