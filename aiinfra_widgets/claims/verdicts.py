"""The verdict on a claim, from numbers alone: its dimension, its own example, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..texts import N_
from .claim import Claim, Evidence, Measurement

Word = Literal["refuted", "holds in part", "close", "holds here", "unclear", "not tested"]
#: By word: a class of the style sheet, and a sign that says it without colour.
SIGNS: dict[Word, tuple[str, str]] = {
    N_("refuted"): ("far", "\u2715"),
    N_("holds in part"): ("near", "\u25d0"),
    N_("close"): ("near", "\u2248"),
    N_("holds here"): ("good", "\u2713"),
    N_("unclear"): ("none", "?"),
    N_("not tested"): ("none", "\u2013"),
}
#: A median error up to the first is agreement, up to the second is close.
HOLDS, CLOSE = 0.10, 0.25
#: What changes by more than this factor (its logarithm) along the sweep has a direction.
DIRECTION = math.log(1.1)


@dataclass(frozen=True, slots=True)
class Group:
    """Points that were measured in the same way, and how far claim and right model are off them.

    Attributes:
        label: What was done; "" where only one thing was.
        word: refuted, close, holds here, or unclear: the machine was busy, and even the right model is far off.
        claim_error, right_error: Median of the ratio to the measured value, minus one; NaN where there is no ratio.
        opposite: The claim goes one way along the sweep, the measurement the other.
    """

    label: str
    word: Word
    claim_error: float
    right_error: float
    opposite: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows.

    Attributes:
        word: The verdict.
        because: Reasons, each with its numbers; the heaviest first.
        groups: Of the measured points.
    """

    word: Word
    because: tuple[str, ...]
    groups: tuple[Group, ...] = ()

    @property
    def kind(self) -> str:
        """Class of the style sheet."""
        return SIGNS[self.word][0]

    @property
    def sign(self) -> str:
        """A sign that says it without colour."""
        return SIGNS[self.word][1]


def judge(claim: Claim, evidence: Evidence | None = None) -> Verdict:
    """Return the verdict on `claim`.

    A wrong dimension, an example that its own formula does not give, or points that are far from what it says refute it. Points that
    agree in one way of working and not in another make it hold in part.

    Args:
        claim: The claim.
        evidence: What was measured, None where nothing was.
    """
    because: list[str] = []
    dims = claim.dimensions()
    if not dims.right:
        because.append(f"Its result is {dims.found}, not {dims.expected}.")
    off = [w for w in claim.worked() if not w.same]
    because += [f"It prints {w.example.result}; its own formula gives {w.shown}." for w in off]
    groups = compare(claim, evidence) if evidence else ()
    because += [_reason(g) for g in groups]
    words = {g.word for g in groups}
    if not dims.right or off or words == {"refuted"}:
        return Verdict("refuted", tuple(because), groups)
    if "unclear" in words:
        because.append("The machine was too busy to tell: end what else runs, and measure again.")
        return Verdict("unclear", tuple(because), groups)
    if "refuted" in words:
        return Verdict("holds in part", tuple(because), groups)
    if words:
        return Verdict("close" if "close" in words else "holds here", tuple(because), groups)
    return Verdict("not tested", (*because, "Dimension and example are in order; only a measurement can tell."), ())


def compare(claim: Claim, evidence: Evidence) -> tuple[Group, ...]:
    """Return how the claim and the right model do against the measured points, by what was done."""
    labels = dict.fromkeys(p.label for p in evidence.points if p.judged)
    return tuple(_group(claim, evidence, label) for label in labels)


def _group(claim: Claim, evidence: Evidence, label: str) -> Group:
    points = [p for p in evidence.points if p.label == label and p.judged]
    says = np.array([at_point(claim.axes.says, claim, evidence, p) for p in points])
    right = np.array([right_at(claim, evidence, p) for p in points])
    measured = np.array([p.value for p in points])
    within = all(p.low <= s <= p.high for p, s in zip(points, says, strict=True))
    claim_error, right_error = _error(says, measured), _error(right, measured)
    opposite = _opposite(says.tolist(), measured.tolist())
    size = abs(claim_error)
    word: Word = "holds here" if within or size <= HOLDS else "close" if size <= CLOSE else "refuted"
    if evidence.busy and abs(right_error) > CLOSE:
        word = "unclear"
    return Group(label, "refuted" if opposite else word, claim_error, right_error, opposite)


def at_point(model: Any, claim: Claim, evidence: Evidence, point: Measurement) -> float:
    """Return what `model` (one of `Axes`) says where `point` was measured."""
    return float(model(**{**evidence.rig, **point.setting, claim.axes.swept: point.at}))


def right_at(claim: Claim, evidence: Evidence, point: Measurement) -> float:
    """Return what the right model says where `point` was measured: the calibrated one where there is one."""
    if evidence.curve is not None:
        return float(np.interp(point.at, evidence.curve.at, evidence.curve.value))
    return at_point(claim.axes.right, claim, evidence, point)


def _error(says: Any, measured: Any) -> float:
    """Return the error that is in the middle by size, with its sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = says / measured - 1
    known = errors[~np.isnan(errors)]
    return (
        float(sorted(known, key=abs)[(len(known) - 1) // 2 if len(known) < 3 else len(known) // 2])
        if known.size
        else math.nan
    )


def _opposite(says: Sequence[float], measured: Sequence[float]) -> bool:
    if len(says) < 2 or min(*says, *measured) <= 0:
        return False
    claimed, found = (math.log(v[-1] / v[0]) for v in (says, measured))
    return claimed * found < 0 and min(abs(claimed), abs(found)) > DIRECTION


def _reason(group: Group) -> str:
    what = f"{group.label[:1].upper()}{group.label[1:]}: " if group.label else ""
    if math.isnan(group.claim_error):
        return what + "The claim says nothing that could be compared with what was measured."
    far = in_words(group.claim_error)
    text = f"{what}The claim says {far}, and goes the other way" if group.opposite else f"{what}The claim says {far}"
    if math.isnan(group.right_error):
        return text + "."
    return f"{text}; the right model says {in_words(group.right_error)}."


def in_words(error: float) -> str:
    """Return a relative error in words: "12 % more than was measured", "9.8 times what was measured"."""
    if math.isinf(error):
        return "that there is no end to it"
    if error >= 1 or error <= -0.5:
        return f"{error + 1:.2g} times what was measured"
    if abs(error) < 0.005:
        return "what was measured"
    size = f"{abs(error) * 100:.2g} %"
    return f"{size} more than was measured" if error > 0 else f"{size} less than was measured"


def percent(error: float) -> str:
    """Return a relative error for a table: "+12 %", or "9.8\u00d7" where it is large."""
    if math.isnan(error):
        return "\u2013"
    if math.isinf(error):
        return "\u221e"
    if error >= 1 or error <= -0.5:
        return f"{error + 1:.2g}\u00d7"
    return "0 %" if abs(error) < 0.005 else f"{error * 100:+.2g} %".replace("-", "\u2212")
