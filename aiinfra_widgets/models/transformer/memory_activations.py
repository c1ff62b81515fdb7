"""What a rank keeps of the forward pass for the backward pass, how many micro-batches of it, and what one layer needs at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._check import Number
from .architecture import Transformer
from .plan import Plan


@dataclass(frozen=True, slots=True)
class LayerActivations:
    """Bytes of one layer and one micro-batch on one rank.

    Attributes:
        kept: From the forward to the backward pass, under the plan's recomputation.
        everything: The same without recomputation: what is there while the layer's backward pass runs.
        gradients: Of the widest tensors of the layer, while its backward pass runs.
        boundary: The residual stream between two layers.
    """

    kept: Number
    everything: Number
    gradients: Number
    boundary: Number


def tokens_per_rank(model: Transformer, plan: Plan) -> Number:
    """Return the tokens of one micro-batch that one rank works on."""
    return plan.micro_batch_size * model.seq_len / plan.cp_size


def layer_activations(
    model: Transformer, plan: Plan, element_bytes: Number, *, dropout: Any = False, selective_kept_frac: Number = 0.5
) -> LayerActivations:
    """Return the activation bytes of one layer for one micro-batch.

    Args:
        model: The shape.
        plan: Micro-batch, degrees, recomputation, flash attention, sequence parallelism.
        element_bytes: Of an activation.
        dropout: The layer has three dropouts (GPT-2 and GPT-3 have, today's models have not); each keeps one byte per element.
        selective_kept_frac: Under flash attention, the share of the products' outputs that selective recomputation keeps.

    Valid when: pre-norm layers. Selective recomputation without flash attention is Korthikanti's (the matrix of scores
        and what follows it); with flash attention that matrix does not exist, and it is the policy per operation that PyTorch
        programmes use: keep the attention's output and a share of the products' outputs, compute the rest again.
    Off by: a few percent where kernels fuse (SwiGLU in one kernel keeps three inner tensors, here four).
    Source: Korthikanti et al. 2022, equations 1 to 6: s b h (34 + 5 a s / h) without and with tensor and sequence parallelism.
    """
    t, e, hidden = plan.tp_size, element_bytes, model.hidden
    tokens = tokens_per_rank(model, plan)
    wide = tokens / np.where(plan.sequence_parallel, t, 1)  # tokens of what tensor parallelism alone does not split
    q, kv, active = model.heads * model.head_size, model.kv_heads * model.head_size, model.active_experts
    flash, is_moe = np.asarray(plan.flash_attention), np.asarray(model.experts) > 1
    mask = np.where(dropout, 1, 0)
    inner = np.where(model.gated, 4, 2) * model.ffn * active
    routed = np.where(is_moe, 2 * active * hidden, 0)  # tokens copied to their experts, and what comes back
    scores = np.where(flash, 0, tokens * model.seq_len * model.heads / t * (e + mask * (e + 1)))
    rest = wide * (hidden * (4 * e + 2 * mask) + routed * e) + tokens / t * (2 * q + 2 * kv + inner) * e
    everything = rest + scores
    boundary = wide * hidden * e
    products = (q + 2 * kv + (model.ffn_matrices - 1) * model.ffn * active) * tokens / t + 2 * hidden * wide
    by_operation = boundary + q * tokens / t * e + selective_kept_frac * products * e
    selective = np.where(flash, np.minimum(by_operation, everything), rest)
    kept = np.where(
        plan.is_recompute("full"), boundary, np.where(plan.is_recompute("selective"), selective, everything)
    )
    feed = model.ffn_matrices * model.ffn * active * tokens / t
    attend = np.where(flash, 2 * (q + 2 * kv) * tokens / t, 2 * tokens * model.seq_len * model.heads / t)
    gradients = e * (2 * hidden * wide + np.maximum(feed, attend))
    return LayerActivations(kept, everything, gradients, boundary)


def micro_batches_in_flight(plan: Plan) -> tuple[Number, Number]:
    """Return how many micro-batches the first and the last stage hold at once, as multiples of a whole stage's activations.

    Args:
        plan: Schedule, stages, chunks per stage, micro-batches.

    Valid when: "zero_bubble" is ZB-H1, whose every stage holds as much as the first one of 1F1B.
    Source: Narayanan et al. 2021; Korthikanti et al. 2022, section 4.2.3: L (1 + (p - 1) / (p v)) layers' worth;
        Qi et al. 2023 (zero bubble).
    """
    p, num = np.asarray(plan.pp_size), plan.num_microbatches
    shift = (p - 1) / plan.interleave
    interleaved, level = plan.is_schedule("interleaved"), plan.is_schedule("zero_bubble")
    everything = plan.is_schedule("gpipe")
    first = np.minimum(np.where(interleaved, p + shift, p), num)
    last = np.minimum(np.where(interleaved, p - shift, np.where(level, p, 1)), num)
    return np.where(everything, num, first), np.where(everything, num, last)
