"""How many operations a training step takes: exact counts, and the two formulas by which publications compute theirs.

A multiplication with addition counts as two. "Model" operations are those of one forward and backward pass; "hardware"
operations add what is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._check import Number
from .architecture import Transformer
from .plan import Plan


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Operations of one layer, forward, per token.

    Attributes:
        projections: The four projections of attention.
        attention: Scores and values over the whole sequence (a causal mask is not deducted, as is customary).
        feed_forward: The active experts, with their gate.
        router: Choosing them.
    """

    projections: Number
    attention: Number
    feed_forward: Number
    router: Number

    @property
    def forward_flop(self) -> Number:
        """All of it."""
        return self.projections + self.attention + self.feed_forward + self.router


def layer_work(model: Transformer) -> LayerWork:
    """Return the operations of one layer for one token.

    Valid when: matrix products only; norms, activations and softmax (under 1 %) are not counted.
    Source: Narayanan et al. 2021, appendix; for h = hidden, kv = heads, ffn = 4 h it is 24 h^2 + 4 s h per token.
    """
    return LayerWork(
        2 * model.attention_parameters,
        4 * model.seq_len * model.heads * model.head_size,
        2 * model.active_experts * model.expert_parameters,
        np.where(np.asarray(model.experts) > 1, 2 * model.hidden * model.experts, 0),
    )


def head_flop_per_token(model: Transformer) -> Number:
    """Return the operations of the output projection, forward, per token."""
    return 2 * model.hidden * model.vocab


def embedding_flop_per_token(model: Transformer) -> Number:
    """Return the operations of looking a token up: none, it is a copy."""
    return 0 * model.hidden


def model_flop_per_token(model: Transformer) -> Number:
    """Return the operations of one token, forward and backward: three times the forward pass."""
    return 3 * (model.layers * layer_work(model).forward_flop + head_flop_per_token(model))


def recomputed_flop_per_token(model: Transformer, plan: Plan) -> Number:
    """Return what the backward pass computes again per token.

    "full" is every layer's forward pass; "selective" attention's scores and values, or with fused attention every second
    product of weights. Fused attention computes its scores again in any case, which nobody counts.
    """
    work = layer_work(model)
    half = (work.projections + work.feed_forward) / 2
    some = np.where(plan.flash_attention, half, work.attention)
    return model.layers * np.select(
        [plan.is_recompute("full"), plan.is_recompute("selective")], [work.forward_flop, some], 0.0
    )


def step_flop(model: Transformer, plan: Plan) -> tuple[Number, Number]:
    """Return the model and the hardware operations of one step of the whole job."""
    per_step = plan.global_batch_size * model.seq_len
    needed = model_flop_per_token(model)
    return per_step * needed, per_step * (needed + recomputed_flop_per_token(model, plan))


def published_model_flop(batch: Number, seq_len: Number, layers: Number, hidden: Number, vocab: Number) -> Number:
    """Return the operations of one step by the formula that most publications use for MFU: 72 B s l h^2 (1 + s/6h + V/12lh).

    Source: Narayanan et al. 2021, equation 3, without the recomputed forward pass.
    """
    return 72 * batch * seq_len * layers * hidden**2 * (1 + seq_len / (6 * hidden) + vocab / (12 * layers * hidden))


def published_hardware_flop(batch: Number, seq_len: Number, layers: Number, hidden: Number, vocab: Number) -> Number:
    """Return the same with the whole forward pass computed again: 96 B s l h^2 (1 + s/6h + V/16lh).

    Source: Narayanan et al. 2021, equation 3.
    """
    return 96 * batch * seq_len * layers * hidden**2 * (1 + seq_len / (6 * hidden) + vocab / (16 * layers * hidden))
