"""A physics-informed net: the equation's derivatives travel forward through the layers, exactly, beside the values.

With z = W h + b and q the residual operator d/dt - k d2/dx2 applied to a neuron, the chain rule of tanh gives
h = tanh z, h_x = h' z_x, h_q = h' q + 2 k h h' z_x^2, where h' = 1 - h^2: three numbers instead of value, two first
derivatives and a second one (Li et al. 2023, "Forward Laplacian"). So a training step is forward and backward like any other.

# B points, W width, S = 3 numbers per neuron: value, derivative by x, residual
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .axes import Axes
from .cut_layers import Columns, Product, Rows, draw, pair
from .facts import WorkloadFacts
from .parts import Net, Part
from .physics_facts import DIFFUSIVITY, RESIDUAL_WEIGHT, STREAMS

# Between parts: (B, 1 + S W), the flag of the point and then its streams.


def tanh(value: Tensor, slope: Tensor, residual: Tensor) -> Tensor:
    """Return the streams (B, S, W) behind tanh, from those before it."""
    h = value.tanh()
    d = 1 - h.square()
    return torch.stack([h, d * slope, d * (residual + 2 * DIFFUSIVITY * h * slope.square())], 1)


def bent(z_BSW: Tensor, bias: Tensor) -> Tensor:  # noqa: N803
    """Return tanh of z + bias, as streams; a bias moves the value alone."""
    return tanh(z_BSW[:, 0] + bias, z_BSW[:, 1], z_BSW[:, 2])


def flat(flag_B1: Tensor, streams_BSW: Tensor) -> Tensor:  # noqa: N803
    """Return (B, 1 + S W)."""
    return torch.cat([flag_B1, streams_BSW.flatten(1)], 1)


def streams(state: Tensor) -> Tensor:
    """Return (B, S, W) of (B, 1 + S W)."""
    found: Tensor = state[:, 1:].unflatten(1, (STREAMS, -1))
    return found


class Lift(nn.Module):
    """The first layer: the derivative of x W by x is a row of W."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Product(2, width)

    def forward(self, points_B3: Tensor) -> Tensor:  # noqa: N803
        """Return the state of points (x, t, flag)."""
        value = self.linear(points_B3[:, :2])
        by_x, by_t = (column.expand_as(value) for column in self.linear.weight.unbind(1))
        return flat(points_B3[:, 2:], tanh(value, by_x, by_t))


class Block(nn.Module):
    """Two layers, each followed by tanh; tp ranks share the neurons between them."""

    def __init__(self, width: int, axes: Axes) -> None:
        super().__init__()
        self.linear1, self.linear2 = Columns(axes, width, width), Rows(axes, width, width)
        self.axes = axes

    def forward(self, state: Tensor) -> Tensor:
        """Return the next state."""
        inner = bent(self.linear1.times(self.axes.enter(streams(state)), None), self.linear1.bias)
        outer = self.axes.leave(self.linear2.times(inner, None))
        return flat(state[:, :1], bent(outer, self.linear2.bias))


class Head(nn.Module):
    """One number per point: the weighted residual where the flag says so, else u."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Product(width, 1)

    def forward(self, state: Tensor) -> Tensor:
        """Return (B, 1)."""
        flag, (u, _, residual) = state[:, :1].detach(), self.linear.times(streams(state), None).unbind(1)
        answer: Tensor = flag * RESIDUAL_WEIGHT * residual + (1 - flag) * (u + self.linear.bias)
        return answer


def _std_of(name: str, parameter: nn.Parameter) -> float:
    """First layer: bends at different places of the domain. The others keep the signal (Glorot and Bengio 2010)."""
    if name.startswith("lift"):
        return 1.0
    return 0.0 if parameter.ndim == 1 else float(parameter.shape[1] ** -0.5)


def net(facts: WorkloadFacts) -> Net:
    """Return the parts: the first layer, blocks of two, the head."""
    width, cost = facts.width, facts.cost_of_parts()
    blocks = [f"block{i + 1}" for i in range(facts.depth)]
    parts = (
        Part("lift", lambda axes: Lift(width), cost=cost["lift"]),
        *(Part(name, partial(Block, width), pair("linear1", "linear2"), cost=cost[name]) for name in blocks),
        Part("head", lambda axes: Head(width), cost=cost["head"]),
    )
    return Net(parts, partial(draw, std_of=_std_of), heads=width)
