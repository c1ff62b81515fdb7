"""Where each parameter stands in the whole state: one flat vector per kind, the same whatever the plan.

The last parameter comes first, as backward finishes it first; so the whole state of any plan is what `FlatBuffers` holds,
and a checkpoint written under one plan is read under another.

# P trained parameters of the whole net
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Whole = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some numbers of the state as one rank holds them.

    Attributes:
        kind: Which vector of the whole state: "parameters", or a tensor of the optimiser.
        numbers: Flat; the store's own memory, which tells what is there now.
        places: Of each in that vector (int64); -1 where another tp rank stands for it.
    """

    kind: str
    numbers: Tensor
    places: Tensor

    def put(self, whole: Whole) -> None:
        """Write the numbers where they belong."""
        here = self.places >= 0
        whole[self.kind][self.places[here]] = self.numbers.cpu()[here]


@dataclass(frozen=True, slots=True)
class Layout:
    """Slices of the flat vectors by the name of the parameter in the whole net.

    Attributes:
        slices, shapes: By name.
        size: P.
    """

    slices: Mapping[str, slice]
    shapes: Mapping[str, tuple[int, ...]]
    size: int

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """Return the layout of a whole net's trained parameters."""
        slices, shapes, at = {}, {}, 0
        for name, parameter in reversed([(n, p) for n, p in module.named_parameters() if p.requires_grad]):
            slices[name] = slice(at, at + parameter.numel())
            shapes[name] = tuple(parameter.shape)
            at += parameter.numel()
        return cls(slices, shapes, at)

    def views(self, vector: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, view of the parameter's shape) of a flat vector of P numbers."""
        for name, part in self.slices.items():
            yield name, vector[part].view(self.shapes[name])

    def view(self, vector: Tensor, name: str) -> Tensor:
        """Return one parameter's view of a flat vector."""
        return vector[self.slices[name]].view(self.shapes[name])

    def flatten(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a whole net's parameters as one flat vector, a copy."""
        vector = torch.empty(self.size, dtype=dtype)
        named = dict(module.named_parameters())
        for name, view in self.views(vector):
            view.copy_(named[name].detach())
        return vector

    def empty(self, names: tuple[str, ...], dtype: torch.dtype = torch.float32) -> Whole:
        """Return zeros: the parameters, and the optimiser's state tensors of these names."""
        # numpy's zeros take memory only as they are written
        kind = np.float64 if dtype == torch.float64 else np.float32
        return {name: torch.from_numpy(np.zeros(self.size, kind)) for name in ("parameters", *names)}
