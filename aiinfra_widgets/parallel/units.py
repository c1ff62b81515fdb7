"""What one rank holds of a net: its parts, cut by tensor parallelism, with flat parameters.

A unit is one part on this rank. Its parameters are views of one flat buffer, last parameter first, so that a whole unit
(or several) can be gathered, summed and updated at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..workloads.axes import Axes
from ..workloads.parts import Cut, Part
from .layout import Layout


@dataclass(slots=True)
class Placed:
    """One parameter of a unit.

    Attributes:
        name: In the whole net.
        parameter: Of the module; a view of the unit's flat buffer.
        span: Its place in the unit's flat buffer.
        cut: How tensor parallelism cuts it, or None.
        partial: Its gradient must be summed over the tp ranks under sequence parallel.
    """

    name: str
    parameter: nn.Parameter
    span: slice
    cut: Cut | None
    partial: bool


class Unit:
    """One part on this rank.

    Attributes:
        part: What it is.
        module: On the device; its parameters become views when a store adopts them.
        placed: Its trained parameters, the last first.
        size: Numbers in its flat buffer, of this tp rank.
    """

    def __init__(self, part: Part, axes: Axes, whole: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.part, self.axes = part, axes
        self.module = part.build(axes).to(device=device, dtype=dtype)
        self.placed: list[Placed] = []
        at = 0
        trained = [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]
        for name, parameter in self.module.named_parameters():
            if not parameter.requires_grad:  # what adapters are added to: taken over once, never moved again
                there, cut = whole.get_parameter(f"{part.name}.{name}").detach(), part.cuts.get(name)
                with torch.no_grad():
                    parameter.copy_(cut.take(there, axes.tp_size, axes.tp_rank) if cut else there)
        for name, parameter in reversed(trained):
            span = slice(at, at + parameter.numel())
            self.placed.append(
                Placed(f"{part.name}.{name}", parameter, span, part.cuts.get(name), name in part.partial)
            )
            at = span.stop
        self.size = at

    def attach(self, flat: Tensor) -> None:
        """Make the parameters views of `flat` (size numbers); what they held is forgotten."""
        for p in self.placed:
            p.parameter.data = flat[p.span].view(p.parameter.shape)

    def attach_gradients(self, flat: Tensor | None) -> None:
        """Make the gradients views of `flat`, so that backward adds into it; None: backward makes its own."""
        for p in self.placed:
            p.parameter.grad = None if flat is None else flat[p.span].view(p.parameter.shape)

    def take(self, layout: Layout, whole: Tensor, flat: Tensor) -> None:
        """Fill `flat` (size numbers) with this tp rank's share of the whole vector."""
        for p in self.placed:
            there = layout.view(whole, p.name)
            if p.cut is not None:
                there = p.cut.take(there, self.axes.tp_size, self.axes.tp_rank)
            flat[p.span].view(p.parameter.shape).copy_(there)

    def places(self, layout: Layout) -> Tensor:
        """Return where each number of the flat buffer stands in the whole vector (size int64).

        -1 for what is whole on every tp rank, but for the first of them, which stands for all.
        """
        found = torch.empty(self.size, dtype=torch.int64)
        self.take(layout, torch.arange(layout.size), found)
        for p in self.placed:
            if p.cut is None and self.axes.tp_rank:
                found[p.span] = -1
        return found


def build(parts: Sequence[Part], axes: Axes, whole: nn.Module, device: torch.device, dtype: torch.dtype) -> list[Unit]:
    """Return the units of `parts`; what is not trained is taken over from the whole net."""
    return [Unit(part, axes, whole, device, dtype) for part in parts]
