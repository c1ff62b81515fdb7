"""From a curve of an experiment to what is drawn: the model over a sweep, named references, and what segments measured.

A sweep may be a simulation of seconds. A lab that is watched has it done by a thread beside the one that follows the run;
the points are there at once, the model when it is ready.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import LabError
from ..experiment import Curve, Experiment, Spec
from ..machine.profile import Machine
from ..quantities import quantity, show
from ..texts import told, tr
from .figures import Axis, Columns
from .figures_compared import NAME_COLUMNS
from .words import amount, said

RELATIVE = ("speedup", "efficiency_frac")
#: A model that goes to infinity leaves the figure, so that the rest stays readable: the y axis ends at most so many times above
#: what the model says in the middle of the sweep, or a little above what was measured.
ROOM, MEASURED_ROOM = 4.0, 1.4
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart: a curve, and the quantity on its y axis, which for a relative curve is speed-up or efficiency."""

    name: str
    curve: Curve
    quantity: str


def plots(exp: Experiment) -> dict[str, Plot]:
    """Return the charts of an experiment's curves by name: `response_s_over_rate_per_s`; of a relative curve two."""
    found: dict[str, Plot] = {}
    for curve in exp.curves:
        over = f"{curve.quantity}_over_{curve.swept}"
        for name in RELATIVE if curve.relative else (curve.quantity,):
            short = name if curve.relative else over
            full = short if short not in found else f"{name}_of_{over}"
            found[full] = Plot(full, curve, name)
    return found


@dataclass(frozen=True)
class Sweep:
    """What the model says of a quantity over values of a field; `value` None where it refuses. Base units."""

    at: Array
    value: Array | None = None
    low: Array | None = None
    high: Array | None = None
    references: Mapping[str, Array] = field(default_factory=dict)


Key = tuple[Curve, str, tuple[float, ...]]


class Sweeps:
    """Sweeps of one experiment on one machine, each done once.

    Args:
        exp: With curves.
        machine: Whose calibration predicts.
        wait: Do a sweep when it is asked for; else a thread does it, and it is there at a later call.
    """

    def __init__(self, exp: Experiment, machine: Machine, *, wait: bool) -> None:
        self.exp, self.machine, self.wait = exp, machine, wait
        self._found: dict[Key, Sweep] = {}
        self._wanted: dict[Curve, tuple[Key, Spec]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def use(self, machine: Machine) -> None:
        """Predict for this machine from now on; what was done for another one is forgotten."""
        with self._lock:
            if machine != self.machine:
                self.machine = machine
                self._found.clear()
                self._wanted.clear()

    @property
    def done(self) -> int:
        """How many were done."""
        return len(self._found)

    @property
    def pending(self) -> bool:
        """Whether one is being done."""
        return bool(self._wanted)

    def get(self, curve: Curve, spec: Spec) -> Sweep | None:
        """Return the sweep of `curve` around `spec`, or None while it is being done. Of each curve only the newest is done."""
        key = self._key(curve, spec)
        with self._lock:
            if key in self._found:
                self._wanted.pop(curve, None)
                return self._found[key]
            self._wanted[curve] = (key, spec)
        if self.wait:
            self._work()
        elif self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, daemon=True, name="aiinfra-sweep")
            self._thread.start()
        return self._found.get(key)

    def _key(self, curve: Curve, spec: Spec) -> Key:
        knob = self.exp.spec.knobs()[curve.swept]
        low = -np.inf if knob.low is None else knob.low
        high = np.inf if knob.high is None else knob.high
        values = [float(v) for v in self.exp.sweep(spec, self.machine, curve) if low <= v <= high]
        rest = json.dumps(spec.model_dump(exclude={curve.swept}), sort_keys=True)
        return curve, rest, tuple(values)

    def _work(self) -> None:
        """Do what is wanted until nothing is."""
        while True:
            with self._lock:
                if not self._wanted:
                    return
                curve, (key, spec) = next(iter(self._wanted.items()))
                machine = self.machine
            found = Sweep(np.array(key[2]))
            try:
                found = self._make(curve, spec, machine, found.at)
            finally:  # also where an experiment's own code fails: the traceback is printed, and it is not tried for ever
                with self._lock:
                    if machine == self.machine:
                        self._found[key] = found
                    if self._wanted.get(curve, (None,))[0] == key:
                        del self._wanted[curve]

    def _make(self, curve: Curve, spec: Spec, machine: Machine, at: Array) -> Sweep:
        value = low = high = None
        references: dict[str, Array] = {}
        over = at.astype(int) if self.exp.spec.knobs()[curve.swept].kind == "int" else at
        try:
            found = self.exp.predict(spec, machine, **{curve.swept: over}).values.get(curve.quantity)
            if found is not None and found.value is not None:
                value = _spread(found.value, at)
                low = value if found.low is None else _spread(found.low, at)
                high = value if found.high is None else _spread(found.high, at)
        except LabError:
            pass  # no calibration, or outside the model's domain; the comparison table says so
        try:
            lines = self.exp.reference_curves(spec, machine, curve, over.tolist())
            references = {name: _spread(line, at) for name, line in lines.items()}
        except LabError:
            pass
        return Sweep(at, value, low, high, references)


