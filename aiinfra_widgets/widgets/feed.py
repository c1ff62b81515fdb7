"""From a growing run to its figures: each look sends only what is new, in a bounded number of points.

The same feed fills live figures (a `Live`) and figures of a report (a `Still`), so both show the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from bokeh.models import ColumnDataSource

from ..comparison import curve_points
from ..experiment import Experiment
from ..machine.profile import Machine
from ..quantities import QUANTITIES, Prediction, Value
from ..runs.reader import RunReader, Segment
from . import curves, plotdata, timeline
from .figures import (
    Axis,
    Chart,
    Columns,
    axis_for,
    axis_of,
    falls_by_orders,
    parts_chart,
    series_chart,
)
from .figures_compared import bars_chart, curve_chart
from .meters import METERS
from .series import Thinned, upper
from .state import Look

#: A point of a derived quantity stands for at least so many ticks, and one look adds at most so many points, because
#: `Experiment.derive` is called for each.
DERIVED_TICKS, DERIVED_POINTS = 8, 100
#: A prediction is never outside the figure.
PREDICTED_ROOM = 1.15
#: The y axis of a share ends a little above the whole.
SHARE_TOP = 110.0
#: Seconds between two drawings of a timeline, and more for each bar.
TIMELINE_S, BAR_S = 0.4, 0.002


class Sink(Protocol):
    """Where columns go."""

    def put(self, chart: str, source: str, columns: Columns, *, seen: bool | None = None) -> None:
        """Replace a source."""

    def append(self, chart: str, source: str, columns: Columns, whole: Columns) -> None:
        """Add to a source."""

    def span(self, chart: str, low: float, high: float) -> None:
        """Set a y range (of `bars`: the x range)."""

    def say(self, chart: str, text: str) -> None:
        """Describe a chart in words."""


class Still:
    """A sink that keeps the columns, for a figure that does not move."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, Columns]] = {}
        self.words: dict[str, str] = {}
        self.seen: set[str] = set()

    def put(self, chart: str, source: str, columns: Columns, *, seen: bool | None = None) -> None:
        """Replace a source."""
        self.data.setdefault(chart, {})[source] = columns
        if seen:
            self.seen.add(chart)

    def append(self, chart: str, source: str, columns: Columns, whole: Columns) -> None:
        """Keep the whole."""
        self.put(chart, source, whole, seen=True)

    def span(self, chart: str, low: float, high: float) -> None:
        """Keep a range."""
        self.put(chart, "span", {"start": low, "end": high})

    def say(self, chart: str, text: str) -> None:
        """Keep the words."""
        self.words[chart] = text


