"""A designed sweep to look into: predicted lines and bands, measured points that say which run they are, a fitted law.

For a page; `research.figures.draw` makes the same figure for a paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import bokeh.models as bk
import numpy as np

from ..experiment import Experiment
from ..palette import LABELS, MEASURED, PREDICTED
from ..quantities import quantity, show
from ..research.figures import groups_of, law_over, rows_of, sides_of
from ..research.fits import Fit
from ..texts import tr
from .figures import Chart, Key, axis_of, canvas, measured_key, predicted_key, still
from .notebook import show_figure
from .terms import WORDS
from .theme import INK, dress

if TYPE_CHECKING:
    import pandas as pd

HEIGHT = 260


def plot(table: pd.DataFrame, exp: Experiment, **asked: Any) -> None:
    """Display a quantity over a factor, in a notebook or its report; a script gets one line of words.

    Args:
        table, exp, asked: Arguments and errors of `chart`.
    """
    found = chart(table, exp, **asked)
    show_figure(still(found), found.label)


def chart(
    table: pd.DataFrame,
    exp: Experiment,
    *,
    x: str,
    y: str,
    by: str | None = None,
    where: Mapping[str, Any] | None = None,
    fit: Fit | None = None,
    log: bool = False,
) -> Chart:
    """Return the figure of a quantity over a factor.

    Args:
        table: From `Sweep.table()`.
        exp: The experiment, which knows the factors' labels and units.
        x: A factor that is a number. y: A quantity.
        by: Another factor: a colour for each of its values.
        where: Factors with the value they must have.
        fit: A law through the same points.
        log: A logarithmic axis of x.

    Raises:
        UnknownNameError, SpecError: As `research.figures.draw`.
    """
    rows = rows_of(table, exp, x=x, y=y, by=by, where=where)
    knobs, about = exp.spec.knobs(), quantity(y)
    axis = axis_of(y, float(np.median(rows["measured"].dropna())) if rows["measured"].notna().any() else None)
    fig = canvas(HEIGHT, x_axis_type="log" if log else "linear")
    keys: list[Key] = []
    for i, (value, mine) in enumerate(groups_of(rows, by)):
        name = f"{knobs[by].label} {value}" if by else ""
        keys += _group(fig, mine, x, axis.factor, LABELS[i % len(LABELS)] if by else "", name)
    if fit is not None:
        keys += _law(fig, rows[x].to_numpy(float), fit, axis.factor, log)
    # The law's band may reach far beyond all that is known.
    known = rows[["measured", "measured_high", "predicted", "predicted_high"]].to_numpy(float, na_value=np.nan)
    fig.y_range = bk.Range1d(start=0, end=1.15 * axis.factor * float(np.nanmax(known, initial=0.0)) or 1.0)
    fig.yaxis.formatter = bk.NumeralTickFormatter(format="0.[00]a")
    places = np.unique(rows[x].to_numpy(float))
    if len(places) <= 8:
        fig.xaxis.ticker = bk.FixedTicker(ticks=list(places))
        fig.xaxis.major_label_overrides = {p: f"{p:g}" for p in places}
    fig.xaxis.axis_label = knobs[x].label + (f" ({knobs[x].unit})" if knobs[x].unit else "")
    fig.yaxis.axis_label = axis.label(about.label)
    title = tr("{quantity} by {what}", quantity=about.label, what=knobs[x].label)
    return Chart("sweep", dress(fig), tr("Nothing was measured yet."), title, title, tuple(keys))


def _group(fig: Any, rows: pd.DataFrame, x: str, factor: float, colour: str, name: str) -> list[Key]:
    """Draw one line of predictions, and the points measured on it."""
    expected, settled = sides_of(rows, x)
    line = _scaled(expected, x, factor, "predicted", "predicted_low", "predicted_high")
    words = {"what": [f"{v:g}" for v in line["at"]], "said": _words(expected, "predicted")}
    src = bk.ColumnDataSource({**line, **words}, name=f"predicted {name}")
    band = fig.varea("at", "low", "high", source=src, fill_color=colour or PREDICTED, fill_alpha=0.15)
    drawn = fig.line("at", "value", source=src, line_color=colour or PREDICTED, line_width=2)
    dots = _scaled(settled, x, factor, "measured", "measured_low", "measured_high")
    said = {
        "run": settled["run"].astype(str).to_list(),
        "measured": _words(settled, "measured"),
        "predicted": _words(settled, "predicted"),
        "what": [f"{value:g}" for value in settled[x].to_numpy(float)],
    }
    points = bk.ColumnDataSource({**dots, **said}, name=f"measured {name}")
    fig.segment("at", "low", "at", "high", source=points, line_color=colour or MEASURED, line_width=1.2)
    circles = fig.scatter("at", "value", source=points, size=7, fill_color=colour or MEASURED, line_color="white")
    tips = [*([("", name)] if name else []), (x, "@what")]
    taken = [*tips, (tr("Measured"), "@measured"), (tr("Predicted"), "@predicted"), (tr("Run"), "@run")]
    along = [*tips, (tr("Predicted"), "@said")]
    fig.add_tools(
        bk.HoverTool(renderers=[circles], tooltips=taken),
        bk.HoverTool(renderers=[drawn], tooltips=along, mode="vline", line_policy="nearest"),
    )
    if not name:
        return [predicted_key((drawn, band)), measured_key((circles,))]
    return [Key(name, "dot", colour, (circles,), "", tr(WORDS["Measured"]))]


def _words(rows: pd.DataFrame, column: str) -> list[str]:
    values = rows[column].to_numpy(float, na_value=np.nan)
    return [show(name, float(v) if np.isfinite(v) else None) for name, v in zip(rows["quantity"], values, strict=True)]


def _scaled(rows: pd.DataFrame, x: str, factor: float, *columns: str) -> dict[str, Any]:
    value, low, high = (rows[c].to_numpy(float, na_value=np.nan) * factor for c in columns)
    known = {"low": np.where(np.isfinite(low), low, value), "high": np.where(np.isfinite(high), high, value)}
    return {"at": rows[x].to_numpy(float), "value": value, **known}


def _law(fig: Any, at: Any, fit: Fit, factor: float, log: bool) -> list[Key]:
    found = law_over(fit, at, log)
    if found is None:
        return []
    over, value, low, high = found[0], *(v * factor for v in found[1:])
    src = bk.ColumnDataSource({"at": over, "value": value, "low": low, "high": high}, name="law")
    band = fig.varea("at", "low", "high", source=src, fill_color=INK, fill_alpha=0.1)
    line = fig.line("at", "value", source=src, line_color=INK, line_dash="dashed")
    return [Key(tr("{law}, fitted", law=fit.law), "dash", INK, (line, band))]
