"""The figure of a claim: what it says, what the right model says, and what was measured, on the same axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..claims.claim import Claim, Evidence, Measurement
from ..claims.units import said
from ..texts import told, tr
from .figures import Axis, Chart, Columns, Key, axis_for, bk, canvas, follow, source
from .figures_compared import CURVE_COLUMNS, POINT_COLUMNS
from .theme import INK, INK_TAG, MEASURED, PAPER_TAG, PREDICTED, dress

Array = np.ndarray[Any, np.dtype[np.float64]]
#: The y axis ends so far above what was measured, or above the middle of the right model, where the claim leaves the figure.
MEASURED_ROOM, RIGHT_ROOM = 1.4, 3.0
_SCALES = {
    "B": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "m": ((1e3, "km"), (1.0, "m")),
    "1": ((1.0, ""),),
}


def axes_of(claim: Claim, values: Mapping[str, float], at: Array, ys: Array) -> tuple[Axis, Axis]:
    """Return how x and y are drawn."""
    axes, unit = claim.axes, next(i.unit for i in claim.inputs if i.name == claim.axes.swept)
    most = float(np.max(at))
    if axes.share_of:
        x = Axis(100 / values[axes.share_of], "%")
    elif unit in _SCALES:
        scale, name = next(((s, n) for s, n in _SCALES[unit] if most >= s), _SCALES[unit][-1])
        x = Axis(1 / scale, name)
    else:
        x = axis_for(unit, most)
    if axes.swept.endswith("_frac"):
        x = axis_for("frac")
    finite = ys[np.isfinite(ys)]
    return x, axis_for(axes.y_unit, float(np.median(finite)) if finite.size else 1.0)


def columns(claim: Claim, values: Mapping[str, float], found: Evidence | None) -> tuple[dict[str, Columns], Axis, Axis]:
    """Return the data of every source of the figure, with `span` of the y axis, and the axes.

    Args:
        claim: Which.
        values: Of every input, base units; the swept one is replaced.
        found: What was measured, if anything.
    """
    at = np.asarray(claim.axes.at(**values), dtype=float)
    if found:
        at = np.unique(np.concatenate([at, [p.at for p in found.points]]))
    said_there = _over(claim.axes.says, claim, values, at)
    right = {k: _over(claim.axes.right, claim, values, at) for k in ("value", "low", "high")}
    right_at = at
    if found and found.curve:
        right_at, right = np.array(found.curve.at), {k: np.array(getattr(found.curve, k)) for k in right}
    points = list(found.points) if found else []
    x, y = axes_of(claim, values, at, np.array([p.value for p in points] or right["value"]))
    data: dict[str, Columns] = {
        "claim": {"at": at * x.factor, "value": _seen(said_there * y.factor, claim.axes.log)},
        "right": {"at": right_at * x.factor, **{k: _seen(v * y.factor, claim.axes.log) for k, v in right.items()}},
    }
    for name, label in zip(("points", "more"), (*claim.axes.ways, None), strict=False):
        data[name] = _dots(claim, [p for p in points if p.label == label], x, y)
    data["span"] = _span(claim, data)
    return data, x, y


def _over(model: Any, claim: Claim, values: Mapping[str, float], at: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.array([float(model(**{**values, claim.axes.swept: v})) for v in at])


def _seen(values: Array, log: bool) -> Array:
    """Return values with gaps where there is nothing to draw."""
    return np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)


def _dots(claim: Claim, points: list[Measurement], x: Axis, y: Axis) -> Columns:
    found: dict[str, Any] = {"at": np.array([p.at * x.factor for p in points], float)}
    for column in ("value", "low", "high"):
        found[column] = np.array([getattr(p, column) * y.factor for p in points], float)
    found["text"] = [
        (told(p.label) + ", " if p.label else "")
        + tr("{count} samples, whiskers: {interval}", count=p.n, interval=tr(p.interval))
        for p in points
    ]
    return found


def _span(claim: Claim, data: Mapping[str, Columns]) -> Columns:
    """Return where the y axis begins and ends: all of it, but a claim that runs away leaves through the top."""
    lines = [np.asarray(data[s]["value"], dtype=float) for s in ("claim", "right")]
    dots = [np.asarray(data[s]["high"], dtype=float) for s in ("points", "more")]
    known = np.concatenate([v[np.isfinite(v)] for v in (*lines, *dots)] or [np.ones(1)])
    known = known if known.size else np.ones(1)
    if claim.axes.log:
        return {"start": float(known.min()) / 1.6, "end": float(known.max()) * 1.6}
    measured = max((float(v.max()) for v in dots if v.size), default=0.0)
    right = lines[1][np.isfinite(lines[1])]
    wanted = max(MEASURED_ROOM * measured, RIGHT_ROOM * float(np.median(right)) if right.size else 0.0)
    return {"start": 0.0, "end": 1.08 * min(float(known.max()), wanted or float(known.max())) or 1.0}


def claim_chart(claim: Claim, data: Mapping[str, Columns], x: Axis, y: Axis) -> Chart:
    """Draw a claim dashed, the right model as line and band, measured points with whiskers.

    Args:
        claim: Names the axes.
        data: From `columns`; empty where a live view fills it.
        x, y: The axes.
    """
    axes = claim.axes
    more = {"y_axis_type": "log"} if axes.log else {}
    fig = canvas(260, y_range=follow(data, 0.1 if axes.log else 0, 1), **more)
    printed = fig.line(
        "at", "value", source=source(data, "claim", ("at", "value")), line_color=INK, line_dash="6 4", line_width=2
    )
    printed.glyph.tags = [INK_TAG]
    right = source(data, "right", CURVE_COLUMNS)
    band = fig.varea("at", "low", "high", source=right, fill_color=PREDICTED, fill_alpha=0.18)
    line = fig.line("at", "value", source=right, line_color=PREDICTED, line_width=2.5)
    dots = [_points(fig, data, "points", "circle"), _points(fig, data, "more", "square")]
    label, y_label = tr(axes.label), tr(axes.y_label)
    place, value = (label, f"@at{{0.[000]}} {x.unit}".rstrip()), f"@value{{0.[0000]}} {y.unit}".rstrip()
    fig.add_tools(
        bk.HoverTool(renderers=dots, tooltips=[(tr("Measured"), value), place, ("", "@text")]),
        bk.HoverTool(renderers=[printed], tooltips=[place, (tr("As printed"), value)]),
        bk.HoverTool(renderers=[line], tooltips=[place, (tr("Right model"), value)]),
    )
    fig.xaxis.axis_label = f"{label} ({x.unit})" if x.unit else label
    fig.yaxis.axis_label = y.label(y_label)
    if not axes.log:
        fig.yaxis.ticker.desired_num_ticks = 5
    keys = (
        Key(tr("As printed"), "dash", INK, (printed,)),
        Key(tr(claim.right_name), "band", PREDICTED, (line, band)),
        *(Key(_way(w), "dot", MEASURED, (d,)) for w, d in zip(axes.ways, dots, strict=False)),
    )
    return Chart(claim.id, dress(fig), "", tr("{quantity} over {swept}", quantity=y_label, swept=label), y_label, keys)


def _way(label: str) -> str:
    return tr("Measured, {what}", what=told(label)) if label else tr("Measured")


def _points(fig: Any, data: Mapping[str, Columns], name: str, marker: str) -> Any:
    points = source(data, name, POINT_COLUMNS)
    bars = bk.Whisker(base="at", lower="low", upper="high", source=points, line_color=MEASURED, line_width=1.5)
    bars.upper_head.size = bars.lower_head.size = 8
    bars.upper_head.line_color = bars.lower_head.line_color = MEASURED
    fig.add_layout(bars)
    dots = fig.scatter(
        "at", "value", source=points, size=9, marker=marker, fill_color=MEASURED, line_color="white", line_width=1
    )
    dots.glyph.tags = [PAPER_TAG]
    return dots


def in_words(claim: Claim, found: Evidence | None) -> str:
    """Say what the figure shows, for somebody who does not see it."""
    axes = claim.axes
    if found is None:
        return tr(
            "{quantity} over {swept}: as printed, and by {model}; nothing measured",
            quantity=tr(axes.y_label), swept=tr(axes.label), model=tr(claim.right_name),
        )  # fmt: skip
    places = "; ".join(f"{said(p.value, axes.y_unit)} ({told(p.label) or f'n {p.n}'})" for p in found.points)
    return tr(
        "{quantity} over {swept}: as printed, by {model}, and measured {places}",
        quantity=tr(axes.y_label), swept=tr(axes.label), model=tr(claim.right_name), places=places,
    )  # fmt: skip
