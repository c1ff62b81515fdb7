"""Tokens shared over ranks: gathered before they are needed together, summed and handed out again afterwards.

Between the layers that tensor parallelism cuts, every tp rank would repeat the same norms and keep the same activations.
With sequence parallelism each keeps only its share of the tokens there. An all-reduce is a reduce-scatter and an all-gather
one after the other, so the two halves, one on each side of the uncut layers, move no more bytes than before
(Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models").

The tokens are always dimension 1. # B sequences, T tokens that the ranks share, t those of this rank
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..models.rank_grid import share
from .groups import Group


@dataclass(frozen=True, slots=True)
class TokenShares:
    """Which tokens each rank of a group holds.

    Attributes:
        runs: For each rank the runs of tokens that it holds, one behind the other; together all tokens, each once.
    """

    runs: tuple[tuple[slice, ...], ...]

    @classmethod
    def contiguous(cls, tokens: int, ranks: int) -> TokenShares:
        """Return one run for each rank; they differ by one token at most."""
        return cls(tuple((share(tokens, ranks, rank),) for rank in range(ranks)))

    def count(self, rank: int) -> int:
        """Return how many tokens a rank holds."""
        return sum(run.stop - run.start for run in self.runs[rank])

    @property
    def total(self) -> int:
        """T."""
        return sum(self.count(rank) for rank in range(len(self.runs)))

    def places(self, rank: int) -> Tensor:
        """Return the places (t,) of a rank's tokens among all of them."""
        return torch.cat([torch.arange(run.start, run.stop) for run in self.runs[rank]])

    def take(self, whole: Tensor, rank: int) -> Tensor:
        """Return a rank's tokens of (B, T, ...), contiguous, a copy."""
        return torch.cat([whole[:, run] for run in self.runs[rank]], 1)

    def counts(self, shape: torch.Size) -> list[int]:
        """Return the numbers of each rank's chunk of a tensor whose shape is (B, T or t, ...)."""
        return [shape[0] * self.count(rank) * prod(shape[2:]) for rank in range(len(self.runs))]

    def chunks(self, flat: Tensor, shape: torch.Size) -> Iterator[tuple[slice, Tensor]]:
        """Yield (place among all tokens, view of `flat`) of every run; `flat` holds one contiguous chunk per rank."""
        counts = self.counts(shape)
        for rank, (end, count) in enumerate(zip(accumulate(counts), counts, strict=True)):
            chunk = flat[end - count : end].view(shape[0], self.count(rank), *shape[2:])
            lengths = [run.stop - run.start for run in self.runs[rank]]
            yield from zip(self.runs[rank], chunk.split(lengths, 1), strict=True)


def _gather(mine: Tensor, group: Group, shares: TokenShares) -> Tensor:
    """Return all tokens (B, T, ...) in the order of their places."""
    counts = shares.counts(mine.shape)
    begin = sum(counts[: group.rank])
    flat = mine.new_empty(sum(counts))
    flat[begin : begin + mine.numel()].view(mine.shape).copy_(mine)
    group.all_gather(flat, counts)
    whole = mine.new_empty(mine.shape[0], shares.total, *mine.shape[2:])
    for run, chunk in shares.chunks(flat, mine.shape):
        whole[:, run].copy_(chunk)
    return whole


def _sum_and_scatter(whole: Tensor, group: Group, shares: TokenShares) -> Tensor:
    """Return this rank's tokens (B, t, ...) of the sum over the ranks."""
    flat = whole.new_empty(whole.numel())
    for run, chunk in shares.chunks(flat, whole.shape):
        chunk.copy_(whole[:, run])
    mine = group.reduce_scatter(flat, shares.counts(whole.shape))
    return mine.view(whole.shape[0], shares.count(group.rank), *whole.shape[2:])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, group: Group, shares: TokenShares) -> Tensor:
        ctx.group, ctx.shares = group, shares
        return _gather(mine, group, shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _sum_and_scatter(gradient, ctx.group, ctx.shares), None, None


class _SumAndScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: Group, shares: TokenShares) -> Tensor:
        ctx.group, ctx.shares = group, shares
        return _sum_and_scatter(whole, group, shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _gather(gradient, ctx.group, ctx.shares), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: Group, shares: TokenShares) -> Tensor:
        ctx.group, ctx.shares = group, shares
        return shares.take(whole, group.rank)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _gather(gradient, ctx.group, ctx.shares), None, None


def gather_tokens(mine: Tensor, group: Group, shares: TokenShares) -> Tensor:
    """Return all tokens (B, T, ...), in order, from (B, t, ...): all-gather; backward sums over the ranks and scatters.

    Every rank must do another part of the work with them: the gradients of the ranks are added up.
    """
    found: Tensor = _Gather.apply(mine, group, shares)  # type: ignore[no-untyped-call]
    return found


def sum_and_scatter_tokens(whole: Tensor, group: Group, shares: TokenShares) -> Tensor:
    """Return this rank's tokens (B, t, ...) of the sum of (B, T, ...) over the ranks: reduce-scatter; backward gathers."""
    found: Tensor = _SumAndScatter.apply(whole, group, shares)  # type: ignore[no-untyped-call]
    return found


def scatter_tokens(whole: Tensor, group: Group, shares: TokenShares) -> Tensor:
    """Return this rank's tokens of (B, T, ...), which is the same on every rank; backward gathers, so its gradient is whole."""
    found: Tensor = _Scatter.apply(whole, group, shares)  # type: ignore[no-untyped-call]
    return found
