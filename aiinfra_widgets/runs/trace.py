"""A run's timeline as Chrome trace events, which Perfetto and chrome://tracing open: measured and predicted as two processes.

Format: "Trace Event Format" of the Chromium project (JSON object form). Times are microseconds. Complete events ("X") are bars;
one that has not ended begins ("B") and stays open; metadata ("M") names processes and threads; an instant ("i") begins each tick.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import DataError, ModelInputError
from ..experiment import Timeline
from .reader import RunReader

if TYPE_CHECKING:
    import pandas as pd

Event = dict[str, Any]
Row = Mapping[str, float]
MEASURED, PREDICTED = 1, 2
PROCESSES = {MEASURED: "Measured", PREDICTED: "Predicted"}
#: Written by the runtime beside the columns that an experiment declares.
_HEAD = ("incarnation", "writer", "t_s", "segment")


def chrome_trace(reader: RunReader, last: int | None = None) -> dict[str, Any]:
    """Return every interval of a run's timeline, with the prediction of the same, as one JSON object.

    Lanes are threads. Where the timeline has frames, each tick stands where it happened, its prediction beside it from the
    same moment on; otherwise what was predicted for the first segment stands beside the whole run.

    Args:
        reader: Of the run; it is polled.
        last: Only the newest so many ticks; None for all. Only for a timeline with frames.

    Raises:
        DataError: The experiment has no timeline, or nothing was recorded yet.
        ModelInputError: `last` below 1, or for a timeline without frames.
    """
    reader.poll()
    name, timeline = reader.run.path.name, reader.experiment.timeline
    if timeline is None:
        raise DataError(
            f"run {name} has no trace: {reader.experiment.name!r} records no timeline; "
            "choose a run of an experiment that does, see: aiinfra runs"
        )
    if last is not None and (last < 1 or not timeline.frame):
        tick = reader.experiment.tick
        allowed = "it must be at least 1" if timeline.frame else f"{reader.experiment.name!r} does not record by {tick}"
        raise ModelInputError(f"cannot write the last {last} {tick}s: {allowed}; leave it out for the whole run")
    rows = reader.records(timeline.record)
    rows = rows[rows[timeline.start].notna() & rows[timeline.lane].notna() & rows[timeline.label].notna()]
    if rows.empty:
        raise DataError(
            f"run {name} has no trace: nothing was recorded in {timeline.record!r}; "
            "ask for recording where the experiment has a field for it, and let it run a little longer"
        )
    plans = {s.index: s.prediction.extra.get(timeline.record) for s in reader.segments() if s.prediction}
    found = (
        _frames(timeline, rows, plans, reader.experiment.tick, last) if timeline.frame else _run(timeline, rows, plans)
    )
    events = sorted(found, key=lambda e: (e["ts"], e["pid"], e["tid"]))
    about = {"run": name, "experiment": reader.experiment.name, "machine": reader.machine.id}
    return {"traceEvents": [*_names(timeline, events), *events], "displayTimeUnit": "ms", "otherData": about}


def _run(timeline: Timeline, rows: pd.DataFrame, plans: Mapping[int, Any]) -> Iterator[Event]:
    """The intervals of the whole run; one that was written twice as its last row has it."""
    keys = [timeline.lane, timeline.label, timeline.start]
    for row in _records(rows.drop_duplicates(keys, keep="last")):
        yield _event(timeline, row, MEASURED)
    for row in _rows(plans.get(min(plans)) if plans else None):
        yield _event(timeline, row, PREDICTED)


def _frames(
    timeline: Timeline, rows: pd.DataFrame, plans: Mapping[int, Any], tick: str, last: int | None
) -> Iterator[Event]:
    """The intervals of each tick, from where on the run's clock it began."""
    groups = [frame for _, frame in rows.groupby(["segment", timeline.frame], sort=True)]
    groups = groups[-last:] if last else groups
    zero_s: float | None = None
    end_s = 0.0
    for frame in groups:
        segment, which = int(frame["segment"].iloc[0]), float(frame[timeline.frame].iloc[0])
        # A rank writes an interval when it ends, or later: the smallest difference is nearest to the beginning of the tick.
        began_s = float((frame["t_s"] - frame[timeline.end]).min())
        zero_s = began_s if zero_s is None else zero_s
        at_s = max(began_s - zero_s, end_s)  # ticks follow one another, however late they were written
        yield {
            "name": f"{tick} {which:g}", "cat": timeline.record, "ph": "i", "s": "g", "ts": _us(at_s), "pid": MEASURED, "tid": 0,
            "args": {"segment": segment},
        }  # fmt: skip
        for row in _records(frame):
            yield _event(timeline, row, MEASURED, at_s)
        plan = list(_rows(plans.get(segment)))
        for row in plan:
            yield _event(timeline, {**row, timeline.frame: which}, PREDICTED, at_s)
        ends = (r[timeline.end] for r in (*_records(frame), *plan) if r.get(timeline.end) is not None)
        end_s = at_s + max((e for e in ends if math.isfinite(e)), default=0.0)


def _event(timeline: Timeline, row: Row, process: int, at_s: float = 0.0) -> Event:
    label, end = row[timeline.label], row.get(timeline.end)
    known = timeline.kinds and 0 <= label < len(timeline.kinds)
    name, part = timeline.kinds[int(label)] if known else (f"{timeline.bars} {label:g}", timeline.record)
    used = (*_HEAD, timeline.lane, timeline.label, timeline.start, timeline.end)
    args = {k: _number(v) for k, v in row.items() if k not in used and v is not None and math.isfinite(v)}
    event: Event = {
        "name": name, "cat": part, "ph": "B", "ts": _us(at_s + row[timeline.start]), "pid": process, "tid": int(row[timeline.lane]),
        "args": args,
    }  # fmt: skip
    if end is not None and math.isfinite(end):
        event |= {"ph": "X", "dur": _us(end - row[timeline.start])}
    return event


def _names(timeline: Timeline, events: Iterable[Event]) -> Iterator[Event]:
    """Name the processes and the threads, in order."""
    lanes = {(e["pid"], e["tid"]) for e in events if e["ph"] != "i"}
    for process in sorted({p for p, _ in lanes}):
        yield _meta("process_name", process, 0, name=PROCESSES[process])
        yield _meta("process_sort_index", process, 0, sort_index=process)
    for process, lane in sorted(lanes):
        yield _meta("thread_name", process, lane, name=f"{timeline.lanes} {lane}")
        yield _meta("thread_sort_index", process, lane, sort_index=lane)


def _meta(what: str, process: int, lane: int, **args: Any) -> Event:
    return {"name": what, "ph": "M", "ts": 0, "pid": process, "tid": lane, "args": args}


def _records(rows: pd.DataFrame) -> list[dict[str, float]]:
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def _rows(columns: Mapping[str, Any] | None) -> Iterator[dict[str, float]]:
    """Columns of a prediction as rows."""
    names = list(columns or {})
    for values in zip(*(columns or {}).values(), strict=True):
        yield dict(zip(names, values, strict=True))


def _number(value: float) -> float:
    return int(value) if float(value).is_integer() else float(value)


def _us(seconds: float) -> float:
    """Return microseconds, to the nanosecond."""
    return round(seconds * 1e6, 3)
