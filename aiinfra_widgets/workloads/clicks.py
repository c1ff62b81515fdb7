"""A deep learning recommendation model (Naumov et al. 2019): embeddings and counts meet in dot products, dense layers judge.

All tables are one matrix, one under the other, whose rows tp ranks share; the dense layers are shared in pairs.

# B samples, J tables, K counts, D width of an embedding, W width of the dense layers, P pairs of vectors
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from .axes import Axes
from .clicks_facts import COUNTS, PAIRS, ROWS_OF_TABLES, TABLES, VECTORS, embedding_width
from .cut_layers import Columns, Product, Rows, draw, he_std, pair
from .facts import WorkloadFacts
from .parts import Cut, Net, Part

EMBEDDING_STD = 0.1
#: Logarithms of counts are about that large; divided by it they are of size 1.
LOG_SCALE = 2.0


class Tables(nn.Module):
    """The embeddings of a sample's ids, behind the logarithms of its counts."""

    offsets: Tensor

    def __init__(self, width: int, axes: Axes) -> None:
        super().__init__()
        mine = axes.mine(ROWS_OF_TABLES)
        self.weight = nn.Parameter(torch.empty(mine.stop - mine.start, width))
        self.register_buffer("offsets", torch.tensor([0, *np.cumsum(TABLES[:-1]).tolist()]), persistent=False)
        self.axes = axes

    def forward(self, sample_BN: Tensor) -> Tensor:  # noqa: N803
        """Return (B, K + J D) of whole numbers (B, K + J)."""
        counts = (sample_BN[:, :COUNTS].to(self.weight.dtype) + 1).log() / LOG_SCALE
        found_BJD = self.axes.embed(sample_BN[:, COUNTS:] + self.offsets, self.weight, ROWS_OF_TABLES)  # noqa: N806
        return torch.cat([counts, found_BJD.flatten(1)], 1)


class Pair(nn.Module):
    """Two dense layers, each with a rectifier; tp ranks share the numbers between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, axes: Axes) -> None:
        super().__init__()
        self.linear1, self.linear2 = Columns(axes, inputs, hidden), Rows(axes, hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs) of (B, inputs)."""
        return F.relu(self.linear2(F.relu(self.linear1(x))))


class Bottom(Pair):
    """The dense layers below make a vector of the counts; it and those of the ids meet in dot products."""

    pairs: Tensor

    def __init__(self, width: int, embedding: int, axes: Axes) -> None:
        super().__init__(COUNTS, width, embedding, axes)
        self.register_buffer("pairs", torch.tril_indices(VECTORS, VECTORS, -1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the vector of the counts and the products of all pairs, (B, D + P), of (B, K + J D)."""
        made = super().forward(x[:, :COUNTS].detach())  # counts are data, though their neighbours are trained
        vectors_BVD = torch.cat([made, x[:, COUNTS:]], 1).unflatten(1, (VECTORS, -1))  # noqa: N806
        products = vectors_BVD @ vectors_BVD.transpose(1, 2)
        return torch.cat([made, products[:, self.pairs[0], self.pairs[1]]], 1)


def _std_of(name: str, parameter: nn.Parameter) -> float:
    if parameter.ndim == 1:
        return 0.0
    return EMBEDDING_STD if name.startswith("tables") else he_std(parameter, 1.0 if name.startswith("head") else 2.0)


def net(facts: WorkloadFacts) -> Net:
    """Return the parts: tables, dense layers below with the interaction, pairs of dense layers above, the head."""
    width, wide, cost = facts.width, embedding_width(facts.width), facts.cost_of_parts()
    cuts = pair("linear1", "linear2")
    above = [
        Part(name, partial(Pair, wide + PAIRS if i == 0 else width, width, width), cuts, cost=cost[name])
        for i, name in enumerate(f"top{i + 1}" for i in range(facts.depth))
    ]
    parts = (
        Part("tables", partial(Tables, wide), {"weight": Cut(0)}, cost=float(len(TABLES) * wide)),
        Part("bottom", partial(Bottom, width, wide), cuts, cost=cost["bottom"]),
        *above,
        Part("head", lambda axes: Product(width, 1), cost=cost["head"]),
    )
    return Net(parts, partial(draw, std_of=_std_of), heads=width)
