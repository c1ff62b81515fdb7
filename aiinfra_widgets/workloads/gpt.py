"""A small language model that serves: prompts are read at once, then one token at a time for all sequences together.

Sequences of different lengths share every matrix product, so a batch reads the weights once. Attention runs over a cache
that is allocated once, padded to the longest sequence; what lies beyond a sequence's own end is masked.

# B sequences, T new tokens of each, L cached tokens of the longest, D width, H heads, K = D / H, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from ..errors import ModelInputError
from .gpt_facts import GptFacts

#: Standard deviation of the embeddings, and of the weights times sqrt(fan_in).
EMBEDDING_STD = 0.02


def attend(qkv_BT3HK: Tensor, cache: Tensor, rows: Tensor, places_BT: Tensor, seen_B1TL: Tensor) -> Tensor:  # noqa: N803
    """Write the keys and values of new tokens into the cache and return what the queries find there, (B, T, D).

    Args:
        qkv_BT3HK: Queries, keys and values of the new tokens.
        cache: (2, B, H, C, K) keys and values of these sequences.
        rows: (B, 1) numbers from 0; with places_BT, the positions of the new tokens, where they are written.
        places_BT: See rows.
        seen_B1TL: Which cached tokens each new one may look at.
    """
    q, k, v = qkv_BT3HK.unbind(2)
    cache[0][rows, :, places_BT], cache[1][rows, :, places_BT] = k, v
    keys, values = cache[:, :, :, : seen_B1TL.shape[-1]]
    scores_BHTL = q.transpose(1, 2) @ keys.transpose(2, 3) * q.shape[-1] ** -0.5  # noqa: N806
    weights = scores_BHTL.masked_fill_(~seen_B1TL, -math.inf).softmax(-1)
    found: Tensor = (weights @ values).transpose(1, 2).flatten(2)
    return found


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor, cache: Tensor, rows: Tensor, places_BT: Tensor, seen_B1TL: Tensor) -> Tensor:  # noqa: N803
        """Return (B, T, D); the other arguments are those of `attend`."""
        qkv: Tensor = self.qkv(self.norm1(x_BTD)).view(*x_BTD.shape[:2], 3, self.heads, -1)
        x_BTD = x_BTD + self.out(attend(qkv, cache, rows, places_BT, seen_B1TL))  # noqa: N806
        more: Tensor = self.down(F.gelu(self.up(self.norm2(x_BTD)), approximate="tanh"))
        return x_BTD + more


class Gpt(nn.Module):
    """The net of `facts`; weights depend on the seed alone."""

    def __init__(self, facts: GptFacts, seed: int) -> None:
        super().__init__()
        self.facts = facts
        with torch.random.fork_rng(devices=[]):  # what modules draw for themselves is not kept
            self.tokens = nn.Embedding(facts.vocab, facts.width)
            self.places = nn.Embedding(facts.context, facts.width)
            self.blocks = nn.ModuleList(Block(facts.width, facts.heads) for _ in range(facts.layers))
            self.norm = nn.LayerNorm(facts.width)
        self._draw(seed)

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        for name, weights in self.named_parameters():
            if weights.ndim == 1:
                weights.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                continue
            std = EMBEDDING_STD if name in {"tokens.weight", "places.weight"} else weights.shape[1] ** -0.5
            weights.copy_(torch.from_numpy(rng.standard_normal(tuple(weights.shape), dtype=np.float32)) * std)

    def forward(self, tokens_BT: Tensor, cache: Tensor, lengths_B: Tensor, longest: int) -> Tensor:  # noqa: N803
        """Return the logits (B, V) of what follows the last of each sequence's new tokens.

        Args:
            tokens_BT: New tokens, int64.
            cache: (layers, 2, B, H, C, K) of these sequences; the new tokens' keys and values are written into it.
            lengths_B: Tokens that each sequence has there already.
            longest: L, the greatest of them plus T.
        """
        T = tokens_BT.shape[1]  # noqa: N806
        places_BT = lengths_B[:, None] + torch.arange(T)  # noqa: N806
        seen_B1TL = (torch.arange(longest) <= places_BT[..., None])[:, None]  # noqa: N806
        rows = torch.arange(len(tokens_BT))[:, None]
        x_BTD = self.tokens(tokens_BT) + self.places(places_BT)  # noqa: N806
        for block, layer in zip(self.blocks, cache, strict=True):
            x_BTD = block(x_BTD, layer, rows, places_BT, seen_B1TL)  # noqa: N806
        return F.linear(self.norm(x_BTD[:, -1]), self.tokens.weight)


class Decoder:
    """The sequences that one server works on: their cache, packed, so that a step reads no gaps.

    Attributes:
        lengths: Tokens in the cache, for each sequence in the order of their slots.
        slots: Most sequences at a time.
    """

    def __init__(self, net: Gpt, slots: int) -> None:
        facts = net.facts
        self.net, self.slots = net, slots
        self.lengths: list[int] = []
        shape = facts.layers, 2, slots, facts.heads, facts.context, facts.width // facts.heads
        self.cache = torch.from_numpy(np.zeros(shape, np.float32))  # not torch's zeros: memory is taken as it is used

    @torch.inference_mode()
    def prefill(self, tokens_BT: Tensor) -> Tensor:  # noqa: N803
        """Begin B sequences with prompts of the same length; they take the next B slots.

        Returns:
            Logits (B, V) of each sequence's next token.

        Raises:
            ModelInputError: No slot is left, or a prompt is empty or longer than the context.
        """
        count, tokens = tokens_BT.shape
        first = len(self.lengths)
        if first + count > self.slots:
            raise ModelInputError(
                f"{first} sequences are active and {count} are to begin; {self.slots} slots; drop some"
            )
        self._fits([0], tokens)
        cache = self.cache[:, :, first : first + count]
        logits: Tensor = self.net(tokens_BT, cache, torch.zeros(count, dtype=torch.int64), tokens)
        self.lengths += [tokens] * count
        return logits

    @torch.inference_mode()
    def decode_step(self, tokens_B: Tensor) -> Tensor:  # noqa: N803
        """Append one token to every active sequence.

        Args:
            tokens_B: In the order of the slots.

        Returns:
            Logits (B, V) of the token after it.

        Raises:
            ModelInputError: A sequence is as long as the context.
        """
        self._fits(self.lengths, 1)
        cache = self.cache[:, :, : len(self.lengths)]
        longest = max(self.lengths) + 1
        logits: Tensor = self.net(tokens_B[:, None], cache, torch.tensor(self.lengths), longest)
        self.lengths = [n + 1 for n in self.lengths]
        return logits

    def drop(self, slot: int) -> None:
        """End the sequence in `slot`; the one in the last slot moves into its place."""
        last = len(self.lengths) - 1
        if slot != last:
            n = self.lengths[last]
            self.cache[:, :, slot, :, :n] = self.cache[:, :, last, :, :n]
            self.lengths[slot] = n
        self.lengths.pop()

    def clear(self) -> None:
        """End all sequences."""
        self.lengths.clear()

    def _fits(self, lengths: Sequence[int], more: int) -> None:
        context = self.net.facts.context
        if more < 1 or max(lengths) + more > context:
            raise ModelInputError(
                f"{max(lengths)} tokens and {more} more; a sequence holds 1 to {context}; ask for fewer tokens"
            )
