"""All-reduce as calibration found it: a table over size and ranks, with an alpha-beta line to go beyond its sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelInputError
from ._check import Number, magnitude, need, need_ranks

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AlphaBeta:
    """The line time = alpha + size * beta.

    Attributes:
        alpha_s: Time of an empty operation.
        beta_s_per_byte: Seconds that each byte adds; its inverse is the asymptotic algorithm bandwidth.
    """

    alpha_s: float
    beta_s_per_byte: float

    def time_s(self, size_bytes: Number) -> Any:
        """Return the time of an operation of `size_bytes`, in seconds."""
        need("size_bytes", size_bytes)
        return self.alpha_s + size_bytes * self.beta_s_per_byte


def fit_alpha_beta(size_bytes: Any, time_s: Any) -> AlphaBeta:
    """Return the line through measured times that is best in relative terms, with outliers held down.

    Least squares of log time (so that 5 us and 5 ms weigh alike) on the median of each size, by Gauss-Newton in
    log alpha and log beta (both stay positive), with Huber weights.

    Args:
        size_bytes: Sizes, shape (k,), at least two distinct ones.
        time_s: Times, shape (k,).

    Raises:
        ModelInputError: Fewer than two distinct sizes, shapes that differ, or a value that is not positive.

    Valid when: one protocol and one algorithm over the sizes.
    Off by: tens of percent near a switch of protocol or where the payload leaves the cache; the table is not.
    Source: Hockney 1994; Huber 1964.
    """
    sizes, times = _medians(size_bytes, time_s)
    if len(sizes) < 2:
        raise ModelInputError(f"an alpha-beta line needs two distinct sizes, got {len(sizes)}; calibrate over more")
    target, theta = np.log(times), np.log([times[0], times[-1] / sizes[-1]])
    damping = 1e-3
    weight = np.ones_like(times)
    for _ in range(60):
        latency, traffic = np.exp(theta[0]), np.exp(theta[1]) * sizes
        error = target - np.log(latency + traffic)
        slope = np.stack([latency / (latency + traffic), traffic / (latency + traffic)], axis=1)
        spread = 1.4826 * float(np.median(np.abs(error))) + 1e-12
        weight = np.minimum(1.0, 1.345 * spread / np.maximum(np.abs(error), 1e-300))
        normal = slope.T @ (slope * weight[:, None])
        # A little damping keeps the step finite where one of the two terms is invisible in the data.
        step = np.linalg.solve(normal + damping * np.eye(2), slope.T @ (weight * error))
        theta = theta + np.clip(step, -2, 2)
        damping = max(damping * 0.5, 1e-9)
        if float(np.max(np.abs(step))) < 1e-10:
            break
    return AlphaBeta(float(np.exp(theta[0])), float(np.exp(theta[1])))


@dataclass(frozen=True, slots=True)
class MeasuredAllreduce:
    """Time of an all-reduce on this machine, from medians measured at some sizes and rank counts.

    Within the table: log time is interpolated over log size and over log ranks, and every measured point is met
    exactly. Beyond the sizes: the alpha-beta line of that rank count, scaled to meet the last point. Beyond the ranks:
    the power of n between the last two rank counts, held between 0 and 2. One rank costs nothing.

    Attributes:
        columns: For each rank count the sizes and times that were measured, increasing.
        lines: For each rank count the alpha-beta line.
        size_reach: Factor above the largest size that is still answered; below the smallest everything is, down to 0.
        rank_reach: Factor above the largest rank count that is still answered.

    Valid when: same host or cluster, library and transport as in calibration, cores otherwise idle.
    Off by: within the table, the noise of calibration; between rank counts on either side of the number of cores,
        tens of percent (there the curve has a corner); beyond the ranks, up to a factor 2.
    Source: measured; Hockney 1994 for the shape beyond the sizes.
    """

    columns: Mapping[int, tuple[Array, Array]]
    lines: Mapping[int, AlphaBeta]
    size_reach: float = 16.0
    rank_reach: float = 4.0

    @classmethod
    def from_points(cls, points: Iterable[tuple[float, int, float]]) -> MeasuredAllreduce:
        """Build the table from (size in bytes, ranks, seconds) in any order; of several times at one point the median.

        Raises:
            ModelInputError: No points, fewer than two sizes at a rank count, or a value outside its domain.
        """
        rows = np.array(list(points), dtype=float)
        if rows.size == 0:
            raise ModelInputError("an all-reduce table needs points, got none; run: aiinfra calibrate")
        need("ranks of an all-reduce point", rows[:, 1], 2, whole=True, hint="one rank has nothing to reduce")
        columns, lines = {}, {}
        for ranks in np.unique(rows[:, 1]):
            mine = rows[rows[:, 1] == ranks]
            columns[int(ranks)] = _medians(mine[:, 0], mine[:, 2])
            lines[int(ranks)] = fit_alpha_beta(mine[:, 0], mine[:, 2])
        return cls(columns, lines)

    def inside(self, size_bytes: Number, world_size: Number) -> Any:
        """Return where a point lies within the measured sizes and ranks (one rank always does)."""
        size, n = np.broadcast_arrays(magnitude(size_bytes), magnitude(world_size))
        small = max(sizes[0] for sizes, _ in self.columns.values())
        large = min(sizes[-1] for sizes, _ in self.columns.values())
        ranks = (n >= min(self.columns)) & (n <= max(self.columns))
        return ((n == 1) | (ranks & (size >= small) & (size <= large)))[()]

    def time_s(self, size_bytes: Number, world_size: Number) -> Any:
        """Return the time of one all-reduce, in seconds, of the broadcast shape of the arguments.

        Args:
            size_bytes: Payload per rank, a plain number.
            world_size: Ranks.

        Raises:
            ModelInputError: Further than `size_reach` or `rank_reach` from what was measured.
        """
        top = min(sizes[-1] for sizes, _ in self.columns.values()) * self.size_reach
        need("size_bytes", size_bytes, 0, top, hint="calibrate all-reduce at larger sizes")
        need_ranks("world_size", world_size)
        most = max(self.columns) * (self.rank_reach if len(self.columns) > 1 else 1)
        need("world_size", world_size, 1, most, whole=True, hint="calibrate all-reduce with more ranks")
        size, n = np.broadcast_arrays(magnitude(size_bytes), magnitude(world_size))
        known = np.array(sorted(self.columns), dtype=float)
        if len(known) == 1 and np.any((n != 1) & (n != known[0])):
            raise ModelInputError(
                f"world_size must be 1 or {known[0]:g}, the only rank count measured, got {n.ravel().tolist()}; "
                "calibrate all-reduce with more rank counts"
            )
        logs = np.stack([self._log_column(int(k), size) for k in known])
        return np.where(n == 1, 0.0, np.exp(_across_ranks(np.log(known), logs, np.log(n))))[()]

    def _log_column(self, ranks: int, size: Array) -> Array:
        """Log time at `ranks` over any sizes: interpolated inside, along the scaled line outside."""
        sizes, times = self.columns[ranks]
        line = self.lines[ranks]
        held = np.clip(size, sizes[0], sizes[-1])
        beyond = np.log(line.time_s(size) / line.time_s(held))
        return np.asarray(np.interp(np.log(held), np.log(sizes), np.log(times)) + beyond)


def _across_ranks(log_known: Array, logs: Array, log_n: Array) -> Array:
    """Linear in log n between the columns `logs` (first axis); outside, the end slope within 0 and 2."""
    if len(log_known) == 1:
        return np.asarray(logs[0])
    left = np.clip(np.searchsorted(log_known, log_n, side="right") - 1, 0, len(log_known) - 2)
    low, high = (np.take_along_axis(logs, (left + k)[None], axis=0)[0] for k in (0, 1))
    slope = (high - low) / (log_known[left + 1] - log_known[left])
    outer = np.clip(slope, 0.0, 2.0)
    inner = low + slope * (log_n - log_known[left])
    above = high + outer * (log_n - log_known[-1])
    below = low + outer * (log_n - log_known[0])
    return np.asarray(np.where(log_n > log_known[-1], above, np.where(log_n < log_known[0], below, inner)))


def _medians(size_bytes: Any, time_s: Any) -> tuple[Array, Array]:
    sizes, times = np.asarray(size_bytes, dtype=float), np.asarray(time_s, dtype=float)
    if sizes.shape != times.shape or sizes.ndim != 1:
        raise ModelInputError(f"sizes and times must be two lists of one length, got {sizes.shape} and {times.shape}")
    need("measured size_bytes", sizes, above=True)
    need("measured time_s", times, above=True)
    distinct = np.unique(sizes)
    return distinct, np.array([np.median(times[sizes == s]) for s in distinct])
