"""From a run to the columns that figures draw. Pure: numbers in, columns out, in the units of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..comparison import Comparison
from ..quantities import QUANTITIES, Value, quantity, show
from ..runs.reader import Event, Segment
from ..texts import N_, tr
from .figures import Axis, Columns
from .figures_compared import BAR_COLUMNS
from .words import difference

#: How opaque a predicted bar is, beside a measured one of the same colour.
PREDICTED_ALPHA = 0.35
#: Share of the axis that one character of a mark takes, in a chart of full width.
MARK_ROOM = 0.016


def marks(segments: Sequence[Segment], last_tick: float, narrow: bool = False) -> Columns:
    """Return where segments begin and what changed there; a text without room is left out, its line stays.

    Args:
        segments: Oldest first.
        last_tick: Where the axis ends.
        narrow: The chart has a third of the width.
    """
    room = max(last_tick - (segments[0].first_tick if segments else 0), 1) * MARK_ROOM * (2.8 if narrow else 1.0)
    text: list[str] = []
    for i, s in enumerate(segments):
        following = segments[i + 1].first_tick if i + 1 < len(segments) else last_tick
        words = difference(segments[i - 1].spec if i else None, s.spec)
        text.append(words if following - s.first_tick >= room * len(words) else "")
    return {"tick": np.array([s.first_tick for s in segments], float), "text": text}


def predicted(segments: Sequence[Segment], name: str, axis: Axis, last_tick: float) -> Columns:
    """Return the prediction of quantity `name` for each segment that has one, over the ticks it holds for."""
    rows = []
    for i, s in enumerate(segments):
        value = s.prediction.values.get(name) if s.prediction else None
        if value is None or value.value is None:
            continue
        right = segments[i + 1].first_tick if i + 1 < len(segments) else max(last_tick, s.first_tick + 1)
        low, high = (value.value if b is None else b for b in (value.low, value.high))
        rows.append((s.first_tick, right, *(float(v) * axis.factor for v in (value.value, low, high))))
    table = np.array(rows, float).reshape(-1, 5)
    return {n: table[:, i] for i, n in enumerate(("left", "right", "value", "low", "high"))}


def moments(events: Sequence[Event], name: str, axis: Axis) -> Columns:
    """Return the ticks at which an event carries quantity `name`, and its values."""
    rows = [(e["tick"], e[name] * axis.factor) for e in events if e.get(name) is not None and e.get("tick") is not None]
    table = np.array(rows, float).reshape(-1, 2)
    return {"tick": table[:, 0], "value": table[:, 1]}


def beside(name: str, events: Sequence[Event]) -> str:
    """Return the quantity of these events that belongs on the chart of `name` (`held_out_loss` on `loss`), or ""."""
    fields = dict.fromkeys(f for e in events for f in e)
    return next((f for f in fields if is_beside(f, name)), "")


def is_beside(field: str, name: str) -> bool:
    """Whether `field` is quantity `name` of something special: the same unit, and a name that ends with it."""
    return field in QUANTITIES and field.endswith("_" + name) and quantity(field).unit == quantity(name).unit


def bars(comparison: Comparison | None, parts: Sequence[str], axis: Axis) -> Columns:
    """Return the parts of one segment end to end: row 1 as predicted, row 0 as measured; and for each part its own widths."""
    columns: dict[str, list[Any]] = {c: [] for c in (*BAR_COLUMNS, *parts)}
    for row, side in ((1, N_("predicted")), (0, N_("measured"))):
        at = 0.0
        for part in parts:
            found = comparison.row(part) if comparison else None
            value: Value | None = getattr(found, side) if found else None
            if value is None or not value.value:
                continue
            width = float(value.value) * axis.factor
            method = tr("{value} {method}", value=show(part, value.value), method=tr(side))
            shown = f"{quantity(part).label}: {method}"
            cells = (float(row), at, at + width, part, shown, PREDICTED_ALPHA if row else 1.0)
            widths = (width if part == p else 0.0 for p in parts)
            for column, cell in zip(columns, (*cells, *widths), strict=True):
                columns[column].append(cell)
            at += width
    return {k: v if k in {"part", "shown"} else np.array(v, float) for k, v in columns.items()}