def _spread(values: Any, at: Array) -> Array:
    """Return predicted values as floats; JSON has no infinity, so None is not known."""
    return np.broadcast_to(np.asarray(values, dtype=float), at.shape).copy()


def mine(points: Sequence[Mapping[str, Any]], swept: str, spec: Spec) -> list[Mapping[str, Any]]:
    """Return the points of segments that differ from `spec` in the swept field only."""
    now = spec.model_dump(exclude={swept})
    return [p for p in points if p["spec"].model_dump(exclude={swept}) == now]


def widest(points: Sequence[Mapping[str, Any]], swept: str, spec: Spec) -> Spec:
    """Return the Spec, of these points and `spec`, that is farthest along the sweep: the model is drawn to all of them."""
    specs: list[Spec] = [spec, *(p["spec"] for p in points)]
    return max(specs, key=lambda s: float(getattr(s, swept)))


def columns(
    plot: Plot,
    sweep: Sweep | None,
    points: Sequence[Mapping[str, Any]],
    x: Axis,
    y: Axis,
    others: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Columns]:
    """Return the sources of one chart (see `figures.curve_chart`) and its `span`.

    Args:
        plot: Which chart.
        sweep: The model, where it is known.
        points: From `comparison.curve_points`, those that belong here (`mine`).
        x, y: The axes.
        others: Points of other setups, drawn faint: what was measured does not vanish when something else is changed.
    """
    found: dict[str, Columns] = {}
    at = sweep.at if sweep else np.array([])
    model, references = _model(plot, sweep, y), sweep.references if sweep else {}
    lines = {name: _drawn(plot, line, at, _one(line, at), y) for name, line in references.items()}
    base = _base(points, sweep)
    dots, faint = (_points(plot, p, base, x, y) for p in (points, others))
    top = _top(plot, [*(v for k, v in model.items() if k == "value"), *lines.values()], dots)
    if model:
        known = np.isfinite(model["value"])
        model["high"] = np.where(known & ~np.isfinite(model["high"]), 10 * top, model["high"])
        model["low"], model["high"] = (np.where(known, model[k], np.nan) for k in ("low", "high"))
        found["model"] = {"at": at * x.factor, **{k: _gaps(v) for k, v in model.items()}}
    gap = np.array([np.nan])
    found["references"] = {
        "at": np.concatenate([np.concatenate([at * x.factor, gap]) for _ in lines] or [np.array([])]),
        "value": np.concatenate([np.concatenate([_gaps(v), gap]) for v in lines.values()] or [np.array([])]),
    }
    found["reference_names"] = _names(lines, at * x.factor, top)
    found["points"], found["others"] = dots, {k: faint[k] for k in ("at", "value", "text")}
    found["span"] = {"start": 0.0, "end": top}
    return found


def words(plot: Plot, points: Sequence[Mapping[str, Any]], unit: str) -> str:
    """Say what a chart shows, for somebody who does not see it."""
    label, name = quantity(plot.quantity).label, plot.curve.quantity
    if not points:
        return tr("{quantity}: nothing measured yet", quantity=label)
    places = ", ".join(
        tr("{value} at {place}", value=show(name, p["measured"]), place=amount(unit, p["at"])) for p in points
    )
    if plot.curve.relative:
        return tr(
            "{quantity}, from {base}: measured {places}", quantity=label, base=quantity(name).label, places=places
        )
    return tr("{quantity}: measured {places}", quantity=label, places=places)


def _gaps(values: Any) -> Array:
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.nan)


