"""Gradients that are compressed on their way between replicas: what a compressed store is, and sums of 16-bit numbers.

Only `finish` differs from the plain store. What a compression leaves out is kept and added to the next step's gradient (error
feedback); this memory is no part of the whole state: it begins at zero after a change of plan and after a resume.

# P parameters of this rank, n replicas
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..models.rank_grid import share
from .groups import Group
from .optimizer import Optimizer
from .store import Replicated, counts
from .units import Unit


@dataclass(frozen=True, slots=True)
class Named:
    """One parameter in the store's flat buffers.

    Attributes:
        name: In the whole net.
        span: Where it lies.
        shape: Of this tp rank's share.
    """

    name: str
    span: slice
    shape: tuple[int, ...]


class Compressed(Replicated):
    """A replicated store whose replicas exchange less than their gradients.

    A parameter that is whole on every tp rank must get the same sum on all of them, to the bit. So a compression decides
    parameter by parameter, and never by what this tp rank alone holds.

    Attributes:
        named: The parameters, in the order of the flat buffers.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        data: Group,
        tp: Group,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(units, data, tp, optimizer, device, dtype)
        self.named: list[Named] = []
        for unit, span in zip(self.units, self.spans, strict=True):
            for p in unit.placed:
                place = slice(span.start + p.span.start, span.start + p.span.stop)
                self.named.append(Named(p.name, place, tuple(p.parameter.shape)))

    def finish(self) -> None:
        """See `Store`."""
        self._sum_all_partial()
        if self.data.size > 1:
            self.exchange()

    def exchange(self) -> None:
        """Turn this replica's gradient into (nearly) the sum over all of them; the same bits on every replica."""
        raise NotImplementedError

    def memory(self) -> list[Tensor]:
        """Return what is kept from step to step."""
        return []

    def held(self) -> dict[str, list[Tensor]]:
        """See `Store`; "compression" is what is kept from step to step."""
        return {**super().held(), "compression": self.memory()}


class SixteenBit(Compressed):
    """Gradients travel as 16-bit numbers and are summed at full precision: half the bytes, no memory.

    MPI sums no 16-bit numbers. So each rank receives its chunk from all others, sums it, and hands the sum round: the bytes on
    the wire are those of a ring of 16-bit numbers.
    """

    wire: ClassVar[torch.dtype]

    def exchange(self) -> None:
        """See `Compressed`."""
        n, parts = self.data.size, counts(self.size, self.data.size)
        scale = self.scale()
        own = (self.gradient * scale).to(self.wire)
        arrived = torch.empty(n * parts[self.data.rank], dtype=self.wire, device=self.device)
        self.data.all_to_all(_bits(own), parts, _bits(arrived), [parts[self.data.rank]] * n)
        summed = torch.zeros(parts[self.data.rank], dtype=self.dtype, device=self.device)
        for piece in arrived.view(n, -1):
            summed += piece
        own[share(self.size, n, self.data.rank)] = summed.to(self.wire)
        self.data.all_gather(_bits(own), parts)
        self.gradient.copy_(own)
        self.gradient.div_(scale)

    def scale(self) -> float:
        """Return the factor, a power of two, by which gradients are multiplied on their way."""
        return 1.0


class Brain16(SixteenBit):
    """bfloat16: 8 bits of precision, the range of float32."""

    wire: ClassVar[torch.dtype] = torch.bfloat16


class Half(SixteenBit):
    """float16: 11 bits of precision, and a narrow range (6e-8 to 65 504), so the ranks agree on a scale at every step.

    With it the sum cannot overflow, and what is too small to travel is below 2**-39 of the largest gradients' sum.
    """

    wire: ClassVar[torch.dtype] = torch.float16

    def scale(self) -> float:
        """Return the largest power of two with which the sum of all replicas fits; 1 where a gradient is not finite."""
        largest = torch.zeros(self.tp.size, dtype=self.dtype, device=self.device)
        largest[self.tp.rank] = self.gradient.abs().max() if self.size else 0.0
        self.tp.all_reduce(largest)
        total = largest.max().reshape(1).clone()
        self.data.all_reduce(total)
        bound = float(total)
        if not 0 < bound < float("inf"):
            return 1.0
        # Rounding to 16 bits may go up by 2**-11 of a number, for each of them and for the sum: two per thousand are left free.
        room = torch.finfo(self.wire).max / bound * 0.998
        return float(2.0 ** torch.tensor(room, dtype=torch.float64).log2().floor().clamp(-120, 120))


def _bits(tensor: Tensor) -> Tensor:
    """Return 16-bit numbers as what MPI can move."""
    return tensor.view(torch.int16)
