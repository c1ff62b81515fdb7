"""Which rank does what: the grid of data, context, tensor and pipeline ranks. Pure, so that a plan can be drawn before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import ModelInputError

Axis = Literal["tp", "cp", "dp", "pp"]
#: Fastest first, as Megatron numbers ranks: the groups that talk most are neighbours.
ORDER: tuple[Axis, ...] = ("tp", "cp", "dp", "pp")


@dataclass(frozen=True, slots=True)
class RankGrid:
    """A world of dp * cp * tp * pp ranks.

    Attributes:
        dp_size: Replicas that share the batch.
        tp_size: Ranks that share each layer.
        pp_size: Stages that share the layers.
        cp_size: Ranks that share each sequence.
    """

    dp_size: int = 1
    tp_size: int = 1
    pp_size: int = 1
    cp_size: int = 1

    @classmethod
    def of(cls, world_size: int, *, tp_size: int = 1, pp_size: int = 1, cp_size: int = 1) -> RankGrid:
        """Return the grid of `world_size` ranks; what the other degrees leave is data parallel.

        Raises:
            ModelInputError: The product of the degrees does not divide the ranks; names every factor.
        """
        inner = tp_size * pp_size * cp_size
        if min(world_size, tp_size, pp_size, cp_size) < 1 or world_size % inner:
            raise ModelInputError(
                f"{world_size} nodes cannot be cut into tp_size {tp_size} x pp_size {pp_size} x cp_size {cp_size} = {inner}; "
                f"use a multiple of {inner} nodes, or smaller degrees"
            )
        return cls(world_size // inner, tp_size, pp_size, cp_size)

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.dp_size * self.tp_size * self.pp_size * self.cp_size

    def size(self, axis: Axis) -> int:
        """Return the degree of one axis."""
        return {"tp": self.tp_size, "cp": self.cp_size, "dp": self.dp_size, "pp": self.pp_size}[axis]

    def place(self, rank: int) -> dict[Axis, int]:
        """Return the coordinates of `rank` on every axis."""
        found: dict[Axis, int] = {}
        for axis in ORDER:
            rank, found[axis] = divmod(rank, self.size(axis))
        return found

    def rank(self, **place: int) -> int:
        """Return the rank at these coordinates; an axis that is left out is 0."""
        found, stride = 0, 1
        for axis in ORDER:
            found += place.get(axis, 0) * stride
            stride *= self.size(axis)
        return found

    def group(self, rank: int, *axes: Axis) -> tuple[int, ...]:
        """Return the ranks that differ from `rank` on these axes only, in order, `rank` among them."""
        mine = self.place(rank)
        return tuple(
            r
            for r in range(self.world_size)
            if all(mine[axis] == there for axis, there in self.place(r).items() if axis not in axes)
        )

    def __str__(self) -> str:
        parts = [f"{name.upper()}{size}" for name in ("dp", "cp", "tp", "pp") if (size := self.size(name)) > 1]
        return " x ".join(parts) or "one rank"


def share(total: int, parts: int, index: int) -> slice:
    """Return the part `index` of `total` things cut into `parts` contiguous parts that differ by one at most."""
    return slice(total * index // parts, total * (index + 1) // parts)
