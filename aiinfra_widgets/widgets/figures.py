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
from ..texts import tr
from .terms import WORDS
from .theme import INK, INK_TAG, MEASURED, PREDICTED, dress, part_colour
from .words import plural

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
        help: One sentence that explains what is drawn.
    """

    name: str
    figure: Any
    empty: str
    label: str
    title: str
    keys: tuple[Key, ...] = ()
    help: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: `sign` is box, line, dash, dot, ring, band, frame or diamond; `help` explains it in a sentence.

    `column` is what it draws of a source that several share, or that may hold gaps only: of zeros and gaps nothing is seen.
    """

    text: str
    sign: str
    colour: str
    renderers: tuple[Any, ...]
    column: str = ""
    help: str = ""

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
        chart.figure.x_range = bk.Range1d(0, 1)  # a range over no data has no ends, and the browser's console says so
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


def part_key(name: str, renderer: Any, column: str = "") -> Key:
    """Return the entry of a quantity that is a part, in its colour."""
    q = quantity(name)
    return Key(q.label, "box", part_colour(q.part), (renderer,), column, q.help)


def measured_key(renderers: tuple[Any, ...], column: str = "") -> Key:
    """Return the entry of what was measured: points."""
    return Key(tr("Measured"), "dot", MEASURED, renderers, column, tr(WORDS["Measured"]))


def predicted_key(renderers: tuple[Any, ...], column: str = "") -> Key:
    """Return the entry of what was predicted: a line with its band."""
    return Key(tr("Predicted"), "band", PREDICTED, renderers, column, tr(WORDS["Predicted"]))


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
    line = fig.line("tick", total, source=src, line_color=INK, line_width=1, line_alpha=0.4)
    line.glyph.tags = [INK_TAG]
    predicted = _predicted(fig, data)
    mark_segments(fig, data)
    rows = [(quantity(p).label, f"@{p}{{0.[000]}} {axis.unit}") for p in reversed(parts)]
    tips = [(tr(tick).capitalize(), "@tick{0}"), (q.label, f"@{total}{{0.[000]}} {axis.unit}"), *rows]
    fig.add_tools(bk.HoverTool(renderers=[line], mode="vline", tooltips=tips))
    fig.xaxis.axis_label, fig.yaxis.axis_label = tr(tick).capitalize(), axis.label(q.label)
    keys = [part_key(p, area, p) for p, area in zip(parts, areas, strict=True)] + [predicted_key(predicted)]
    empty = tr("The parts of each {tick} appear here, as it runs.", tick=tr(tick))
    return Chart(
        "parts",
        dress(fig),
        empty,
        tr("{quantity} over {ticks}", quantity=q.label, ticks=plural(tick)),
        tr("{quantity}: measured parts", quantity=q.label),
        tuple(keys),
        q.help,
    )


def series_chart(name: str, tick: str, data: Mapping[str, Columns], axis: Axis, extra: str = "") -> Chart:
    """Draw one quantity over ticks: measured points, and its prediction where there is one.

    Args:
        name: The quantity, which is also the chart's name.
        tick: What one tick is called.
        data: Sources `series` (tick, value), `extra` (tick, value), `predicted`, `marks`, and `span`.
        axis: Of all of them.
        extra: A quantity in the same unit that is known at a few ticks only (held-out loss); drawn as points.
    """
    q = quantity(name)
    log = falls_by_orders(name)
    more = {"y_axis_type": "log"} if log else {}
    fig = canvas(120, y_range=follow(data, 0.01 if log else 0, 10 if log else 1), **more)
    of = ("tick", "value")
    src = source(data, "series", of)
    points = fig.scatter(*of, source=src, size=4, fill_color=MEASURED, fill_alpha=0.8, line_color=None)
    line = fig.line(*of, source=src, line_alpha=0)  # unseen: what the pointer finds between two points
    predicted = _predicted(fig, data)
    mark_segments(fig, data)
    value = f"@value{{{_digits(axis)}}} {axis.unit}".rstrip()
    place = (tr(tick).capitalize(), "@tick{0}")
    fig.add_tools(bk.HoverTool(renderers=[line], mode="vline", tooltips=[place, (q.label, value)]))
    keys = [measured_key((points,)), predicted_key(predicted)]
    if extra:
        dots = fig.scatter(
            "tick", "value", source=source(data, "extra", ("tick", "value")), size=8, fill_color=None,
            line_color=MEASURED, line_width=1.8,
        )  # fmt: skip
        fig.add_tools(bk.HoverTool(renderers=[dots], tooltips=[place, (quantity(extra).label, value)]))
        keys.append(Key(quantity(extra).label, "ring", MEASURED, (dots,), help=quantity(extra).help))
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
        q.help,
    )


def _digits(axis: Axis) -> str:
    return "0.[0]" if axis.unit.endswith("/s") else "0.[0000]"
