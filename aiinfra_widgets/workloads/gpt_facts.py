"""What is known of a small language model before it is built: its size, and the exact arithmetic and bytes of its work.

Pure: torch is not imported, so that a prediction can be made in the kernel. `gpt` builds the net from the same numbers, and
a test holds every count here against torch's own operation counter.

# B sequences in a batch, T tokens of a prompt, L cached tokens of the longest, D width, V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UnknownNameError, near
from .facts import FLOAT_BYTES


@dataclass(frozen=True, slots=True)
class GptFacts:
    """A decoder-only transformer: pre-norm blocks, learned positions, a GELU layer of 4 D, the head tied to the embedding.

    Attributes:
        name: As in the Spec.
        layers, width, heads: Blocks, numbers per token, and attention heads; the width is a multiple of the heads.
        vocab: Different tokens.
        context: Longest sequence, prompt and answer together.
    """

    name: str
    layers: int
    width: int
    heads: int
    vocab: int
    context: int

    @property
    def params(self) -> int:
        """Trainable numbers: 12 D^2 + 13 D in a block, the embeddings of tokens and places, and the last norm."""
        block = 12 * self.width**2 + 13 * self.width
        return self.layers * block + (self.vocab + self.context + 2) * self.width

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values that one token leaves behind in every block."""
        return 2 * self.layers * self.width * FLOAT_BYTES

    def prefill_flop(self, batch: int, tokens: int) -> int:
        """Return the matrix arithmetic of B prompts of T tokens: 24 T D^2 + 4 T^2 D in a block, the head for the last token.

        The half of the attention that the causal mask throws away is computed, and counted.
        """
        block = 24 * tokens * self.width**2 + 4 * tokens**2 * self.width
        return batch * (self.layers * block + 2 * self.width * self.vocab)

    def decode_flop(self, batch: int, longest: int) -> int:
        """Return the matrix arithmetic of one token for each of B sequences.

        Args:
            batch: B.
            longest: L, the new token included; shorter sequences are padded to it.
        """
        block = 24 * self.width**2 + 4 * longest * self.width
        return batch * (self.layers * block + 2 * self.width * self.vocab)

    def decode_bytes(self, batch: int, longest: int) -> int:
        """Return the bytes that one token for each of B sequences must move: every weight once, and the padded cache.

        Args:
            batch: B.
            longest: L, the new token included.
        """
        weights = (self.params - self.context * self.width + batch * 2 * self.width) * FLOAT_BYTES
        return weights + batch * (longest + 1) * self.cache_bytes_per_token


_ROWS = (GptFacts("gpt-tiny", layers=4, width=192, heads=6, vocab=256, context=256),)
_CATALOG = {row.name: row for row in _ROWS}


def gpt_facts(name: str) -> GptFacts:
    """Return what is known of one language model.

    Raises:
        UnknownNameError: With the near matches.
    """
    try:
        return _CATALOG[name]
    except KeyError:
        raise UnknownNameError(f"no language model {name!r}; {near(name, _CATALOG)}") from None
