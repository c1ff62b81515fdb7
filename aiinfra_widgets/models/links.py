"""A link as calibration found it: latency and bandwidth by a line, and the measured table where one line is too coarse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelInputError
from ._check import Number, magnitude, need, need_ranks
from .measured import AlphaBeta, fit_alpha_beta


class Timed(Protocol):
    """A link of which the time of a message is known."""

    def time_s(self, size_bytes: Number) -> Any:
        """Return seconds of one message."""


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """Time of a message over one link, from ping-pong medians at some sizes.

    Within the sizes: log time interpolated over log size. Below the smallest: its time. Beyond the largest: the bandwidth between the
    two largest sizes goes on. `line` is the plain alpha-beta model of the same points.

    Attributes:
        sizes_bytes, times_s: What was measured, increasing sizes, shape (k,).
        line: Latency and seconds per byte, best in relative terms over all sizes.

    Valid when: one message at a time; ranks have a core each.
    Off by: the noise of calibration inside the table; the line by tens of percent near a switch of protocol, where a
        bucket of a shaped link empties, or where the payload leaves the cache.
    Source: measured; Hockney 1994 for the line.
    """

    sizes_bytes: NDArray[np.float64]
    times_s: NDArray[np.float64]
    line: AlphaBeta

    @classmethod
    def from_points(cls, points: Iterable[tuple[float, float]]) -> MeasuredLink:
        """Build it from (size in bytes, seconds) in any order; of several times at one size the median.

        Raises:
            ModelInputError: Fewer than two sizes, or a value that is not positive.
        """
        rows = np.array(list(points), dtype=float).reshape(-1, 2)
        if len(np.unique(rows[:, 0])) < 2:
            raise ModelInputError(
                f"a link needs times at two sizes at least, got {len(rows)} points; run: aiinfra calibrate"
            )
        need("measured size_bytes", rows[:, 0], above=True)
        need("measured time_s", rows[:, 1], above=True)
        sizes = np.unique(rows[:, 0])
        times = np.array([np.median(rows[rows[:, 0] == s, 1]) for s in sizes])
        return cls(sizes, times, fit_alpha_beta(rows[:, 0], rows[:, 1]))

    @property
    def bandwidth_oneway_bytes_per_s(self) -> float:
        """What each further byte costs at the largest sizes, as a rate; the whole message's where noise hides it."""
        more_s = self.times_s[-1] - self.times_s[-2]
        if more_s <= 0:
            return float(self.sizes_bytes[-1] / self.times_s[-1])
        return float((self.sizes_bytes[-1] - self.sizes_bytes[-2]) / more_s)

    def time_s(self, size_bytes: Number) -> Any:
        """Return the time of one message, in seconds, of the shape of `size_bytes`.

        Raises:
            ModelInputError: A negative size.
        """
        need("size_bytes", size_bytes)
        size = np.asarray(magnitude(size_bytes), dtype=float)
        held = np.clip(size, self.sizes_bytes[0], self.sizes_bytes[-1])
        inside = np.exp(np.interp(np.log(held), np.log(self.sizes_bytes), np.log(self.times_s)))
        beyond = np.maximum(size - self.sizes_bytes[-1], 0.0) / self.bandwidth_oneway_bytes_per_s
        return (inside + beyond)[()]


def hierarchical_allreduce_time_s(
    size_bytes: Number,
    hosts: Number,
    ranks_per_host: Number,
    within: Timed,
    between: Timed,
    sum_s_per_byte: Number = 0.0,
) -> Any:
    """Return the time of an all-reduce in three stages, in seconds: sum on each host, ring between hosts, hand out on each host.

    Args:
        size_bytes: Payload per rank.
        hosts: Hosts, each with one rank of the ring.
        ranks_per_host: Ranks of the fullest host; the sum and the hand-out are binomial trees among them.
        within, between: Links inside a host and between hosts.
        sum_s_per_byte: Adding one array to another one, by the bytes of one.

    Raises:
        ModelInputError: A negative size or time, or no host or rank.

    Valid when: stages follow each other, whole payloads; every host sends and receives at once at full speed.
    Off by: too high where a library pipelines pieces through the stages.
    Source: Thakur, Rabenseifner, Gropp 2005 for the parts.
    """
    need("size_bytes", size_bytes)
    need("sum_s_per_byte", sum_s_per_byte)
    need_ranks("hosts", hosts)
    need_ranks("ranks_per_host", ranks_per_host)
    rounds = np.frexp(np.asarray(ranks_per_host, dtype=float) - 1)[1]  # ceil(log2 n), exactly
    n = np.asarray(hosts, dtype=float)
    size = np.asarray(size_bytes)
    ring_s = np.where(n > 1, (n - 1) * (2 * between.time_s(size / n) + sum_s_per_byte * size / n), 0.0)
    return (rounds * (2 * within.time_s(size) + sum_s_per_byte * size) + ring_s)[()]
