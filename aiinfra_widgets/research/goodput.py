"""Goodput over the interval between checkpoints: runs under one trace of failures beside the curve of Young and Daly.

All runs meet the same failures, so they are compared failure by failure: what chance did to all of them cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ControlError
from ..experiment import experiment
from ..experiments.resilience.distil import against_best, cycles, shares
from ..experiments.resilience.predict import young_goodput
from ..experiments.resilience.spec import ResilienceSpec
from ..palette import MEASURED, PREDICTED
from ..quantities import show
from ..runs.layout import RunDir
from ..runs.reader import RunReader
from ..texts import N_, tr
from .figures import _STYLE as STYLE
from .figures import INK, PAGE_IN, PaperFigure

GOODPUT = "training_goodput_frac"


@dataclass(frozen=True, slots=True)
class Point:
    """One interval.

    Attributes:
        interval_s: Work between two checkpoints.
        predicted: Goodput by the model.
        measured, low, high: Goodput, and its 95 % interval by bootstrap (None with too few failures).
        below_low, below_high: Interval of how far it lies below the best one, compared failure by failure; 95 % for all together.
        failures: That the run met.
    """

    interval_s: float
    predicted: float
    measured: float
    low: float | None
    high: float | None
    below_low: float
    below_high: float
    failures: int

    @property
    def among_best(self) -> bool:
        """Whether the data cannot tell it from the best."""
        return self.below_low <= 0


class Intervals:
    """Goodput of several runs that differ in nothing but the interval.

    Args:
        runs: Their folders; with fewer than two there is nothing to compare yet.

    Attributes:
        points: In the order of the interval; empty where there is nothing to compare.
        spec: Of one of the runs.
        optimum_s: The interval that the model finds best.

    Raises:
        ControlError: Runs that differ in something else.
    """

    def __init__(self, runs: Iterable[str | Path]) -> None:
        found: dict[float, Any] = {}
        specs: list[ResilienceSpec] = []
        for path in runs:
            reader = RunReader(RunDir(Path(path)))
            reader.poll()
            segment = reader.segments()[-1]
            assert isinstance(segment.spec, ResilienceSpec)
            rows = reader.records("stretches")
            found[segment.spec.interval_s] = rows[rows["segment"] == segment.index]
            specs.append(segment.spec)
        rest = {s.model_copy(update={"interval_s": 1.0}).digest() for s in specs}
        if len(rest) > 1:
            raise ControlError(
                f"the runs have {len(rest)} different setups; compare runs that differ in interval_s only"
            )
        self.points: list[Point] = []
        if len(found) > 1:
            self.spec, self.machine = specs[0], reader.machine
            self.points = list(self._points(found))
            self.optimum_s = float(self._predict(self.spec.interval_s)["optimal_interval_s"])

    def _predict(self, interval_s: Any) -> Any:
        return experiment("resilience").predict(self.spec, self.machine, interval_s=interval_s)

    def _points(self, found: Mapping[float, Any]) -> Iterable[Point]:
        apart = against_best(found)
        for at in sorted(found):
            own = shares(cycles(found[at]))[GOODPUT]
            predicted = float(self._predict(at)[GOODPUT])
            struck = int(found[at]["failures"].max() - found[at]["failures"].min())
            yield Point(at, predicted, float(own.value), own.low, own.high, *apart[at][1:], struck)

    @property
    def best(self) -> Point:
        """The interval with the greatest measured goodput."""
        return max(self.points, key=lambda p: p.measured)

    @property
    def nearest(self) -> Point:
        """The measured interval that lies nearest to the predicted optimum, by ratio."""
        return min(self.points, key=lambda p: abs(np.log(p.interval_s / self.optimum_s)))

    @property
    def known(self) -> bool:
        """Whether there were failures enough to tell any interval from another."""
        return any(p.below_low > -1 for p in self.points)

    @property
    def verdict(self) -> str:
        """Whether the prediction of the best interval holds, in one sentence."""
        if not self.points:
            return tr("Nothing to compare yet: measure two intervals or more, then run this cell again.")
        if not self.known:
            return tr("Too few failures to tell one interval from another: let them run longer.")
        alike = ", ".join(show("s", p.interval_s) for p in self.points if p.among_best)
        words = N_("The predicted optimum, {optimum}, is not among the best; those are {alike}.")
        if self.nearest.among_best:
            words = N_(
                "The predicted optimum, {optimum}, is among the best: the data cannot tell these apart: {alike}."
            )
        return tr(words, optimum=show("s", self.optimum_s), alike=alike)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        if not self.points:
            return {"optimum_s": None, "points": [], "verdict": self.verdict, "optimum_among_best": None}
        names = [*Point.__dataclass_fields__, "among_best"]
        points = [{name: getattr(p, name) for name in names} for p in self.points]
        return {
            "optimum_s": self.optimum_s, "points": points, "verdict": self.verdict,
            "optimum_among_best": self.nearest.among_best if self.known else None,
        }  # fmt: skip

    def table(self) -> Any:
        """Return a data frame, one row for each interval."""
        import pandas as pd

        rows = [(p.interval_s, p.predicted, p.measured, p.low, p.high, p.failures, p.among_best) for p in self.points]
        names = ["interval (s)", "predicted", "measured", "from", "to", "failures", "among the best"]
        return pd.DataFrame(rows, columns=names).set_index("interval (s)").round(3)

    def draw(self, width_in: float = PAGE_IN) -> PaperFigure | None:
        """Return the curve with the points: filled where the data cannot tell them from the best. None before there are any."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        if not self.points:
            return None
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(width_in, width_in * 0.5), layout="constrained")
            axes = figure.add_subplot()
            self._curves(axes)
            for alike in (True, False):
                self._dots(axes, [p for p in self.points if p.among_best is alike], alike)
            axes.set_xlabel("Work between checkpoints (s)")
            axes.set_ylabel("Goodput (%)")
            axes.legend(loc="best")
        return PaperFigure(figure, self.verdict)

    def _curves(self, axes: Any) -> None:
        from matplotlib.ticker import NullLocator

        at = np.array([p.interval_s for p in self.points])
        over = np.geomspace(min(at.min(), self.optimum_s) / 1.6, max(at.max(), self.optimum_s) * 1.6, 120)
        axes.plot(
            over, 100 * young_goodput(self.spec, over.tolist()), "--", color=INK, lw=1.0, label="Young, first order"
        )
        axes.plot(over, 100 * self._predict(over)[GOODPUT], color=PREDICTED, lw=1.6, label="predicted (renewal, exact)")
        axes.axvline(self.optimum_s, color=PREDICTED, lw=0.8, ls=":", zorder=1)
        words = f"predicted optimum {show('s', self.optimum_s)}"
        place = {"xytext": (4, 0), "textcoords": "offset points", "fontsize": 7}
        axes.annotate(words, (self.optimum_s, 3), color=PREDICTED, **place)
        axes.set_xscale("log")
        axes.set_xticks(at, [f"{v:.3g}" for v in at])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 100)

    @staticmethod
    def _dots(axes: Any, points: list[Point], alike: bool) -> None:
        if not points:
            return
        value = np.array([p.measured for p in points])
        low, high = (
            np.array([e if e is not None else p.measured for p in points for e in (getattr(p, end),)])
            for end in ("low", "high")
        )
        axes.errorbar(
            [p.interval_s for p in points], 100 * value, yerr=100 * np.array([value - low, high - value]), fmt="o", ms=5,
            color=MEASURED, mfc=MEASURED if alike else "white", mec=MEASURED, elinewidth=0.9, capsize=2, zorder=4,
            label="measured, among the best" if alike else "measured, worse",
        )  # fmt: skip
