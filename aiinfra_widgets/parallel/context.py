"""Context parallelism: each rank holds some tokens of every sequence, and gathers the keys and values of the others.

Under a causal mask the last token looks at all, the first at itself only. If rank i of n held the i-th n-th of the tokens,
the last rank would have 2 n - 1 times the work of the first. So the sequence is cut into 2 n chunks, and rank i takes chunk
i from the front and chunk i from the back: every rank has the same area of the triangle (the practice of Llama 3, section
3.3.2 of Dubey et al. 2024, and of balanced ring attention).

# T tokens of a sequence, n ranks
"""

from __future__ import annotations

from ..models.rank_grid import share
from .sequence import TokenShares


def causal_shares(tokens: int, ranks: int) -> TokenShares:
    """Return which tokens each of the ranks takes: two chunks, i and 2 n - 1 - i, where 2 n divides T.

    Elsewhere equal chunks are impossible, and every rank takes one run of about T / n tokens: right, but the later ranks
    have more of the attention to do.
    """
    if ranks == 1 or tokens % (2 * ranks):
        return TokenShares.contiguous(tokens, ranks)
    chunk = [share(tokens, 2 * ranks, i) for i in range(2 * ranks)]
    return TokenShares(tuple((chunk[rank], chunk[2 * ranks - 1 - rank]) for rank in range(ranks)))
