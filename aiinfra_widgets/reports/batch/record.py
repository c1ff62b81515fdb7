"""`batch.json`: everything that is known of a batch, read anew from what lies in its folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..results import machine, versions
from .differences import of_report
from .folder import Folder, now, read_json
from .key_results import key_results
from .plan import Job, Plan

FORMAT = 1
RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"


class Record:
    """The record of one batch; it is made again after each report.

    Args:
        plan: What was asked for.
        folder: Where it lies.
        previous: The folder of the batch that this one is compared with.
    """

    def __init__(self, plan: Plan, folder: Folder, previous: Path | None, starts: list[dict[str, Any]]) -> None:
        self.plan, self.folder, self.starts = plan, folder, starts
        self.notes: list[str] = []
        before = read_json(previous / "batch.json") if previous else None
        self.previous = (
            {"folder": os.path.relpath(previous, folder.root), "started_at": (before or {}).get("started_at")}
            if previous
            else None
        )
        self._before: dict[str, Any] = {r["id"]: r for r in (before or {}).get("reports", [])}
        self._entries: dict[str, dict[str, Any]] = {}
        self._machine, self._versions = machine(), versions()

    def data(self, under_way: Collection[str], state: str) -> dict[str, Any]:
        """Return the content of `batch.json`.

        Args:
            under_way: Reports that are being made.
            state: running, done, failed or interrupted.
        """
        reports = [self._entry(job, job.id in under_way) for job in self.plan.jobs]
        asked = {job.id for job in self.plan.jobs}
        count = Counter(r["status"] for r in reports)
        return {
            "format": FORMAT,
            "title": self.plan.title,
            "status": state,
            "started_at": self.starts[0]["started_at"],
            "updated_at": now(),
            "starts": self.starts,
            "file": self.plan.path.name,
            "counts": {s: count[s] for s in ("done", "failed", "under way", "waiting")},
            "share_cores": self.plan.share_cores,
            "notes": self.notes,
            "previous": self.previous,
            "gone": sorted(set(self._before) - asked),
            "machine": self._machine,
            "versions": self._versions,
            "reports": reports,
        }

    def forget(self, id_: str) -> None:
        """Read a report again the next time: it has been made."""
        self._entries.pop(id_, None)

    def _entry(self, job: Job, under_way: bool) -> dict[str, Any]:
        if job.id in self._entries and not under_way:
            return self._entries[job.id]
        outcome = None if under_way else self.folder.outcome(job.id)
        entry = self._described(job, outcome)
        entry["status"] = "under way" if under_way else outcome["status"] if outcome else "waiting"
        if outcome:
            entry["changes"] = of_report(self._before.get(job.id), entry) if self.previous else []
            self._entries[job.id] = entry
        return entry

    def _described(self, job: Job, outcome: Mapping[str, Any] | None) -> dict[str, Any]:
        place = self.folder.reports / job.id
        results = (read_json(place / "results.json") if outcome else None) or {}
        told = outcome or {}
        return {
            "id": job.id,
            "name": job.name,
            "notebook": job.notebook.name,
            "parameters": results.get("parameters") or dict(job.parameters),
            "varied": dict(job.varied),
            "status": "waiting",
            "error": told.get("error"),
            "started_at": told.get("started_at"),
            "ended_at": told.get("ended_at"),
            "duration_s": told.get("duration_s"),
            "attempt": told.get("attempt"),
            "files": {kind: f"reports/{job.id}/{name}" for kind, name in told.get("files", {}).items()},
            "key_results": key_results(results.get("results")),
            "changes": [],
        }
