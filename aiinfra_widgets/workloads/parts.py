"""A net as a row of parts: what a pipeline may cut between, and what tensor parallelism may cut inside.

The whole net is `nn.Sequential` of the parts by name, so a parameter's name is `part.parameter` however it is distributed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..models.rank_grid import share
from ..models.stages import stages
from .axes import ALONE, Axes

__all__ = ["Cut", "Net", "Part", "assemble", "stages"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How one parameter is cut over the tp ranks.

    Attributes:
        dim: Dimension that is cut.
        blocks: It consists of so many equal blocks, each of which is cut by itself (3 for fused queries, keys, values).
        unit: Smallest run that stays together (numbers of one head; of one channel's pixels).
    """

    dim: int
    blocks: int = 1
    unit: int = 1

    def take(self, whole: Tensor, size: int, index: int) -> Tensor:
        """Return the share of tp rank `index` of `size`, contiguous, a copy."""
        import torch

        blocks = whole.chunk(self.blocks, self.dim)
        units = blocks[0].shape[self.dim] // self.unit
        mine = share(units, size, index)
        return torch.cat(
            [b.narrow(self.dim, mine.start * self.unit, (mine.stop - mine.start) * self.unit) for b in blocks], self.dim
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a net.

    Attributes:
        name: Of the submodule in the whole net.
        build: Makes the module for these axes, on the CPU, float32, its parameters allocated and not yet drawn: with tp_size
            above 1 the parameters named in `cuts` have their local shape.
        cuts: Parameters that tensor parallelism cuts; the others are whole on every tp rank.
        partial: Parameters that are whole, but whose gradient sees only this tp rank's tokens under sequence parallel
            (norms, biases after a row cut): it must be summed over the tp ranks then.
        cost: Arithmetic of forward, flop per sample; stages are balanced by it.
    """

    name: str
    build: Callable[[Axes], nn.Module]
    cuts: Mapping[str, Cut] = field(default_factory=dict, hash=False)
    partial: frozenset[str] = frozenset()
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Net:
    """A net that can be distributed.

    Attributes:
        parts: In order; the output of one is the input of the next, a single tensor with the samples first.
        draw: Draws the initial weights of the whole net in place, from a seed alone.
        why_not_tp: Why tensor parallelism cannot cut it, or "".
        heads: Most tp ranks that its layers can be cut over (heads, channels).
        sequence_dim: Whether samples are sequences (B, T): then context and sequence parallel can cut them.
        context: Tokens of one sequence, 0 where samples are none.
    """

    parts: tuple[Part, ...]
    draw: Callable[[nn.Module, int], None]
    why_not_tp: str = ""
    heads: int = 2**30
    sequence_dim: bool = False
    context: int = 0

    def whole(self, seed: int) -> nn.Sequential:
        """Return the whole net, drawn from `seed`."""
        module = assemble(self.parts, ALONE)
        self.draw(module, seed)
        return module


def assemble(parts: Sequence[Part], axes: Axes) -> nn.Sequential:
    """Return the parts as one module, parameters not drawn."""
    return nn.Sequential(OrderedDict((part.name, part.build(axes)) for part in parts))
