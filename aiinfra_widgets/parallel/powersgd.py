"""Each matrix of gradients travels as two thin ones (PowerSGD: Vogels, Karimireddy and Jaggi 2019).

# R rows, C columns of a gradient; r its rank on the wire
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .compression import Compressed
from .groups import Group
from .optimizer import Optimizer
from .units import Unit


@dataclass(slots=True)
class Matrix:
    """One gradient that is compressed.

    Attributes:
        span, rows: Where it lies in the flat buffers, and how it is cut into rows.
        right: (C, r) the factor of the step before, where the next one begins (warm start).
    """

    span: slice
    rows: int
    right: Tensor


class PowerSgd(Compressed):
    """One step of power iteration per training step, on the sum over the replicas; the rest is kept for the next step.

    Vectors travel whole, and so do matrices that two factors would not make smaller. What a replica keeps is its own gradient
    minus its own part of the sum, so that all parts and all rests together are the sum of the gradients.

    Args:
        rank: r, at least 1.
        others: As for `Store`.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        data: Group,
        tp: Group,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        rank: int = 2,
    ) -> None:
        super().__init__(units, data, tp, optimizer, device, dtype)
        self.rest = torch.zeros_like(self.gradient)
        self.matrices: list[Matrix] = []
        self.plain: list[slice] = []
        for p in self.named:
            rows, size = p.shape[0], p.span.stop - p.span.start
            columns = size // max(rows, 1)
            if len(p.shape) < 2 or rank * (rows + columns) >= size:
                self.plain.append(p.span)
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(p.name.encode()))  # the same on every rank
            right = torch.randn(columns, rank, generator=generator, dtype=dtype).to(device)
            self.matrices.append(Matrix(p.span, rows, right))

    def exchange(self) -> None:
        """See `Compressed`."""
        for m in self.matrices:
            self.gradient[m.span].add_(self.rest[m.span])
        lefts = [g @ m.right for m, g in self._gradients()]
        self._sum([*lefts, *(self.gradient[span] for span in self.plain)])
        lefts = [torch.linalg.qr(left).Q for left in lefts]
        for (m, g), left in zip(self._gradients(), lefts, strict=True):
            m.right = g.T @ left
            torch.addmm(g, left, m.right.T, alpha=-1, out=self.rest[m.span].view_as(g))
        self._sum([m.right for m in self.matrices])
        for (m, g), left in zip(self._gradients(), lefts, strict=True):
            torch.mm(left, m.right.T, out=g)

    def memory(self) -> list[Tensor]:
        """See `Compressed`."""
        return [self.rest, *(m.right for m in self.matrices)]

    def _gradients(self) -> Iterator[tuple[Matrix, Tensor]]:
        for m in self.matrices:
            yield m, self.gradient[m.span].view(m.rows, -1)

    def _sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum several tensors over the replicas, in place, in one message."""
        if not tensors:
            return
        packed = torch.cat([t.reshape(-1) for t in tensors])
        self.data.all_reduce(packed)
        for tensor, summed in zip(tensors, packed.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))
