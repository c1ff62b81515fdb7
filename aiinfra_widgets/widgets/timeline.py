"""A record of intervals as bars in lanes: what was measured in front, what was predicted behind it. Numbers in, columns out.

Here is the view of a whole run; a timeline with frames shows one tick, see `timeline_frame`.
The record may hold an interval twice: when it begins (its end is not known) and again when it has ended; the later row counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..experiment import Timeline
from ..quantities import Prediction, show
from ..runs.reader import Segment
from ..texts import tr
from . import timeline_frame
from .figures import Axis, Chart, Columns, Key, axis_for, bk, canvas, follow, mark_segments, source
from .theme import INK, INK_TAG, LABELS, PAPER_TAG, dark, dress
from .timeline_frame import stretch
from .words import difference, lowered, plural

if TYPE_CHECKING:
    import pandas as pd

#: At most so many measured and so many predicted bars are drawn.
BARS = 300
#: Rows of the record that are looked at: an interval may take two.
ROWS = 2 * BARS
#: Rows from which the clock of the record is read.
CLOCK_ROWS = 50
#: Share of the axis that one character in a bar takes, and the number of lanes up to which a bar has room for text.
CHARACTER, WORDY_LANES = 0.011, 16
#: Height of a bar, and of the frame of what was predicted, in lanes.
BAR, FRAME = 0.52, 0.86

BAR_COLUMNS = ("lane", "left", "right", "middle", "text", "colour", "ink", "name", "place", "measured", "predicted")
GHOST_COLUMNS = ("lane", "left", "right", "colour", "name", "place", "predicted")
#: Lane, label, start, end: one row for each interval.
Table = np.ndarray[Any, np.dtype[np.float64]]


def timeline_chart(timeline: Timeline, data: Mapping[str, Columns], axis: Axis, tick: str = "tick") -> Chart:
    """Draw intervals in lanes over the time of the run, or of one tick where the timeline has frames.

    Args:
        timeline: Names lanes and bars.
        data: Sources `bars`, `ghosts`, `now` (at), `marks` (tick, text), `left_out` (text, x, y), and `span` (start, end) of the lanes.
        axis: Of the time.
        tick: What one tick is called.
    """
    if timeline.frame:
        return timeline_frame.chart(timeline, data, axis, tick)
    fig = canvas(210, y_range=follow(data, 1.5, -0.5))
    shape: dict[str, Any] = {"y": "lane", "left": "left", "right": "right"}
    ghosts = fig.hbar(
        **shape, height=FRAME, source=source(data, "ghosts", GHOST_COLUMNS), fill_color="colour", fill_alpha=0.14,
        line_color="colour", line_alpha=0.7, line_width=1,
    )  # fmt: skip
    src = source(data, "bars", BAR_COLUMNS)
    bars = fig.hbar(**shape, height=BAR, source=src, fill_color="colour", line_color="white", line_width=1)
    bars.glyph.tags = [PAPER_TAG]
    fig.text(
        "middle", "lane", text="text", source=src, text_color="ink", text_font_size="11px", text_align="center",
        text_baseline="middle",
    )  # fmt: skip
    now = fig.vspan("at", source=source(data, "now", ("at",)), line_color=INK, line_width=1.2)
    now.glyph.tags = [INK_TAG]
    mark_segments(fig, data)
    fig.add_layout(
        bk.LabelSet(
            x="x", y="y", x_units="screen", y_units="screen", text="text", source=source(data, "left_out", ("text", "x", "y")),
            text_font_size="11px", text_color=INK,
        )
    )  # fmt: skip
    place = (tr(timeline.lanes), "@place")
    fig.add_tools(
        bk.HoverTool(
            renderers=[bars],
            tooltips=[
                (tr(timeline.bars), "@name"),
                place,
                (tr("Measured"), "@measured"),
                (tr("Predicted"), "@predicted"),
            ],
        ),
        bk.HoverTool(
            renderers=[ghosts],
            tooltips=[(tr(timeline.bars), "@name"), place, (tr("Predicted"), "@predicted")],
            attachment="below",
        ),
    )
    fig.xaxis.axis_label, fig.yaxis.axis_label = tr("Time ({unit})", unit=axis.unit), tr(timeline.lanes)
    fig.yaxis.ticker = bk.BasicTicker(min_interval=1, num_minor_ticks=0)
    fig.ygrid.grid_line_color = None
    keys = (
        Key(tr("Measured"), "box", LABELS[0], (bars,)),
        Key(tr("Predicted"), "frame", LABELS[0], (ghosts,)),
    )
    things = lowered(plural(timeline.bars))
    title = tr("{things} by {lanes}", things=plural(timeline.bars), lanes=lowered(tr(timeline.lanes)))
    empty = tr("The {things} appear here, as they begin and end.", things=things)
    return Chart("timeline", dress(fig), empty, tr("{title}, over time", title=title), title, keys)


def columns(
    timeline: Timeline,
    rows: pd.DataFrame,
    segments: Sequence[Segment],
    last_s: float,
    axis: Axis,
    *,
    going: bool,
    tick: str = "tick",
) -> dict[str, Columns]:
    """Return the sources of `timeline_chart`.

    Args:
        timeline: Which columns of the record.
        rows: The record, in the order in which it was written.
        segments: Oldest first; the first one's prediction is drawn.
        last_s: Monotonic time of the newest sample: what is still open lasts until then.
        axis: Of the time.
        going: The run goes on.
        tick: What one tick is called.
    """
    if timeline.frame:
        return timeline_frame.columns(timeline, rows, segments, axis, tick)
    first = segments[0].prediction if segments else None
    planned = _planned(timeline, first.extra.get(timeline.record) if first else None)
    recent = rows.iloc[-ROWS:]
    bars = _newest(_table(timeline, recent))
    lag_s = _clock(timeline, recent, segments)
    now = max(last_s - lag_s, *(float(np.nanmax(c)) for c in (bars[:, 2], bars[:, 3]) if np.isfinite(c).any()), 0.0)
    opened = np.isnan(bars[:, 3])
    bars[opened, 3] = np.maximum(now, bars[opened, 2])
    left_out = len(rows) > ROWS or len(bars) > BARS
    bars = bars[-BARS:] if len(bars) else bars
    begins = float(bars[:, 2].min()) if left_out and len(bars) else -np.inf
    ahead = planned[planned[:, 3] >= begins]
    cut = len(ahead) > BARS
    ghosts = ahead[:BARS]
    ends = [float(t[:, 3].max()) for t in (bars, ghosts) if len(t)]
    width = max([*ends, now]) - max(begins, 0.0)
    found = {
        "bars": _bars(timeline, bars, opened[-len(bars) :] if len(bars) else opened, planned, width, axis),
        "ghosts": _ghosts(timeline, ghosts, axis),
        "now": {"at": np.array([now * axis.factor] if going and len(bars) else [], float)},
        "marks": _marks(segments, lag_s, width, begins, axis),
        "left_out": _left_out(timeline, left_out, cut),
    }
    lanes = np.concatenate([bars[:, 0], ghosts[:, 0]])
    low, high = (float(lanes.min()), float(lanes.max())) if len(lanes) else (0.0, 1.0)
    found["span"] = {"start": high + 0.55, "end": low - 0.55 - min(0.12 * (high - low + 1), 0.4)}
    return found


def length_s(timeline: Timeline, prediction: Prediction | None) -> float:
    """Return how long the run, or the one tick that is drawn, will take by its prediction; 0 where that says nothing."""
    if timeline.frame:
        planned = timeline_frame.predicted_frame(timeline, prediction)
    else:
        planned = _planned(timeline, prediction.extra.get(timeline.record) if prediction else None)
    return float(planned[:, 3].max()) if len(planned) else 0.0


def axis_of(timeline: Timeline, prediction: Prediction | None) -> Axis:
    """Return the unit of time that suits what is drawn: seconds or more for a run, whatever a tick takes for a frame."""
    return axis_for("s", max(length_s(timeline, prediction), 0.0 if timeline.frame else 2.0))


def words(timeline: Timeline, found: Mapping[str, Columns]) -> str:
    """Say what the chart shows, for somebody who does not see it."""
    if timeline.frame:
        return timeline_frame.words(timeline, found)
    shown, planned = len(found["bars"]["lane"]), len(found["ghosts"]["lane"])
    return timeline_frame.counts(timeline, shown, planned)


def _table(timeline: Timeline, rows: Mapping[str, Any] | pd.DataFrame) -> Table:
    names = (timeline.lane, timeline.label, timeline.start, timeline.end)
    table = np.array([np.asarray(rows[n], dtype=float) for n in names]).T.reshape(-1, 4)
    return np.asarray(table[np.isfinite(table[:, :3]).all(axis=1)])


def _planned(timeline: Timeline, given: Mapping[str, Any] | None) -> Table:
    """Return what was predicted, by start; without the intervals whose end nobody knows."""
    table = _table(timeline, given) if given else np.empty((0, 4))
    table = table[np.isfinite(table[:, 3])]
    return table[np.argsort(table[:, 2], kind="stable")]


def _newest(table: Table) -> Table:
    """Return each interval once, as its last row has it, by start."""
    last = {(row[0], row[1], row[2]): row for row in table}
    found = np.array(list(last.values())).reshape(-1, 4)
    return found[np.argsort(found[:, 2], kind="stable")]


def _clock(timeline: Timeline, rows: pd.DataFrame, segments: Sequence[Segment]) -> float:
    """Return how much the monotonic clock is ahead of the record's: a row is written when it begins or ends, or soon after."""
    tail = rows.iloc[-CLOCK_ROWS:]
    if tail.empty:
        return segments[0].t_s if segments else 0.0
    times = np.fmax(tail[timeline.start].to_numpy(float), tail[timeline.end].to_numpy(float))
    return float(np.nanmin(tail["t_s"].to_numpy(float) - times))


