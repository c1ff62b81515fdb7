"""Exercises by name. A check is a plain function of the learner's evidence and answer; it grades reasoning, ratios and trends.

No check looks at an absolute time: what is right is what the learner's own record says, within the noise that the check names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..texts import tr
from .evidence import Evidence, measured, spread
from .mark import Answer, Mark

Check = Callable[[Evidence, Answer, Mark], None]
#: Numbers that were read from a table and typed are rounded by less than this.
READ = 0.03
#: Two measurements that lie nearer than this are the same on a machine that does other things too.
NOISE = 0.10


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        points: That can be had.
        asks: Names that the answer has.
        tolerates: Which noise its check tolerates, in a sentence for the learner.
    """

    name: str
    points: float
    asks: tuple[str, ...]
    tolerates: str
    check: Check


REGISTRY: dict[str, Exercise] = {}


def exercise(name: str, points: float, asks: Sequence[str], tolerates: str) -> Callable[[Check], Check]:
    """Register a check under the name that notebooks use."""

    def register(check: Check) -> Check:
        REGISTRY[name] = Exercise(name, points, tuple(asks), tolerates, check)
        return check

    return register


def judge(task: Exercise, found: Evidence, given: Any) -> Mark:
    """Judge one answer; nothing that a learner writes makes it raise.

    Args:
        task: The exercise.
        found: The learner's evidence.
        given: The answer: a mapping of the names in `task.asks`.
    """
    answer = Answer(given)
    mark = Mark(task.name, task.points, tr(task.tolerates), answer.given)
    if answer.empty:
        mark.miss(task.points, tr("No answer yet: write it into the cell above in the place of the dots."))
        return mark
    if unknown := sorted(set(map(str, answer.given)) - set(task.asks)):
        mark.miss(0, tr("Not asked for, and not read: {names}.", names=", ".join(unknown)))
    try:
        task.check(found, answer, mark)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, OverflowError) as error:
        mark.miss(0, tr("Your record cannot be read as this exercise needs it ({why}).", why=repr(error)))
    return mark


def near(value: float | None, truth: float, share: float = READ) -> bool:
    """Whether a number is as it should be, within a share of it."""
    return value is not None and abs(value - truth) <= share * abs(truth) + 1e-12


def fits(value: float | None, segments: Sequence[Mapping[str, Any]], quantity: str, scale: float = 1.0) -> bool:
    """Whether a number that the learner read is what one of these segments measured.

    Args:
        value: As typed.
        segments: Those that it may come from.
        quantity: In base units.
        scale: Base units to the learner's, 1e3 for milliseconds.

    Within `NOISE` of the median, or between the quartiles: a table that is read while the run goes on moves a little.
    """
    for segment in segments:
        own = measured(segment, quantity)
        if own is None or value is None:
            continue
        low, high = spread(segment, quantity) or (own, own)
        if near(value, own * scale, NOISE) or low * scale <= value <= high * scale:
            return True
    return False


def medians(segments: Sequence[Mapping[str, Any]], quantity: str, scale: float = 1.0) -> str:
    """Return what was measured, for a message."""
    numbers = [measured(s, quantity) for s in segments]
    return ", ".join(f"{n * scale:.3g}" for n in numbers if n is not None) or tr("nothing")


def trend(first: float, last: float, noise: float = NOISE) -> int:
    """Return 1 where `last` is clearly above `first`, -1 where it is clearly below, 0 within the noise."""
    size = max(abs(first), abs(last))
    return 0 if size == 0 or abs(last - first) <= noise * size else (1 if last > first else -1)


def own_numbers(mark: Mark, of: float, right: bool, typed: str, recorded: str, unit: str) -> None:
    """Judge whether typed numbers come from the learner's own record, and say what that holds."""
    mark.give(
        of,
        right,
        tr("Your numbers are those of your own run."),
        tr("You wrote {typed} {unit}; your own record holds {recorded} {unit}. Take the numbers from your table: "
           "those of others were measured on another machine.", typed=typed, recorded=recorded, unit=unit),
    )  # fmt: skip