class Shown:
    """Which charts an experiment has, and in which units; knows no run."""

    def __init__(
        self, exp: Experiment, typical: Mapping[str, float] | None = None, prediction: Prediction | None = None
    ) -> None:
        self.exp = exp
        self.total = exp.compared[0] if exp.parts else ""
        self.series = tuple(n for n in exp.live_series if n != self.total)
        self.curves = curves.plots(exp)
        drawn = (*self.series, *exp.compared[:1], *(p.quantity for p in self.curves.values()))
        self.axes = {n: axis_of(n, (typical or {}).get(n)) for n in drawn}
        knobs = exp.spec.knobs()
        swept = {p.curve.swept: knobs[p.curve.swept] for p in self.curves.values()}
        self.time = timeline.axis_of(exp.timeline, prediction) if exp.timeline else None
        self.swept = {n: axis_for(k.unit, k.default) for n, k in swept.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Every chart of this experiment."""
        return (*self.live, *self.compared)

    @property
    def live(self) -> tuple[str, ...]:
        """Those that move with the run."""
        return (*(("parts",) if self.total else ()), *(("timeline",) if self.time else ()), *self.series)

    @property
    def compared(self) -> tuple[str, ...]:
        """Those that set predicted beside measured."""
        return (*self.curves, *(("bars",) if self.total else ()))

    @property
    def quantities(self) -> tuple[str, ...]:
        """Every quantity that a lab on this experiment shows, most important first."""
        drawn = (*self.series, *(p.quantity for p in self.curves.values()))
        return tuple(dict.fromkeys((*self.exp.compared, *self.exp.parts, *drawn, *METERS)))

    def chart(self, name: str, data: Mapping[str, Columns] | None = None) -> Chart:
        """Build one chart, empty or from its sources.

        Raises:
            KeyError: No such chart; see `names`.
        """
        data, tick = data or {}, self.exp.tick
        if name == "parts" and self.total:
            return parts_chart(self.total, self.exp.parts, tick, data, self.axes[self.total])
        if name == "bars" and self.total:
            return bars_chart(self.total, self.exp.parts, data, self.axes[self.total])
        if name == "timeline" and self.exp.timeline and self.time:
            return timeline.timeline_chart(self.exp.timeline, data, self.time, tick)
        if plot := self.curves.get(name):
            knob = self.exp.spec.knobs()[plot.curve.swept]
            x, y = self.swept[knob.name], self.axes[plot.quantity]
            return curve_chart(name, plot.quantity, knob.label, data, x, y, whole=knob.kind == "int")
        if name in self.series:
            return series_chart(name, tick, data, self.axes[name], _companion(name))
        raise KeyError(name)


class Feed:
    """Follows one run and keeps the charts of one sink up to date.

    Args:
        shown: The charts and their units.
        sink: Where columns go.
        machine: Whose calibration predicts.
        sweeps: Of the same experiment, to be shared with other feeds; None finishes each sweep before going on.
    """

    def __init__(self, shown: Shown, sink: Sink, machine: Machine, sweeps: curves.Sweeps | None = None) -> None:
        self.shown, self.sink, self.exp = shown, sink, shown.exp
        self.sweeps = sweeps or curves.Sweeps(self.exp, machine, wait=True)
        self._reader: RunReader | None = None
        self._begin(machine)

    def _begin(self, machine: Machine) -> None:
        self.sweeps.use(machine)
        self._seen_rows = self._seen_events = self._seen_sweeps = 0
        self._seen_summary: Any = None
        self._seen_timeline: Any = None
        self._next_timeline_s = 0.0
        self._last_tick = self._last_s = 0.0
        self._tops: dict[str, float] = {}
        names = ("tick", self.shown.total, *self.exp.parts)
        self._parts = Thinned(names) if self.shown.total else None
        self._series = {n: Thinned(("tick", "value")) for n in self.shown.series}

    def follow(self, reader: RunReader, look: Look) -> None:
        """Pull from `reader`; where it is another one than before, empty every chart first.

        Args:
            reader: Polled by the caller, who holds the lock.
            look: The snapshot of the same moment.
        """
        if self._reader is not None and reader is not self._reader:
            for name in self.shown.names:
                for src in self.shown.chart(name).figure.select({"type": ColumnDataSource}):
                    self.sink.put(name, src.name, {k: np.array([]) for k in src.data}, seen=False)
        if reader is not self._reader:
            self._reader = reader
            self._begin(reader.machine)
        self.pull(reader, look)

    def pull(self, reader: RunReader, look: Look) -> None:
        """Send what is new since the last call.

        Args:
            reader: Polled by the caller, who holds the lock.
            look: The snapshot of the same moment.
        """
        ticks = reader.ticks
        rows = ticks.iloc[self._seen_rows :]
        self._seen_rows = len(ticks)
        if len(rows):
            self._rows(rows, look.segments)
        self._timeline(reader, look)
        summary = [(s.index, s.ticks, s.transient) for s in look.segments]
        if len(rows) or summary != self._seen_summary:
            self._overlays(look.segments)
        if len(reader.events) != self._seen_events:
            self._seen_events = len(reader.events)
            self._moments(reader.events)
        if summary != self._seen_summary:
            self._compared(look)
        if summary != self._seen_summary or self.sweeps.pending or self.sweeps.done != self._seen_sweeps:
            self._seen_sweeps = self.sweeps.done
            self._curves(look)
        self._seen_summary = summary

    @property
    def busy(self) -> bool:
        """Whether something is still to be drawn of what is known: a sweep that is being done."""
        return self.sweeps.pending or self.sweeps.done != self._seen_sweeps

    # --- over ticks ---------------------------------------------------------------------------------------------
    def _rows(self, rows: Any, segments: Iterable[Segment]) -> None:
        first, again = float(rows["tick"].min()), False
        if first <= self._last_tick:  # resumed from a checkpoint: what follows it was done again
            for series in (*self._series.values(), *([self._parts] if self._parts else [])):
                again |= series.cut(first)
        self._last_tick = float(rows["tick"].iloc[-1])
        if self._parts is not None:
            self._stack(self._parts, rows, again)
        specs = {s.index: s for s in segments}
        ended_s = rows["t_s"].to_numpy(float)
        begun_s = self._last_s or next((s.t_s for s in segments), ended_s[0])
        took_s = np.diff(ended_s, prepend=begun_s).clip(min=0.0)
        self._last_s = float(ended_s[-1])
        for name, series in self._series.items():
            axis = self.shown.axes[name]
            if name in rows:
                columns = {"tick": rows["tick"].to_numpy(float), "value": rows[name].to_numpy(float) * axis.factor}
            else:
                columns = self._derived(name, rows, took_s, specs, axis)
            if len(columns["tick"]):
                self._send(name, series, columns, again)

    def _stack(self, series: Thinned, rows: Any, again: bool) -> None:
        """Draw the parts of each tick: one that is not measured leaves no hole in the stack, a tick without a total none."""
        axis, total = self.shown.axes[self.shown.total], self.shown.total
        rows = rows[np.isfinite(rows[total].to_numpy(float))] if total in rows else rows[:0]
        columns = {"tick": rows["tick"].to_numpy(float)}
        for name in series.names[1:]:
            values = rows[name].to_numpy(float) if name in rows else np.zeros(len(rows))
            columns[name] = np.nan_to_num(values) * axis.factor
        if len(rows):
            self._send("parts", series, columns, again)

    def _send(self, chart: str, series: Thinned, columns: Mapping[str, Any], again: bool) -> None:
        before = len(series)
        added = series.extend(columns)
        whole = series.columns()
        known = bool(np.isfinite(whole[series.names[1]]).any())
        if added is None or again or (added and not before) or not known:
            self.sink.put(chart, "series", whole, seen=known or None)
        elif added:
            self.sink.append(chart, "series", series.columns(added), whole)
        self._tops[chart] = upper(whole[series.names[1]]) or 0.0
        values = whole[series.names[1]]
        if chart in QUANTITIES and falls_by_orders(chart):
            good = values[np.isfinite(values) & (values > 0)]
            if good.size:
                self.sink.span(chart, float(f"{good.min() / 1.6:.1g}"), float(f"{good.max() * 1.6:.1g}"))

    def _derived(
        self, name: str, rows: Any, took_s: Any, segments: Mapping[int, Segment], axis: Axis
    ) -> dict[str, Any]:
        """Ask the experiment for a quantity that no node reports, over stretches of a few ticks."""
        found: list[tuple[float, float]] = []
        # Columns by themselves: ten looks a second leave no time for a data frame's own.
        columns = {str(c): rows[c].to_numpy(float) for c in rows.columns if c in QUANTITIES}
        columns = {c: v for c, v in columns.items() if np.isfinite(v).any()}
        ticks, of = rows["tick"].to_numpy(float), rows["segment"].to_numpy()
        for index in np.unique(of):
            if (segment := segments.get(int(index))) is None:
                continue
            mine = np.flatnonzero(of == index)
            pieces = max(1, min(len(mine) // DERIVED_TICKS, DERIVED_POINTS))
            for piece in np.array_split(mine, pieces):
                seen = {c: there for c, v in columns.items() if (there := v[piece][np.isfinite(v[piece])]).size}
                values = {c: Value(c, float(np.median(there)), method="measured") for c, there in seen.items()}
                elapsed = float(took_s[piece].sum())
                value = self.exp.derive(segment.spec, self.sweeps.machine, values, elapsed).get(name)
                if value is not None and value.value is not None:
                    found.append((float(ticks[piece[-1]]), float(value.value) * axis.factor))
        table = np.array(found, float).reshape(-1, 2)
        return {"tick": table[:, 0], "value": table[:, 1]}

    def _overlays(self, segments: Any) -> None:
        for name in (*(["parts"] if self.shown.total else []), *self.shown.series):
            of = self.shown.total if name == "parts" else name
            predicted = plotdata.predicted(segments, of, self.shown.axes[of], self._last_tick)
            self.sink.put(name, "predicted", predicted)
            top = max([self._tops.get(name, 0.0), *(float(v) * PREDICTED_ROOM for v in predicted["value"])])
            if self.shown.axes[of].unit == "%":
                top = min(top, SHARE_TOP)
            if top > 0 and not (name in QUANTITIES and falls_by_orders(name)):
                self.sink.span(name, 0.0, float(f"{top:.2g}"))
            self.sink.put(name, "marks", plotdata.marks(segments, self._last_tick, name != "parts"))

    def _moments(self, events: Any) -> None:
        for name in self.shown.series:
            extra = _companion(name)
            if extra and any(extra in e for e in events):
                self.sink.put(name, "extra", plotdata.moments(events, extra, self.shown.axes[name]), seen=True)

    def _timeline(self, reader: RunReader, look: Look) -> None:
        """Draw the intervals again, now and then: they move while the run goes on."""
        declared, axis = self.exp.timeline, self.shown.time
        if declared is None or axis is None or (look.going and time.monotonic() < self._next_timeline_s):
            return
        rows = reader.records(declared.record)
        seen = (len(rows), len(look.segments), look.going)
        if seen == self._seen_timeline and not look.going:
            return
        self._seen_timeline = seen
        last_s = max((n["t_s"] for n in look.latest.values()), default=0.0)
        tick = self.exp.tick
        found = timeline.columns(declared, rows, look.segments, last_s, axis, going=look.going, tick=tick)
        span = found.pop("span")
        drawn = len(found["bars"]["lane"]) + len(found["ghosts"]["lane"])
        for src, columns in found.items():
            self.sink.put("timeline", src, columns, seen=bool(drawn))
        self.sink.span("timeline", float(span["start"]), float(span["end"]))
        self.sink.say("timeline", timeline.words(declared, found))
        self._next_timeline_s = time.monotonic() + TIMELINE_S + BAR_S * drawn

    # --- comparison ---------------------------------------------------------------------------------------------
    def _compared(self, look: Look) -> None:
        settled = [c for c in look.comparisons if not c.segment.transient]
        last = settled[-1] if settled else None
        if self.shown.total:
            columns = plotdata.bars(last, self.exp.parts, self.shown.axes[self.shown.total])
            self.sink.put("bars", "bars", columns, seen=bool(len(columns["row"])))
            if len(columns["row"]):
                self.sink.span("bars", 0.0, float(np.max(columns["right"])) * 1.05)
            if last and (row := last.row(self.shown.total)):
                self.sink.say("bars", row.text)
                self.sink.say("parts", row.text)

    def _curves(self, look: Look) -> None:
        if look.spec is None:
            return
        for name, plot in self.shown.curves.items():
            swept = plot.curve.swept
            every = curve_points(plot.curve, look.segments)
            points = curves.mine(every, swept, look.spec)
            others = [p for p in every if p not in points]
            sweep = self.sweeps.get(plot.curve, curves.widest(points, swept, look.spec))
            x, y = self.shown.swept[swept], self.shown.axes[plot.quantity]
            sources = curves.columns(plot, sweep, points, x, y, others)
            span = sources.pop("span")
            seen = bool(len(sources["points"]["at"])) or bool(
                np.isfinite(sources.get("model", {}).get("value", [])).any()
            )
            for src, columns in sources.items():
                self.sink.put(name, src, columns, seen=seen)
            self.sink.span(name, float(span["start"]), float(span["end"]))
            self.sink.say(name, curves.words(plot, points, self.exp.spec.knobs()[swept].unit))


def _companion(name: str) -> str:
    """Return the quantity of special moments that belongs on the chart of `name`, or ""."""
    return next((q for q in QUANTITIES if plotdata.is_beside(q, name)), "")