def _bars(timeline: Timeline, table: Table, opened: Any, planned: Table, width: float, axis: Axis) -> Columns:
    expected = _ranges(planned[np.isin(planned[:, 1], table[:, 1])])
    wordy = len(np.unique(table[:, 0])) <= WORDY_LANES
    found: dict[str, Any] = _shapes(timeline, table, axis)
    found["middle"] = (found["left"] + found["right"]) / 2
    texts = [f"{label:g}" for label in table[:, 1]]
    room = (table[:, 3] - table[:, 2]) / max(width, 1e-9)
    found["text"] = [t if wordy and r >= CHARACTER * (len(t) + 1) else "" for t, r in zip(texts, room, strict=True)]
    found["ink"] = ["#ffffff" if dark(c) else "#111111" for c in found["colour"]]
    found["measured"] = [
        tr("since {time}", time=show("s", start)) if still else stretch(start, end)
        for (start, end), still in zip(table[:, 2:], opened, strict=True)
    ]
    found["predicted"] = [
        stretch(*expected[label]) if label in expected else tr("not predicted") for label in table[:, 1]
    ]
    return found


def _ghosts(timeline: Timeline, table: Table, axis: Axis) -> Columns:
    found: dict[str, Any] = _shapes(timeline, table, axis)
    found["predicted"] = [stretch(start, end) for start, end in table[:, 2:]]
    return found


