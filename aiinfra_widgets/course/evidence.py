"""What a learner measured and predicted, as plain JSON: what a check reads, and what a notebook hands in.

On the page a check reads the living `Lab` and the learner's ledger. Handed in, the same facts lie in the output of the
notebook's last cell, so that a submission is one file and is graded on the learner's own numbers, never on a new run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..texts import tr
from . import ledger

if TYPE_CHECKING:
    import pandas as pd

MIME = "application/vnd.aiinfra.record.v1+json"
FORMAT = 1
#: Where the grader lays the record for the notebook that it runs.
RECORD_FILE = "record.json"
#: A record is some ten kilobytes; more than this is not one.
LARGEST_BYTES = 8_000_000
#: Parts of the results that a check does not need: long, or about this machine.
_DROPPED = ("events", "traceback", "next", "last_tick", "message", "published", "notes")


class Evidence:
    """One learner's record: the results of a lab, the ledger's entries that belong to it, and what else the lab measured.

    Args:
        record: As `record_of` makes it.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    @classmethod
    def of(cls, lab: Any, more: Mapping[str, Any] | None = None) -> Evidence:
        """Return the evidence of a living lab, or what was handed in as it is.

        Args:
            lab: Anything with `results()`.
            more: Further things that the lab measured, by name: with `results()`, or a data frame.
        """
        return lab if isinstance(lab, cls) else cls(record_of(lab, **(more or {})))

    # --- what a notebook asks of it, in the place of the lab ----------------------------------------------------
    def results(self) -> dict[str, Any]:
        """Return the lab's results, as `Lab.results()` did when they were handed in."""
        return dict(self.record.get("results") or {})

    def segments(self) -> list[dict[str, Any]]:
        """Return the segments that were compared; transient ones say nothing."""
        return [s for s in self.results().get("segments") or [] if not s.get("transient")]

    def explain(self, text: str) -> None:
        """Do nothing: what the learner explained is in the ledger that was handed in."""

    def show(self, *_: Any) -> None:
        """Do nothing: there is no screen."""

    # --- what a check asks --------------------------------------------------------------------------------------
    def more(self, name: str) -> Any:
        """Return what else the lab measured under that name, or None."""
        return (self.record.get("more") or {}).get(name)

    def ledger(self) -> list[dict[str, Any]]:
        """Return the ledger's entries of this lab, oldest first."""
        return [e for e in self.record.get("ledger") or [] if isinstance(e, dict)]

    def run(self) -> str:
        """Return the id of the run, or "" where there is none."""
        return str(self.results().get("run") or "").rpartition("/")[2]

    def began(self) -> datetime | None:
        """Return when the run was asked for."""
        try:
            return datetime.fromtimestamp(float(self.record["began_s"]), UTC)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def where(self, **spec: Any) -> list[dict[str, Any]]:
        """Return the compared segments whose Spec has these values."""
        return [s for s in self.segments() if all((s.get("spec") or {}).get(k) == v for k, v in spec.items())]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return (
            f"Evidence of {self.run() or 'no run'}: {len(self.segments())} segments, {len(self.ledger())} predictions"
        )


def measured(segment: Mapping[str, Any], quantity: str) -> float | None:
    """Return what was measured of a quantity in one segment, in base units, or None."""
    return _number(((segment.get("quantities") or {}).get(quantity) or {}).get("measured"))


def predicted(segment: Mapping[str, Any], quantity: str) -> float | None:
    """Return what the model had said of it, in base units, or None."""
    return _number(((segment.get("quantities") or {}).get(quantity) or {}).get("predicted"))


def spread(segment: Mapping[str, Any], quantity: str) -> tuple[float, float] | None:
    """Return the quartiles, or the 95 % interval of a mean, as they were measured; None where neither is known."""
    found = (segment.get("quantities") or {}).get(quantity) or {}
    pair = found.get("measured_quartiles") or found.get("measured_interval_95")
    if not isinstance(pair, list) or len(pair) != 2 or None in map(_number, pair):
        return None
    return float(pair[0]), float(pair[1])


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def record_of(lab: Any, **more: Any) -> dict[str, Any]:
    """Return what a lab knows as plain JSON: no path, no name, no host.

    Args:
        lab: With `results()`.
        more: As for `Evidence.of`.
    """
    found = plain(lab.results())
    name = found.get("experiment") or ("scale_out" if "counts" in found else "claims")
    began = [e["wall_s"] for e in found.get("events") or [] if isinstance(e, dict) and e.get("kind") == "queued"]
    run = str(found.get("run") or "").rpartition("/")[2]
    kept = {k: v for k, v in found.items() if k not in _DROPPED}
    return {
        "format": FORMAT, "lab": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "began_s": min(began, default=None),
        "results": {**kept, "run": run or None}, "ledger": [e for e in plain(ledger.read()) if e.get("lab") == name],
        "more": {k: _placeless(plain(v.results() if hasattr(v, "results") else v)) for k, v in more.items()},
    }  # fmt: skip


