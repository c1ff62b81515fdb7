"""The exercise that every lab begins with: a number before the reveal, and words after it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..texts import N_, tr
from .evidence import Evidence
from .exercises import exercise
from .mark import Answer, Mark

#: Within this factor a prediction was about right; up to `FAR` both answers pass, for a machine is not the same twice.
CLOSE, FAR = 1.1, 1.5
#: An explanation has at least so many different words, or characters where a script writes no spaces.
FEWEST_WORDS, FEWEST_CHARACTERS = 8, 16


@exercise(
    "predicted-first",
    3,
    ("my_prediction_was",),
    N_(
        "Tolerates noise up to a factor of 1.5 between your prediction and the measurement; how near you were is not graded."
    ),
)
def predicted_first(found: Evidence, answer: Answer, mark: Mark) -> None:
    """Grade that the first prediction came before its run, that its direction was seen, and that it was explained."""
    entry = first_entry(found)
    if entry is None:
        mark.miss(3, tr("Your ledger holds no prediction for this run. Commit a number before you press Run."))
        return
    late = _late(found, entry)
    mark.give(1, not late, tr("You committed before the run began."), late)
    if late:
        mark.miss(2, tr("A number that was written after the result is no prediction, so there is nothing to compare."))
        return
    _direction(answer.choice("my_prediction_was"), entry, mark)
    own = str(entry.get("explanation") or "")
    mark.give(
        1, explains(own), tr("Your explanation is in your ledger. Your instructor reads it; no programme does."),
        tr("Your explanation is missing or shorter than a sentence. Say why prediction and measurement differ: below the comparison, "
           'or lab.explain("...").'),
    )  # fmt: skip


def first_entry(found: Evidence) -> dict[str, Any] | None:
    """Return the first prediction that was made of this setup: later ones were made by somebody who had seen a result."""
    entries = found.ledger()
    mine = next((e for e in entries if found.run() and e.get("run") == found.run()), None)
    if mine is None:  # committed, but not before the run: it belongs to none
        spec = (found.segments()[0].get("spec") if found.segments() else None) or {}
        mine = next((e for e in entries if e.get("spec") == spec), None)
    if mine is None:
        return None
    same = ("question", "spec")
    return next(e for e in entries if all(e.get(k) == mine.get(k) for k in same))


def _late(found: Evidence, entry: Mapping[str, Any]) -> str:
    """Return why the prediction does not count as one, or ""."""
    began, at = found.began(), _time(entry.get("at"))
    if entry.get("run") and entry.get("run") != found.run():
        return ""  # of an earlier run of the same setup; the ledger settles an entry only after its run
    if began is None or at is None:
        return tr("Your record does not say when the run began; run the lab again.")
    if at >= began:
        told = {"at": f"{at:%H:%M:%S}", "began": f"{began:%H:%M:%S}"}
        return tr("Your prediction was committed at {at} (UTC), after the run began at {began}.", **told)
    return ""


def _direction(said: str, entry: Mapping[str, Any], mark: Mark) -> None:
    value, own = entry.get("value"), entry.get("measured")
    if not isinstance(value, int | float) or not isinstance(own, int | float) or own <= 0:
        mark.miss(
            1,
            tr(
                "Nothing was measured for your prediction: let the run go on until the first row of the table has a number."
            ),
        )
        return
    ratio = value / own
    right = {"about right"} if 1 / FAR < ratio < FAR else set()
    right |= {"too high"} if ratio > CLOSE else {"too low"} if ratio < 1 / CLOSE else set()
    mark.give(
        1, said in right, tr("You predicted {ratio:.2g} times what was measured: {said}.", ratio=ratio, said=tr(said) if said else ""),
        tr('You predicted {ratio:.2g} times what was measured, and called it "{said}". Choose "too low", "about right" or "too high".',
           ratio=ratio, said=said),
    )  # fmt: skip


def explains(text: str) -> bool:
    """Whether a text is a sentence at least, in any script: many different words, or many different characters."""
    words = {w.lower() for w in text.split() if any(c.isalpha() for c in w)}
    dense = {c for c in text if ord(c) > 0x2E7F}
    return len(words) >= FEWEST_WORDS or len(dense) >= FEWEST_CHARACTERS


def _time(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None
