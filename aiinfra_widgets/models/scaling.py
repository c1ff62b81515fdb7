"""Laws of scaling: ideal, Amdahl, Gustafson, the universal scalability law and its fit; speed-up and efficiency.

The articles print time = T / N, which is `ideal_speedup`; it stands here to be drawn beside the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelInputError
from ._check import Number, need, need_fraction

Array = NDArray[np.float64]


def ideal_speedup(num_nodes: Number) -> Number:
    """Return n: no serial part, no communication, no straggler.

    Raises:
        ModelInputError: Fewer than one node.

    Valid when: never, beyond one node. Off by: too high, more with every node. Source: the articles' T / N.
    """
    need("num_nodes", num_nodes, 1)
    return num_nodes * 1.0


def amdahl_speedup(num_nodes: Number, serial_frac: Number) -> Number:
    """Return the speed-up of a problem of fixed size (strong scaling).

    Args:
        num_nodes: n, at least 1.
        serial_frac: Share of the time on one node that does not shrink with n.

    Raises:
        ModelInputError: Fewer than one node, or a share outside 0 to 1.

    Valid when: the serial share is the same at every n and communication costs nothing.
    Off by: too high where communication grows with n. Source: Amdahl 1967.
    """
    need("num_nodes", num_nodes, 1)
    need_fraction("serial_frac", serial_frac)
    return 1 / (serial_frac + (1 - serial_frac) / num_nodes)


def gustafson_speedup(num_nodes: Number, serial_frac: Number) -> Number:
    """Return the scaled speed-up of a problem that grows with n (weak scaling).

    Args:
        num_nodes: n, at least 1.
        serial_frac: Share of the time *on n nodes* that is serial; not the same share as Amdahl's.

    Raises:
        ModelInputError: Fewer than one node, or a share outside 0 to 1.

    Valid when: only the parallel part grows with the problem. Off by: too high where communication grows with n.
    Source: Gustafson 1988 (CACM 31-5).
    """
    need("num_nodes", num_nodes, 1)
    need_fraction("serial_frac", serial_frac)
    return num_nodes - serial_frac * (num_nodes - 1)


def usl_speedup(num_nodes: Number, sigma: Number, kappa: Number) -> Number:
    """Return the relative capacity C(n) of the universal scalability law.

    Args:
        num_nodes: n, at least 1.
        sigma: Contention, what waits in a queue; with kappa 0 this is Amdahl's serial share.
        kappa: Coherency, what every pair of nodes exchanges; above 0 the curve has a peak and then falls.

    Raises:
        ModelInputError: Fewer than one node, or a negative coefficient.

    Valid when: one kind of node and of work. Off by: knows no corner, such as n passing the number of cores.
    Source: Gunther 2007, Guerrilla Capacity Planning.
    """
    need("num_nodes", num_nodes, 1)
    need("sigma", sigma)
    need("kappa", kappa)
    return num_nodes / (1 + sigma * (num_nodes - 1) + kappa * num_nodes * (num_nodes - 1))


def usl_peak_nodes(sigma: Number, kappa: Number) -> Any:
    """Return the n at which capacity is greatest, sqrt((1 - sigma) / kappa), at least 1; infinite for kappa 0.

    Raises:
        ModelInputError: A negative coefficient.

    Valid when: as `usl_speedup`; a real number, the best whole one is a neighbour. Off by: as `usl_speedup`.
    Source: Gunther 2007.
    """
    need("sigma", sigma)
    need("kappa", kappa)
    room = np.maximum(1.0 - np.asarray(sigma, dtype=float), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        peak = np.sqrt(room / np.asarray(kappa, dtype=float))
    return np.where(room == 0, 1.0, np.maximum(peak, 1.0))[()]


@dataclass(frozen=True, slots=True)
class UslFit:
    """A universal scalability law through measured points.

    Attributes:
        one_node_per_s: Fitted throughput of one node.
        sigma, kappa: Contention and coherency.
        peak_nodes: Where throughput is greatest; infinite where kappa is 0.
        residual_per_s: Root mean square of measured minus fitted throughput.
    """

    one_node_per_s: float
    sigma: float
    kappa: float
    peak_nodes: float
    residual_per_s: float

    def throughput_per_s(self, num_nodes: Number) -> Number:
        """Return the fitted throughput at `num_nodes`, per second."""
        return self.one_node_per_s * usl_speedup(num_nodes, self.sigma, self.kappa)


def fit_usl(points: Iterable[tuple[float, float]]) -> UslFit:
    """Return the universal scalability law that is nearest to measured (nodes, throughput per second).

    Least squares of the throughput over one-node rate, sigma and kappa, none below 0: n / X is linear in 1 / rate,
    sigma / rate and kappa / rate, which gives the start, and Gauss-Newton goes on from there. Where a coefficient
    would be negative, it is 0 and the others are fitted again. Sigma above 1 means that the second node already loses.

    Raises:
        ModelInputError: Fewer than three different node counts, or a value outside its domain.

    Valid when: the points are medians of settled segments of one kind of node.
    Off by: with three points the law goes through all of them and says nothing about itself; extrapolating past twice
        the largest n is a guess.
    Source: Gunther 2007; same objective as the R package usl 3.
    """
    pairs = list(points)
    nodes, rates = np.array([p[0] for p in pairs], dtype=float), np.array([p[1] for p in pairs], dtype=float)
    need("nodes of a point", nodes, 1)
    need("throughput of a point", rates, above=True)
    if len(np.unique(nodes)) < 3:
        raise ModelInputError(
            f"a scalability law needs three different node counts, got {len(np.unique(nodes))}; run another node count"
        )
    basis = np.stack([np.ones_like(nodes), nodes - 1, nodes * (nodes - 1)], axis=1)
    fits = []
    for with_sigma, with_kappa in product((True, False), repeat=2):
        keep = [0] + [1] * with_sigma + [2] * with_kappa
        theta = np.zeros(3)
        theta[keep] = _nearest_inverse(basis[:, keep], nodes, rates)
        if theta[0] > 0 and np.all(theta >= 0):
            fits.append((float(np.mean((rates - nodes / (basis @ theta)) ** 2)), theta))
    error, theta = min(fits, key=lambda fit: fit[0])  # the fit with neither coefficient is always there
    sigma, kappa = float(theta[1] / theta[0]), float(theta[2] / theta[0])
    return UslFit(float(1 / theta[0]), sigma, kappa, float(usl_peak_nodes(sigma, kappa)), error**0.5)


def _nearest_inverse(basis: Array, nodes: Array, rates: Array) -> Array:
    """Minimise the squares of rates - nodes / (basis @ theta), by Gauss-Newton with halved steps."""
    scale = np.linalg.norm(basis, axis=0)
    basis = basis / scale
    weight = rates**2 / nodes  # the error of n / X in units of X, so that the start is near the end
    theta = np.linalg.lstsq(basis * weight[:, None], nodes / rates * weight, rcond=None)[0]
    if np.any(basis @ theta <= 0):
        theta = np.zeros(basis.shape[1])
        theta[0] = scale[0] * float(np.mean(nodes / rates))
    for _ in range(200):
        below = basis @ theta
        error = rates - nodes / below
        step = np.linalg.lstsq(-(nodes / below**2)[:, None] * basis, error, rcond=None)[0]
        for halving in 0.5 ** np.arange(30):
            trial = basis @ (theta + halving * step)
            if np.all(trial > 0) and np.sum((rates - nodes / trial) ** 2) < np.sum(error**2):
                break
        else:
            break  # no step makes it better: done
        theta = theta + halving * step
    return np.asarray(theta / scale)


def speedup(one_node_time_s: Number, time_s: Number) -> Number:
    """Return how many times faster than one node, for the same work (strong scaling).

    Raises:
        ModelInputError: A time that is not positive.

    Valid when: same work, same one-node program. Off by: exact by definition. Source: definition.
    """
    need("one_node_time_s", one_node_time_s, above=True)
    need("time_s", time_s, above=True)
    return one_node_time_s / time_s


def strong_efficiency_frac(one_node_time_s: Number, time_s: Number, num_nodes: Number) -> Number:
    """Return speed-up over nodes, for the same work on more nodes.

    Raises:
        ModelInputError: A time that is not positive, or fewer than one node.

    Valid when: as `speedup`. Off by: exact; above 1 means that caches grew with the nodes. Source: definition.
    """
    need("num_nodes", num_nodes, 1)
    return speedup(one_node_time_s, time_s) / num_nodes


def weak_efficiency_frac(one_node_time_s: Number, time_s: Number) -> Number:
    """Return one-node time over time, when the work grows in step with the nodes.

    Raises:
        ModelInputError: A time that is not positive.

    Valid when: work per node is constant. Off by: exact by definition. Source: definition.
    """
    return speedup(one_node_time_s, time_s)


def karp_flatt_serial_frac(measured_speedup: Number, num_nodes: Number) -> Number:
    """Return the serial share that Amdahl's law would need to explain a measured speed-up.

    Rising with n it points to overhead, constant to a true serial part.

    Raises:
        ModelInputError: A speed-up that is not positive, or n not above 1.

    Valid when: same work. Off by: exact as the inverse of Amdahl's law; negative where speed-up exceeds n.
    Source: Karp & Flatt 1990 (CACM 33-5).
    """
    need("measured_speedup", measured_speedup, above=True)
    need("num_nodes", num_nodes, 1, above=True)
    return (1 / measured_speedup - 1 / num_nodes) / (1 - 1 / num_nodes)
