"""One tick as bars in lanes: what was measured above, what was predicted right below it, coloured by kind of work.

The newest tick of the newest segment that every lane has written is drawn. Times count from its beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import CDSView, GroupFilter

from ..experiment import Timeline
from ..quantities import Prediction, show
from ..runs.reader import Segment
from ..texts import tr
from .figures import Axis, Chart, Columns, Key, bk, canvas, follow, source
from .terms import PART_HELP, WORDS
from .theme import INK, LABELS, PAPER_TAG, dark, dress, part_colour
from .words import lowered, plural

if TYPE_CHECKING:
    import pandas as pd

#: At most so many measured and so many predicted bars are drawn.
BARS = 2000
#: Newest rows of the record that are looked at: several ticks, even of many ranks.
ROWS = 20_000
#: Centre and height of a measured and of a predicted bar, in lanes; the first lane is on top.
MEASURED, PREDICTED = (-0.13, 0.48), (0.27, 0.2)
#: Share of the axis that one character in a bar takes, and the number of lanes up to which a bar has room for text.
CHARACTER, WORDY_LANES = 0.0095, 10
#: Pixels of the frame, and of the words above the first lane that say which tick it is.
HEIGHT, CAPTION = 260, 16
#: Parts in which nothing is done, and how opaque a measured and a predicted bar are, of these and of work.
IDLE = ("bubble", "wait")
OPAQUE = {True: (0.4, 0.2), False: (1.0, 0.4)}
#: The lightest and the darkest shade of kinds that belong to one part.
LIGHT, DARK = 0.35, 0.45

COLUMNS = (
    "lane", "left", "right", "middle", "text", "colour", "alpha", "ink", "name", "place", "detail", "measured", "predicted",
)  # fmt: skip
#: Lane, kind, start, end, detail: one row for each interval.
Table = np.ndarray[Any, np.dtype[np.float64]]


def chart(timeline: Timeline, data: Mapping[str, Columns], axis: Axis, tick: str) -> Chart:
    """Draw one tick.

    Args:
        timeline: Names lanes, bars and kinds.
        data: Sources `bars`, `ghosts`, `caption` (text, x, y: which tick, and what is left out), and `span` (start, end) of the lanes.
        axis: Of the time.
        tick: What one tick is called.
    """
    fig = canvas(HEIGHT, y_range=follow(data, 1.5, -0.5))
    shape: dict[str, Any] = {"y": "lane", "left": "left", "right": "right"}
    bars, ghosts = source(data, "bars", COLUMNS), source(data, "ghosts", COLUMNS)
    known = {*bars.data["name"], *ghosts.data["name"]}
    drawn: dict[str, Any] = {}
    for (name, part), colour in zip(timeline.kinds, colours(timeline), strict=True):
        view = CDSView(filter=GroupFilter(column_name="name", group=name))
        drawn[name] = fig.hbar(
            **shape, height=MEASURED[1], source=bars, view=view, fill_color=colour, fill_alpha=OPAQUE[part in IDLE][0],
            line_color="white", line_width=0.6,
        )  # fmt: skip
        drawn[name].glyph.tags = [PAPER_TAG]
    below = fig.hbar(
        **shape, height=PREDICTED[1], source=ghosts, fill_color="colour", fill_alpha="alpha", line_color="colour", line_width=0.8
    )  # fmt: skip
    fig.text(
        "middle", "lane", text="text", source=bars, text_color="ink", text_font_size="10px", text_align="center",
        text_baseline="middle",
    )  # fmt: skip
    fig.add_layout(
        bk.LabelSet(
            x="x", y="y", x_units="screen", y_units="data", text="text", source=source(data, "caption", ("text", "x", "y")),
            text_font_size="11px", text_color=INK, text_baseline="top",
        )
    )  # fmt: skip
    tips = [(tr(timeline.bars), "@name"), (tr(timeline.lanes), "@place")]
    tips += [(tr(timeline.details), "@detail")] if timeline.detail else []
    tips += [(tr("Measured"), "@measured"), (tr("Predicted"), "@predicted")]
    fig.add_tools(bk.HoverTool(renderers=[*drawn.values(), below], tooltips=tips))
    fig.xaxis.axis_label, fig.yaxis.axis_label = (
        tr("Time in the {tick} ({unit})", tick=tr(tick), unit=axis.unit),
        tr(timeline.lanes),
    )
    fig.yaxis.ticker = bk.BasicTicker(min_interval=1, num_minor_ticks=0, desired_num_ticks=WORDY_LANES)
    fig.yaxis.major_label_overrides = {-1: "", -2: ""}  # no lane: the words above the first one
    fig.ygrid.visible = False
    shade = dict(zip((name for name, _ in timeline.kinds), colours(timeline), strict=True))
    for name in known - {
        *bars.data["name"]
    }:  # predicted only: a legend takes its sign from a bar, so there is one out of sight
        drawn[name] = fig.hbar(y=[np.nan], left=[np.nan], right=[np.nan], fill_color=shade[name], line_color="white")
    helps = {name: tr(PART_HELP[part]) if part in PART_HELP else "" for name, part in timeline.kinds}
    keys = [Key(tr(n), "box", c, (drawn[n],), help=helps[n]) for n, c in shade.items() if not known or n in known]
    keys.append(Key(tr("Predicted (below)"), "frame", LABELS[0], (below,), help=tr(WORDS["Predicted"])))
    title = tr("{things} by {lanes}", things=plural(timeline.bars), lanes=lowered(tr(timeline.lanes)))
    empty = tr("The {things} of one {tick} appear here.", things=lowered(plural(timeline.bars)), tick=tr(tick))
    return Chart(
        "timeline", dress(fig), empty, tr("{title}, of one {tick}", title=title, tick=tr(tick)), title, tuple(keys)
    )


def columns(
    timeline: Timeline, rows: pd.DataFrame, segments: Sequence[Segment], axis: Axis, tick: str
) -> dict[str, Columns]:
    """Return the sources of `chart`.

    Args:
        timeline: Which columns of the record.
        rows: The record, in the order in which it was written.
        segments: Oldest first; the last one's rows and prediction are drawn.
        axis: Of the time.
        tick: What one tick is called.
    """
    now = segments[-1] if segments else None
    planned = predicted_frame(timeline, now.prediction if now else None)
    which, measured = newest_frame(timeline, rows if now is None else rows[rows["segment"].to_numpy() == now.index])
    took_s = [show("s", float(t[:, 3].max())) if len(t) else "" for t in (measured, planned)]
    left_out = len(measured) > BARS or len(planned) > BARS
    expected, found = _stretches(planned), _stretches(measured)
    width = max([float(t[:, 3].max()) for t in (measured, planned) if len(t)], default=0.0)
    tables = ((measured[:BARS], MEASURED[0]), (planned[:BARS], PREDICTED[0]))
    bars, ghosts = (_bars(timeline, table, offset, width, axis, found, expected) for table, offset in tables)
    said = []
    if len(measured):
        said = [tr("{tick} {number} took {time}", tick=tr(tick).capitalize(), number=f"{which:g}", time=took_s[0])]
    if len(planned):
        said += [tr("predicted {time}", time=took_s[1]) if said else tr("Predicted: {time}", time=took_s[1])]
    said += [tr("shown: the first {count} intervals", count=BARS)] if left_out else []
    caption = [tr("; ").join(said)] if said else []
    low, high = _lanes(measured, planned)
    top = low - 0.5 - CAPTION / (HEIGHT - CAPTION) * (high - low + 1)
    return {
        "bars": bars,
        "ghosts": {**ghosts, "text": [""] * len(ghosts["text"])},
        "caption": {"text": caption, "x": np.array([4.0] * len(caption)), "y": np.array([top] * len(caption))},
        "span": {"start": high + 0.55, "end": top},
    }


def newest_frame(timeline: Timeline, rows: pd.DataFrame) -> tuple[float, Table]:
    """Return the newest tick that as many lanes have written as any, with its intervals by start; times from its beginning.

    Every rank writes for itself and a moment later than another, so the very newest tick may lack some.
    """
    rows = rows.iloc[-ROWS:]
    rows = rows[rows[timeline.end].notna() & rows[timeline.start].notna()]
    if rows.empty:
        return np.nan, np.empty((0, 5))
    lanes = rows.groupby(timeline.frame)[timeline.lane].nunique()
    which = float(lanes.index[lanes == lanes.max()].max())
    return which, _table(timeline, rows[rows[timeline.frame] == which])


def predicted_frame(timeline: Timeline, prediction: Prediction | None) -> Table:
    """Return the intervals of one tick as predicted, by start; none where nothing was."""
    given = prediction.extra.get(timeline.record) if prediction else None
    return _table(timeline, given) if given else np.empty((0, 5))


def colours(timeline: Timeline) -> tuple[str, ...]:
    """Return the colour of each kind: of its part, from light to dark where several kinds belong to one part."""
    of = Counter(part for _, part in timeline.kinds)
    seen: Counter[str] = Counter()
    found = []
    for _, part in timeline.kinds:
        place = 0.0 if of[part] == 1 else LIGHT - (LIGHT + DARK) * seen[part] / (of[part] - 1)
        seen[part] += 1
        found.append(_shade(part_colour(part), place))
    return tuple(found)


def words(timeline: Timeline, found: Mapping[str, Columns]) -> str:
    """Say what the chart shows, for somebody who does not see it."""
    shown, planned = len(found["bars"]["lane"]), len(found["ghosts"]["lane"])
    return tr(". ").join([counts(timeline, shown, planned), *found["caption"]["text"]])


def counts(timeline: Timeline, shown: int, planned: int) -> str:
    """Say how many intervals a chart holds."""
    what = tr("{things} by {lanes}", things=plural(timeline.bars), lanes=lowered(tr(timeline.lanes)))
    return tr("{what}: {shown} measured intervals, {planned} predicted", what=what, shown=shown, planned=planned)


def stretch(start: float, end: float) -> str:
    """Return an interval of seconds as a person reads it."""
    return tr("{start} to {end} ({length})", start=show("s", start), end=show("s", end), length=show("s", end - start))


def _table(timeline: Timeline, rows: Mapping[str, Any] | pd.DataFrame) -> Table:
    names = (timeline.lane, timeline.label, timeline.start, timeline.end, timeline.detail)
    columns = [np.asarray(rows[n], dtype=float) if n else np.full(len(rows[timeline.lane]), np.nan) for n in names]
    table = np.array(columns).T.reshape(-1, 5)
    known = np.isfinite(table[:, :4]).all(axis=1) & (table[:, 1] >= 0) & (table[:, 1] < len(timeline.kinds))
    table = table[known]
    if len(table):
        table[:, 2:4] -= table[:, 2].min()
    return np.asarray(table[np.argsort(table[:, 2], kind="stable")])


def _stretches(table: Table) -> dict[tuple[float, ...], str]:
    """Return each interval in words, by lane, kind, detail, and which of these it is."""
    return {key: stretch(row[2], row[3]) for key, row in zip(_keys(table), table, strict=True)}


def _keys(table: Table) -> list[tuple[float, ...]]:
    seen: Counter[tuple[float, ...]] = Counter()
    found: list[tuple[float, ...]] = []
    for lane, kind, _, _, detail in table.tolist():
        key = (lane, kind, detail if detail >= 0 else -1.0)
        found.append((*key, seen[key]))
        seen[key] += 1
    return found


def _bars(
    timeline: Timeline,
    table: Table,
    offset: float,
    width: float,
    axis: Axis,
    measured: Mapping[Any, str],
    expected: Mapping[Any, str],
) -> Columns:
    shades, keys = colours(timeline), _keys(table)
    wordy = len(np.unique(table[:, 0])) <= WORDY_LANES
    room = (table[:, 3] - table[:, 2]) / max(width, 1e-12)
    details = [f"{d:g}" if d >= 0 else "" for d in table[:, 4]]
    found: dict[str, Any] = {
        "lane": table[:, 0] + offset, "left": table[:, 2] * axis.factor, "right": table[:, 3] * axis.factor,
        "middle": (table[:, 2] + table[:, 3]) / 2 * axis.factor, "colour": [shades[int(k)] for k in table[:, 1]],
        "name": [timeline.kinds[int(k)][0] for k in table[:, 1]], "place": [f"{lane:g}" for lane in table[:, 0]],
        "detail": [d or tr("none") for d in details],
    }  # fmt: skip
    idle = [timeline.kinds[int(k)][1] in IDLE for k in table[:, 1]]
    found["alpha"] = np.array([OPAQUE[still][1] for still in idle], float)
    several = len(set(details)) > 1  # the only micro-batch needs no number
    fits = [wordy and several and r >= CHARACTER * (len(d) + 1) for d, r in zip(details, room, strict=True)]
    found["text"] = [d if fit and not still else "" for d, fit, still in zip(details, fits, idle, strict=True)]
    found["ink"] = ["#ffffff" if dark(c) else "#111111" for c in found["colour"]]
    found["measured"] = [measured.get(key, tr("not measured")) for key in keys]
    found["predicted"] = [expected.get(key, tr("not predicted")) for key in keys]
    return found


def _lanes(*tables: Table) -> tuple[float, float]:
    lanes = np.concatenate([t[:, 0] for t in tables])
    return (float(lanes.min()), float(lanes.max())) if len(lanes) else (0.0, 1.0)


def _shade(colour: str, lighter: float) -> str:
    """Return a colour mixed with white, or, where `lighter` is negative, with black."""
    towards, share = (255, lighter) if lighter >= 0 else (0, -lighter)
    mixed = (round(int(colour[i : i + 2], 16) * (1 - share) + towards * share) for i in (1, 3, 5))
    return "#" + "".join(f"{c:02X}" for c in mixed)
