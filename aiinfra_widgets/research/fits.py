"""A law through measured points, with an interval for each parameter - or the word that the data cannot tell.

Least squares of log y: what is measured here is positive, and a time that is twice as long scatters twice as much. An interval
holds every value of a parameter at which the best the others can do is not significantly worse (profile likelihood, by an F test,
so that few points give wide intervals). Unlike value plus or minus error it stays inside what is possible and need not be
symmetric. It is right as far as the law is: `lack_of_fit_p` says whether the points, where there are repeats, speak against that.
Source: Bates & Watts 1988, Nonlinear Regression Analysis, ch. 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelInputError, UnknownNameError, near
from .laws import FAR, Array, Law, Parameter, law

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
#: A relative scatter below this is rounding, not measurement.
ROUNDING = 1e-9
#: Below this the points speak against the law.
DOUBT = 0.01


@dataclass(frozen=True, slots=True)
class Estimate:
    """One parameter as the points tell it. `value` None: they do not, and `why` says so; the interval may be all there is.

    Attributes:
        low, high: The interval; `high` infinite where nothing speaks against any large value.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    help: str
    unit: str = ""
    why: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not known; {self.why}"
        return f"{self.name}: {self.value:.4g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True)
class Fit:
    """A law through points.

    Attributes:
        law: Its name; `formula` in words.
        estimates: By parameter, derived ones last.
        level: Of the intervals.
        num_points, num_places: Points, and different x among them.
        scatter_frac: Relative scatter of the points around the law; None without a degree of freedom.
        lack_of_fit_p: Chance of points so far off the law if the law were right; None where no x was repeated.
        notes: What a reader must know.
    """

    law: str
    formula: str
    estimates: Mapping[str, Estimate]
    level: float
    num_points: int
    num_places: int
    scatter_frac: float | None
    lack_of_fit_p: float | None
    notes: tuple[str, ...]
    source: str
    _line: Callable[[Array], tuple[Array, Array, Array]]

    def __getitem__(self, name: str) -> Estimate:
        if name not in self.estimates:
            raise UnknownNameError(f"the law {self.law} has no parameter {name!r}; {near(name, self.estimates)}")
        return self.estimates[name]

    def at(self, x: Any) -> tuple[Array, Array, Array]:
        """Return the law at `x`, and the ends of its band: where the law itself lies, not where the next point will."""
        return self._line(np.atleast_1d(np.asarray(x, dtype=float)))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; an infinite end is None."""
        plain = {k: v for k, v in self.__dict__.items() if not k.startswith("_")}
        ends = ("value", "low", "high")
        told = {
            n: {k: (None if k in ends and v is not None and not math.isfinite(v) else v) for k, v in asdict(e).items()}
            for n, e in self.estimates.items()
        }
        return {**plain, "estimates": told, "notes": list(self.notes)}

    def __str__(self) -> str:
        head = f"{self.law}: {self.formula}; {self.num_points} points at {self.num_places} places; {self.level:.0%} intervals"
        return "\n".join([head, *(f"  {e}" for e in self.estimates.values()), *(f"  {n}" for n in self.notes)])


def fit(name: str, x: Sequence[float] | Array, y: Sequence[float] | Array, *, level: float = LEVEL) -> Fit:
    """Return law `name` through the points.

    Args:
        name: In `laws.LAWS`: amdahl, gustafson and usl take node counts and a throughput (for gustafson of work that grows with the nodes),
            alpha-beta a size and a time, power-law an amount of data or work and a loss.
        x, y: Points, of one length, all above 0 (x from 1 where it is a node count). Several with the same x are welcome.
        level: Of the intervals.

    Raises:
        UnknownNameError: No such law.
        ModelInputError: Points outside the law's domain. Too few are no error: the fit says that they cannot tell.
    """
    wanted = law(name)
    xs, ys = _points(wanted, x, y)
    if not 0.5 <= level < 1:
        raise ModelInputError(f"level: got {level}; allowed: 0.5 to below 1")
    places, free = len(np.unique(xs)), len(xs) - len(wanted.parameters)
    if places < len(wanted.parameters) or free < 1:
        return _silent(wanted, len(xs), places, level)
    solver = _Solver(wanted, xs, ys, level)
    estimates = solver.estimates()
    if wanted.derived is not None:
        other = _Solver(wanted.derived, xs, ys, level)
        estimates |= {n: e for n, e in other.estimates().items() if n not in estimates}
    doubt = _lack_of_fit_p(xs, ys, solver.best_squares, places, len(wanted.parameters))
    scatter = math.sqrt(solver.best_squares / free)
    return Fit(
        name,
        wanted.formula,
        estimates,
        level,
        len(xs),
        places,
        scatter,
        doubt,
        tuple(_notes(estimates, doubt)),
        wanted.source,
        solver.line,
    )


def _silent(wanted: Law, points: int, places: int, level: float) -> Fit:
    """What too few points say: nothing."""
    need = len(wanted.parameters)
    why = f"{points} points at {places} different x for {need} parameters; {need} different x and {need + 1} points are the least"
    estimates = {p.name: Estimate(p.name, None, None, None, p.help, p.unit, why) for p in wanted.parameters}

    def line(x: Array) -> tuple[Array, Array, Array]:
        return (np.full_like(x, np.nan),) * 3

    notes = (f"the data cannot tell: {why}",)
    return Fit(wanted.name, wanted.formula, estimates, level, points, places, None, None, notes, wanted.source, line)


def fit_table(
    table: pd.DataFrame,
    name: str,
    *,
    x: str,
    y: str,
    side: str = "measured",
    where: Mapping[str, Any] | None = None,
    level: float = LEVEL,
) -> Fit:
    """Return law `name` through the settled rows of a tidy table.

    Args:
        table: From `Sweep.table()`.
        name: Of the law.
        x: A factor. y: A quantity.
        side: "measured" or "predicted": what theory says of the law before anything is measured.
        where: Factors with the value they must have.

    Raises:
        UnknownNameError: No such column or quantity in the table.
        ModelInputError: Nothing is left, or too little.
    """
    xs, ys = points_of(table, x=x, y=y, side=side, where=where)
    return fit(name, xs, ys, level=level)


def points_of(
    table: pd.DataFrame, *, x: str, y: str, side: str = "measured", where: Mapping[str, Any] | None = None
) -> tuple[Array, Array]:
    """Return the x and y of the settled rows of a tidy table; arguments and errors as `fit_table`. A prediction counts once for each x."""
    for column in (x, side, *(where or {})):
        if column not in table.columns:
            raise UnknownNameError(f"the table has no column {column!r}; {near(column, map(str, table.columns))}")
    if y not in set(table["quantity"].dropna()):
        raise UnknownNameError(f"the table has no quantity {y!r}; {near(y, table['quantity'].dropna().unique())}")
    rows = table[(table["quantity"] == y) & table[side].notna()]
    if side == "measured":
        rows = rows[rows["settled"].fillna(False)]
    for column, value in (where or {}).items():
        rows = rows[rows[column] == value]
    if side == "predicted":
        rows = rows.drop_duplicates(subset=["point"])
    return rows[x].to_numpy(dtype=float), rows[side].to_numpy(dtype=float)


def _points(wanted: Law, x: Any, y: Any) -> tuple[Array, Array]:
    xs, ys = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    if len(xs) != len(ys):
        raise ModelInputError(f"points: got {len(xs)} x and {len(ys)} y; allowed: as many of each")
    least = 0.0 if wanted.scaled_x else 1.0
    bad = ~(np.isfinite(xs) & np.isfinite(ys) & (ys > 0) & ((xs > 0) if wanted.scaled_x else (xs >= least)))
    if bad.any():
        i = int(np.argmax(bad))
        raise ModelInputError(
            f"point {i}: got x {xs[i]:g}, y {ys[i]:g}; allowed: numbers above 0{'' if wanted.scaled_x else ', x from 1'}"
        )
    return xs, ys


class _Solver:
    """One law through points, in scaled coordinates."""

    def __init__(self, wanted: Law, x: Array, y: Array, level: float) -> None:
        from scipy.optimize import least_squares

        self.law, self.level, self._least_squares = wanted, level, least_squares
        self.x_scale = float(np.exp(np.mean(np.log(x)))) if wanted.scaled_x else 1.0
        self.y_scale = float(np.exp(np.mean(np.log(y))))
        self.x, self.log_y = x / self.x_scale, np.log(y / self.y_scale)
        self.low = np.array([p.low for p in wanted.parameters])
        self.high = np.array([min(p.high, FAR) for p in wanted.parameters])
        ends = [self._solve(np.array(s), ()) for s in wanted.starts]
        self.best, self.best_squares = min(ends, key=lambda e: e[1])

    def _residuals(self, values: Array) -> Array:
        return np.asarray(np.log(self.law.at(self.x, *values)) - self.log_y)

    def _solve(self, start: Array, held: tuple[int, ...]) -> tuple[Array, float]:
        """Return the best values and their sum of squares, with the parameters `held` as they are in `start`."""
        free = [i for i in range(len(start)) if i not in held]
        if not free:
            return start, float(np.sum(self._residuals(start) ** 2))

        def off(part: Array) -> Array:
            values = start.copy()
            values[free] = part
            return self._residuals(values)

        inside = np.clip(start[free], self.low[free] + 1e-9, self.high[free] - 1e-9)
        done = self._least_squares(
            off, inside, bounds=(self.low[free], self.high[free]), x_scale="jac", xtol=1e-10, ftol=1e-10, gtol=1e-10
        )
        values = start.copy()
        values[free] = done.x
        return values, 2 * float(done.cost)

    def estimates(self) -> dict[str, Estimate]:
        return {p.name: self._estimate(i, p) for i, p in enumerate(self.law.parameters)}

    def _estimate(self, i: int, p: Parameter) -> Estimate:
        low, high = self._end(i, -1), self._end(i, 1)
        factor = p.to_units(self.x_scale, self.y_scale)
        at_low, at_high = low <= p.low + 1e-9, high >= self.high[i]
        value = float(self.best[i])
        if p.invert:  # a peak: one over what the solver knows, so that 0 is "no peak"
            value, low, high = (1 / v if v > 1e-6 else math.inf for v in (value, high, low))
        elif at_high and not math.isfinite(p.high):
            high = math.inf
        value, low, high = value * factor, low * factor, high * factor
        if at_low and at_high:
            return Estimate(
                p.name, None, low, high, p.help, p.unit, "the points agree with every value that is possible"
            )
        return Estimate(p.name, value, low, high, p.help, p.unit)

    def _end(self, i: int, side: int) -> float:
        """Return where the profile of parameter `i` crosses the threshold on one side of the best value, or the end of what is possible."""
        from scipy.optimize import brentq
        from scipy.stats import f as f_distribution

        free = len(self.x) - len(self.best)
        floor = max(self.best_squares, len(self.x) * ROUNDING**2)
        most = floor * (1 + float(f_distribution.ppf(self.level, 1, free)) / free)
        limit = float(self.low[i] if side < 0 else self.high[i])

        def above(value: float) -> float:
            start = self.best.copy()
            start[i] = value
            return self._solve(start, (i,))[1] - most

        inner, step = float(self.best[i]), self._first_step(i, free, floor)
        while True:
            outer = inner + side * step
            if side * (outer - limit) >= 0:
                if above(limit) <= 0:
                    return limit
                outer = limit
                break
            if above(outer) > 0:
                break
            inner, step = outer, 2 * step
        if above(inner) >= 0:  # the best values themselves, but for rounding
            return inner
        return float(brentq(above, inner, outer, xtol=1e-3 * abs(outer - inner) + 1e-12, rtol=1e-4))

    def _first_step(self, i: int, free: int, floor: float) -> float:
        """About the half width of the interval, from the curvature at the best values."""
        slope = self._slope(self.x, self.best)
        spread = float(np.linalg.pinv(slope.T @ slope)[i, i]) * floor / free
        return max(2.5 * math.sqrt(max(spread, 0.0)), 1e-4 * abs(float(self.best[i])), 1e-7)

    def _slope(self, x: Array, values: Array) -> Array:
        """Derivatives of log y by each parameter, one row for each x."""
        columns = []
        for i, value in enumerate(values):
            step = 1e-6 * max(abs(float(value)), 1e-3)
            less, more = values.copy(), values.copy()
            less[i], more[i] = max(value - step, self.low[i]), min(value + step, self.high[i])
            columns.append((np.log(self.law.at(x, *more)) - np.log(self.law.at(x, *less))) / (more[i] - less[i]))
        return np.stack(columns, axis=1)

    def line(self, x: Array) -> tuple[Array, Array, Array]:
        """The law at `x` with its band, by the linearised spread of the parameters that are not at an end of their range."""
        from scipy.stats import t as t_distribution

        x = x / self.x_scale
        y = np.asarray(self.law.at(x, *self.best), dtype=float)
        free = len(self.x) - len(self.best)
        moves = (self.best > self.low + 1e-9) & (self.best < self.high)
        here, there = self._slope(self.x, self.best)[:, moves], self._slope(x, self.best)[:, moves]
        spread = np.einsum("ij,jk,ik->i", there, np.linalg.pinv(here.T @ here), there) * self.best_squares / free
        width = float(t_distribution.ppf(0.5 + self.level / 2, free)) * np.sqrt(np.maximum(spread, 0.0))
        return y * self.y_scale, y * np.exp(-width) * self.y_scale, y * np.exp(width) * self.y_scale


def _lack_of_fit_p(x: Array, y: Array, squares: float, places: int, parameters: int) -> float | None:
    """The chance of such a distance between the law and the means of repeated points, were the law right (F test); None without repeats."""
    from scipy.stats import f as f_distribution

    repeats, beyond = len(x) - places, places - parameters
    if repeats < 1 or beyond < 1:
        return None
    logs = np.log(y)
    pure = sum(float(np.sum((logs[x == v] - logs[x == v].mean()) ** 2)) for v in np.unique(x))
    if pure <= len(x) * ROUNDING**2:
        return None
    return float(f_distribution.sf(max(squares - pure, 0.0) / beyond / (pure / repeats), beyond, repeats))


def _notes(estimates: Mapping[str, Estimate], doubt: float | None) -> list[str]:
    found = []
    unknown = [n for n, e in estimates.items() if e.value is None]
    if unknown:
        found.append(
            f"the data cannot tell {', '.join(unknown)}: {estimates[unknown[0]].why}; measure over a wider range, or more often"
        )
    if doubt is not None and doubt < DOUBT:
        found.append(
            f"the points speak against this law (p = {doubt:.2g}): the intervals hold for the law, not for the machine"
        )
    return found
