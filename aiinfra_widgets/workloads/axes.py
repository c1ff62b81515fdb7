"""What a layer asks of the ranks that share it. Nets are written once, against this; alone, every answer is the identity.

`parallel` implements it with collectives (Megatron's f and g, sequence and context parallel). A layer that is not cut calls
nothing here.

# B sequences, T tokens of a sequence, t those of this rank, D width, V vocabulary
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from ..models.rank_grid import share


class Axes:
    """One process by itself, and the interface for several.

    Attributes:
        tp_size, tp_rank: Ranks that share each layer, and which of them this is.
        cp_size, cp_rank: Likewise for each sequence.
        sequence_parallel: Between the cut layers, tokens are shared over the tp ranks (B, t, D) instead of repeated.
    """

    tp_size: int = 1
    tp_rank: int = 0
    cp_size: int = 1
    cp_rank: int = 0
    sequence_parallel: bool = False

    def mine(self, total: int) -> slice:
        """Return which of `total` columns, rows, heads or channels this tp rank holds; uneven cuts are allowed."""
        return share(total, self.tp_size, self.tp_rank)

    def enter(self, x: Tensor) -> Tensor:
        """Before a layer that is cut by columns: identity forward, sum of the gradients backward (Megatron's f).

        With sequence parallel: all-gather of the tokens forward, reduce-scatter backward.
        """
        return x

    def leave(self, x: Tensor) -> Tensor:
        """After a layer that is cut by rows: sum forward, identity backward (Megatron's g).

        With sequence parallel: reduce-scatter of the tokens forward, all-gather backward.
        """
        return x

    def scatter_tokens(self, x_BTD: Tensor) -> Tensor:  # noqa: N803
        """Where sequence parallel begins and nothing was cut by rows: keep this tp rank's tokens; all-gather backward."""
        return x_BTD

    def positions(self, tokens: int) -> Tensor | None:
        """Return the places (t,) in the whole sequence of the tokens that this cp rank was given; None means 0, 1, 2 ..."""
        return None

    def whole_sequence(self, x_BtHK: Tensor) -> Tensor:  # noqa: N803
        """Return keys or values of all cp ranks (B, T, H, K), in the order of their places; reduce-scatter backward."""
        return x_BtHK

    def embed(self, tokens_BT: Tensor, weight_vD: Tensor, vocab: int) -> Tensor:  # noqa: N803
        """Look tokens up in an embedding whose rows are cut over the tp ranks; the sum over them, (B, T, D)."""
        return F.embedding(tokens_BT, weight_vD)

    def cross_entropy_sum(self, logits_NV: Tensor, targets_N: Tensor, vocab: int) -> Tensor:  # noqa: N803
        """Return the cross-entropy summed over N, from logits whose columns are cut over the tp ranks; equal on all of them."""
        return F.cross_entropy(logits_NV, targets_N, reduction="sum")


#: One process by itself.
ALONE = Axes()