def _shapes(timeline: Timeline, table: Table, axis: Axis) -> dict[str, Any]:
    return {
        "lane": table[:, 0], "left": table[:, 2] * axis.factor, "right": table[:, 3] * axis.factor,
        "colour": [LABELS[int(label) % len(LABELS)] for label in table[:, 1]],
        "name": [f"{label:g}" for label in table[:, 1]], "place": [f"{lane:g}" for lane in table[:, 0]],
    }  # fmt: skip


def _ranges(table: Table) -> dict[float, tuple[float, float]]:
    """Return when each label begins first and ends last."""
    found: dict[float, tuple[float, float]] = {}
    for _, label, start, end in table:
        low, high = found.get(label, (start, end))
        found[label] = (min(low, start), max(high, end))
    return found


def _marks(segments: Sequence[Segment], lag_s: float, width: float, begins: float, axis: Axis) -> Columns:
    """Return where segments began and what changed there; a text without room is left out."""
    at, text = [], []
    for i, s in enumerate(segments[1:], 1):
        when = s.t_s - lag_s
        if when < begins:
            continue
        following = segments[i + 1].t_s - lag_s if i + 1 < len(segments) else np.inf
        change = difference(segments[i - 1].spec, s.spec)
        at.append(when * axis.factor)
        text.append(change if following - when >= CHARACTER * width * len(change) else "")
    return {"tick": np.array(at, float), "text": text}


def _left_out(timeline: Timeline, measured: bool, predicted: bool) -> Columns:
    said = []
    if measured:
        said.append(tr("the newest {count} intervals; earlier ones are left out", count=BARS))
    if predicted:
        said.append(tr("the next {count} that were predicted", count=BARS))
    return {
        "text": [tr("Shown: {what}", what=tr(", and ").join(said))] if said else [],
        "x": np.array([4.0] * bool(said)), "y": np.array([4.0] * bool(said)),
    }  # fmt: skip
