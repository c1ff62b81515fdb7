"""What a transformer is made of: its shape, and how many parameters that makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._check import Number, magnitude, need


@dataclass(frozen=True, slots=True)
class Transformer:
    """The shape of a dense or mixture-of-experts transformer; each field a number, or an array that broadcasts.

    Attributes:
        layers: Blocks of attention and feed-forward.
        hidden: Width of the residual stream.
        heads: Attention heads (of the queries).
        seq_len: Tokens per sequence.
        vocab: Entries of the vocabulary, before padding.
        kv_heads: Heads of keys and values; fewer than `heads` is grouped-query attention. None: as many.
        head_size: Width of one head. None: hidden / heads.
        ffn: Inner width of the feed-forward block (of one expert). None: 4 * hidden.
        gated: The feed-forward block has a gate, hence three matrices (SwiGLU, GeGLU).
        experts: Feed-forward blocks per layer; 1 is dense.
        active_experts: How many of them each token passes.
        tied: Input and output embedding are one matrix.
        positions: Learned position embeddings (0 for rotary, ALiBi or none).
        causal: A token sees only those before it (a decoder).

    Raises:
        ModelInputError: A number that is not positive and whole, heads that kv_heads does not divide, more active experts than there are.
    """

    layers: Number
    hidden: Number
    heads: Number
    seq_len: Number
    vocab: Number
    kv_heads: Number = None
    head_size: Number = None
    ffn: Number = None
    gated: Any = False
    experts: Number = 1
    active_experts: Number = 1
    tied: Any = True
    positions: Number = 0
    causal: Any = True

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "seq_len", "vocab", "experts", "active_experts"):
            need(name, getattr(self, name), 1, whole=True)
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)
        if self.head_size is None:
            object.__setattr__(self, "head_size", self.hidden / self.heads)
        if self.ffn is None:
            object.__setattr__(self, "ffn", 4 * self.hidden)
        need("kv_heads", self.kv_heads, 1, whole=True)
        need("head_size", self.head_size, above=True)
        need("ffn", self.ffn, above=True)
        need("positions", self.positions, whole=True)
        groups = magnitude(self.heads) / magnitude(self.kv_heads)
        need(
            "heads / kv_heads",
            groups,
            1,
            whole=True,
            hint="each group of query heads shares one head of keys and values",
        )
        left = magnitude(self.experts) - magnitude(self.active_experts)
        need("experts - active_experts", left, hint="a token cannot pass more experts than there are")

    @property
    def ffn_matrices(self) -> Number:
        """Matrices of one feed-forward block: three with a gate, else two."""
        return np.where(self.gated, 3, 2)

    @property
    def attention_parameters(self) -> Number:
        """Weights of one layer's four projections."""
        return self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)

    @property
    def expert_parameters(self) -> Number:
        """Weights of one feed-forward block (one expert)."""
        return self.ffn_matrices * self.hidden * self.ffn

    @property
    def layer_parameters(self) -> Number:
        """Weights of one layer with all its experts, its router and two norms."""
        router = np.where(np.asarray(self.experts) > 1, self.hidden * self.experts, 0)
        return self.attention_parameters + self.experts * self.expert_parameters + router + 4 * self.hidden

    @property
    def embedding_parameters(self) -> Number:
        """Weights of the input embedding; the output has as many again unless it is tied."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> Number:
        """All weights; biases of the projections are left out (under 0.1 % for wide models)."""
        ends = self.embedding_parameters * np.where(self.tied, 1, 2) + self.positions * self.hidden
        return self.layers * self.layer_parameters + ends + 2 * self.hidden

    @property
    def active_parameters(self) -> Number:
        """The weights that one token passes."""
        idle = (self.experts - self.active_experts) * self.expert_parameters
        return self.parameters - self.layers * idle
