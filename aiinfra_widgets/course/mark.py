"""What a check says of an answer: points, and a sentence for each part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ..texts import tr
from .evidence import plain

MIME = "application/vnd.aiinfra.mark.v1+json"


@dataclass(frozen=True)
class Line:
    """One part of an exercise: the points it got, of how many, and why."""

    points: float
    of: float
    said: str


@dataclass
class Mark:
    """The judgement of one exercise. Its plain text is the number of points, for that is what nbgrader reads.

    Attributes:
        of: Points that can be had.
        lines: Judged parts; what was not judged got nothing.
        answer: As it was given, in plain JSON.
        tolerates: Which noise the check tolerates.
    """

    exercise: str
    of: float
    tolerates: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)

    @property
    def points(self) -> float:
        """What was got."""
        return round(min(self.of, sum(line.points for line in self.lines)), 2)

    def give(self, of: float, right: bool, good: str, bad: str) -> None:
        """Judge a part: all of its points, or none, and what is said of it."""
        self.lines.append(Line(of if right else 0.0, of, good if right else bad))

    def miss(self, of: float, said: str) -> None:
        """Say what cannot be judged, and why."""
        self.lines.append(Line(0.0, of, said))

    def to_json(self) -> dict[str, Any]:
        """Return the mark as plain JSON, with the answer, so that it can be judged again elsewhere."""
        return {
            "exercise": self.exercise, "points": self.points, "of": self.of, "answer": plain(self.answer),
            "lines": [{"points": line.points, "of": line.of, "said": line.said} for line in self.lines],
        }  # fmt: skip

    def __str__(self) -> str:
        head = tr("{points:g} of {of:g} points", points=self.points, of=self.of)
        lines = [f"  {'+' if line.points else '-'} {line.said}" for line in self.lines]
        return "\n".join([head, *lines, *([f"  ({self.tolerates})"] if self.tolerates else [])])

    def __repr__(self) -> str:
        return f"{self.points:g}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._html(), MIME: self.to_json()}

    def _html(self) -> str:
        head = escape(tr("{points:g} of {of:g} points", points=self.points, of=self.of))
        items = "".join(
            f"<li style='list-style:none;margin:2px 0'><b aria-hidden='true'>{'✓' if line.points else '✗'}</b> "
            f"{escape(line.said)} <span style='opacity:.6'>({line.points:g}/{line.of:g})</span></li>"
            for line in self.lines
        )
        note = f"<p style='opacity:.7;margin:4px 0'>{escape(self.tolerates)}</p>" if self.tolerates else ""
        return (
            "<div style='border-left:3px solid currentColor;padding:2px 12px;margin:4px 0'>"
            f"<p style='margin:4px 0'><b>{head}</b></p><ul style='margin:0;padding:0'>{items}</ul>{note}</div>"
        )


class Answer:
    """A learner's answer, read with care: anything may stand in it, or nothing."""

    def __init__(self, given: Any) -> None:
        self.given: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}

    @property
    def empty(self) -> bool:
        """Whether nothing was answered at all."""
        return all(_is_empty(v) for v in self.given.values())

    def number(self, name: str) -> float | None:
        """Return a number, also from "12,5"; None where there is none."""
        value = self.given.get(name)
        if isinstance(value, str):
            value = value.strip().rstrip("%").replace(",", ".")
        try:
            found = float(value) if not isinstance(value, bool) else None  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        return found if found is not None and abs(found) < float("inf") else None

    def words(self, name: str) -> str:
        """Return a text, or ""."""
        value = self.given.get(name)
        return "" if _is_empty(value) else " ".join(str(value).split())

    def choice(self, name: str) -> str:
        """Return a choice, in lower case, or ""."""
        return self.words(name).lower().rstrip(".")


def _is_empty(value: Any) -> bool:
    return value is None or value is ... or (isinstance(value, str) and value.strip() in {"", "..."})
