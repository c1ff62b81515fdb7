"""Figures that set what was predicted beside what was measured: a quantity over a swept field, and the parts of a tick.

As in `figures`, they are pure functions from columns to Bokeh, and their data sources have names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import CDSView, GroupFilter

from ..quantities import quantity
from ..texts import N_, tr
from .figures import Axis, Chart, Columns, Key, bk, canvas, follow, measured_key, part_key, predicted_key, source
from .theme import INK, INK_TAG, MEASURED, PAPER_TAG, PREDICTED, dress, part_colour
from .words import lowered

POINT_COLUMNS = ("at", "value", "low", "high", "text")
CURVE_COLUMNS = ("at", "value", "low", "high")
NAME_COLUMNS = ("at", "value", "text", "align", "shift", "lift")


def curve_chart(name: str, of: str, swept: str, data: Mapping[str, Columns], x: Axis, y: Axis, *, whole: bool) -> Chart:
    """Draw a quantity over a swept field: reference curves dashed, the model with its band, measured points with whiskers.

    Args:
        name: Of the chart.
        of: The quantity.
        swept: What the x axis is called.
        data: Sources `model` (at, value, low, high), `references` (at, value; NaN between two curves),
            `reference_names` (at, value, text, align, shift and lift in pixels), `points` (at, value, low, high, text),
            `others` (at, value, text: of other setups); in the axes' units.
        x, y: The axes.
        whole: The swept field is a whole number.
    """
    q = quantity(of)
    fig = canvas(180, y_range=follow(data, 0, {"speedup": 4, "efficiency_frac": 125}.get(of, 1)))
    references = fig.line(
        "at",
        "value",
        source=source(data, "references", ("at", "value")),
        line_color=INK,
        line_dash="5 4",
        line_width=1.2,
    )
    references.glyph.tags = [INK_TAG]
    fig.add_layout(
        bk.LabelSet(
            x="at", y="value", text="text", source=source(data, "reference_names", NAME_COLUMNS),
            text_font_size="11px", text_color=INK, text_align="align", x_offset="shift", y_offset="lift",
            level="underlay",  # a name never hides what was measured
        )
    )  # fmt: skip
    model = source(data, "model", CURVE_COLUMNS)
    band = fig.varea("at", "low", "high", source=model, fill_color=PREDICTED, fill_alpha=0.18)
    line = fig.line("at", "value", source=model, line_color=PREDICTED, line_width=2.5)
    others = fig.scatter(
        "at", "value", source=source(data, "others", ("at", "value", "text")), size=8, fill_color=None, line_color=MEASURED,
        line_alpha=0.45, line_width=1.5,
    )  # fmt: skip
    points = source(data, "points", POINT_COLUMNS)
    bars = bk.Whisker(base="at", lower="low", upper="high", source=points, line_color=MEASURED, line_width=1.5)
    bars.upper_head.size = bars.lower_head.size = 8
    bars.upper_head.line_color = bars.lower_head.line_color = MEASURED
    fig.add_layout(bars)
    dots = fig.scatter("at", "value", source=points, size=9, fill_color=MEASURED, line_color="white", line_width=1)
    dots.glyph.tags = [PAPER_TAG]
    place = (swept, f"@at{{{'0' if whole else '0.[000]'}}} {x.unit}".rstrip())
    value = f"@value{{0.00}} {y.unit}".rstrip()
    fig.add_tools(
        bk.HoverTool(renderers=[dots, others], tooltips=[(tr("Measured"), value), ("", "@text")]),
        bk.HoverTool(renderers=[line], mode="vline", tooltips=[place, (tr("Predicted"), value)]),
    )
    other = tr("What was measured with other settings, in this run.")
    keys = (
        measured_key((dots,), "value"),
        Key(tr("Measured, other settings"), "ring", MEASURED, (others,), "value", other),
        predicted_key((line, band), "value"),
    )  # a reference curve carries its own name
    fig.xaxis.axis_label, fig.yaxis.axis_label = f"{swept} ({x.unit})" if x.unit else swept, y.label(q.label)
    if whole:
        fig.xaxis.ticker.min_interval = 1
    fig.yaxis.ticker.desired_num_ticks = 5
    relative = of in {"speedup", "efficiency_frac"}
    settled = N_("{quantity} appears here once a segment has settled.")
    empty = (
        N_("{quantity} appears here once a segment has settled, if one node can do it too.") if relative else settled
    )
    empty = tr(empty, quantity=q.label)
    title = q.label if relative else tr("{quantity} over {swept}", quantity=q.label, swept=lowered(swept))
    return Chart(
        name, dress(fig), empty, tr("{quantity} over {swept}", quantity=q.label, swept=swept), title, keys, q.help
    )


BAR_COLUMNS = ("row", "left", "right", "part", "shown", "alpha")


def bars_chart(total: str, parts: Sequence[str], data: Mapping[str, Columns], axis: Axis) -> Chart:
    """Draw the parts of a tick side by side: one pale bar as predicted, one full as measured.

    Args:
        total: The quantity that the parts add up to.
        parts: Quantities, drawn from the left.
        data: Source `bars` (row 1 predicted, row 0 measured; left and right end in the axis' unit; part; shown; alpha; and
            for each part a column with the width of its own bars, 0 for those of others).
        axis: Of the bars.
    """
    q = quantity(total)
    fig = canvas(150, y_range=bk.Range1d(-0.5, 1.5), x_range=_bars_range(data))
    src = source(data, "bars", (*BAR_COLUMNS, *parts))
    drawn = {}
    for name in parts:
        colour = part_colour(quantity(name).part)
        drawn[name] = fig.hbar(
            y="row", left="left", right="right", height=0.6, source=src, view=CDSView(filter=GroupFilter(column_name="part", group=name)),
            fill_color=colour, fill_alpha="alpha", line_color=colour, line_width=1,
        )  # fmt: skip
    fig.add_tools(bk.HoverTool(renderers=list(drawn.values()), tooltips=[("", "@shown")]))
    fig.yaxis.ticker = bk.FixedTicker(ticks=[0, 1])
    fig.yaxis.major_label_overrides = {0: tr("Measured"), 1: tr("Predicted")}
    fig.ygrid.grid_line_color = None
    fig.xaxis.axis_label = axis.label(q.label)
    empty = tr("Predicted and measured parts appear here once a segment has settled.")
    keys = tuple(part_key(name, bars, name) for name, bars in drawn.items())
    label = tr("Parts of {quantity}", quantity=q.label)
    return Chart(
        "bars", dress(fig), empty, label, tr("Where the {quantity} goes", quantity=lowered(q.label)), keys, q.help
    )


def _bars_range(data: Mapping[str, Columns]) -> Any:
    right = np.asarray(data.get("bars", {}).get("right", []), dtype=float)
    return bk.Range1d(0, float(right.max()) * 1.05 if right.size else 10.0, name="follow")
