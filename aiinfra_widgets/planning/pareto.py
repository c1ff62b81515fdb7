"""Which points of many no other point beats: the Pareto front of up to three objectives."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelInputError

#: A pass that throws out what one good point dominates is worth its time while it throws out this share.
_WORTHWHILE_FRAC = 0.05


def nondominated(points: Any) -> NDArray[np.bool_]:
    """Return which points are on the Pareto front; less is better in every column.

    A point is dominated when another is nowhere worse and somewhere better. So points that are equal stay together.

    Args:
        points: Shape (n, k) with k = 1, 2 or 3; infinite values are allowed.

    Returns:
        Shape (n,): True for each point that no other dominates.

    Raises:
        ModelInputError: Another shape, or NaN.
    """
    table = np.asarray(points, dtype=float)
    if table.ndim != 2 or not 1 <= table.shape[1] <= 3:
        raise ModelInputError(
            f"points must have shape (n, 1), (n, 2) or (n, 3), got {table.shape}; one column per objective"
        )
    if np.isnan(table).any():
        raise ModelInputError("points must not be NaN; leave out what is not known")
    found = np.zeros(len(table), dtype=bool)
    columns = [np.ascontiguousarray(c) for c in table.T] + [np.zeros(len(table))] * (3 - table.shape[1])
    left = _after_pivots(columns)
    found[left] = _sweep(*(c[left] for c in columns))
    return found


def _after_pivots(columns: list[NDArray[Any]]) -> NDArray[np.intp]:
    """Return the indices that remain once a few good points have thrown out what they dominate: a quick first pass."""
    left = np.arange(len(columns[0]))
    if not len(left):
        return left
    scores = _score(columns)
    tried = np.zeros(len(left), dtype=bool)
    while True:
        pivot = int(np.argmin(np.where(tried, np.inf, scores)))
        if tried[pivot]:
            return left
        tried[pivot] = True
        no_better = np.logical_and.reduce([c >= c[pivot] for c in columns])
        equal = np.logical_and.reduce([c == c[pivot] for c in columns])
        keep = ~no_better | equal
        removed = 1 - keep.mean()
        if removed:
            left, scores, tried, columns = left[keep], scores[keep], tried[keep], [c[keep] for c in columns]
        if removed < _WORTHWHILE_FRAC:
            return left


def _score(columns: list[NDArray[Any]]) -> NDArray[Any]:
    """Return one number per point that is small where every column is small, whatever the columns' units."""
    total = np.zeros(len(columns[0]))
    for column in columns:
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            total += np.nan_to_num((np.clip(column, low, high) - low) / ((high - low) or 1.0), nan=1.0)
    return total


def _sweep(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[np.bool_]:
    """Go through the points by x, then y, then z, and keep the staircase of (y, z) that the points so far have made.

    What dominates a point comes before it in that order. So a point is on the front when no step of the staircase lies
    at or below it. Steps have rising y and falling z, hence one look at the last step with y not above the point's.
    """
    order = np.lexsort((z, y, x))
    found = np.zeros(len(order), dtype=bool)
    steps_y: list[float] = []
    steps_z: list[float] = []
    last: tuple[float, float, float] | None = None
    kept = False
    rows = zip(x[order].tolist(), y[order].tolist(), z[order].tolist(), strict=True)
    for place, (at_x, at_y, at_z) in enumerate(rows):
        point = (at_x, at_y, at_z)
        if point != last:
            last = point
            below = bisect_right(steps_y, at_y)
            kept = not below or steps_z[below - 1] > at_z
            if kept:
                start = bisect_left(steps_y, at_y)
                end = start
                while end < len(steps_z) and steps_z[end] >= at_z:
                    end += 1
                steps_y[start:end] = [at_y]
                steps_z[start:end] = [at_z]
        found[place] = kept
    mask = np.zeros(len(order), dtype=bool)
    mask[order] = found
    return mask