def _drawn(plot: Plot, values: Any, at: Any, one: float | None, y: Axis) -> Array:
    """Return values in the unit of the axis; of a relative curve, relative to the value of one."""
    array = np.asarray(values, dtype=float)
    if plot.curve.relative:
        array = array / (np.nan if one is None else one)
        if plot.quantity == "efficiency_frac":
            array = array / np.asarray(at, dtype=float)
    return np.asarray(array * y.factor)


def _one(values: Array | None, at: Array) -> float | None:
    """The value at one, None where it is not known."""
    there = np.flatnonzero(at == 1)
    return float(values[there[0]]) if values is not None and there.size else None


def _base(points: Sequence[Mapping[str, Any]], sweep: Sweep | None) -> float | None:
    """What points are relative to: measured at one where it was, else the model's; None where nobody knows."""
    ones = [p["measured"] for p in points if p["at"] == 1]
    if ones:
        return float(np.median(ones))
    return _one(sweep.value, sweep.at) if sweep else None


def _model(plot: Plot, sweep: Sweep | None, y: Axis) -> dict[str, Array]:
    if sweep is None or sweep.value is None:
        return {}
    one = _one(sweep.value, sweep.at)
    return {k: _drawn(plot, getattr(sweep, k), sweep.at, one, y) for k in ("value", "low", "high")}


def _points(plot: Plot, points: Sequence[Mapping[str, Any]], base: float | None, x: Axis, y: Axis) -> Columns:
    if plot.curve.relative and base is None:
        points = []
    where = np.array([p["at"] for p in points], float)
    found: dict[str, Any] = {"at": where * x.factor}
    for column, key in (("value", "measured"), ("low", "low"), ("high", "high")):
        values = [p["measured"] if p.get(key) is None else p[key] for p in points]
        found[column] = _drawn(plot, values, where, base, y)
    swept = plot.curve.swept
    found["text"] = [
        tr("segment {number}, {setup}", number=p["segment"], setup=_setup(swept, p["spec"])) for p in points
    ]
    return found


def _setup(swept: str, spec: Spec) -> str:
    """Return the value of the swept field, and how many work where that is something else."""
    names = [swept] if swept == "nodes" else [swept, "nodes"]
    return ", ".join(said(spec.knobs()[n], getattr(spec, n)) for n in names)


def _top(plot: Plot, curves: Sequence[Array], dots: Columns) -> float:
    """Return where the y axis ends; the first of `curves` is the model, where there is one."""
    finite = [found for v in (*curves, dots["value"], dots["high"]) if (found := v[np.isfinite(v)]).size]
    if not finite or max(v.max() for v in finite) <= 0:
        return 1.0
    middles = [ROOM * float(np.median(found)) for v in curves[:1] if (found := v[np.isfinite(v)]).size]
    seen = [MEASURED_ROOM * float(v) for v in dots["value"]]
    top = min(float(max(v.max() for v in finite)), max([*middles, *seen], default=np.inf)) * 1.1
    return max(110.0, min(top, 200.0)) if plot.quantity == "efficiency_frac" else top


def _names(lines: Mapping[str, Array], at: Array, top: float) -> Columns:
    """Return the names of the reference curves, each where its own curve is still inside the figure.

    Two that end inside may lie close, so they are named in turn above and below; those that come in or leave through the top
    are named there, at different heights; a name stands on the side where there is room.
    """
    found: dict[str, list[Any]] = {n: [] for n in NAME_COLUMNS}
    for i, (name, line) in enumerate(lines.items()):
        inside = np.flatnonzero(np.isfinite(line) & (line <= top))
        if not inside.size:
            continue
        low = inside[line[inside] <= top * (0.92 - 0.14 * (i % 5))]
        low = low if low.size else inside
        place, lift, right = int(inside[-1]), 3.0 if i % 2 == 0 else -15.0, False
        if inside[0] > 0:
            place, lift, right = int(low[0]), 0.0, True
        elif place + 1 < len(line):
            place, lift = int(low[-1]), 0.0
            right = bool(at[place] < at[0] + 0.4 * (at[-1] - at[0]))
        side = ("left", 4.0) if right else ("right", -4.0)
        for column, cell in zip(
            NAME_COLUMNS, (float(at[place]), float(line[place]), told(name), *side, lift), strict=True
        ):
            found[column].append(cell)
    return {k: v if k in {"text", "align"} else np.array(v, float) for k, v in found.items()}
