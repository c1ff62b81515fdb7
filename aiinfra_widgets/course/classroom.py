"""The class view: what a class predicted, and what was measured. Names are left out unless somebody asks for them.

`Classroom.collect(paths)` reads notebooks that were handed in, records and ledgers; `view.figure` draws them, and
`Classroom` shows itself in a notebook. What matters is the shape: does a class share a misconception?
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, LabError
from . import ledger, notebooks
from .evidence import LARGEST_BYTES, load, records_in

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Guess:
    """One learner's first prediction of one setup, and what came out.

    Attributes:
        learner: "Learner 3", or the name where names were asked for.
        value, measured: In base units; `measured` is None where the run did not get that far.
        explanation: The learner's words, or "".
    """

    learner: str
    lab: str
    question: str
    value: float
    measured: float | None
    explanation: str = ""

    @property
    def ratio(self) -> float | None:
        """Prediction over measurement; None where there is nothing to compare."""
        return self.value / self.measured if self.measured and self.measured > 0 and self.value > 0 else None


@dataclass(frozen=True)
class Group:
    """All guesses at one question of one lab."""

    lab: str
    question: str
    guesses: tuple[Guess, ...]

    @property
    def ratios(self) -> list[float]:
        """Predictions over measurements, smallest first."""
        return sorted(r for g in self.guesses if (r := g.ratio) is not None)

    def summary(self) -> dict[str, Any]:
        """Return counts, median and quartiles of prediction over measurement, and how many were far too low or too high."""
        r = self.ratios
        quartiles: list[float | None] = list(statistics.quantiles(r, n=4)) if len(r) > 1 else [*r, *r, *r] or [None] * 3
        return {
            "lab": self.lab,
            "question": self.question,
            "predictions": len(self.guesses),
            "compared": len(r),
            **dict(zip(("quartile_low", "median_ratio", "quartile_high"), quartiles, strict=True)),
            "below_half": sum(x < 0.5 for x in r),
            "above_double": sum(x > 2 for x in r),
            "explained": sum(bool(g.explanation) for g in self.guesses),
        }


@dataclass
class Classroom:
    """A class's predictions.

    Attributes:
        guesses: First predictions only: later ones were made by somebody who had seen a result.
        left_out: Files that could not be read, and why.
    """

    guesses: list[Guess] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def collect(cls, paths: Sequence[Path], *, names: bool = False) -> Classroom:
        """Read notebooks, `record.json` and `*.jsonl` ledgers, or folders of them; several files of one learner are one.

        Args:
            paths: Files and folders.
            names: Show learners by name; otherwise they are numbered, in an order that tells nothing about names.

        Raises:
            DataError: There is nothing to read.
        """
        files = sorted({f for p in paths for f in (_inside(p) if p.is_dir() else [p])})
        if not files:
            raise DataError(
                f"nothing to collect in {', '.join(map(str, paths))}; name notebooks, ledgers, or folders that hold some"
            )
        room = cls()
        entries: dict[str, dict[str, dict[str, Any]]] = {}
        for path in files:
            try:
                found = list(_entries(path))
            except (LabError, ValueError, AttributeError) as error:
                room.left_out[path.name] = str(error)
                continue
            own = entries.setdefault(_who(path), {})
            for e in found:
                own[str(e.get("entry"))] = dict(e)
        for number, who in enumerate(sorted(entries, key=lambda w: sorted(entries[w])), 1):
            room.guesses += _first(who if names else f"Learner {number}", entries[who].values())
        return room

    def groups(self) -> list[Group]:
        """Return the guesses by lab and question."""
        keys = sorted({(g.lab, g.question) for g in self.guesses})
        return [Group(lab, q, tuple(g for g in self.guesses if (g.lab, g.question) == (lab, q))) for lab, q in keys]

    def table(self) -> pd.DataFrame:
        """Return a row for each question."""
        import pandas as pd

        return pd.DataFrame([g.summary() for g in self.groups()])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON, for another programme."""
        told = [{"learner": g.learner, "lab": g.lab, "question": g.question, "value": g.value, "measured": g.measured,
                 "ratio": g.ratio, "explanation": g.explanation} for g in self.guesses]  # fmt: skip
        return {"format": 1, "groups": [g.summary() for g in self.groups()], "guesses": told, "left_out": self.left_out}

    def html(self) -> str:
        """Return the class view as one page that needs nothing else."""
        from .class_page import page

        return page(self)

    def _repr_html_(self) -> str:
        from .class_page import body

        return body(self)


def _inside(folder: Path) -> list[Path]:
    found = [f for kind in ("*.ipynb", "*.jsonl", "*record.json") for f in folder.rglob(kind)]
    return [f for f in found if ".ipynb_checkpoints" not in f.parts]


def _who(path: Path) -> str:
    """Return whose file it is: the name that the grader would give, and for a ledger its folder or its own name."""
    from .grading import submissions

    if path.suffix == ".ipynb":
        return submissions([path])[0].student
    return path.resolve().parent.name if path.stem in {"ledger", "record"} else path.stem


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise DataError("no such file")
    if path.stat().st_size > 10 * LARGEST_BYTES:
        raise DataError("too large for what a learner hands in")
    if path.suffix == ".jsonl":
        yield from ledger.read(path)
        return
    records = [load(path)] if path.suffix == ".json" else list(records_in(notebooks.read(path).cells))
    if not records:
        raise DataError("no record in it: the last cell was not run, or the notebook was not saved after it")
    for record in records:
        yield from (e for e in record.get("ledger") or [] if isinstance(e, dict))


def _first(learner: str, entries: Any) -> list[Guess]:
    """Return the first guess of each question and setup."""
    seen: dict[str, Guess] = {}
    for e in sorted(entries, key=lambda e: str(e.get("at"))):
        value, measured = e.get("value"), e.get("measured")
        if not _finite(value):
            continue
        key = repr((e.get("lab"), e.get("question"), e.get("spec")))
        own = Guess(learner, str(e.get("lab")), str(e.get("question")), float(value), float(measured) if _finite(measured) else None,
                    str(e.get("explanation") or ""))  # fmt: skip
        seen.setdefault(key, own)
    return list(seen.values())


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
