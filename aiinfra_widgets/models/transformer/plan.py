"""How a training job is spread: the degrees of parallelism, the batch, and what is kept, sharded or computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ModelInputError, near
from .._check import Number, magnitude, need

RECOMPUTE = ("none", "selective", "full")
KERNELS = ("flash", "flash_ported", "flash_native")
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero_bubble")
#: Bytes of one weight or activation in the format that matrix products read.
PRECISION_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan, or with arrays in its fields many plans at once.

    Attributes:
        dp_size: Replicas of data parallelism.
        tp_size: Ranks that share every matrix (tensor parallelism).
        pp_size: Pipeline stages.
        cp_size: Ranks that share every sequence (context parallelism).
        ep_size: Ranks over which the experts are spread; subdivides dp_size * cp_size.
        micro_batch_size: Sequences per replica and pass.
        global_batch_size: Sequences per step.
        interleave: Model chunks per stage; above 1 only with the schedule "interleaved".
        schedule: One of SCHEDULES.
        zero_stage: What data parallelism shards: 1 optimiser state, 2 also gradients, 3 also weights (FSDP).
        shard_size: Ranks that share the weights with zero_stage 3 (hybrid sharding: replicas of such groups); 0 is all of them.
        sequence_parallel: Norms and dropouts are split over the tensor-parallel ranks.
        recompute: One of RECOMPUTE: what the backward pass computes again.
        flash_attention: Attention never writes its matrix of scores to memory.
        precision: One of PRECISION_BYTES: the format of the matrix products.
        compiled: A compiler fuses element-wise work into the products (XLA, torch.compile).
        attention_kernel: One of KERNELS, for flash_attention: written for this device or ported, see `Parameters`.
        overlap_tensor: Tensor-parallel collectives run beside the products that need or feed them.
        overlap_pipeline: Transfers between stages run beside arithmetic.
        overlap_grad_reduce: Gradients are reduced while the backward pass goes on.
        split_p2p: Tensor-parallel ranks send a share of an activation each to the next stage, not all of it each.
        multi_rail: Rings over whole nodes use all their network cards (as NCCL does since 2022), not one.

    Raises:
        ModelInputError: A degree that is not whole and positive, a batch that the replicas do not divide, an unknown word.
    """

    dp_size: Number = 1
    tp_size: Number = 1
    pp_size: Number = 1
    cp_size: Number = 1
    ep_size: Number = 1
    micro_batch_size: Number = 1
    global_batch_size: Number = 1
    interleave: Number = 1
    schedule: Any = "1f1b"
    zero_stage: Number = 0
    shard_size: Number = 0
    sequence_parallel: Any = False
    recompute: Any = "none"
    flash_attention: Any = False
    precision: Any = "bf16"
    compiled: Any = False
    attention_kernel: Any = "flash"
    overlap_tensor: Any = False
    overlap_pipeline: Any = False
    overlap_grad_reduce: Any = False
    split_p2p: Any = True
    multi_rail: Any = True

    def __post_init__(self) -> None:
        for name in (
            "dp_size",
            "tp_size",
            "pp_size",
            "cp_size",
            "ep_size",
            "micro_batch_size",
            "global_batch_size",
            "interleave",
        ):
            need(name, getattr(self, name), 1, whole=True)
        need("zero_stage", self.zero_stage, 0, 3, whole=True)
        need("shard_size", self.shard_size, whole=True)
        words = {
            "recompute": RECOMPUTE,
            "schedule": SCHEDULES,
            "precision": tuple(PRECISION_BYTES),
            "attention_kernel": KERNELS,
        }
        for name, allowed in words.items():
            for word in np.unique(getattr(self, name)):
                if word not in allowed:
                    raise ModelInputError(
                        f"{name} must be one of {', '.join(allowed)}, got {str(word)!r}; {near(str(word), allowed)}"
                    )
        need(
            "global_batch_size / (dp_size * micro_batch_size)",
            magnitude(self.global_batch_size) / (magnitude(self.dp_size) * magnitude(self.micro_batch_size)),
            1,
            whole=True,
            hint="every replica takes the same whole number of micro-batches",
        )

    @property
    def world_size(self) -> Number:
        """Ranks in all; the experts' ranks are among them."""
        return self.dp_size * self.tp_size * self.pp_size * self.cp_size

    @property
    def weight_shards(self) -> Number:
        """Ranks that share one copy of the weights with zero_stage 3."""
        ranks = np.asarray(self.dp_size) * self.cp_size
        return np.where(np.asarray(self.shard_size) > 0, np.minimum(self.shard_size, ranks), ranks)

    @property
    def num_microbatches(self) -> Number:
        """Micro-batches of one replica in a step."""
        return self.global_batch_size / (self.dp_size * self.micro_batch_size)

    @property
    def precision_bytes(self) -> Number:
        """Bytes of an element of the matrix products."""
        return _by_word(self.precision, PRECISION_BYTES)

    def by_precision(self, table: Mapping[str, float]) -> Number:
        """Return what `table` says of each plan's precision."""
        return _by_word(self.precision, table)

    def by_kernel(self, table: Mapping[str, float]) -> Number:
        """Return what `table` says of each plan's attention kernel."""
        return _by_word(self.attention_kernel, table)

    def is_recompute(self, what: str) -> Any:
        """Return whether (per plan) the recomputation is `what`."""
        return np.asarray(self.recompute) == what

    def is_schedule(self, what: str) -> Any:
        """Return whether (per plan) the schedule is `what`."""
        return np.asarray(self.schedule) == what


def _by_word(words: Any, table: Mapping[str, float]) -> Any:
    found = np.asarray(words)
    if found.ndim == 0:
        return table[str(found)]
    return np.select([found == word for word in table], list(table.values()))
