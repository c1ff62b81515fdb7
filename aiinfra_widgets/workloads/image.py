"""A residual CNN without norms: batch norm would tie the ranks together, and blocks that begin small need none.

Every block is x + conv(relu(conv(relu(x)))). Its last convolution is drawn smaller by the square root of the number of
blocks, so that the signal keeps its size at any depth (Zhang et al. 2019, "Fixup initialization").

# B samples, C channels, H x W pixels
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from .axes import Axes
from .cut_layers import Columns, Product, Rows, draw, he_std, pair
from .facts import WorkloadFacts
from .image_facts import CLASSES
from .parts import Net, Part

KERNEL = 3


class Block(nn.Module):
    """Two convolutions beside a shortcut; tp ranks share the channels between them."""

    def __init__(self, channels: int, axes: Axes) -> None:
        super().__init__()
        self.conv1 = Columns(axes, channels, channels, KERNEL)
        self.conv2 = Rows(axes, channels, channels, KERNEL)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: N803
        """Return (B, C, H, W)."""
        more: Tensor = self.conv2(F.relu(self.conv1(F.relu(x_BCHW))))
        return x_BCHW + more


class Down(nn.Module):
    """The maximum of 2 x 2 pixels, and twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Product(channels, 2 * channels, KERNEL)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: N803
        """Return (B, 2 C, H / 2, W / 2)."""
        smaller: Tensor = self.conv(F.max_pool2d(x_BCHW, 2))
        return smaller


class Head(nn.Module):
    """The mean over the pixels of each channel, and a dense layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = Product(channels, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: N803
        """Return logits (B, classes)."""
        logits: Tensor = self.linear(F.relu(x_BCHW).mean((2, 3)))
        return logits


def net(facts: WorkloadFacts) -> Net:
    """Return the parts: stem, blocks, the step down, blocks, head."""
    width, depth = facts.width, facts.depth
    cost = facts.cost_of_parts()

    def block(i: int, channels: int) -> Part:
        name = f"block{i + 1}"
        return Part(name, partial(Block, channels), pair("conv1", "conv2"), cost=cost[name])

    parts = (
        Part("stem", lambda axes: Product(1, width, KERNEL), cost=cost["stem"]),
        *(block(i, width) for i in range(depth)),
        Part("down", lambda axes: Down(width), cost=cost["down"]),
        *(block(i, 2 * width) for i in range(depth, 2 * depth)),
        Part("head", lambda axes: Head(2 * width), cost=cost["head"]),
    )

    def std_of(name: str, parameter: nn.Parameter) -> float:
        if parameter.ndim == 1:
            return 0.0
        if name.endswith("conv2.weight"):
            return he_std(parameter, 2 / (2 * depth))
        return he_std(parameter, 2.0 if "conv1" in name else 1.0)

    return Net(parts, partial(draw, std_of=std_of), heads=width)
