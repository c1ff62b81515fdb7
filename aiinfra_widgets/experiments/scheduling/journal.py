"""Which jobs there were, and what became of them, on disk as soon as the scheduler knows: whoever schedules next goes on from here.

The journal holds what was asked. What happened is in the run's own records, and read from there: nothing is written down twice.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runs.layout import RunDir
from .holdings import Interval
from .jobs import Job, State
from .vocabulary import INTERVALS, JOBS, STATES

FIELDS = (
    "id", "submit_s", "nodes", "work_s", "estimate_s", "min_nodes", "max_nodes", "priority", "user", "deadline_s", "depends_on",
)  # fmt: skip


class Journal:
    """A file of JSON lines: a job when it is submitted, and again what of it has changed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = os.open(folder / "jobs.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def submitted(self, job: Job) -> None:
        """Write down a job as its user asked for it."""
        self._write({"job": {name: getattr(job, name) for name in FIELDS}})

    def changed(self, job: Job) -> None:
        """Write down another priority, or that the job was started once more."""
        self._write({"id": job.id, "priority": job.priority, "segments": job.segments})

    def read(self) -> list[Job]:
        """Return the jobs submitted so far, as if none of them had run yet, in the order of their submission."""
        jobs: dict[int, Job] = {}
        for line in os.pread(self._file, os.fstat(self._file).st_size, 0).splitlines():
            try:
                entry: dict[str, Any] = json.loads(line)
            except ValueError:
                continue  # torn by a crash
            if "job" in entry:
                fields = {**entry["job"], "depends_on": tuple(entry["job"]["depends_on"])}
                jobs[fields["id"]] = Job(**fields)
            elif entry["id"] in jobs:
                jobs[entry["id"]].priority, jobs[entry["id"]].segments = entry["priority"], entry["segments"]
        return list(jobs.values())

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, (json.dumps(entry) + "\n").encode())


@dataclass
class Past:
    """What the records of a run tell of its jobs.

    Attributes:
        ends: How each job ended that has ended.
        bars: Who held which node when, as far as it is over, by job.
        open: Bars that nobody has closed, each with the segment in which it began: their scheduler died.
        last_s: The latest moment of which they tell.
    """

    ends: dict[int, State] = field(default_factory=dict)
    bars: dict[int, list[Interval]] = field(default_factory=dict)
    open: list[tuple[int, Interval]] = field(default_factory=list)
    last_s: float = 0.0

    def tell(self, job: Job) -> None:
        """Enter in a job when it started, and how long it held nodes."""
        bars = sorted(self.bars.get(job.id, []), key=lambda bar: bar.start_s)
        if not bars:
            return
        job.start_s, until_s = bars[0].start_s, -math.inf
        for bar in bars:  # those of one gang lie beside each other
            job.held_node_s += bar.end_s - bar.start_s
            job.held_s += max(bar.end_s - max(bar.start_s, until_s), 0.0)
            until_s = max(until_s, bar.end_s)


def recorded(run: RunDir) -> Past:
    """Return what the records tell; bars that nobody closed count as over at the latest moment of which they tell."""
    past = Past()
    begun: dict[Interval, int] = {}
    for segment, row in _rows(run, "intervals", INTERVALS):
        bar = Interval(int(row["job"]), int(row["node"]), row["start_s"], math.nan)
        if math.isnan(row["end_s"]):
            begun.setdefault(bar._replace(end_s=0.0), segment)
        else:
            past.bars.setdefault(bar.job, []).append(bar._replace(end_s=row["end_s"]))
        past.last_s = max(past.last_s, row["start_s"], row["end_s"] if row["end_s"] > 0 else 0.0)
    for _, row in _rows(run, "jobs", JOBS):
        past.ends[int(row["job"])] = STATES[int(row["state"])]
        past.last_s = max(past.last_s, row["end_s"])
    closed = {bar._replace(end_s=0.0) for bars in past.bars.values() for bar in bars}
    for bar, segment in begun.items():
        if bar not in closed:
            over = bar._replace(end_s=past.last_s)
            past.open.append((segment, over))
            past.bars.setdefault(bar.job, []).append(over)
    return past


def _rows(run: RunDir, table: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield segment and columns of every whole row of a record, whoever wrote it."""
    for path in sorted((run.path / "records").glob(f"*-{table}.csv")):
        for line in path.read_text().split("\n")[1:-1]:
            _, segment, *cells = line.split(",")
            if len(cells) == len(columns):
                yield int(segment), {n: float(c or "nan") for n, c in zip(columns, cells, strict=True)}
