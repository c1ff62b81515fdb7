"""The runs of a folder as rows: what their manifests say, at once for a thousand of them, and what they measured, for a page.

Reading a manifest costs a tenth of a millisecond, a whole run some hundredths of a second. So a list is made of the
manifests, and only the runs that a person sees are read. One that has ended is read once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..comparison import Comparison, Row, compare
from ..errors import LabError
from ..quantities import Value, quantity, show
from ..runs.layout import FORMAT, RunDir
from ..runs.reader import RunReader
from ..runs.status import status
from .words import with_label


@dataclass(frozen=True, slots=True)
class Listed:
    """What the manifest of a run says; `problem` where it cannot be read."""

    id: str
    path: Path
    when: str = ""
    experiment: str = ""
    nodes: int | None = None
    note: str = ""
    words: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What reading a run told: its state, and the main quantity of its last settled segment."""

    state: str
    message: str
    final: bool
    quantity: str = ""
    predicted: Value | None = None
    measured: Value | None = None
    error: float | None = None
    setup: str = ""
    nodes: str = ""


def index(folder: Path) -> list[Listed]:
    """Return every run in `folder`, newest first, from its manifest alone."""
    paths = sorted((p.parent for p in folder.glob("*/run.json")), reverse=True)
    return [_listed(p) for p in paths]


def _listed(path: Path) -> Listed:
    try:
        data = json.loads((path / "run.json").read_text())
        spec = data["spec"]
        if data["format"] != FORMAT:
            return Listed(
                path.name, path, problem=f"run directory of format {data['format']}; this release reads {FORMAT}"
            )
        words = " ".join(str(v) for v in (path.name, data["experiment"], data.get("note", ""), *spec.values()))
        when = datetime.fromisoformat(data["made_at"]).astimezone()
        return Listed(
            path.name, path, f"{when:%Y-%m-%d %H:%M}", data["experiment"], spec.get("nodes"), data.get("note", ""), words.lower()
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Listed(path.name, path, problem=f"run.json cannot be read: {error}")


def matching(rows: Iterable[Listed], text: str = "", experiment: str = "") -> list[Listed]:
    """Return the rows of one experiment ("": all) that hold every word of `text`, in id, note or setup."""
    wanted = text.lower().split()
    return [r for r in rows if experiment in {"", r.experiment} and all(w in (r.words or r.id.lower()) for w in wanted)]


class Reading:
    """Reads runs for the rows that are looked at; what has ended is kept."""

    def __init__(self) -> None:
        self._kept: dict[Path, Told] = {}

    def known(self, row: Listed) -> Told | None:
        """Return what is known of a run without reading it."""
        return self._kept.get(row.path)

    def told(self, row: Listed) -> Told:
        """Read a run, unless it had ended when it was last read."""
        found = self._kept.get(row.path)
        if found is None or not found.final:
            found = self._kept[row.path] = _read(row)
        return found

    def paths(self) -> list[Path]:
        """Return the runs that were read."""
        return list(self._kept)

    def forget(self, paths: Iterable[Path]) -> None:
        """Read these again the next time: one may have been resumed."""
        for path in paths:
            self._kept.pop(path, None)


def _read(row: Listed) -> Told:
    if row.problem:
        return Told("unreadable", row.problem, True)
    try:
        reader = RunReader(RunDir(row.path))
        reader.poll()
        now = status(reader)
        found = [compare(reader.experiment, s) for s in reader.segments()]
        best, setup, nodes = main_row(found), _setup(reader), _nodes(reader.asked.nodes, found)
        name = reader.experiment.compared[0] if reader.experiment.compared else ""
        if best is None or not name:
            return Told(now.state, now.message, now.final, setup=setup, nodes=nodes)
        numbers = best.predicted, best.measured, best.relative_error
        return Told(now.state, now.message, now.final, name, *numbers, setup, nodes)
    except (LabError, OSError, ValueError, KeyError) as error:
        return Told("unreadable", str(error), True)


def _setup(reader: RunReader) -> str:
    """What was asked that is not the default, in words; the node count has a column of its own."""
    spec, knobs = reader.asked, reader.asked.knobs()
    return ", ".join(
        with_label(k, v) for n, k in knobs.items() if n != "nodes" and (v := getattr(spec, n)) != k.default
    )


def _nodes(asked: int, found: Sequence[Comparison]) -> str:
    """Return the nodes of the stretch whose figures are shown, behind those that were asked for where they differ."""
    settled = [c for c in found if not c.segment.transient] or list(found)
    last = settled[-1].segment.spec.nodes if settled else asked
    return str(last) if last == asked else f"{asked}\u2192{last}"


def main_row(found: Sequence[Comparison]) -> Row | None:
    """Return the main quantity of the last segment that settled, else of the last one; None where nothing was measured."""
    settled = [c for c in found if not c.segment.transient] or list(found)
    return settled[-1].rows[0] if settled and settled[-1].rows else None


def cells(row: Listed, told: Told | None) -> dict[str, str]:
    """Return what the table shows of a run; "..." for what is still being read."""
    found = {
        "id": row.id, "when": row.when, "experiment": row.experiment, "note": row.note or (told.setup if told else ""),
        "nodes": told.nodes if told and told.nodes else "" if row.nodes is None else str(row.nodes),
    }  # fmt: skip
    if told is None:
        return {
            **found,
            "state": "",
            "message": "",
            "quantity": "",
            "predicted": "\u2026",
            "measured": "\u2026",
            "error": "",
        }
    shown = {
        k: show(told.quantity, v.value) if v and v.value is not None else "\u2013"
        for k, v in (("predicted", told.predicted), ("measured", told.measured))
    }
    error = "" if told.error is None else f"{told.error:+.0%}".replace("-", "\u2212")
    label = quantity(told.quantity).label if told.quantity else ""
    return {**found, "state": told.state, "message": told.message, "quantity": label, **shown, "error": error}
