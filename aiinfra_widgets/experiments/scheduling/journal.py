"""Which jobs there were, on disk as soon as the scheduler knows: whoever schedules next goes on from here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .jobs import Job

FIELDS = (
    "id", "submit_s", "nodes", "work_s", "estimate_s", "min_nodes", "max_nodes", "priority", "user", "deadline_s", "depends_on",
)  # fmt: skip


class Journal:
    """A file of JSON lines: a job when it is submitted, its final state when it has one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = os.open(folder / "jobs.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def submitted(self, job: Job) -> None:
        """Write down a job as its user asked for it."""
        self._write({"job": {name: getattr(job, name) for name in FIELDS}})

    def ended(self, job: Job) -> None:
        """Write down how a job ended."""
        self._write({"id": job.id, "state": job.state, "reason": job.reason, "end_s": job.end_s})

    def read(self) -> tuple[list[dict[str, Any]], set[int]]:
        """Return the jobs submitted so far, as arguments of `Job`, and the numbers of those that have ended."""
        size = os.fstat(self._file).st_size
        jobs: dict[int, dict[str, Any]] = {}
        ended: set[int] = set()
        for line in os.pread(self._file, size, 0).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # torn by a crash
            if "job" in entry:
                jobs[entry["job"]["id"]] = {**entry["job"], "depends_on": tuple(entry["job"]["depends_on"])}
            else:
                ended.add(entry["id"])
        return list(jobs.values()), ended

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, (json.dumps(entry) + "\n").encode())
