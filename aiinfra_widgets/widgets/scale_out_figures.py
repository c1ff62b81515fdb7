"""The four figures of the scale-out lab, and what of an answer goes into each: pure functions to Bokeh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..planning.scale import DAY_S, ScaleAnswer
from ..quantities import quantity, show
from ..texts import N_, tr
from .figures import Chart, Columns, Key, bk, canvas, follow, source
from .scale_out_state import BARS, Picture
from .theme import INK, INK_TAG, PAPER_TAG, PREDICTED, PUBLISHED, dress, part_colour

#: Every part that a bar may have, from the bottom up, of a catalogued model or of a measured run.
STACK = (
    "compute_time_s", "data_time_s", "optimizer_time_s", "exposed_tp_comm_time_s", "exposed_cp_comm_time_s",
    "exposed_ep_comm_time_s", "exposed_pp_comm_time_s", "exposed_dp_comm_time_s", "bubble_time_s", "runtime_time_s",
)  # fmt: skip
#: Shades of the colour of communication: one hue for what is one matter, light to dark for whose it is.
SHADES = {"tp": "#E69F00", "cp": "#F5C566", "ep": "#5C3A00", "pp": "#BF7A00", "dp": "#8F5A00"}
BAR_COLUMNS = ("at", "bottom", "top", "colour", "part", "shown")
LINE, POINT = ("at", "value"), ("at", "value", "text")
RECORD_COLUMNS = ("at", "value", "model", "where", "printed", "source")
CHOSEN = len(BARS)
X_RANGE = (6.5, 160_000.0)


def colour_of(part: str) -> str:
    """Return the fixed colour of a part of a step."""
    if part.startswith("exposed_") and part != "exposed_comm_time_s":
        return SHADES[part.split("_")[1]]
    return part_colour(quantity(part).part)


def parts_chart(data: Mapping[str, Columns]) -> Chart:
    """Draw what a step consists of on each number of accelerators, in percent; its length stands above the bar.

    One renderer draws all parts, for ten would take ten times as long. The legend is made of renderers that draw nothing.

    Args:
        data: Sources `bars` (BAR_COLUMNS), `totals` (at, value, text), and one for each part of `STACK` that is there (at).
    """
    fig = canvas(210, y_range=bk.Range1d(0, 112), x_range=bk.Range1d(-0.6, CHOSEN + 0.6))
    bars = fig.vbar(
        x="at", bottom="bottom", top="top", width=0.68, source=source(data, "bars", BAR_COLUMNS), fill_color="colour",
        line_color="white", line_width=1,
    )  # fmt: skip
    bars.glyph.tags = [PAPER_TAG]
    fig.add_tools(bk.HoverTool(renderers=[bars], tooltips=[("", "@part"), ("", "@shown")]))
    keys = []
    for part in STACK:
        there, colour = source(data, part, ("at",)), colour_of(part)
        sign = fig.vbar(x="at", top=0, width=0, source=there, fill_color=colour, line_color=None, visible=False)
        keys.append(Key(_short(part), "box", colour, (sign,)))
    fig.add_layout(
        bk.LabelSet(
            x="at", y="value", text="text", source=source(data, "totals", POINT), text_font_size="11px", text_color=INK,
            text_align="center", y_offset=4,
        )
    )  # fmt: skip
    fig.xaxis.ticker = bk.FixedTicker(ticks=list(range(CHOSEN + 1)))
    fig.xaxis.major_label_overrides = {**{i: spaced(n) for i, n in enumerate(BARS)}, CHOSEN: tr("Your choice")}
    fig.yaxis.ticker = bk.FixedTicker(ticks=[0, 25, 50, 75, 100])
    fig.xaxis.axis_label, fig.yaxis.axis_label = tr("Accelerators"), tr("% of a step")
    return Chart(
        "parts",
        dress(fig),
        tr(_EMPTY),
        tr("Parts of a step over accelerators"),
        tr("What a step consists of"),
        tuple(keys),
    )


def time_chart(data: Mapping[str, Columns]) -> Chart:
    """Draw the time to train over accelerators, with the time if all of them were used perfectly.

    Args:
        data: Sources `time`, `ideal` (at, value), `chosen` (at, value, text), and `span`; in days.
    """
    fig = canvas(170, y_range=follow(data, 1, 1000), x_range=bk.Range1d(*X_RANGE), x_axis_type="log", y_axis_type="log")
    ideal = fig.line("at", "value", source=source(data, "ideal", LINE), line_color=INK, line_dash="5 4", line_width=1.2)
    ideal.glyph.tags = [INK_TAG]
    line = fig.line("at", "value", source=source(data, "time", LINE), line_color=PREDICTED, line_width=2.5)
    fig.add_tools(
        bk.HoverTool(
            renderers=[line], mode="vline", tooltips=[_place(), (tr("Time to train"), "@value{0,0.0} " + tr("days"))]
        )
    )
    fig.yaxis.axis_label = tr("days")
    fig.yaxis.formatter = bk.NumeralTickFormatter(format="0,0.[00]")
    fig.yaxis.ticker.desired_num_ticks = 4
    keys = (
        Key(tr("Predicted"), "line", PREDICTED, (line,)),
        Key(tr("Ideal"), "dash", INK, (ideal,)),
        _chosen(fig, data),
    )
    return _over_accelerators("time", fig, tr("Time to train"), keys)


def goodput_chart(data: Mapping[str, Columns]) -> Chart:
    """Draw the share of time that is useful steps over accelerators, and the share of a step that is computation.

    Args:
        data: Sources `goodput`, `busy` (at, value), `chosen`; in percent.
    """
    fig = canvas(170, y_range=bk.Range1d(0, 104), x_range=bk.Range1d(*X_RANGE), x_axis_type="log")
    line = fig.line("at", "value", source=source(data, "goodput", LINE), line_color=PREDICTED, line_width=2.5)
    busy = fig.line(
        "at",
        "value",
        source=source(data, "busy", LINE),
        line_color=part_colour("compute"),
        line_width=2,
        line_dash="6 3",
    )
    fig.add_tools(bk.HoverTool(renderers=[line], mode="vline", tooltips=[_place(), (tr("Goodput"), "@value{0.0} %")]))
    fig.add_tools(
        bk.HoverTool(renderers=[busy], tooltips=[_place(), (tr("Compute"), "@value{0.0} " + tr("% of a step"))])
    )
    fig.yaxis.axis_label = "%"
    fig.yaxis.ticker = bk.FixedTicker(ticks=[0, 25, 50, 75, 100])
    keys = (
        Key(tr("Goodput, of the time"), "line", PREDICTED, (line,)),
        Key(tr("Compute, of a step"), "dash", part_colour("compute"), (busy,)),
        _chosen(fig, data),
    )
    return _over_accelerators("goodput", fig, tr("What is useful"), keys)


def record_chart(data: Mapping[str, Columns]) -> Chart:
    """Draw utilisation over accelerators: the model for this plan, and published runs near it as hollow diamonds.

    Args:
        data: Sources `mfu` (at, value), `published` (RECORD_COLUMNS), `chosen`; in percent.
    """
    fig = canvas(220, y_range=bk.Range1d(0, 80), x_range=bk.Range1d(*X_RANGE), x_axis_type="log")
    line = fig.line("at", "value", source=source(data, "mfu", LINE), line_color=PREDICTED, line_width=2.5)
    rows = fig.scatter(
        "at", "value", source=source(data, "published", RECORD_COLUMNS), marker="diamond", size=13, fill_color=None,
        line_color=PUBLISHED, line_width=1.8,
    )  # fmt: skip
    tips = [
        ("", "@model"), ("", "@where"), (tr("Utilisation"), "@value{0.0} %"), (tr("Printed"), "@printed"), (tr("Source"), "@source"),
    ]  # fmt: skip
    fig.add_tools(
        bk.HoverTool(renderers=[rows], tooltips=tips),
        bk.HoverTool(renderers=[line], tooltips=[_place(), (tr("Model"), "@value{0.0} %")]),
    )
    fig.yaxis.axis_label = tr("% of peak")
    fig.yaxis.ticker = bk.FixedTicker(ticks=[0, 20, 40, 60, 80])
    keys = (
        Key(tr("Predicted"), "line", PREDICTED, (line,)),
        Key(tr("Published"), "diamond", PUBLISHED, (rows,)),
        _chosen(fig, data),
    )
    return _over_accelerators("record", fig, tr("Model FLOP utilisation"), keys)


def _over_accelerators(name: str, fig: Any, title: str, keys: tuple[Key, ...]) -> Chart:
    fig.xaxis.axis_label = tr("Accelerators")
    fig.xaxis.ticker = bk.FixedTicker(ticks=list(BARS))
    fig.xaxis.major_label_overrides = {n: f"{n / 1000:.0f}k" if n >= 1000 else str(n) for n in BARS}
    return Chart(name, dress(fig), tr(_EMPTY), tr("{quantity} over accelerators", quantity=title), title, keys)


def _chosen(fig: Any, data: Mapping[str, Columns]) -> Key:
    dot = fig.scatter(
        "at",
        "value",
        source=source(data, "chosen", POINT),
        marker="square",  # round is what was measured
        size=9,
        fill_color=PREDICTED,
        line_color="white",
        line_width=1,
    )
    dot.glyph.tags = [PAPER_TAG]
    fig.add_tools(bk.HoverTool(renderers=[dot], tooltips=[(tr("Your choice"), "@text")]))
    return Key(tr("Your choice"), "square", PREDICTED, (dot,))


CHARTS = {"parts": parts_chart, "time": time_chart, "goodput": goodput_chart, "record": record_chart}
_EMPTY = N_("Nothing to draw yet: choose a plan that can run.")


def _place() -> tuple[str, str]:
    return tr("Accelerators"), "@at{0,0}"


def columns(p: Picture) -> dict[str, dict[str, Columns]]:
    """Return the data of every chart by its name: its sources, and `span` where its y axis moves."""
    bars, curve = p.bars, p.curve
    busy = curve["compute_time_s"] / curve["step_time_s"] * 100
    days = curve["train_time_s"] / DAY_S
    found: dict[str, dict[str, Columns]] = {
        "parts": _stacked(bars),
        "time": {"time": _line(curve, days), "ideal": _ideal(curve, days), "chosen": _point(p, "train_time_s", 1 / DAY_S)},
        "goodput": {
            "goodput": _line(curve, curve["training_goodput_frac"] * 100), "busy": _line(curve, busy),
            "chosen": _point(p, "training_goodput_frac", 100),
        },
    }  # fmt: skip
    known = days[np.isfinite(days)]
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 100.0)
    found["time"]["span"] = {"start": low / 2.5, "end": high * 2}
    mfu = {"mfu": _line(curve, curve["mfu"] * 100), "chosen": _point(p, "mfu", 100)} if "mfu" in curve.values else {}
    empty: Columns = {c: np.array([]) for c in LINE}
    found["record"] = {"mfu": empty, "chosen": {**empty, "text": []}, **mfu, "published": _published(p)}
    return found


def _stacked(bars: ScaleAnswer) -> dict[str, Columns]:
    total = bars["step_time_s"]
    fits = np.isfinite(total)
    at = np.arange(len(total), dtype=float)
    bottom = np.zeros(len(total))
    drawn: dict[str, list[Any]] = {c: [] for c in BAR_COLUMNS}
    found: dict[str, Columns] = {}
    for part in STACK:
        value = bars[part] if part in bars.values else np.zeros(len(total))
        top = bottom + np.where(fits, value / total * 100, 0)
        some = np.flatnonzero(fits & (top > bottom))
        for i in some:
            shown = tr("{time}, {share:.1%} of the step", time=show("s", float(value[i])), share=value[i] / total[i])
            cells = (at[i], bottom[i], top[i], colour_of(part), quantity(part).label, shown)
            for column, cell in zip(BAR_COLUMNS, cells, strict=True):
                drawn[column].append(cell)
        found[part] = {"at": np.zeros(min(1, len(some)))}
        bottom = top
    found["bars"] = {c: np.array(v, float) if c in ("at", "bottom", "top") else v for c, v in drawn.items()}
    text = [
        show("s", float(t)) if ok else tr("needs {count}", count=spaced(bars.least))
        for t, ok in zip(total, fits, strict=True)
    ]
    found["totals"] = {"at": at, "value": np.where(fits, 100.0, 0.0), "text": text}
    return found


def _line(curve: ScaleAnswer, values: Any) -> Columns:
    known = np.isfinite(values)
    return {"at": curve.accelerators[known], "value": np.asarray(values)[known]}


def _ideal(curve: ScaleAnswer, days: Any) -> Columns:
    """Return the time if it went on falling as from the fewest accelerators that do."""
    known = np.flatnonzero(np.isfinite(days))
    if not known.size:
        return {c: np.array([]) for c in LINE}
    at = curve.accelerators[known]
    return {"at": at, "value": days[known[0]] * curve.used[known[0]] / at}


def _point(p: Picture, name: str, factor: float) -> Columns:
    value = float(p.bars[name][CHOSEN]) * factor
    if not np.isfinite(value):
        return {"at": np.array([]), "value": np.array([]), "text": []}
    return {
        "at": np.array([float(p.fields.accelerators)]), "value": np.array([value]),
        "text": [tr("{count} accelerators: {value:.3g}", count=spaced(p.fields.accelerators), value=value)],
    }  # fmt: skip


def _published(p: Picture) -> Columns:
    runs = p.record
    return {
        "at": np.array([float(r.accelerators) for r in runs]),
        "value": np.array([100 * (r.mfu or 0) for r in runs]),
        "model": [r.model for r in runs],
        "where": [f"{spaced(r.accelerators)} × {r.accelerator}" for r in runs],
        "printed": [f"{r.printed} ({r.metric}, {r.origin})" for r in runs],
        "source": [r.source for r in runs],
    }


def spaced(count: float) -> str:
    """Return a count with a thin space between thousands."""
    return f"{int(count):,}".replace(",", "\u2009")


def _short(part: str) -> str:
    label = quantity(part).label
    return (label.partition(": ")[2] or label.partition("：")[2] or label).capitalize()
