"""How long arithmetic takes: measured rate curves, the roofline, and more ranks than cores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelInputError
from ._check import Number, magnitude, need, need_ranks, need_rate


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A measured rate over the size of the operation: small operations run slower, and by how much is measured.

    Between two points the rate is interpolated in log size and log rate. Outside the points it is held at the nearest
    end up to a factor `reach` in size, and refused beyond. `inside` tells which sizes were interpolated, so that a
    prediction can note the others; `reach=math.inf` holds the ends for ever.

    Attributes:
        sizes: Increasing, positive; any unit (side of a matrix, flop, bytes), the same in every call. Shape (k,).
        rates: Positive, per second (flop/s, B/s). Shape (k,).
        reach: Factor beyond either end that is still answered.

    Valid when: the operation is of the kind that was measured, with as many threads and neighbours.
    Off by: a few percent between points a factor 4 apart; below the first point the true rate is lower than the held
        one; where a cache boundary lies between two points the corner is rounded.
    Source: efficiency as a curve over operation size, after Isaev et al. 2023 (Calculon, SC23).
    """

    sizes: tuple[float, ...]
    rates: tuple[float, ...]
    reach: float = 4.0

    @classmethod
    def from_points(cls, points: Iterable[tuple[float, float]], reach: float = 4.0) -> RateCurve:
        """Build a curve from (size, rate) in any order; of several rates at one size the median counts.

        Raises:
            ModelInputError: No points, or one that is not positive and finite.
        """
        pairs = list(points)
        if not pairs:
            raise ModelInputError(
                "a rate curve needs at least one (size, rate) point, got none; run: aiinfra calibrate"
            )
        sizes, rates = np.array([s for s, _ in pairs], dtype=float), np.array([r for _, r in pairs], dtype=float)
        need("size of a rate point", sizes, above=True)
        need("rate of a rate point", rates, above=True)
        need("reach", reach, 1, infinite=True)
        distinct = np.unique(sizes)
        medians = (float(np.median(rates[sizes == s])) for s in distinct)
        return cls(tuple(float(s) for s in distinct), tuple(medians), reach)

    def inside(self, size: Number) -> Any:
        """Return where `size` lies between the first and the last point; elsewhere `rate` holds the nearest end."""
        sizes = magnitude(size)
        return (sizes >= self.sizes[0]) & (sizes <= self.sizes[-1])

    def rate(self, size: Number) -> Any:
        """Return the rate per second at `size`, of the shape of `size`.

        Raises:
            ModelInputError: A size that is not positive, or more than `reach` beyond the points.
        """
        first, last = self.sizes[0] / self.reach, self.sizes[-1] * self.reach
        need("size", size, above=True)
        sizes = magnitude(size)
        if np.any((sizes < first) | (sizes > last)):
            wrong = float(np.ravel(sizes)[np.ravel((sizes < first) | (sizes > last))][0])
            raise ModelInputError(
                f"size must be within {first:g} to {last:g}, a factor {self.reach:g} around what was measured, "
                f"got {wrong:g}; calibrate over a wider range of sizes"
            )
        return np.exp(np.interp(np.log(sizes), np.log(self.sizes), np.log(self.rates)))[()]

    def time_s(self, amount: Number, size: Number) -> Any:
        """Return the seconds that `amount` of work takes when it comes in operations of `size`.

        Args:
            amount: Flop or bytes in all, what the rate counts.
            size: Where on the curve.
        """
        need("amount", amount)
        return amount / self.rate(size)


def roofline_time_s(
    work_flop: Number, moved_bytes: Number, peak_flops: Number, memory_bandwidth_bytes_per_s: Number
) -> Number:
    """Return the time of a kernel, in seconds: the longer of its arithmetic and its memory traffic.

    Args:
        work_flop: Arithmetic.
        moved_bytes: Traffic to and from memory.
        peak_flops: Arithmetic rate in the kernel's precision; infinity for "no limit".
        memory_bandwidth_bytes_per_s: Of the memory that holds the data.

    Raises:
        ModelInputError: A negative amount, or a rate that is not positive.

    Valid when: arithmetic and traffic overlap perfectly, one kernel, one level of memory.
    Off by: too low, always a bound: no launch cost, no cache misses beyond `moved_bytes`, no imperfect overlap.
    Source: Williams, Waterman, Patterson 2009 (CACM 52-4).
    """
    need("work_flop", work_flop)
    need("moved_bytes", moved_bytes)
    need_rate("peak_flops", peak_flops)
    need_rate("memory_bandwidth_bytes_per_s", memory_bandwidth_bytes_per_s)
    return np.maximum(work_flop / peak_flops, moved_bytes / memory_bandwidth_bytes_per_s)


