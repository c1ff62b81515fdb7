"""Predicted against measured, segment by segment: the error, what explains it, and how sure one can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .experiment import Curve, Experiment
from .quantities import Value, quantity, show
from .runs.reader import Segment
from .texts import N_, tr

Verdict = Literal["within the band", "within chance", "close", "off", "not compared"]
CLOSE = 0.20


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of one segment, from both sides.

    Attributes:
        relative_error: (predicted - measured) / measured; None where either is missing or the measured one is 0.
        verdict: In words that a person can act on.
    """

    quantity: str
    predicted: Value | None
    measured: Value | None
    relative_error: float | None
    verdict: Verdict

    @property
    def text(self) -> str:
        """`Step time: predicted 7.2 ms, measured 8.1 ms (-11 %)`."""
        label = quantity(self.quantity).label
        predicted = show(self.quantity, self.predicted.value if self.predicted else None)
        measured = show(self.quantity, self.measured.value if self.measured else None)
        text = tr(
            "{quantity}: predicted {predicted}, measured {measured}",
            quantity=label,
            predicted=predicted,
            measured=measured,
        )
        return text + ("" if self.relative_error is None else f" ({self.relative_error:+.0%})")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A segment's rows and the one or two causes that explain most of the difference."""

    segment: Segment
    rows: tuple[Row, ...]
    causes: tuple[str, ...]

    def row(self, name: str) -> Row | None:
        """Return the row of one quantity."""
        return next((r for r in self.rows if r.quantity == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return the form that `aiinfra run --json` prints."""
        found = {}
        for row in self.rows:
            found[row.quantity] = {
                "predicted": row.predicted.value if row.predicted else None,
                "measured": row.measured.value if row.measured else None,
                **_spread(row.measured),
                "relative_error": row.relative_error,
                "method": row.measured.method if row.measured else None,
                "predicted_method": row.predicted.method if row.predicted else None,
                "samples": row.measured.n if row.measured else None,
            }  # fmt: skip
        s = self.segment
        return {
            "segment": s.index, "nodes": s.spec.nodes, "first_tick": s.first_tick, "ticks": s.ticks, "transient": s.transient,
            "cause": s.cause, "spec": s.spec.model_dump(), "quantities": found, "causes": list(self.causes),
            "prediction_refused": s.refused or None,
        }  # fmt: skip


def compare(exp: Experiment, segment: Segment) -> Comparison:
    """Compare one segment; a transient one gets its measured values and no verdict."""
    predicted = segment.prediction.values if segment.prediction else {}
    why = exp.incomparable(segment.prediction, segment.values) if segment.prediction and not segment.transient else ""
    names = dict.fromkeys((*exp.compared, *exp.parts, *predicted, *segment.values))
    rows = []
    for name in names:
        p, m = predicted.get(name), segment.values.get(name)
        if p is None and m is None:
            continue
        error = None if why else relative_error(p, m)
        rows.append(Row(name, p, m, error, _verdict(p, error, m, segment)))
    if why:
        return Comparison(segment, tuple(rows), (why,))
    causes = [] if segment.transient or segment.prediction is None else explain(exp, segment)
    return Comparison(segment, tuple(rows), tuple(causes))


def relative_error(predicted: Value | None, measured: Value | None) -> float | None:
    """Return (predicted - measured) / measured, None where it has no meaning."""
    if predicted is None or measured is None or predicted.value is None or not measured.value:
        return None
    return float((predicted.value - measured.value) / measured.value)


def explain(exp: Experiment, segment: Segment, most: int = 2) -> list[str]:
    """Return the causes of the difference in `exp.compared[0]`, largest first: the parts that differ, in words."""
    assert segment.prediction is not None
    own = exp.explain(segment.spec, segment.machine, segment.prediction, segment.values)
    total = segment.values.get(exp.compared[0])
    if total is None or not total.value:
        return own[:most]
    differences = []
    for part in exp.parts:
        m, p = segment.values.get(part), segment.prediction.get(part)
        if m is not None and m.value is not None:
            differences.append((m.value - (p or 0.0), part, p, m.value))
    differences.sort(key=lambda d: -abs(d[0]))
    found = []
    for gap, part, p, m in differences:
        if abs(gap) < 0.05 * total.value:
            break
        label = quantity(part).label
        was = tr("{value} predicted", value=show(part, p)) if p is not None else tr("not predicted")
        more = N_("{part} took {gap} more than expected ({value} measured, {predicted}).")
        less = N_("{part} took {gap} less than expected ({value} measured, {predicted}).")
        said = tr(more if gap > 0 else less, part=label, gap=show(part, abs(gap)), value=show(part, m), predicted=was)
        found.append(said)
    if own or found or not exp.parts:
        return (own + found)[:most]
    whole = quantity(exp.compared[0]).label.lower()
    return [tr("Every part is within 5 % of the {quantity} of what was predicted.", quantity=whole)]


def curve_points(curve: Curve, segments: Sequence[Segment]) -> list[Mapping[str, Any]]:
    """Return one point per compared segment for a plot: the swept value, the measured quantity, its band."""
    field, name = curve.swept, curve.quantity
    points: list[Mapping[str, Any]] = []
    for s in segments:
        m = s.values.get(name)
        if s.transient or m is None or m.value is None:
            continue
        predicted = s.prediction.get(name) if s.prediction else None
        points.append(
            {
                "at": getattr(s.spec, field),
                "measured": m.value,
                "low": m.low,
                "high": m.high,
                "predicted": predicted,
                "segment": s.index,
                "spec": s.spec,
            }
        )
    return points


def _spread(measured: Value | None) -> dict[str, Any]:
    """Return what low and high are: the quartiles of what was measured, or the 95 % interval of the value."""
    ends = [measured.low, measured.high] if measured is not None and measured.low is not None else None
    known = bool(measured is not None and measured.interval)
    return {"measured_quartiles": None if known else ends, "measured_interval_95": ends if known else None}


def _verdict(predicted: Value | None, error: float | None, measured: Value | None, segment: Segment) -> Verdict:
    if error is None or segment.transient or predicted is None or measured is None:
        return N_("not compared")
    if predicted.low is not None and predicted.high is not None and predicted.low <= measured.value <= predicted.high:
        return N_("within the band")
    if measured.interval and measured.low <= predicted.value <= measured.high:
        return N_("within chance")
    return N_("close") if abs(error) <= CLOSE else N_("off")
