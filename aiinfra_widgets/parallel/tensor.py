"""Tensor parallelism: layers cut by columns and by rows, an embedding and a loss cut by the vocabulary.

A pair of layers, the first cut by columns and the second by rows, needs one sum forward, behind the pair, and one backward,
before it. Those are the functions g and f of Megatron-LM (Shoeybi et al. 2019), conjugates of each other: where one sums
forward and passes gradients on, the other passes values on and sums backward.

# N tokens, V vocabulary, v the part of it that this rank holds
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from .groups import Group


def _summed(tensor: Tensor, group: Group) -> Tensor:
    # A copy: what came in may be the output that another layer keeps, or a gradient that goes two ways.
    found = tensor.clone(memory_format=torch.contiguous_format)
    group.all_reduce(found)
    return found


class _SumGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _summed(gradient, ctx.group), None


class _SumValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return _summed(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def sum_gradients(x: Tensor, group: Group) -> Tensor:
    """Return `x`, any shape, whole on every rank; backward sums the ranks' gradients (Megatron's f)."""
    if not x.requires_grad:  # no gradient will ask for the sum
        return x
    found: Tensor = _SumGradients.apply(x, group)  # type: ignore[no-untyped-call]
    return found


def sum_values(x: Tensor, group: Group) -> Tensor:
    """Return the sum of the ranks' `x`, any shape; backward passes the gradient on (Megatron's g)."""
    found: Tensor = _SumValues.apply(x, group)  # type: ignore[no-untyped-call]
    return found


def embed_rows(tokens: Tensor, weight_vD: Tensor, rows: slice) -> Tensor:  # noqa: N803
    """Look up the tokens whose rows this rank holds, zeros for the others: the sum over the ranks is the embedding.

    Args:
        tokens: Any shape, int64.
        weight_vD: This rank's rows of the table.
        rows: Which they are.
    """
    elsewhere = (tokens < rows.start) | (tokens >= rows.stop)
    local = (tokens - rows.start).masked_fill(elsewhere, 0)
    return F.embedding(local, weight_vD).masked_fill(elsewhere[..., None], 0)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_Nv: Tensor, targets_N: Tensor, columns: slice, group: Group) -> Tensor:  # noqa: N803
        wide = logits_Nv.dtype if logits_Nv.dtype == torch.float64 else torch.float32
        greatest = logits_Nv.amax(1).to(wide)
        group.all_reduce(greatest, maximum=True)
        shifted = logits_Nv.to(wide) - greatest[:, None]
        elsewhere = (targets_N < columns.start) | (targets_N >= columns.stop)
        local = (targets_N - columns.start).masked_fill(elsewhere, 0)[:, None]
        of_target = shifted.gather(1, local)[:, 0].masked_fill(elsewhere, 0)
        exponentials = shifted.exp_()
        # The two sums travel together.
        sums = torch.stack([exponentials.sum(1), of_target])
        group.all_reduce(sums)
        ctx.save_for_backward(exponentials.div_(sums[0][:, None]), local, elsewhere)
        ctx.dtype = logits_Nv.dtype
        return (sums[0].log() - sums[1]).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        probabilities, local, elsewhere = ctx.saved_tensors
        found = probabilities * gradient
        found.scatter_add_(1, local, -gradient * (~elsewhere)[:, None])
        return found.to(ctx.dtype), None, None, None


def cross_entropy_sum(logits_Nv: Tensor, targets_N: Tensor, columns: slice, group: Group) -> Tensor:  # noqa: N803
    """Return the cross-entropy summed over N, the same on every rank; the logits are never gathered.

    The ranks exchange 3 numbers for each token: the greatest logit, the sum of exponentials, the target's logit.

    Args:
        logits_Nv: This rank's columns, at least one. Narrow types are computed in float32.
        targets_N: 0 to V - 1.
        columns: Which columns these are.
        group: The ranks that hold the others.
    """
    found: Tensor = _CrossEntropySum.apply(logits_Nv, targets_N, columns, group)  # type: ignore[no-untyped-call]
    return found
