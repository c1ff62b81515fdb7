"""Dense layers and convolutions that tp ranks share in pairs: one by columns, the next by rows, with one sum behind the pair.

# B samples, C channels, H x W pixels
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from .axes import Axes
from .parts import Cut


class Product(nn.Module):
    """A dense layer, or a convolution of the same size, that every tp rank holds whole; allocated, not drawn."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *(kernel, kernel) if kernel else ()))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return x W + b; of (B, C, H, W) for a convolution, of (..., inputs) else."""
        return self.times(x, self.bias)

    def times(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the product, and `bias` added to it if there is one."""
        if self.weight.ndim == 2:
            return F.linear(x, self.weight, bias)
        return F.conv2d(x, self.weight, bias, padding=self.weight.shape[-1] // 2)


class Columns(Product):
    """Of a product's outputs, those of this tp rank."""

    def __init__(self, axes: Axes, inputs: int, outputs: int, kernel: int = 0) -> None:
        mine = axes.mine(outputs)
        super().__init__(inputs, mine.stop - mine.start, kernel)
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Return this rank's outputs for an input that is whole on every tp rank."""
        return super().forward(self.axes.enter(x))


class Rows(Product):
    """Of a product's inputs, those of this tp rank: the ones that `Columns` before it returned."""

    def __init__(self, axes: Axes, inputs: int, outputs: int, kernel: int = 0) -> None:
        mine = axes.mine(inputs)
        super().__init__(mine.stop - mine.start, outputs, kernel)
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum over the tp ranks, and then the bias, once."""
        if self.axes.tp_size == 1:
            return super().forward(x)
        summed = self.axes.leave(self.times(x, None))
        return summed + (self.bias if self.weight.ndim == 2 else self.bias[:, None, None])


def pair(columns: str, rows: str) -> dict[str, Cut]:
    """Return the cuts of a pair of submodules, the first a `Columns`, the second a `Rows`."""
    return {f"{columns}.weight": Cut(0), f"{columns}.bias": Cut(0), f"{rows}.weight": Cut(1)}


@torch.no_grad()
def draw(net: nn.Module, seed: int, std_of: Callable[[str, nn.Parameter], float]) -> None:
    """Draw every parameter of the whole net, uniform around 0, from `seed` alone.

    Args:
        net: Changed in place.
        seed: Neither torch's global generator nor the number of threads has a part in it.
        std_of: Standard deviation of a parameter, by its name; 0 leaves it at 0.
    """
    rng = np.random.default_rng([seed, 0])
    for name, parameter in net.named_parameters():
        std = std_of(name, parameter)
        if std == 0:
            parameter.zero_()
            continue
        drawn = rng.random(tuple(parameter.shape), dtype=np.float32)
        drawn -= np.float32(0.5)
        drawn *= np.float32(2 * 3**0.5 * std)
        parameter.copy_(torch.from_numpy(drawn))


def he_std(parameter: nn.Parameter, gain: float) -> float:
    """Return sqrt(gain / fan_in): gain 2 keeps the signal through a rectifier (He et al. 2015), 1 through nothing."""
    return float((gain / parameter[0].numel()) ** 0.5)
