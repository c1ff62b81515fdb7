"""Figures for a paper, from a tidy table: predicted is a line with its band, measured are points with whiskers, a fitted law is dashed.

matplotlib is imported when a figure is drawn, and without pyplot: no global state, no window, safe beside a notebook's own figures.
The colours are those of the lab's widgets (`palette`). SVG and PDF of the same numbers are the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ControlError, SpecError, StorageError, UnknownNameError, near
from ..experiment import Experiment
from ..palette import LABELS, MEASURED, PREDICTED
from ..quantities import quantity
from .fits import Fit, points_of

if TYPE_CHECKING:
    import pandas as pd

#: Of one column of a two-column paper, and of a page.
COLUMN_IN, PAGE_IN = 3.5, 7.0
INK, GRID = "#333333", "#D9D9D9"
FORMATS = ("svg", "pdf", "png")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.frameon": False, "svg.hashsalt": "aiinfra", "pdf.fonttype": 42,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.6,
}  # fmt: skip
#: What a person reads on an axis, by the unit of the stored number: the largest that leaves numbers above one.
_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "frac": ((0.01, "%"),),
}
_PER = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


class PaperFigure:
    """A matplotlib figure that a notebook and a report show as SVG, and that `save` writes.

    Attributes:
        figure: The matplotlib figure, to be changed as one likes.
        words: What it shows, for who cannot see it; kept in the file.
    """

    def __init__(self, figure: Any, words: str) -> None:
        self.figure, self.words = figure, words

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the figure; the ending of the name says as what: .svg, .pdf or .png.

        Raises:
            SpecError: Another ending.
            ControlError: The file is there already, and `overwrite` was not asked for.
            StorageError: It cannot be written.
        """
        target = Path(path).expanduser()
        form = target.suffix.lower().lstrip(".")
        if form not in FORMATS:
            raise SpecError(f"{target.name}: ends in {target.suffix!r}; allowed: .{', .'.join(FORMATS)}")
        try:
            with target.open("wb" if overwrite else "xb") as file:
                file.write(self.to_bytes(form))
        except FileExistsError:
            raise ControlError(f"{target} is there already; choose a new name, or save(..., overwrite=True)") from None
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
        return target

    def to_bytes(self, form: str) -> bytes:
        """Return the figure as a file of one of FORMATS; the same numbers give the same bytes."""
        import matplotlib as mpl

        meta: dict[str, dict[str, Any]] = {
            "svg": {"Date": None, "Description": self.words},
            "pdf": {"CreationDate": None, "Subject": self.words},
            "png": {"Description": self.words},
        }
        into = io.BytesIO()
        with mpl.rc_context(_STYLE):
            self.figure.savefig(into, format=form, metadata=meta[form], dpi=300)
        return into.getvalue()

    def _repr_svg_(self) -> str:
        return self.to_bytes("svg").decode("utf-8")

    def __repr__(self) -> str:
        return self.words


def draw(
    table: pd.DataFrame,
    exp: Experiment,
    *,
    x: str,
    y: str,
    by: str | None = None,
    where: Mapping[str, Any] | None = None,
    fit: Fit | None = None,
    log: str = "",
    width_in: float = COLUMN_IN,
) -> PaperFigure:
    """Return a figure of a quantity over a factor.

    Args:
        table: From `Sweep.table()`.
        exp: The experiment, which knows the factors' labels and units.
        x: A factor that is a number. y: A quantity.
        by: Another factor: a colour, a line style and a marker for each of its values; without it predicted and measured have theirs.
        where: Factors with the value they must have.
        fit: A law through the same points, drawn dashed with its band.
        log: "x", "y" or "xy": logarithmic axes.
        width_in: Inches; COLUMN_IN or PAGE_IN.

    Raises:
        UnknownNameError: No such factor or quantity.
        SpecError: Nothing to draw, or a factor that is no number.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if log.strip("xy"):
        raise SpecError(f"log: got {log!r}; allowed: '', 'x', 'y' or 'xy'")
    knobs, about = exp.spec.knobs(), quantity(y)
    rows = rows_of(table, exp, x=x, y=y, by=by, where=where)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, width_in * 0.68), layout="constrained")
        axes = figure.add_subplot()
        factor, unit = _scale(
            about.unit, rows["measured"].dropna().to_numpy(float), rows["predicted"].dropna().to_numpy(float)
        )
        for i, (value, mine) in enumerate(groups_of(rows, by)):
            _group(axes, mine, x, factor, i, "" if by is None else f"{knobs[by].label} {_said(value, knobs[by].unit)}")
        if fit is not None:
            _law(axes, rows[x].to_numpy(float), fit, factor, "x" in log)
        axes.set_xlabel(_axis(knobs[x].label, knobs[x].unit))
        axes.set_ylabel(_axis(about.label, unit))
        _ticks(axes, rows[x].to_numpy(float), log, knobs[x].kind == "int")
        axes.legend(loc="best")
    said = f"{about.label} over {knobs[x].label.lower()}" + (f", by {knobs[by].label.lower()}" if by else "")
    return PaperFigure(figure, f"{said}: {exp.title}, predicted before and measured after")


def rows_of(
    table: pd.DataFrame, exp: Experiment, *, x: str, y: str, by: str | None, where: Mapping[str, Any] | None
) -> pd.DataFrame:
    """Return the rows of a table that a figure shows; arguments and errors as `draw`."""
    knobs = exp.spec.knobs()
    for name in (x, *([by] if by else [])):
        if name not in table.columns or name not in knobs:
            raise UnknownNameError(
                f"the table has no factor {name!r}; {near(name, [c for c in table.columns if c in knobs])}"
            )
    if knobs[x].kind not in {"int", "float"}:
        raise SpecError(f"{x}: is no number, so it makes no axis; use by={x!r}")
    points_of(table, x=x, y=y, where=where)  # says what is wrong with the other names
    rows = table[table["quantity"] == y]
    for column, value in (where or {}).items():
        rows = rows[rows[column] == value]
    if rows.empty:
        raise SpecError(f"nothing to draw: no row of {y} is left where {dict(where or {})}")
    return rows


def groups_of(rows: pd.DataFrame, by: str | None) -> list[tuple[Any, pd.DataFrame]]:
    """Return the rows of each value of a factor; all of them, of None, where there is no factor."""
    if by is None:
        return [(None, rows)]
    return [(v, rows[rows[by] == v]) for v in sorted(rows[by].dropna().unique())]


def sides_of(rows: pd.DataFrame, x: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what was predicted, once for each point and along `x`, and what was measured and settled."""
    expected = rows[rows["predicted"].notna()].drop_duplicates(subset=["point"]).sort_values(x)
    return expected, rows[rows["measured"].notna() & rows["settled"].fillna(False)]