def ridge_point_flop_per_byte(peak_flops: Number, memory_bandwidth_bytes_per_s: Number) -> Number:
    """Return the arithmetic intensity at which a kernel stops being bound by memory, in flop per byte.

    Raises:
        ModelInputError: A rate that is not positive.

    Valid when: as `roofline_time_s`. Off by: exact for the bound. Source: Williams et al. 2009.
    """
    need_rate("peak_flops", peak_flops)
    need_rate("memory_bandwidth_bytes_per_s", memory_bandwidth_bytes_per_s)
    return peak_flops / memory_bandwidth_bytes_per_s


def attainable_flops(
    intensity_flop_per_byte: Number, peak_flops: Number, memory_bandwidth_bytes_per_s: Number
) -> Number:
    """Return the roof over a kernel of that arithmetic intensity, in flop/s.

    Raises:
        ModelInputError: A negative intensity, or a rate that is not positive.

    Valid when: as `roofline_time_s`. Off by: too high, always a bound. Source: Williams et al. 2009.
    """
    need("intensity_flop_per_byte", intensity_flop_per_byte)
    need_rate("peak_flops", peak_flops)
    need_rate("memory_bandwidth_bytes_per_s", memory_bandwidth_bytes_per_s)
    return np.minimum(peak_flops, intensity_flop_per_byte * memory_bandwidth_bytes_per_s)


def shared_bandwidth_bytes_per_s(
    one_rank_bytes_per_s: Number, all_ranks_bytes_per_s: Number, num_ranks: Number
) -> Number:
    """Return the memory bandwidth each of `num_ranks` ranks gets on one node, in bytes per second.

    Args:
        one_rank_bytes_per_s: What one rank draws alone.
        all_ranks_bytes_per_s: What the memory gives in all.
        num_ranks: Ranks that draw at once on this node.

    Raises:
        ModelInputError: A rate that is not positive, or no rank.

    Valid when: ranks draw at the same time and are served fairly; one memory domain.
    Off by: too low where ranks are out of step; too high across memory domains (NUMA).
    Source: saturation model, e.g. Stengel et al. 2015 (ECM).
    """
    need_rate("one_rank_bytes_per_s", one_rank_bytes_per_s)
    need_rate("all_ranks_bytes_per_s", all_ranks_bytes_per_s)
    need_ranks("num_ranks", num_ranks)
    return np.minimum(one_rank_bytes_per_s, all_ranks_bytes_per_s / num_ranks)


def oversubscription_factor(num_ranks: Number, num_cores: Number, threads_per_rank: Number = 1) -> Number:
    """Return how many busy threads share one core: 1 while every thread has its own.

    Raises:
        ModelInputError: Any count that is not a whole number from 1.

    Valid when: all ranks are busy at once and the cores are equal. Off by: exact as a count.
    Source: fair time slicing.
    """
    need_ranks("num_ranks", num_ranks)
    need("num_cores", num_cores, 1, whole=True, hint="read the cores of the machine profile")
    need("threads_per_rank", threads_per_rank, 1, whole=True)
    return np.maximum(1.0, num_ranks * threads_per_rank / num_cores)


def time_sliced_time_s(
    compute_time_s: Number,
    num_ranks: Number,
    num_cores: Number,
    threads_per_rank: Number = 1,
    switch_overhead_frac: Number = 0.0,
) -> Number:
    """Return how long each rank's arithmetic takes when ranks take turns on the cores, in seconds.

    Args:
        compute_time_s: Of one rank that has `threads_per_rank` cores to itself.
        num_ranks: Ranks on this node.
        num_cores: Cores of this node.
        threads_per_rank: Busy threads of a rank.
        switch_overhead_frac: Extra time while cores are shared, measured by calibration; 0 is the ideal.

    Raises:
        ModelInputError: A negative time or overhead, or a count below 1.

    Valid when: the scheduler is fair over one step and a waiting rank sleeps or yields.
    Off by: too low by 6 to 24 % at 4 and 8 ranks on 2 cores without the overhead (5 ms of arithmetic, then 1 MiB
        all-reduced; measured), because ranks arrive at the collective in turns.
    Source: fair time slicing; overhead from calibration.
    """
    need("compute_time_s", compute_time_s)
    need("switch_overhead_frac", switch_overhead_frac)
    factor = oversubscription_factor(num_ranks, num_cores, threads_per_rank)
    shared = np.where(np.asarray(factor) > 1, 1 + np.asarray(switch_overhead_frac), 1.0)[()]
    return compute_time_s * (factor * shared)


def flat_rate(rate: float) -> RateCurve:
    """Return a curve that has the same rate everywhere: what a data sheet gives, before anybody measured.

    Raises:
        ModelInputError: A rate that is not positive.

    Valid when: operations are large. Off by: too high for small operations, often several times.
    Source: the catalog row that the rate was read from.
    """
    return RateCurve.from_points([(1.0, rate)], reach=math.inf)
