"""The laws that measured points may be held against: formulas of `models`, with the range of each parameter.

Every law works in scaled coordinates - x over its geometric mean where x has a unit, y over its own - so that all parameters are of
the order of one for the solver; `to_units` says how a parameter is scaled back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnknownNameError, near
from ..models.collectives import point_to_point_time_s
from ..models.scaling import amdahl_speedup, gustafson_speedup, usl_speedup

Array = NDArray[np.float64]
#: Of a parameter without an upper end, in scaled units: where the search ends, and "no upper end" begins.
FAR = 1e5


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a law.

    Attributes:
        name: With its unit as a suffix where it has one.
        help: What it is, in one sentence.
        low, high: What is possible at all; `high` may be infinite.
        to_units: From the scales of x and y to the factor of this parameter.
        invert: What is shown is one over it (a peak at infinity is 0 to the solver).
        unit: For people; "y" and "y/x" stand for the units of the points.
    """

    name: str
    help: str
    low: float = 0.0
    high: float = math.inf
    to_units: Callable[[float, float], float] = lambda x, y: 1.0
    invert: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Law:
    """A formula y = f(x; parameters).

    Attributes:
        name, formula: For people.
        parameters: In the order in which `at` takes them.
        at: y at x.
        starts: Where the solver begins; the best end is taken.
        scaled_x: x has a unit of its own (bytes, samples); else it is a count and stays as it is.
        derived: The same law written with another parameter, whose interval is wanted too.
        source: Of the formula.
    """

    name: str
    formula: str
    parameters: tuple[Parameter, ...]
    at: Callable[..., Any]
    starts: tuple[tuple[float, ...], ...]
    scaled_x: bool
    source: str
    derived: Law | None = None


def _of_y(x: float, y: float) -> float:
    return y


def _of_y_per_x(x: float, y: float) -> float:
    return y / x


_ONE_NODE = Parameter("one_node", "y on one node", 1e-6, to_units=_of_y, unit="y")
_SERIAL = Parameter("serial_frac", "share of the time on one node that does not shrink with nodes", 0.0, 1.0)
_SCALED = Parameter("serial_frac", "share of the time on n nodes that is serial", 0.0, 1.0)
_SIGMA = Parameter("sigma", "contention: what waits in a queue")
_KAPPA = Parameter("kappa", "coherency: what every pair of nodes exchanges")
_PEAK = Parameter("peak_nodes", "node count at which throughput is greatest", 0.0, 1.0, invert=True)
_SPREAD = tuple((rate, s) for rate in (0.5, 1.0) for s in (0.02, 0.3))

USL_BY_PEAK = Law(
    "usl, by its peak",
    "y = one_node * n / (1 + sigma (n - 1) + (1 - sigma) / peak^2 * n (n - 1))",
    (_ONE_NODE, Parameter("sigma", "contention", 0.0, 1.0), _PEAK),
    lambda n, one, sigma, q: one * usl_speedup(n, sigma, (1 - sigma) * q**2),
    ((0.5, 0.02, 0.05), (0.5, 0.2, 0.3), (1.0, 0.2, 0.0)),
    False,
    "Gunther 2007",
)
LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "amdahl", "y = one_node / (serial_frac + (1 - serial_frac) / n)", (_ONE_NODE, _SERIAL),
            lambda n, one, s: one * amdahl_speedup(n, s), _SPREAD, False, "Amdahl 1967",
        ),
        Law(
            "gustafson", "y = one_node * (n - serial_frac (n - 1))", (_ONE_NODE, _SCALED),
            lambda n, one, s: one * gustafson_speedup(n, s), _SPREAD, False, "Gustafson 1988",
        ),
        Law(
            "usl", "y = one_node * n / (1 + sigma (n - 1) + kappa n (n - 1))", (_ONE_NODE, _SIGMA, _KAPPA),
            lambda n, one, sigma, kappa: one * usl_speedup(n, sigma, kappa),
            ((0.5, 0.02, 0.001), (0.5, 0.3, 0.05), (1.0, 1.0, 0.0)), False, "Gunther 2007", USL_BY_PEAK,
        ),
        Law(
            "alpha-beta", "y = alpha + beta * x",
            (
                Parameter("alpha", "what each one costs whatever its size, such as the latency", to_units=_of_y, unit="y"),
                Parameter("beta", "what each unit of x adds, such as one over the bandwidth", 1e-9, to_units=_of_y_per_x, unit="y/x"),
            ),
            lambda x, alpha, beta: point_to_point_time_s(x, 1 / beta, alpha),
            ((0.5, 0.5), (0.05, 1.0), (1.0, 0.05)), True, "Hockney 1994",
        ),
        Law(
            "power-law", "y = floor + gap * (x / middle) ^ -exponent; middle: the geometric mean of x",
            (
                Parameter("floor", "what remains however large x becomes", to_units=_of_y, unit="y"),
                Parameter("gap", "what is above the floor in the middle of the points", 1e-9, to_units=_of_y, unit="y"),
                Parameter("exponent", "how fast that shrinks", 1e-6, 10.0),
            ),
            lambda x, floor, gap, exponent: floor + gap * x**-exponent,
            ((0.5, 0.5, 0.3), (0.0, 1.0, 0.1), (0.9, 0.1, 1.0), (0.8, 0.2, 0.5)), True, "Hestness et al. 2017; Kaplan et al. 2020",
        ),
    )
}  # fmt: skip


def law(name: str) -> Law:
    """Return a law by name.

    Raises:
        UnknownNameError: With the near matches.
    """
    if name not in LAWS:
        raise UnknownNameError(f"no law {name!r}; {near(name, LAWS)}")
    return LAWS[name]
