"""Two segments side by side, of one run or of two: what was asked differently, every quantity of both, and their ratio. Pure.

The ratio B / A comes with a 95 % confidence interval. Ticks of a run are no independent draws - a disturbance lasts - so the
settled ticks are cut into at most 20 stretches, the median of each is one observation, and Welch's interval is taken of the
logarithms. A quantity that no tick holds (a percentile of requests, a sum) has one only where its own interval is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..experiment import Experiment
from ..quantities import QUANTITIES, Value, quantity, show
from ..runs.layout import RunDir
from ..runs.reader import RunReader, Segment
from ..texts import tr
from .terms import piece_html, term_html
from .words import difference, valued

#: Observations that a segment is cut into, and ticks that one of them needs.
STRETCHES, LEAST_TICKS = 20, 3
DASH = "\u2013"
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Side:
    """One segment of a run, with its settled ticks by quantity."""

    run: str
    experiment: Experiment
    segment: Segment
    ticks: Mapping[str, Array]
    facts: Mapping[str, str]

    @property
    def name(self) -> str:
        """`A run, segment 1` in words."""
        return f"{self.run}, {tr('segment {number}', number=self.segment.index)}"


@dataclass(frozen=True)
class Ratio:
    """One quantity of both sides; `value` is B / A, with the ends of its 95 % interval where it is known."""

    quantity: str
    a: Value | None
    b: Value | None
    value: float | None = None
    low: float | None = None
    high: float | None = None


def sides(run: RunDir) -> list[Side]:
    """Return every segment of a run as a side.

    Raises:
        LabError: The run cannot be read.
    """
    reader = RunReader(run)
    reader.poll()
    exp, ticks = reader.experiment, reader.ticks
    versions = reader.manifest.get("versions", {})
    facts = {tr("Machine"): reader.machine.id, **{k: str(v) for k, v in versions.items()}}
    found = []
    for segment in reader.segments():
        rows = ticks[ticks["segment"] == segment.index] if "segment" in ticks else ticks
        rows = rows.iloc[exp.settle_ticks :]
        columns = {str(c): rows[c].to_numpy(float) for c in rows.columns if c in QUANTITIES}
        found.append(Side(run.id, exp, segment, columns, facts))
    return found


def asked(a: Side, b: Side) -> list[tuple[str, str, str]]:
    """Return what was asked differently, as (label, of A, of B); then what the runs were made with differently."""
    found = []
    knobs = a.segment.spec.knobs() if a.experiment.name == b.experiment.name else {}
    for name, knob in knobs.items():
        left, right = getattr(a.segment.spec, name), getattr(b.segment.spec, name)
        if left != right:
            found.append((knob.label, valued(knob, left), valued(knob, right)))
    facts = [(k, a.facts.get(k, DASH), b.facts.get(k, DASH)) for k in dict.fromkeys((*a.facts, *b.facts))]
    return found + [f for f in facts if f[1] != f[2]]


def ratios(a: Side, b: Side) -> list[Ratio]:
    """Return the quantities that either side knows, most important first, each with its ratio where both know it."""
    exp = a.experiment
    names = dict.fromkeys((*exp.compared, *exp.parts, *b.experiment.compared, *b.experiment.parts))
    found = []
    for name in names:
        left, right = a.segment.values.get(name), b.segment.values.get(name)
        if any(v is not None and v.value for v in (left, right)):
            found.append(_ratio(name, left, right, a.ticks.get(name), b.ticks.get(name)))
    return found


def _ratio(name: str, a: Value | None, b: Value | None, ticks_a: Array | None, ticks_b: Array | None) -> Ratio:
    if a is None or b is None or not a.value or b.value is None:
        return Ratio(name, a, b)
    value = float(b.value) / float(a.value)
    if value <= 0:
        return Ratio(name, a, b, value)
    spread = _of_ticks(ticks_a, ticks_b) if not (a.interval or b.interval) else _of_intervals(a, b)
    if spread is None:
        return Ratio(name, a, b, value)
    return Ratio(name, a, b, value, value * math.exp(-spread), value * math.exp(spread))


def _of_ticks(a: Array | None, b: Array | None) -> float | None:
    """Half the 95 % interval of log(b / a), from the medians of stretches of ticks."""
    from scipy.special import stdtrit

    parts = [_stretches(x) for x in (a, b)]
    if any(p is None for p in parts):
        return None
    errors = [float(np.var(p, ddof=1)) / len(p) for p in parts if p is not None]
    total = sum(errors)
    if total <= 0:
        return 0.0
    freedom = total**2 / sum(e**2 / (len(p) - 1) for e, p in zip(errors, parts, strict=True) if p is not None)
    return float(stdtrit(freedom, 0.975)) * math.sqrt(total)


def _stretches(values: Array | None) -> Array | None:
    """The logarithms of the medians of stretches; None where there are too few ticks, or one that is not positive."""
    if values is None:
        return None
    known = values[np.isfinite(values)]
    pieces = min(STRETCHES, len(known) // LEAST_TICKS)
    if pieces < LEAST_TICKS:
        return None
    medians = np.array([np.median(p) for p in np.array_split(known, pieces)])
    return np.log(medians) if (medians > 0).all() else None


def _of_intervals(a: Value, b: Value) -> float | None:
    """The same from two 95 % intervals that are known already; None where one is not, or reaches down to zero."""
    if not (a.interval and b.interval) or any(v is None or v <= 0 for v in (a.low, b.low)):
        return None
    return math.hypot(*(math.log(float(v.high) / float(v.low)) / 2 for v in (a, b)))


def ratio_text(r: Ratio) -> str:
    """Return `1.45\u00d7 (1.38 to 1.52)`, or a dash."""
    if r.value is None:
        return "\u2013"
    interval = (
        "" if r.low is None or r.high is None else tr(" ({low} to {high})", low=f"{r.low:.3g}", high=f"{r.high:.3g}")
    )
    return f"{r.value:.3g}\u00d7{interval}"


def verdict(r: Ratio) -> str:
    """Return whether the two differ beyond chance, in one word or two; "" where that is not known."""
    if r.value is None or r.low is None or r.high is None:
        return ""
    if r.low <= 1 <= r.high:
        return tr("within chance")
    better = quantity(r.quantity).better
    if better == "neither":
        return tr("differs")
    return tr("B is better") if (r.value < 1) == (better == "lower") else tr("B is worse")


def side_by_side_html(a: Side, b: Side) -> str:
    """Return the whole comparison of two segments."""
    return f'<div class="aiinfra-pair">{_names(a, b)}{_asked_html(a, b)}{_parts_html(a, b)}{_table_html(a, b)}</div>'


def _names(a: Side, b: Side) -> str:
    rows = "".join(
        f"<div><b>{letter}</b> {escape(s.name)}: {escape(difference(None, s.segment.spec))}"
        + (f' <span class="aiinfra-none">{escape(tr("too short to compare"))}</span>' if s.segment.transient else "")
        + "</div>"
        for letter, s in (("A", a), ("B", b))
    )
    return f'<div class="aiinfra-pair-names">{rows}</div>'


def _asked_html(a: Side, b: Side) -> str:
    found = asked(a, b)
    if a.experiment.name != b.experiment.name:
        text = tr("They are of different experiments: only quantities that both have can be compared.")
        return f'<p class="aiinfra-note">{escape(text)}</p>'
    if not found:
        return f'<p class="aiinfra-note">{escape(tr("Nothing was asked differently: what differs is chance, or the machine."))}</p>'
    rows = "".join(f"<tr><th>{escape(n)}</th><td>{escape(x)}</td><td>{escape(y)}</td></tr>" for n, x, y in found)
    return _table(tr("What was asked differs in"), "<tr><th></th><th>A</th><th>B</th></tr>", rows)


def _parts_html(a: Side, b: Side) -> str:
    """The parts of both, end to end, on one scale."""
    both = [
        [(p, float(v.value)) for p in s.experiment.parts if (v := s.segment.values.get(p)) and v.value] for s in (a, b)
    ]
    most = max((sum(v for _, v in parts) for parts in both), default=0.0)
    if not most:
        return ""
    bars = []
    for letter, parts in zip("AB", both, strict=True):
        pieces = "".join(piece_html(p, 100 * v / most, f"{quantity(p).label}: {show(p, v)}") for p, v in parts)
        total = show(parts[0][0], sum(v for _, v in parts)) if parts else DASH
        bar = f'<div class="aiinfra-bar">{pieces}</div>'
        bars.append(f'<div class="aiinfra-pair-row"><b>{letter}</b>{bar}<span>{escape(total)}</span></div>')
    names = dict.fromkeys(p for parts in both for p, _ in parts)
    keys = "".join(f"<span>{term_html(p)}</span>" for p in names)
    return f'<div class="aiinfra-pair-parts">{"".join(bars)}<div class="aiinfra-pair-keys">{keys}</div></div>'


def _table_html(a: Side, b: Side) -> str:
    rows = []
    for r in ratios(a, b):
        numbers = "".join(f'<td class="n">{_shown(r.quantity, v)}</td>' for v in (r.a, r.b))
        ratio = f'<td class="n">{escape(ratio_text(r))}</td><td>{escape(verdict(r))}</td>'
        rows.append(f"<tr><th>{term_html(r.quantity)}</th>{numbers}{ratio}</tr>")
    if not rows:
        return f'<p class="aiinfra-empty">{escape(tr("Neither has measured anything yet."))}</p>'
    head = '<tr><th></th><th class="n">A</th><th class="n">B</th><th class="n">B / A</th><th></th></tr>'
    caption = tr("Measured; in brackets the 95 % confidence interval of the ratio")
    return _table(caption, head, "".join(rows))


def _shown(name: str, value: Value | None) -> str:
    return escape(show(name, value.value)) if value is not None and value.value is not None else DASH


def _table(caption: str, head: str, rows: str) -> str:
    return f'<table class="aiinfra-table"><caption>{escape(caption)}</caption><thead>{head}</thead><tbody>{rows}</tbody></table>'
