"""The load that a limit allows: the knee of the response curve, and the highest rate that meets an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._check import Number, magnitude, need, need_fraction
from .queueing import offered
from .queueing_general import allen_cunneen_wait_s
from .queueing_percentiles import ggc_response_tail_frac

_HALVINGS = 60  # more than a float has digits


def highest_rate_per_s(response_s: Callable[[Any], Any], limit_s: Number, below_per_s: Number) -> Number:
    """Return the highest arrival rate at which a response stays within a limit, per second; 0 where it never does.

    Args:
        response_s: Response at an array of arrival rates; must not fall when the rate rises.
        limit_s: What it may not exceed, in the same unit.
        below_per_s: The rate to stay under: all that the servers can carry.

    Raises:
        ModelInputError: A negative limit, or a capacity that is not positive.

    Valid when: the response rises with the load (waiting for a full batch does not). Off by: 1e-15 of the capacity.
    Source: bisection.
    """
    need("limit_s", limit_s)
    need("below_per_s", below_per_s, above=True)
    shape = np.broadcast_shapes(np.shape(magnitude(limit_s)), np.shape(magnitude(below_per_s)))
    low, high = np.zeros(shape), np.ones(shape)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fine = np.asarray(response_s(below_per_s * middle) <= limit_s)
        low, high = np.where(fine, middle, low), np.where(fine, high, middle)
    return below_per_s * low[()]


def knee_rate_per_s(
    service_rate_per_s: Number,
    num_servers: Number,
    arrival_scv: Number = 1.0,
    service_scv: Number = 1.0,
    stretch: Number = 2.0,
) -> Number:
    """Return the knee: the arrival rate at which the mean response is `stretch` times the bare service time, per second.

    Args:
        service_rate_per_s, num_servers, arrival_scv, service_scv: As for `allen_cunneen_wait_s`.
        stretch: At least 1; 2 is where as much time goes to waiting as to service (M/M/1: utilisation 0.5).

    Raises:
        ModelInputError: As `allen_cunneen_wait_s`, or a stretch below 1.

    Valid when: as `allen_cunneen_wait_s`. Off by: as `allen_cunneen_wait_s`. Source: Gunther 2011; convention.
    """
    need("stretch", stretch, 1)
    offered(0.0, service_rate_per_s, num_servers)
    return _highest(
        lambda rate: allen_cunneen_wait_s(rate, service_rate_per_s, num_servers, arrival_scv, service_scv),
        (magnitude(stretch) - 1) / service_rate_per_s,
        service_rate_per_s,
        num_servers,
    )


def slo_rate_per_s(
    service_rate_per_s: Number,
    num_servers: Number,
    slo_s: Number,
    quantile: Number = 0.95,
    arrival_scv: Number = 1.0,
    service_scv: Number = 1.0,
) -> Number:
    """Return the highest arrival rate at which that percentile of the response meets an objective, per second.

    0 where even an idle system misses it.

    Args:
        service_rate_per_s, num_servers, quantile, arrival_scv, service_scv: As for `ggc_response_percentile_s`.
        slo_s: Limit of the response.

    Raises:
        ModelInputError: As `ggc_response_percentile_s`, or a negative time.

    Valid when: as `ggc_response_percentile_s`. Off by: as `ggc_response_percentile_s`. Source: bisection.
    """
    need_fraction("quantile", quantile)
    return _highest(
        lambda rate: ggc_response_tail_frac(rate, service_rate_per_s, num_servers, slo_s, arrival_scv, service_scv),
        1 - magnitude(quantile),
        service_rate_per_s,
        num_servers,
    )


def _highest(response_s: Callable[[Any], Any], limit_s: Number, service_rate_per_s: Number, num_servers: Number) -> Any:
    """highest_rate_per_s under the servers' capacity, in the shape of all arguments of the response together."""
    need("limit_s", limit_s)
    ones = np.ones(np.shape(magnitude(response_s(0.0))))[()]
    return highest_rate_per_s(response_s, limit_s, service_rate_per_s * (num_servers * ones))
