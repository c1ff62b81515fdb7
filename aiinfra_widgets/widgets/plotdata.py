"""From a run to the columns that figures draw. Pure: numbers in, columns out, in the units of the axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..comparison import Comparison
from ..errors import LabError
from ..experiment import Experiment, Spec
from ..machine.profile import Machine
from ..quantities import QUANTITIES, Value, quantity, show
from ..runs.reader import Event, Segment
from .figures import Axis, Columns
from .theme import part_colour

#: Share of the axis that one character of a mark takes, in a chart of full width.
MARK_ROOM = 0.016


def difference(before: Spec | None, after: Spec) -> str:
    """Say what changed between two Specs: `2 nodes`, `Learning rate 0.01`; the node count where nothing did."""
    knobs = type(after).knobs()
    changed = [n for n in knobs if before is not None and getattr(before, n) != getattr(after, n)]
    said = [_said(knobs[n].label, n, getattr(after, n), knobs[n].unit) for n in changed or ["nodes"]]
    return ", ".join(said[:2]) + (" ..." if len(said) > 2 else "")


def _said(label: str, name: str, value: Any, unit: str) -> str:
    if name == "nodes":
        return f"{value} node{'s' if value != 1 else ''}"
    if isinstance(value, bool):
        return f"{label} {'on' if value else 'off'}"
    if isinstance(value, int | float):
        return f"{label} {show(unit, value) if unit else f'{value:g}'}"
    return f"{label} {value}"


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
    """Return the parts of one segment end to end: row 1 as predicted, row 0 as measured."""
    columns: dict[str, list[Any]] = {c: [] for c in ("row", "left", "right", "colour", "part", "shown")}
    for row, side in ((1, "predicted"), (0, "measured")):
        at = 0.0
        for part in parts:
            found = comparison.row(part) if comparison else None
            value: Value | None = getattr(found, side) if found else None
            if value is None or not value.value:
                continue
            width = float(value.value) * axis.factor
            q = quantity(part)
            cells = (float(row), at, at + width, part_colour(q.part), q.label, f"{show(part, value.value)} {side}")
            for column, cell in zip(columns, cells, strict=True):
                columns[column].append(cell)
            at += width
    return {k: np.array(v, float) if k in {"row", "left", "right"} else v for k, v in columns.items()}


def same_but(field: str, a: Spec, b: Spec) -> bool:
    """Whether two Specs differ in `field` only, or not at all."""
    return a.model_dump(exclude={field}) == b.model_dump(exclude={field})


class Scaling:
    """The scaling plot of one run: what the model says of a sweep, and what the segments have shown so far.

    Args:
        exp: With a `curve`.
        machine: Whose calibration predicts.
    """

    def __init__(self, exp: Experiment, machine: Machine) -> None:
        self.exp, self.machine = exp, machine
        self.refused = ""
        self._sweeps: dict[tuple[str, int], Mapping[str, Any]] = {}

    def sources(self, spec: Spec, points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Columns]]:
        """Return the sources of both charts, "speedup" and "efficiency_frac".

        Args:
            spec: As it is now; only points that differ from it in the swept field alone are drawn.
            points: From `comparison.scaling_points`.
        """
        if self.exp.curve is None:
            return {}
        field = self.exp.curve[0]
        mine = [p for p in points if same_but(field, p["spec"], spec)]
        most = max([2 * self.machine.cores, 4, getattr(spec, field), *(p["at"] for p in mine)])
        sweep = self._sweep(spec, int(most))
        base = self._base(mine, sweep)
        return {name: self._chart(name, sweep, mine, base) for name in ("speedup", "efficiency_frac")}

    def _base(self, points: Sequence[Mapping[str, Any]], sweep: Mapping[str, Any]) -> float | None:
        """Throughput of one: measured where it was, else the model's; None where nobody knows."""
        ones = [p["measured"] for p in points if p["at"] == 1]
        if ones:
            return float(np.median(ones))
        return float(sweep["value"][0]) if "value" in sweep else None

    def _sweep(self, spec: Spec, most: int) -> Mapping[str, Any]:
        """Predict the whole sweep in one call; keep it, for it does not change with the run."""
        assert self.exp.curve is not None
        field, name = self.exp.curve
        key = (type(spec).make({**spec.model_dump(), field: 1}).digest(), most) if most > 1 else (spec.digest(), most)
        if key not in self._sweeps:
            at = np.arange(1, most + 1)
            found: dict[str, Any] = {"at": at, "references": {}}
            try:
                value = self.exp.predict(spec, self.machine, **{field: at}).values[name]
                shape = at.shape
                found["value"] = np.broadcast_to(np.asarray(value.value, float), shape)
                for side in ("low", "high"):
                    edge = getattr(value, side)
                    found[side] = found["value"] if edge is None else np.broadcast_to(np.asarray(edge, float), shape)
                self.refused = ""
            except (LabError, KeyError) as error:
                self.refused = str(error)
            try:
                found["references"] = self.exp.reference_curves(spec, self.machine, [int(v) for v in at])
            except LabError as error:
                self.refused = self.refused or str(error)
            self._sweeps[key] = found
        return self._sweeps[key]

    def _chart(
        self, name: str, sweep: Mapping[str, Any], points: Sequence[Mapping[str, Any]], base: float | None
    ) -> dict[str, Columns]:
        at = np.asarray(sweep["at"], float)

        def drawn(values: Any, over: Any, where: Any) -> Any:
            speedup = np.asarray(values, float) / over
            return speedup if name == "speedup" else 100.0 * speedup / np.asarray(where, float)

        found: dict[str, Columns] = {}
        if "value" in sweep:
            one = sweep["value"][0]
            found["model"] = {"at": at, **{k: drawn(sweep[k], one, at) for k in ("value", "low", "high")}}
        curves = {k: drawn(v, np.asarray(v, float)[0], at) for k, v in sweep["references"].items()}
        gap = np.array([np.nan])
        joined = [np.concatenate([c, gap]) for c in curves.values()] or [np.array([])]
        places = [np.concatenate([at, gap]) for _ in curves] or [np.array([])]
        found["references"] = {"at": np.concatenate(places), "value": np.concatenate(joined)}
        found["reference_names"] = _names(curves, at)
        found["points"] = self._points(points, base, drawn)
        tops = [np.asarray(s[k], float) for s in found.values() for k in ("value", "high") if k in s and len(s[k])]
        top = float(np.nanmax(np.concatenate(tops))) if tops else 1.0
        found["span"] = {"start": 0.0, "end": top * 1.1 if name == "speedup" else max(110.0, min(top * 1.1, 200.0))}
        return found

    def _points(self, points: Sequence[Mapping[str, Any]], base: float | None, drawn: Any) -> Columns:
        points = points if base else []
        where = np.array([p["at"] for p in points], float)
        columns: dict[str, Any] = {"at": where}
        for column, key in (("value", "measured"), ("low", "low"), ("high", "high")):
            values = [p["measured"] if p.get(key) is None else p[key] for p in points]
            columns[column] = drawn(values, base, where) if points else np.array([])
        columns["text"] = [f"segment {p['segment']}, {difference(None, p['spec'])}" for p in points]
        return columns


def _names(curves: Mapping[str, Any], at: Any) -> Columns:
    """Return the names of the curves at their right end, in turn above and below, since two curves may lie close."""
    return {
        "at": np.full(len(curves), at[-1]),
        "value": np.array([c[-1] for c in curves.values()], float),
        "text": list(curves),
        "lift": np.array([3.0 if i % 2 == 0 else -15.0 for i in range(len(curves))]),
    }
