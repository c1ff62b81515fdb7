"""Every figure of the lab, as pure functions from plain data to Bokeh. The notebook feeds them live, a report embeds them.

A chart's data sources have names; a live view replaces or extends them by name, so no figure is defined twice. Numbers in
a source are in the unit of its axis (`Axis` converts), hover shows each with its unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh import models as _models
from bokeh.plotting import figure

from ..quantities import quantity
from ..texts import N_, tr
from .theme import INK, INK_TAG, MEASURED, PAPER_TAG, PREDICTED, dress, part_colour
from .words import lowered, plural

#: Bokeh's type hints lack several of its models and take arguments in another order than it does.
bk: Any = _models
Columns = Mapping[str, Any]
TOOLS = "xpan,box_zoom,reset,save"


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with what surrounds it.

    Attributes:
        name: In the live view and in `Lab.figure(name)`.
        figure: Bokeh, without title and legend; `still` adds them.
        empty: What stands there while it has no data: what to do to see some.
        label: What a screen reader says.
        title: In words, with what is drawn.
        keys: What the colours mean. The live view writes them; in a still figure they are its legend.
    """

    name: str
    figure: Any
    empty: str
    label: str
    title: str
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: `sign` is box, line, dash or dot.

    `column` is what it draws of a source that several share, or that may hold gaps only: of zeros and gaps nothing is seen.
    """

    text: str
    sign: str
    colour: str
    renderers: tuple[Any, ...]
    column: str = ""

    @property
    def source(self) -> str:
        """The data source of what it explains."""
        return str(self.renderers[0].data_source.name)

    @property
    def drawn(self) -> bool:
        """Whether there is anything that it explains."""
        data = self.renderers[0].data_source.data
        if self.column:
            return bool(np.any(np.nan_to_num(np.asarray(data[self.column], dtype=float))))
        return bool(len(next(iter(data.values()), ())))


def still(chart: Chart) -> Any:
    """Return the figure for a page without our own script: with its title and a legend; one line where nothing is drawn."""
    chart.figure.title.text = chart.title
    if chart.keys and not any(k.drawn for k in chart.keys):
        chart.figure.title.text = tr("{title}: nothing to draw here", title=chart.title)
        chart.figure.frame_height, chart.figure.axis.visible = 4, False
    items = [bk.LegendItem(label=k.text, renderers=list(k.renderers)) for k in chart.keys if k.drawn]
    if items:
        chart.figure.add_layout(bk.Legend(items=items), "right")
    return dress(chart.figure)


@dataclass(frozen=True, slots=True)
class Axis:
    """How one quantity is drawn: base units times `factor` are `unit`."""

    factor: float
    unit: str

    def label(self, text: str) -> str:
        """Return what stands at the axis: the unit, for the title names the quantity; the quantity where it has none."""
        return self.unit or text


def axis_for(unit: str, typical: float | None = None) -> Axis:
    """Return how to draw what is stored in `unit` when it is about `typical` (base units; None: unknown)."""
    size = abs(typical) if typical is not None and math.isfinite(typical) else 0.0
    if unit == "s":
        for least, factor, name in (
            (7200.0, 1 / 3600, "h"),
            (300.0, 1 / 60, "min"),
            (2.0, 1.0, "s"),
            (2e-4, 1e3, "ms"),
        ):
            if size >= least:
                return Axis(factor, name)
        return Axis(1e6, "µs") if size else Axis(1e3, "ms")
    return {"frac": Axis(100.0, "%"), "B": Axis(2.0**-20, "MiB"), "1": Axis(1.0, ""), "x": Axis(1.0, "×")}.get(
        unit, Axis(1.0, unit)
    )


def axis_of(name: str, typical: float | None = None) -> Axis:
    """Return how to draw quantity `name` when it is about `typical`."""
    return axis_for(quantity(name).unit, typical)


def falls_by_orders(name: str) -> bool:
    """Whether quantity `name` is drawn on a logarithmic axis: a plain number that should fall, such as a loss."""
    q = quantity(name)
    return q.unit == "1" and q.better == "lower"


def source(data: Mapping[str, Columns], name: str, columns: Sequence[str]) -> Any:
    """Return the data source `name`, empty where `data` has none."""
    given = data.get(name, {})
    return bk.ColumnDataSource(data={c: given.get(c, []) for c in columns}, name=name)


PREDICTED_COLUMNS = ("left", "right", "value", "low", "high")
MARK_COLUMNS = ("tick", "text")


def canvas(height: int, **more: Any) -> Any:
    """Return an empty figure whose frame is `height` pixels high; it takes the width there is."""
    fig: Any = figure(
        frame_height=height, sizing_mode="stretch_width", tools=TOOLS, active_drag=None, min_width=120, **more
    )
    fig.title.text = ""
    return fig


def follow(data: Mapping[str, Columns], start: float, end: float) -> Any:
    """Return a range that the live view moves."""
    span = data.get("span", {})
    return bk.Range1d(span.get("start", start), span.get("end", end), name="follow")


def _predicted(fig: Any, data: Mapping[str, Columns]) -> tuple[Any, ...]:
    """Draw the prediction of each segment: its band, and its line over it."""
    src = source(data, "predicted", PREDICTED_COLUMNS)
    band = fig.quad("left", "right", "high", "low", source=src, fill_color=PREDICTED, fill_alpha=0.18, line_color=None)
    line = fig.segment("left", "value", "right", "value", source=src, line_color=PREDICTED, line_width=2.5)
    return line, band


def mark_segments(fig: Any, data: Mapping[str, Columns]) -> None:
    """Draw where segments begin, with what changed there at the top of the frame."""
    src = source(data, "marks", MARK_COLUMNS)
    lines = fig.vspan("tick", source=src, line_color=INK, line_dash="4 4", line_alpha=0.8)
    lines.glyph.tags = [INK_TAG]
    fig.add_layout(
        bk.LabelSet(
            x="tick", y=fig.frame_height - 2, y_units="screen", text="text", source=src, text_font_size="11px",
            text_color=INK, x_offset=4, text_baseline="top",
        )
    )  # fmt: skip


def parts_chart(total: str, parts: Sequence[str], tick: str, data: Mapping[str, Columns], axis: Axis) -> Chart:
    """Draw a tick's time split into its parts, stacked over ticks, with the prediction as line and band.

    Args:
        total: The quantity that the parts add up to.
        parts: Quantities, drawn from the bottom up.
        tick: What one tick is called.
        data: Sources `series` (tick, total, each part), `predicted`, `marks`, and `span` (start, end) of the y axis.
        axis: Of all of them.
    """
    q = quantity(total)
    fig = canvas(190, y_range=follow(data, 0, 10))
    src = source(data, "series", ("tick", total, *parts))
    colours = [part_colour(quantity(p).part) for p in parts]
    areas = fig.varea_stack(list(parts), x="tick", source=src, color=colours)
    line = fig.line("tick", total, source=src, line_color=INK, line_width=1, line_alpha=0.5)
    line.glyph.tags = [INK_TAG]
    predicted = _predicted(fig, data)
    mark_segments(fig, data)
    rows = [(quantity(p).label, f"@{p}{{0.[000]}} {axis.unit}") for p in reversed(parts)]
    tips = [(tr(tick).capitalize(), "@tick{0}"), (q.label, f"@{total}{{0.[000]}} {axis.unit}"), *rows]
    fig.add_tools(bk.HoverTool(renderers=[line], mode="vline", tooltips=tips))
    fig.xaxis.axis_label, fig.yaxis.axis_label = tr(tick).capitalize(), axis.label(q.label)
    named = zip(parts, colours, areas, strict=True)
    keys = [Key(quantity(p).label, "box", colour, (area,), p) for p, colour, area in named]
    keys += [Key(q.label, "line", INK, (line,)), Key(tr("Predicted"), "band", PREDICTED, predicted)]
    empty = tr("The parts of each {tick} appear here, as it runs.", tick=tr(tick))
    return Chart(
        "parts",
        dress(fig),
        empty,
        tr("{quantity} over {ticks}", quantity=q.label, ticks=plural(tick)),
        tr("{quantity} and its parts", quantity=q.label),
        tuple(keys),
    )


def series_chart(name: str, tick: str, data: Mapping[str, Columns], axis: Axis, extra: str = "") -> Chart:
    """Draw one quantity over ticks, with its prediction where there is one.

    Args:
        name: The quantity, which is also the chart's name.
        tick: What one tick is called.
        data: Sources `series` (tick, value), `alone` (those between two gaps, which no line shows), `extra` (tick, value),
            `predicted`, `marks`, and `span`.
        axis: Of all of them.
        extra: A quantity in the same unit that is known at a few ticks only (held-out loss); drawn as points.
    """
    q = quantity(name)
    log = falls_by_orders(name)
    more = {"y_axis_type": "log"} if log else {}
    fig = canvas(120, y_range=follow(data, 0.01 if log else 0, 10 if log else 1), **more)
    of = ("tick", "value")
    line = fig.line(*of, source=source(data, "series", of), line_color=MEASURED, line_width=1.6)
    fig.scatter(*of, source=source(data, "alone", of), size=4, fill_color=MEASURED, line_color=None)
    predicted = _predicted(fig, data)
    mark_segments(fig, data)
    value = f"@value{{{_digits(axis)}}} {axis.unit}".rstrip()
    place = (tr(tick).capitalize(), "@tick{0}")
    fig.add_tools(bk.HoverTool(renderers=[line], mode="vline", tooltips=[place, (q.label, value)]))
    keys = [Key(tr("Measured"), "line", MEASURED, (line,)), Key(tr("Predicted"), "band", PREDICTED, predicted)]
    if extra:
        dots = fig.scatter(
            "tick", "value", source=source(data, "extra", ("tick", "value")), size=6, fill_color=MEASURED,
            line_color="white", line_width=1,
        )  # fmt: skip
        dots.glyph.tags = [PAPER_TAG]
        fig.add_tools(bk.HoverTool(renderers=[dots], tooltips=[place, (quantity(extra).label, value)]))
        keys = [keys[0], Key(quantity(extra).label, "dot", MEASURED, (dots,))]
    fig.xaxis.axis_label, fig.yaxis.axis_label = tr(tick).capitalize(), axis.label(q.label)
    fig.yaxis.ticker.desired_num_ticks = 4
    if axis.unit.endswith("/s"):
        fig.yaxis.formatter = bk.NumeralTickFormatter(format="0[.]0 a")
    return Chart(
        name,
        dress(fig),
        tr("{quantity} appears here, as it runs.", quantity=q.label),
        tr("{quantity} over {ticks}", quantity=q.label, ticks=plural(tick)),
        q.label,
        tuple(keys),
    )


def _digits(axis: Axis) -> str:
    return "0.[0]" if axis.unit.endswith("/s") else "0.[0000]"


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
        bk.HoverTool(renderers=[line], mode="vline", tooltips=[place, (tr("Model"), value)]),
    )
    keys = (
        Key(tr("Measured"), "dot", MEASURED, (dots, others), "value"),
        Key(tr("Model"), "band", PREDICTED, (line, band), "value"),
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
    return Chart(name, dress(fig), empty, tr("{quantity} over {swept}", quantity=q.label, swept=swept), title, keys)


BAR_COLUMNS = ("row", "left", "right", "colour", "part", "shown")


def bars_chart(total: str, data: Mapping[str, Columns], axis: Axis) -> Chart:
    """Draw the parts of a tick side by side: one bar as predicted, one as measured.

    Args:
        total: The quantity that the parts add up to.
        data: Source `bars` (row 1 predicted, row 0 measured; left and right end in the axis' unit; colour; part; shown).
        axis: Of the bars.
    """
    q = quantity(total)
    fig = canvas(180, y_range=bk.Range1d(-0.6, 1.6), x_range=_bars_range(data))
    bars = fig.hbar(
        y="row", left="left", right="right", height=0.62, source=source(data, "bars", BAR_COLUMNS),
        fill_color="colour", line_color="white", line_width=1,
    )  # fmt: skip
    bars.glyph.tags = [PAPER_TAG]
    fig.add_tools(bk.HoverTool(renderers=[bars], tooltips=[("", "@part"), ("", "@shown")]))
    fig.yaxis.ticker = bk.FixedTicker(ticks=[0, 1])
    fig.yaxis.major_label_orientation = 1.5708
    fig.yaxis.major_label_overrides = {0: tr("Measured"), 1: tr("Predicted")}
    fig.ygrid.grid_line_color = None
    fig.xaxis.axis_label = axis.label(q.label)
    empty = tr("Predicted and measured parts appear here once a segment has settled.")
    return Chart(
        "bars",
        dress(fig),
        empty,
        tr("Parts of {quantity}", quantity=q.label),
        tr("Where the {quantity} goes", quantity=q.label.lower()),
    )


def _bars_range(data: Mapping[str, Columns]) -> Any:
    right = np.asarray(data.get("bars", {}).get("right", []), dtype=float)
    return bk.Range1d(0, float(right.max()) * 1.05 if right.size else 10.0, name="follow")
