"""What stands between a plan and a better one: the limits that bind, or the one that left no plan at all; and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..quantities import show
from .pareto import nondominated

#: In the order in which plans are sorted out.
CONSTRAINTS = ("memory_bytes", "time_s", "cost_usd", "carbon_gco2e")
#: Plans as good as the best within this share count as equal, and of these the one that needs least of the limit.
_SAME_FRAC = 0.01
_NAMES = {
    "memory_bytes": "memory",
    "time_s": "the deadline",
    "cost_usd": "the budget",
    "carbon_gco2e": "the carbon limit",
}
_TAKES = {"time_s": "take", "cost_usd": "cost", "carbon_gco2e": "emit"}
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Binding:
    """A limit whose relaxation would improve the best plan.

    Attributes:
        constraint: One of CONSTRAINTS.
        limit: As it is.
        needed: The limit that allows a plan as good as any that keeps the other limits, to within 1 %.
        objective: What would be better.
        now, then: Its value under the limit, and with `needed` instead.
        row: Of that plan in the search's table.
        curve: All that relaxing buys: (limit, value of the objective), each the least limit that reaches its value.
    """

    constraint: str
    limit: float
    needed: float
    objective: str
    now: float
    then: float
    row: int
    curve: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        halfway = next((p for p in self.curve if self.now - p[1] >= (self.now - self.then) / 2), None)
        already = ""
        if halfway and halfway[0] < self.needed:
            already = f" (already with {said(self.constraint, halfway[0])}: {said(self.objective, halfway[1])})"
        return (
            f"{_NAMES[self.constraint]} binds: with {said(self.constraint, self.needed)} instead of "
            f"{said(self.constraint, self.limit)} the best plan would {_TAKES[self.objective]} "
            f"{said(self.objective, self.then)} instead of {said(self.objective, self.now)}{already}"
        ).removeprefix("the ")


@dataclass(frozen=True, slots=True)
class Dead:
    """Why no plan is left.

    Attributes:
        considered: Plans that there were.
        left: By constraint, in the order of CONSTRAINTS: how many of them were left after it.
        constraint: The one that removed the last.
        alone: Constraints of which giving up one alone would leave a plan.
        nearest: Row of the plan whose worst excess over a limit is least.
        excess: By constraint that this plan breaks: (what it needs, what is allowed).
    """

    considered: int
    left: Mapping[str, int]
    constraint: str
    alone: tuple[str, ...]
    nearest: int
    excess: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        told = []
        for constraint, count in self.left.items():
            verb = ("fits" if count == 1 else "fit") if constraint == "memory_bytes" else "of these keep"
            what = "in memory" if constraint == "memory_bytes" else _NAMES[constraint]
            told.append(f"{count or 'none':{',' if count else ''}} {verb} {what}".replace("none fit ", "none fits "))
            if constraint == self.constraint:
                break
        broken = " and ".join(
            f"{said(c, needs)} where {said(c, allowed)} is allowed ({_excess(needs / allowed)})"
            for c, (needs, allowed) in self.excess.items()
        )
        alone = " or ".join(_NAMES[c] for c in self.alone)
        return f"no plan is left: of {self.considered:,} plans {', '.join(told)}. The nearest miss needs {broken}. " + (
            f"Giving up {alone} alone would leave a plan."
            if alone
            else "Giving up one limit alone would not be enough."
        )


def bindings(
    objective: str, best: int, table: Mapping[str, Any], within: Mapping[str, Any], limit: Mapping[str, Any]
) -> tuple[Binding, ...]:
    """Return the limits that keep `objective` from being better, the most effective first.

    Args:
        objective: A column of `table`; less is better.
        best: Row of the best plan within all limits.
        table: Columns of one length.
        within: By constraint, whether each row keeps it.
        limit: By constraint, a number or one per row.
    """
    found = []
    now = float(table[objective][best])
    for constraint in CONSTRAINTS:
        others = np.logical_and.reduce([within[c] for c in CONSTRAINTS if c != constraint])
        rows = np.flatnonzero(others & ~within[constraint] & (table[objective] < now))
        if not len(rows):
            continue
        needs, values = table[constraint][rows], table[objective][rows]
        step = np.flatnonzero(nondominated(np.column_stack([needs, values])))
        step = step[np.argsort(needs[step], kind="stable")]
        enough = step[np.argmax(values[step] <= values.min() * (1 + _SAME_FRAC))]
        row = int(rows[enough])
        found.append(
            Binding(
                constraint,
                float(_each(limit[constraint], row)),
                float(needs[enough]),
                objective,
                now,
                float(values[enough]),
                row,
                tuple(dict.fromkeys((float(n), float(v)) for n, v in zip(needs[step], values[step], strict=True))),
            )
        )
    return tuple(sorted(found, key=lambda b: b.then))


def dead_end(table: Mapping[str, Any], within: Mapping[str, Any], limit: Mapping[str, Any], considered: int) -> Dead:
    """Return why no row keeps all limits. Arguments as `bindings`; `considered` counts plans that are no rows, too."""
    kept = np.ones(len(table["time_s"]), dtype=bool)
    left = {}
    for constraint in CONSTRAINTS:
        kept = kept & within[constraint]
        left[constraint] = int(kept.sum())
    removed = next(c for c in CONSTRAINTS if not left[c])
    alone = [c for c in CONSTRAINTS if np.logical_and.reduce([within[o] for o in CONSTRAINTS if o != c]).any()]
    ratios = np.array([np.where(within[c], 0.0, table[c] / limit[c]) for c in CONSTRAINTS])
    nearest = int(np.argmin(ratios.max(axis=0)))
    excess = {
        c: (float(table[c][nearest]), float(_each(limit[c], nearest))) for c in CONSTRAINTS if not within[c][nearest]
    }
    return Dead(considered, left, removed, tuple(alone), nearest, excess)


def said(name: str, value: float | None) -> str:
    """Return a number of a plan for a person: days, dollars, tonnes.

    Args:
        name: "time_s", "cost_usd", "carbon_gco2e", "memory_bytes", "energy_j", or another quantity.
        value: In base units; None is "not known".
    """
    if value is None or np.isnan(value):
        return "not known"
    if name in {"time_s", "step_time_s"}:
        return f"{value / DAY_S:,.3g} days" if value >= 2 * DAY_S else show("s", value)
    if name == "cost_usd":
        return f"${value:,.0f}" if value >= 1000 else show("USD", value)
    if name == "carbon_gco2e":
        return f"{value / 1e6:,.4g} tCO2e" if value >= 1e6 else show("gCO2e", value)
    if name == "energy_j":
        return f"{value / 3.6e9:,.4g} MWh" if value >= 3.6e9 else show("J", value)
    return show("B" if name == "memory_bytes" else name, value)


def _excess(ratio: float) -> str:
    return f"{ratio:.3g} times as much" if ratio >= 2 else f"{100 * (ratio - 1):.2g} % too much"


def _each(limit: Any, rows: Any) -> Any:
    return np.asarray(limit)[rows] if np.ndim(limit) else np.broadcast_to(limit, np.shape(rows))
