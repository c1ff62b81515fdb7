"""A long series in a bounded number of points: what a live figure needs of a run that may take a million steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_ROOM = 1.15
Array = np.ndarray[Any, np.dtype[np.float64]]


class Thinned:
    """Columns over an increasing first column, averaged so that there are never more than `limit` points.

    A point is the mean of `stride` neighbouring rows (of the first column: the last). When there are too many, neighbours
    are merged and the stride doubles; so the whole history stays visible, and parts that add up still do.

    Args:
        names: Of the columns; the first is the place on the x axis.
        limit: Most points, even.
    """

    def __init__(self, names: Sequence[str], limit: int = 600) -> None:
        if limit < 2 or limit % 2:
            raise ValueError(f"limit: got {limit}; allowed: an even number from 2")
        self.names, self.limit, self.stride = tuple(names), limit, 1
        self._points = np.empty((0, len(self.names)))
        self._rest = np.empty((0, len(self.names)))

    def __len__(self) -> int:
        return len(self._points)

    def extend(self, rows: Mapping[str, Any]) -> int | None:
        """Add rows, equally long columns by name; a column that is missing is NaN.

        Returns:
            How many points were added at the end, or None when earlier ones changed and all must be drawn again.
        """
        count = len(rows[self.names[0]])
        fresh = np.column_stack([np.asarray(rows.get(n, np.full(count, np.nan)), dtype=float) for n in self.names])
        before, stride = len(self._points), self.stride
        self._rest = np.vstack([self._rest, fresh])
        self._fold()
        while len(self._points) >= self.limit:
            self._halve()
            self._fold()
        return len(self._points) - before if self.stride == stride else None

    def cut(self, at: float) -> bool:
        """Forget points from `at` on, because they are done again after a resume; return whether there were any."""
        kept = self._points[:, 0] < at
        rest = self._rest[:, 0] < at
        changed = not (kept.all() and rest.all())
        self._points, self._rest = self._points[kept], self._rest[rest]
        return changed

    def columns(self, last: int | None = None) -> dict[str, Array]:
        """Return the points, or the last few of them, by name."""
        rows = self._points if last is None else self._points[len(self._points) - last :]
        return {name: rows[:, i].copy() for i, name in enumerate(self.names)}

    def _fold(self) -> None:
        whole = len(self._rest) // self.stride
        if whole:
            used = whole * self.stride
            self._points = np.vstack([self._points, _means(self._rest[:used], self.stride)])
            self._rest = self._rest[used:]

    def _halve(self) -> None:
        pairs = len(self._points) // 2
        odd = self._points[2 * pairs :]
        self._points = _means(self._points[: 2 * pairs], 2)
        # An odd point at the end waits for its neighbour, as the rows that it is the mean of.
        self._rest = np.vstack([np.repeat(odd, self.stride, axis=0), self._rest])
        self.stride *= 2


def _means(rows: Array, size: int) -> Array:
    """Return the mean of every `size` rows, leaving out NaN; the last of the first column."""
    groups = rows.reshape(-1, size, rows.shape[1])
    there = np.isfinite(groups)
    counts = there.sum(axis=1)
    sums = np.where(there, groups, 0.0).sum(axis=1)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    means[:, 0] = groups[:, -1, 0]
    return np.asarray(means)


def upper(values: Any, pieces: int = 16, room: float = 1.9) -> float | None:
    """Return where a y axis ends, None for no value: above the median of every sixteenth of the series, and above 19 of 20 values.

    A hiccup of the machine does not flatten the rest, and a stretch that really is higher is seen.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None
    typical = max(float(np.median(p)) for p in np.array_split(finite, min(pieces, finite.size))) * room
    top = max(typical, float(np.percentile(finite, 95)) * MOST_ROOM)
    return top if top > 0 else None