def _placeless(value: Any) -> Any:
    """Return rows with the ids of their runs in the place of folders, which tell a learner's name."""
    if isinstance(value, list):
        return [_placeless(v) for v in value]
    if isinstance(value, dict) and isinstance(value.get("run"), str):
        return {**value, "run": value["run"].rpartition("/")[2]}
    return value


def plain(value: Any) -> Any:
    """Return `value` as JSON holds it: numpy's numbers and data frames too; what cannot be said becomes None."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return [{"at": plain(i), **plain(row)} for i, row in zip(value.index, value.to_dict("records"), strict=True)]
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else None


class HandIn:
    """The learner's record, as the output of a cell: it is saved with the notebook, which is then handed in."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record

    def __str__(self) -> str:
        own = Evidence(self.record)
        if not own.segments() and "segments" in own.results():
            return tr("Nothing was measured yet. Run the lab above, then run this cell again.")
        return tr("Your record is in this notebook: {segments} measured rows, {predictions} predictions. "
                  "Save the notebook (Ctrl-S) and hand it in.",
                  segments=len(own.segments()), predictions=len(own.ledger()))  # fmt: skip

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": f"<p>{escape(str(self))}</p>", MIME: self.record}


def hand_in(lab: Any, **more: Any) -> HandIn:
    """Put the learner's record into the notebook: run it as the last expression of a cell, then save.

    Args:
        lab: The lab of this notebook.
        more: What else it measured, as for `Evidence.of`.
    """
    return HandIn(lab.record if isinstance(lab, Evidence) else record_of(lab, **more))


def handed_in(folder: Path | None = None) -> Evidence:
    """Return what a learner handed in; used by the notebook that is graded, in the place of the lab.

    Raises:
        DataError: There is no record, or it is not one.
    """
    return Evidence(load((folder or Path()) / RECORD_FILE))


def load(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        DataError: There is none, it is too large, or it is not one.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise DataError(f"{path.name}: {path.stat().st_size} bytes; a record has at most {LARGEST_BYTES}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: no record of a lab can be read there ({error})") from error
    return checked(found)


def checked(found: Any) -> dict[str, Any]:
    """Return `found` where it is a record of this release.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("results"), dict):
        raise DataError(f"not a record of format {FORMAT}; run the notebook's last cell again, and save it")
    return found


def table(lab: Any, *quantities: str) -> pd.DataFrame:
    """Return what was measured, a row for each segment that was compared, in base units.

    Args:
        lab: The lab, or what was handed in.
        quantities: Columns beside the fields that were changed; all that were measured if none is named.
    """
    import pandas as pd

    rows = Evidence.of(lab).segments()
    specs = [s.get("spec") or {} for s in rows]
    changed = [k for k in (specs[0] if specs else {}) if k == "nodes" or len({str(s.get(k)) for s in specs}) > 1]
    named = quantities or tuple(dict.fromkeys(q for s in rows for q in s["quantities"] if measured(s, q) is not None))
    data = [
        {k: spec.get(k) for k in changed} | {q: measured(s, q) for q in named}
        for s, spec in zip(rows, specs, strict=True)
    ]
    return pd.DataFrame(data, index=pd.Index([s["segment"] for s in rows], name="segment"))


def records_in(cells: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the records in the outputs of a notebook's cells, in order; what is not one is left out."""
    for cell in cells:
        for output in cell.get("outputs") or []:
            data = (output.get("data") or {}).get(MIME)
            if data is not None:
                try:
                    yield checked(json.loads(data) if isinstance(data, str) else data)
                except (DataError, ValueError):
                    continue
