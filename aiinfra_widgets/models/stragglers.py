"""What waiting for the slowest rank costs: the expected maximum of jittering times, and ranks slowed on purpose.

`mean_time_s` and `jitter_std_s` are those of one rank's time per step. All waits are the mean rank's, so that
mean compute + wait is the time until the last rank arrives.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import numpy as np

from ..errors import ModelInputError, near
from ._check import Number, magnitude, need, need_ranks

Jitter = Literal["normal", "lognormal", "exponential"]
_MOST_RANKS = 1e9  # the quadrature grid reaches far enough for so many
_EXACT = 10_000  # harmonic numbers are summed up to here


def expected_max_time_s(
    mean_time_s: Number, jitter_std_s: Number, world_size: Number, jitter: Jitter = "normal"
) -> Number:
    """Return the expected time at which the last of n ranks is done, in seconds.

    Args:
        mean_time_s: Mean over ranks and steps.
        jitter_std_s: Standard deviation over ranks and steps.
        world_size: Number of ranks n.
        jitter: "normal", "lognormal" (skewed to late), or "exponential" (a fixed time plus an exponential delay).

    Raises:
        ModelInputError: Negative times, no rank or more than 1e9, an unknown jitter, or a deviation too large for it:
            half the mean for normal (times would go below zero), the mean for exponential, 3 times for lognormal.

    Valid when: ranks jitter independently and alike.
    Off by: too high where ranks jitter together (a shared machine); too low for rare long stalls.
    Source: order statistics, David & Nagaraja 2003; exact for exponential (harmonic number), quadrature to 1e-9 of the
        deviation for normal, and to 1e-9 of the mean for lognormal.
    """
    return mean_time_s + straggler_wait_time_s(mean_time_s, jitter_std_s, world_size, jitter)


def straggler_wait_time_s(
    mean_time_s: Number, jitter_std_s: Number, world_size: Number, jitter: Jitter = "normal"
) -> Number:
    """Return how long the mean rank waits for the slowest of n, in seconds: expected maximum minus mean.

    Arguments, errors, domain, bias and source as `expected_max_time_s`.
    """
    need("mean_time_s", mean_time_s)
    need("jitter_std_s", jitter_std_s)
    need("world_size", world_size, 1, _MOST_RANKS, whole=True)
    limits = {"normal": 0.5, "exponential": 1.0, "lognormal": 3.0}
    if jitter not in limits:
        raise ModelInputError(f"no jitter {jitter!r}; {near(jitter, limits)}")
    quiet = magnitude(jitter_std_s) == 0
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing jitters the mean may be 0 too
        ratio = np.where(quiet, 0.0, magnitude(np.true_divide(jitter_std_s, mean_time_s)))
    hint = "use lognormal jitter" if jitter != "lognormal" else "measure longer, or remove the stalls"
    need(f"jitter_std_s / mean_time_s for {jitter} jitter", ratio, 0, limits[jitter], hint=hint)
    if jitter == "exponential":
        return mean_time_s * (ratio * (_harmonic(magnitude(world_size)) - 1))
    if jitter == "normal":
        return mean_time_s * (ratio * normal_max_factor(world_size))
    return mean_time_s * (_lognormal_max(ratio, magnitude(world_size)) - 1)


def normal_max_factor(world_size: Number) -> Any:
    """Return the expected maximum of n standard normal numbers: 0 for one, 0.564 for two, 2.508 for a hundred.

    Raises:
        ModelInputError: No rank, or more than 1e9.

    Valid when: independent. Off by: under 1e-9 (quadrature).
    Source: Harter 1961 (Biometrika 48) tabulates it; integral of x n phi(x) Phi(x)^(n-1).
    """
    need("world_size", world_size, 1, _MOST_RANKS, whole=True)
    z, weight = _max_weights(magnitude(world_size))
    return _one_rank_has(0.0, (weight * z).sum(axis=-1), world_size)


def slow_rank_parts(
    compute_time_s: Number, slow_factor: Number, world_size: Number, num_slow: Number = 1
) -> tuple[Number, Number]:
    """Return (mean compute, mean wait) in seconds with some ranks slower by a known factor; they add up to the step's.

    Args:
        compute_time_s: Of a rank that is not slowed.
        slow_factor: How many times as long a slowed rank takes, at least 1.
        world_size: Number of ranks n.
        num_slow: How many of them are slowed, from 0 to n.

    Raises:
        ModelInputError: A factor below 1, or more slow ranks than ranks.

    Valid when: the work is split evenly and every step ends together.
    Off by: exact for the arithmetic; jitter comes on top (at most the sum of both waits, at least the larger).
    Source: makespan of a synchronous step.
    """
    need("compute_time_s", compute_time_s)
    need("slow_factor", slow_factor, 1)
    need_ranks("world_size", world_size)
    need("num_slow", num_slow, 0, whole=True)
    need("world_size - num_slow", world_size - num_slow, 0, hint="no more slow ranks than ranks")
    share = num_slow / world_size
    extra = compute_time_s * (slow_factor - 1)
    return compute_time_s + extra * share, extra * ((1 - share) * (magnitude(num_slow) > 0))


def _harmonic(n: Any) -> Any:
    """H_n: summed up to 10 000, Euler's expansion beyond, where its error is below a float's."""
    euler = np.log(n) + np.euler_gamma + 1 / (2 * n) - 1 / (12 * n**2)
    return np.where(n <= _EXACT, _harmonics()[np.minimum(n, _EXACT).astype(int) - 1], euler)[()]


@cache
def _harmonics() -> Any:
    return np.cumsum(1 / np.arange(1, _EXACT + 1))


@cache
def _normal_grid() -> tuple[Any, Any, Any]:
    """Points, density times spacing, and log of the distribution, of the standard normal; read only."""
    z = np.linspace(-10, 18, 28 * 64 + 1)
    above = np.array([0.5 * math.erfc(x / math.sqrt(2)) for x in z])
    below = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])
    # log1p of the upper tail keeps digits where the distribution is 1 to a float; log of the lower tail elsewhere.
    log_cdf = np.where(z > 0, np.log1p(-np.minimum(above, 0.5)), np.log(below))
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / 64
    return z, density, log_cdf


def _max_weights(n: Any) -> tuple[Any, Any]:
    """Grid z and, for each n (last axis), the probability weight of the maximum at each z.

    The integrand is smooth and dies out at both ends, so that the trapezoid rule converges faster than any power.
    """
    z, density, log_cdf = _normal_grid()
    count = np.asarray(n)[..., None]
    return z, count * density * np.exp((count - 1) * log_cdf)


def _lognormal_max(ratio: Any, n: Any) -> Any:
    """Expected maximum of n lognormal numbers of mean 1 and standard deviation `ratio`."""
    variance = np.log1p(np.asarray(ratio) ** 2)[..., None]
    z, weight = _max_weights(n)
    return _one_rank_has(1.0, (weight * np.exp(np.sqrt(variance) * z - variance / 2)).sum(axis=-1), n)


def _one_rank_has(mean: float, expected_max: Any, n: Number) -> Any:
    """Put the exact mean where n is 1, so that rounding never makes a wait negative."""
    return np.where(magnitude(n) == 1, mean, np.maximum(expected_max, mean))[()]
