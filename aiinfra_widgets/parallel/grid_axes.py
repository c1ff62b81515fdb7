"""What a layer asks of its axes, answered by real ranks: tensor, sequence and context parallelism together.

# B sequences, T tokens of each, t those of this cp rank, s those of this tp rank, D width, V vocabulary, v those here
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ModelInputError
from ..workloads.axes import Axes
from .context import causal_shares
from .groups import Group
from .sequence import TokenShares, gather_tokens, scatter_tokens, sum_and_scatter_tokens
from .tensor import cross_entropy_sum, embed_rows, sum_gradients, sum_values


class GridAxes(Axes):
    """The axes of one rank of a grid; it keeps nothing between calls. An axis of one rank answers as `Axes` does, at no cost.

    Args:
        tp: Ranks that share each layer.
        cp: Ranks that share each sequence.
        context: T of every sequence that will come; 0 where samples are no sequences (then no axis may cut tokens).
        sequence_parallel: Between cut layers, tokens are shared over the tp ranks; without effect where tp has one rank.
        device: Of the layers.

    Attributes:
        tokens: t.
        hidden_tokens: s: the tokens of an activation between cut layers, such as a pipeline sends; t without sequence parallel.

    Raises:
        ModelInputError: Tokens are to be cut, and there are none or fewer than ranks.
    """

    def __init__(
        self,
        tp: Group,
        cp: Group,
        *,
        context: int = 0,
        sequence_parallel: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.tp, self.cp, self.context = tp, cp, context
        self.tp_size, self.tp_rank = tp.size, tp.rank
        self.cp_size, self.cp_rank = cp.size, cp.rank
        self.sequence_parallel = sequence_parallel and tp.size > 1
        ways = cp.size * (tp.size if self.sequence_parallel else 1)
        if ways > 1 and context < ways:
            raise ModelInputError(
                f"context: sequences of {context} tokens cannot be cut into {ways} (cp_size {cp.size}, "
                f"sequence_parallel {self.sequence_parallel} with tp_size {tp.size}); allowed: at least {ways} tokens; "
                "use longer sequences, fewer ranks, or cp_size 1 without sequence_parallel where samples are no sequences"
            )
        self._over_cp = causal_shares(context, cp.size)
        self.tokens = self._over_cp.count(cp.rank)
        self._over_tp = TokenShares.contiguous(self.tokens, tp.size)
        self.hidden_tokens = self._over_tp.count(tp.rank) if self.sequence_parallel else self.tokens
        self._places = self._over_cp.places(cp.rank).to(device)

    def take(self, tokens_BT: Tensor) -> Tensor:  # noqa: N803
        """Return this cp rank's tokens (B, t) of whole sequences; inputs and targets alike."""
        if self.cp_size == 1:
            return tokens_BT
        self._check(tokens_BT.shape[1], self.context)
        return self._over_cp.take(tokens_BT, self.cp_rank)

    def enter(self, x: Tensor) -> Tensor:
        """See `Axes`."""
        if self.tp_size == 1:
            return x
        if self.sequence_parallel:
            self._check(x.shape[1], self.hidden_tokens)
            return gather_tokens(x, self.tp, self._over_tp)
        return sum_gradients(x, self.tp)

    def leave(self, x: Tensor) -> Tensor:
        """See `Axes`."""
        if self.tp_size == 1:
            return x
        if self.sequence_parallel:
            self._check(x.shape[1], self.tokens)
            return sum_and_scatter_tokens(x, self.tp, self._over_tp)
        return sum_values(x, self.tp)

    def scatter_tokens(self, x_BtD: Tensor) -> Tensor:  # noqa: N803
        """See `Axes`."""
        if not self.sequence_parallel:
            return x_BtD
        self._check(x_BtD.shape[1], self.tokens)
        return scatter_tokens(x_BtD, self.tp, self._over_tp)

    def positions(self, tokens: int) -> Tensor | None:
        """See `Axes`."""
        if self.cp_size == 1:
            return None
        self._check(tokens, self.tokens)
        return self._places

    def whole_sequence(self, x_BtHK: Tensor) -> Tensor:  # noqa: N803
        """See `Axes`."""
        if self.cp_size == 1:
            return x_BtHK
        self._check(x_BtHK.shape[1], self.tokens)
        return gather_tokens(x_BtHK, self.cp, self._over_cp)

    def embed(self, tokens_Bt: Tensor, weight_vD: Tensor, vocab: int) -> Tensor:  # noqa: N803
        """See `Axes`."""
        if self.tp_size == 1:
            return super().embed(tokens_Bt, weight_vD, vocab)
        return sum_values(embed_rows(tokens_Bt, weight_vD, self.mine(vocab)), self.tp)

    def cross_entropy_sum(self, logits_Nv: Tensor, targets_N: Tensor, vocab: int) -> Tensor:  # noqa: N803
        """See `Axes`."""
        if self.tp_size == 1:
            return super().cross_entropy_sum(logits_Nv, targets_N, vocab)
        return cross_entropy_sum(logits_Nv, targets_N, self.mine(vocab), self.tp)

    def _check(self, tokens: int, wanted: int) -> None:
        # A wrong count would leave the other ranks waiting, or cut off tokens without a word.
        if tokens != wanted:
            raise ModelInputError(
                f"tokens: got {tokens} of each sequence, this rank (tp {self.tp_rank}, cp {self.cp_rank}) holds {wanted} of "
                f"the context of {self.context}; use sequences of exactly {self.context} tokens, and `take` on each cp rank"
            )
