"""What a layer asks of the ranks that share it. Nets are written once, against this; alone, every answer is the identity.

`parallel` implements it with collectives (Megatron's f and g, sequence and context parallel). A layer that is not cut calls
nothing here.

Where the tokens are: the net is given those of this cp rank, (B, t). `scatter_tokens`, once, behind the embedding, begins the
hidden part: with sequence parallel the tp ranks share the t tokens there, (B, s, D), else s = t. Inside each pair of cut layers,
between `enter` and `leave`, and from the `enter` before the cut head on, all t tokens are back.

# B sequences, T tokens of each, t those of this cp rank, s those of this tp rank, D width, V vocabulary, v those here
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
        sequence_parallel: In the hidden part, tokens are shared over the tp ranks (B, s, D) instead of repeated.
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

        With sequence parallel: all-gather of the tokens forward, (B, s, ...) to (B, t, ...), reduce-scatter backward. Either
        way the ranks' gradients are added, so what follows must be cut; behind a layer that every rank repeats they would
        count tp_size times. The last norm runs before this, on s tokens, and the head behind it is cut by the vocabulary.
        """
        return x

    def leave(self, x: Tensor) -> Tensor:
        """After a layer that is cut by rows: sum forward, identity backward (Megatron's g). A bias is added behind it, once.

        With sequence parallel: reduce-scatter of the tokens forward, (B, t, ...) to (B, s, ...), all-gather backward.
        """
        return x

    def scatter_tokens(self, x_BtD: Tensor) -> Tensor:  # noqa: N803
        """Begin the hidden part: keep this tp rank's tokens (B, s, D) of what all tp ranks have alike; all-gather backward.

        So the gradient of everything before it, embeddings of tokens and of places, is whole on every tp rank: those are
        not `Part.partial`. What lies behind it outside of the cut layers (norms, biases after a row cut) is.
        """
        return x_BtD

    def positions(self, tokens: int) -> Tensor | None:
        """Return the places (t,) in the whole sequence of this cp rank's tokens, rising; None means 0, 1, 2 ...

        Args:
            tokens: t, as embedding and attention see it; not s.
        """
        return None

    def whole_sequence(self, x_BtHK: Tensor) -> Tensor:  # noqa: N803
        """Return keys or values, (B, t, ...), of all cp ranks: (B, T, ...) in the order of their places; reduce-scatter backward.

        Each cp rank must let only its own queries look at them: their gradients are added.
        """
        return x_BtHK

    def embed(self, tokens_Bt: Tensor, weight_vD: Tensor, vocab: int) -> Tensor:  # noqa: N803
        """Look tokens up in an embedding whose rows are cut over the tp ranks; the sum over them, (B, t, D) on each.

        With sequence parallel too: `scatter_tokens` follows, when the embedding of the places has been added.

        Args:
            tokens_Bt: 0 to V - 1; any shape.
            weight_vD: The rows `mine(vocab)`.
            vocab: V.
        """
        return F.embedding(tokens_Bt, weight_vD)

    def cross_entropy_sum(self, logits_Nv: Tensor, targets_N: Tensor, vocab: int) -> Tensor:  # noqa: N803
        """Return the cross-entropy summed over N, from logits whose columns are cut over the tp ranks; equal on all of them.

        Each tp rank runs backward from its own copy. Of a sequence shared by cp ranks it is the sum over this rank's tokens.

        Args:
            logits_Nv: The columns `mine(vocab)`, at least one, of t tokens of each sequence.
            targets_N: 0 to V - 1; none is left out.
            vocab: V.
        """
        return F.cross_entropy(logits_Nv, targets_N, reduction="sum")


#: One process by itself.
ALONE = Axes()