def law_over(fit: Fit, at: Any, log: bool) -> tuple[Any, Any, Any, Any] | None:
    """Return where a law is drawn between the ends of `at`, its values and its band; None where too few points made it."""
    over = np.geomspace(at.min(), at.max(), 100) if log else np.linspace(at.min(), at.max(), 100)
    value, low, high = fit.at(over)
    return (over, value, low, high) if np.isfinite(value).any() else None


def _scale(unit: str, *values: Any) -> tuple[float, str]:
    """Return the factor and the name of the largest unit of which the axis shows at least one."""
    known = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in values])
    top = float(np.max(known)) if len(known) else 1.0
    if unit in _SCALES:
        return next(((f, n) for f, n in _SCALES[unit] if top >= f), _SCALES[unit][-1])
    if unit.endswith("/s") or unit in {"flop", "J", "W"}:
        factor, prefix = next(((f, n) for f, n in _PER if top >= f), _PER[-1])
        words = unit.split("/")[0] in {"samples", "tokens", "requests"}
        return (
            (factor, f"{prefix}{unit}") if not words else (factor, f"{'' if factor == 1 else f'{factor:,.0f} '}{unit}")
        )
    return 1.0, {"1": "", "x": "×"}.get(unit, unit)


def _axis(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label


def _said(value: Any, unit: str) -> str:
    return f"{value} {unit}".strip()


def _group(axes: Any, rows: pd.DataFrame, x: str, factor: float, i: int, name: str) -> None:
    """Draw one line of predictions and the points measured on it."""
    colours = (PREDICTED, MEASURED) if not name else (LABELS[i % len(LABELS)],) * 2
    dashes = ("-", "--", ":", "-.")[i % 4]
    expected, settled = sides_of(rows, x)
    at, value = expected[x].to_numpy(float), expected["predicted"].to_numpy(float) / factor
    if len(at):
        label = "predicted" if not name else f"{name}, predicted"
        axes.plot(
            at, value, dashes, color=colours[0], lw=1.3, label=label, zorder=2, marker="_" if len(at) == 1 else None
        )
        low, high = (expected[c].to_numpy(float, na_value=np.nan) / factor for c in ("predicted_low", "predicted_high"))
        axes.fill_between(
            at, low, high, where=np.isfinite(low) & np.isfinite(high), color=colours[0], alpha=0.15, lw=0, zorder=1
        )
    if settled.empty:
        return
    at, value = settled[x].to_numpy(float), settled["measured"].to_numpy(float) / factor
    low, high = (settled[c].to_numpy(float, na_value=np.nan) / factor for c in ("measured_low", "measured_high"))
    whiskers = [np.nan_to_num(np.maximum(value - low, 0.0)), np.nan_to_num(np.maximum(high - value, 0.0))]
    label = "measured" if not name else f"{name}, measured"
    axes.errorbar(
        _apart(at, settled["repeat"].to_numpy(float), float(np.ptp(rows[x].to_numpy(float)))), value, yerr=whiskers,
        fmt=MARKERS[i % len(MARKERS)], ms=3.2, color=colours[1], mec="white", mew=0.4, elinewidth=0.8, capsize=1.6, label=label, zorder=4,
    )  # fmt: skip


def _apart(at: Any, repeats: Any, span: float) -> Any:
    """Repeats of one point stand side by side, so that their whiskers can be told apart."""
    most = max(float(repeats.max()), 1.0)
    return at + (repeats - most / 2) / most * 0.03 * (span or 1.0) * (repeats.max() > 0)


def _law(axes: Any, at: Any, fit: Fit, factor: float, log: bool) -> None:
    drawn = law_over(fit, at, log)
    if drawn is None:
        return
    over, value, low, high = drawn
    axes.plot(over, value / factor, "--", color=INK, lw=1.0, label=f"{fit.law}, fitted", zorder=3)
    axes.fill_between(over, low / factor, high / factor, color=INK, alpha=0.10, lw=0, zorder=1)


def _ticks(axes: Any, at: Any, log: str, whole: bool) -> None:
    """Few distinct values on x are their own ticks; the y axis starts at 0 unless it is logarithmic."""
    from matplotlib.ticker import NullLocator, ScalarFormatter

    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    places = np.unique(at)
    if len(places) <= 8 and (whole or len(places) <= 5):
        axes.set_xticks(places)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
