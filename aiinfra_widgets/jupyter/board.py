"""What the sidebar shows: the runs that go on and the newest ended ones, each with its state and what it has cost so far."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LabError
from ..machine.limits import limit
from ..quantities import quantity, show
from ..runs.home import runs_folder
from ..runs.reader import RunReader
from ..runs.status import Status, status
from ..texts import told, tr

#: Ended runs that are shown, newest first, and runs that are looked at.
ENDED, LOOKED_AT = 6, 60
#: Several windows of one person share a look.
FRESH_S = 0.5
#: The cost of a run is counted again after so long, and after so many times as long as counting took: it grows with the run.
COSTS_S, COSTS_TIMES = 2.0, 20.0
COSTS = ("energy_j", "cost_usd", "operational_gco2e")


@dataclass
class _Seen:
    """What is known of one run; an ended one is read once."""

    reader: RunReader
    incarnations: int = -1
    now: Status | None = None
    row: dict[str, Any] | None = None
    costs: list[dict[str, str]] = field(default_factory=list)
    costs_due_s: float = 0.0

    def counted(self) -> list[dict[str, str]]:
        """Return what the run has cost, not always to the second."""
        begun_s = time.monotonic()
        if begun_s >= self.costs_due_s or (self.now is not None and self.now.final):
            self.costs = costs(self.reader)
            took_s = time.monotonic() - begun_s
            self.costs_due_s = begun_s + max(COSTS_S, COSTS_TIMES * took_s)
        return self.costs


@dataclass
class Board:
    """The table behind the sidebar; safe to ask from several threads."""

    _seen: dict[Path, _Seen] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _at_s: float = -FRESH_S
    _home: Path | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return the runs: those that go on, then the newest ended ones; plain JSON types."""
        with self._lock:
            folder = runs_folder()
            if time.monotonic() - self._at_s >= FRESH_S or folder != self._home:
                self._rows, self._home = self._look(folder), folder
                self._at_s = time.monotonic()
            return self._rows

    def stale(self) -> None:
        """Something was asked: look anew at the next question."""
        self._at_s = -FRESH_S

    def _look(self, folder: Path) -> list[dict[str, Any]]:
        # A run's folder begins with the time at which it was made.
        paths = sorted((p.parent for p in folder.glob("*/run.json")), reverse=True)[:LOOKED_AT]
        for gone in set(self._seen) - set(paths):
            del self._seen[gone]
        going: list[dict[str, Any]] = []
        ended: list[dict[str, Any]] = []
        for path in paths:
            try:
                seen = self._seen.get(path) or self._seen.setdefault(path, _Seen(RunReader(path)))
                now = self._status(seen)
                if not now.final:
                    going.append(self._row(seen, now))
                elif len(ended) < ENDED:
                    seen.row = seen.row or self._row(seen, now)
                    ended.append(seen.row)
            except (LabError, OSError, ValueError, KeyError):
                continue  # not a run of this release, or damaged: `aiinfra runs` says so
        return going + ended

    def _status(self, seen: _Seen) -> Status:
        """Return the status; of a run that has ended it is kept until the run is resumed."""
        incarnations = seen.reader.run.incarnations()
        if seen.now is not None and seen.now.final and incarnations == seen.incarnations:
            return seen.now
        seen.reader.poll_events()
        seen.now, seen.incarnations, seen.row = status(seen.reader), incarnations, None
        return seen.now

    def _row(self, seen: _Seen, now: Status) -> dict[str, Any]:
        reader = seen.reader
        reader.poll()
        spec, exp = reader.spec, reader.experiment
        ticks = max((int(row["tick"]) for row in reader.latest().values()), default=0)
        most, why = limit(reader.machine)
        return {
            "id": reader.run.id, "experiment": exp.name, "title": tr(exp.title), "state": now.state, "message": told(now.message),
            "next": told(now.next_step), "final": now.final, "ok": now.ok, "nodes": int(spec.nodes),
            "most_nodes": most - spec.coordinators, "most_why": why, "ticks": ticks, "tick": exp.tick,
            "note": str(reader.manifest.get("note", "")), "made_at": reader.manifest.get("made_at", ""),
            "about": str(getattr(spec, "workload", "") or getattr(spec, "policy", "")), "costs": seen.counted(),
            "left_s": left_s(reader) if not now.final else None, "path": str(reader.run.path),
        }  # fmt: skip


def costs(reader: RunReader) -> list[dict[str, str]]:
    """Return energy, money and carbon of a run so far, as texts with their method; what no segment knows is left out."""
    found = []
    segments = reader.segments()
    for name in COSTS:
        known = [v for s in segments if (v := s.values.get(name)) is not None and isinstance(v.value, float | int)]
        if known:
            total = sum(float(v.value) for v in known)
            methods = ", ".join(dict.fromkeys(tr(v.method) for v in known))
            label = tr(quantity(name).label)
            found.append(
                {"name": name, "label": label, "text": show(name, total), "method": methods, "how": told(known[-1].how)}
            )
    return found


def left_s(reader: RunReader) -> float | None:
    """Return the seconds until the administrator's limit ends the run, None where there is none."""
    begun = [e for e in reader.kind("launching") if e["incarnation"] == reader.run.incarnations() - 1]
    until_s = begun[-1].get("until_s") if begun else None
    return max(float(until_s) - time.monotonic(), 0.0) if until_s is not None else None
