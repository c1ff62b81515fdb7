"""A time measured over a grid of sizes: interpolated in logarithms, extended beyond the edges along the last slope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelInputError
from ._check import Number, need

#: Beyond the grid time grows at most in proportion to size, and never falls.
SLOPES = (0.0, 1.0)


@dataclass(frozen=True)
class TimeGrid:
    """Seconds over one or more sizes, measured on a full grid.

    Attributes:
        axes: Name of each size, in order.
        points: Increasing sizes of each axis, positive.
        log_times: Natural logarithm of the seconds; shape (len(points[0]), len(points[1]), ...).

    Valid when: the operation is of the kind that was measured. Within the grid times are interpolated linearly in
        logarithms; beyond it the slope of the last interval is kept, held within SLOPES.
    Off by: a few percent between points a factor 4 apart; more where a cache boundary lies between them, and beyond.
    Source: the efficiency curves of Calculon (Isaev et al. 2023), here as times so that overhead is in them.
    """

    axes: tuple[str, ...]
    points: tuple[tuple[float, ...], ...]
    log_times: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def from_points(cls, axes: Sequence[str], points: Iterable[tuple[Mapping[str, Any], float]]) -> TimeGrid:
        """Build a grid from ({axis: size, ...}, seconds), in any order.

        Raises:
            ModelInputError: No points, a time that is not positive, or a hole in the grid.
        """
        found = [(tuple(float(at[a]) for a in axes), float(time)) for at, time in points]
        if not found:
            raise ModelInputError(f"no measured point over {', '.join(axes)}; run: aiinfra calibrate")
        need("measured time", np.array([t for _, t in found]), above=True)
        ticks = tuple(tuple(sorted({at[i] for at, _ in found})) for i in range(len(axes)))
        table = np.full([len(t) for t in ticks], np.nan)
        for at, time in found:
            table[tuple(t.index(x) for t, x in zip(ticks, at, strict=True))] = np.log(time)
        if np.isnan(table).any():
            raise ModelInputError(f"the measured grid over {', '.join(axes)} has holes; run: aiinfra calibrate")
        return cls(tuple(axes), ticks, table)

    def time_s(self, *sizes: Number) -> Any:
        """Return the seconds at `sizes`, one for each axis; arrays broadcast.

        Raises:
            ModelInputError: Another number of sizes, or one that is not positive.
        """
        if len(sizes) != len(self.axes):
            raise ModelInputError(f"{len(sizes)} sizes given; needed: {', '.join(self.axes)}")
        for name, size in zip(self.axes, sizes, strict=True):
            need(name, size, above=True)
        logs = [np.asarray(np.log(s), dtype=float) for s in np.broadcast_arrays(*sizes)]
        return np.exp(self._interpolate(self.log_times, [np.log(p) for p in self.points], logs))[()]

    def inside(self, *sizes: Number) -> Any:
        """Return where every size lies within what was measured."""
        return np.logical_and.reduce(
            [(s >= p[0]) & (s <= p[-1]) for s, p in zip(np.broadcast_arrays(*sizes), self.points, strict=True)]
        )

    def _interpolate(self, table: Any, ticks: list[Any], logs: list[Any]) -> Any:
        """Collapse the last axis, then the one before; each collapse is a blend of the two neighbours."""
        if not ticks:
            return table
        rest, axis, x = ticks[:-1], ticks[-1], logs[-1]
        if len(axis) == 1:
            return self._interpolate(table[..., 0], rest, logs[:-1])
        i = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, len(axis) - 2)
        below = self._pick(table, rest, logs[:-1], i)
        above = self._pick(table, rest, logs[:-1], i + 1)
        width = axis[i + 1] - axis[i]
        share = (x - axis[i]) / width
        slope = (above - below) / width
        held = np.clip(slope, *SLOPES)
        outside = np.where(x > axis[-1], above + held * (x - axis[-1]), below + held * (x - axis[0]))
        return np.where((x < axis[0]) | (x > axis[-1]), outside, below + share * (above - below))

    def _pick(self, table: Any, rest: list[Any], logs: list[Any], index: Any) -> Any:
        """Interpolate over the other axes at one index of the last, which may differ from element to element."""
        index = np.asarray(index)
        found = np.empty(index.shape)
        for k in np.unique(index):
            values = np.broadcast_to(self._interpolate(table[..., k], rest, logs), index.shape)
            found = np.where(index == k, values, found)
        return found
