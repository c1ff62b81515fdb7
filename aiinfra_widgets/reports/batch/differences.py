"""What is different from the batch before: outcomes that changed, key results that moved further than chance explains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...quantities import QUANTITIES, show
from .folder import read_json

#: A prediction is arithmetic: one that differs by more than this has another model, machine profile or catalog behind it.
SAME_PREDICTION = 1e-6


def earlier(folder: Path, title: str, started_at: str) -> Path | None:
    """Return the newest batch of this title beside `folder` that began before it, None where there is none."""
    found = []
    for record in folder.parent.glob("*/batch.json"):
        if record.parent == folder:
            continue
        data = read_json(record) or {}
        if data.get("title") == title and str(data.get("started_at", "~")) < started_at:
            found.append((str(data["started_at"]), record.parent))
    return max(found)[1] if found else None


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return in words how a key result moved between two batches, "" where it did not.

    A measured value has moved when each median lies outside the quartiles (or the interval) of the other. Without a spread on
    both sides nothing can be said of it. A prediction has moved when it is another number.
    """
    said = []
    name, unit = str(after.get("quantity") or ""), str(after.get("unit") or "1")
    if before.get("word") != after.get("word"):
        return f"{before.get('word') or 'none'} became {after.get('word') or 'none'}"
    old, new = before.get("measured"), after.get("measured")
    if (old is None) != (new is None):
        said.append("was measured, is not" if new is None else "was not measured, is now")
    elif old is not None and new is not None and _outside(old, after) and _outside(new, before):
        said.append(f"measured {show(unit, old)} became {show(unit, new)}{_percent(old, new)}{_judged(name, old, new)}")
    old, new = before.get("predicted"), after.get("predicted")
    if old is not None and new is not None and abs(new - old) > SAME_PREDICTION * max(abs(old), abs(new)):
        said.append(f"predicted {show(unit, old)} became {show(unit, new)}{_percent(old, new)}")
    return "; ".join(said)


def of_report(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what changed in one report since the batch before.

    Args:
        before, after: Entries of `reports` in `batch.json`; None where the batch before had no such report.

    Returns:
        Rows with `kind` (new, outcome, parameters, result), `at` and `text`.
    """
    if before is None:
        return [{"kind": "new", "at": "", "text": "not in the batch before"}]
    found = []
    if before.get("status") != after.get("status"):
        found.append({"kind": "outcome", "at": "", "text": f"{before.get('status')} became {after.get('status')}"})
    if before.get("parameters") != after.get("parameters") and after.get("parameters") and before.get("parameters"):
        names = [k for k, v in after["parameters"].items() if before["parameters"].get(k) != v]
        found.append({"kind": "parameters", "at": "", "text": f"other parameters: {', '.join(names) or 'fewer'}"})
    rows = {row["key"]: row for row in before.get("key_results", [])}
    pairs = ((row, rows.get(row["key"])) for row in after.get("key_results", []))
    found += [
        {"kind": "result", "at": f"{row['label']}, {row['at']}", "text": text}
        for row, old in pairs
        if old and (text := moved(old, row))
    ]
    return found


def _outside(value: float, row: Mapping[str, Any]) -> bool:
    low, high = row.get("low"), row.get("high")
    return low is not None and high is not None and not low <= value <= high


def _percent(old: float, new: float) -> str:
    return f" ({new / old - 1:+.0%})" if old else ""


def _judged(name: str, old: float, new: float) -> str:
    better = QUANTITIES[name].better if name in QUANTITIES else "neither"
    if better == "neither" or old == new:
        return ""
    return ", better" if (new < old) == (better == "lower") else ", worse"
