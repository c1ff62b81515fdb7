"""Published traces as streams of jobs: the Standard Workload Format, and CSV tables in the manner of Philly and Helios."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ...errors import DataError, near
from .jobs import Job
from .synthetic import node_shape

#: What to do with a job that has no run time or no demand (cancelled before it started, or without accelerators).
Unusable = Literal["refuse", "skip"]

SWF_FIELDS = 18
#: Names under which CSV traces have what we need; the first is ours, the others as published (Helios, Philly, Acme, PAI).
CSV_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "submit": ("submit_s", "submit_time", "submitted_time"),
    "run": ("work_s", "duration", "run_time", "runtime"),
    "demand": ("accelerators", "gpu_num", "num_gpus", "gpus"),
    "id": ("id", "job_id", "jobid", "job_name"),
    "user": ("user", "user_id"),
    "estimate": ("estimate_s", "time_limit", "timelimit"),
    "priority": ("priority",),
    "deadline": ("deadline_s",),
}
_NEEDED = ("submit", "run", "demand")


def read_trace(path: Path | str, slots_per_node: int = 1, unusable: Unusable = "refuse") -> Iterator[Job]:
    """Yield the jobs of a trace: `read_swf` for a name that ends in .swf, else `read_csv`.

    Raises:
        DataError: There is no such file, or as the two.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such file; give the path of a .swf or .csv trace")
    read = read_swf if Path(path).suffix.lower() == ".swf" else read_csv
    return read(path, slots_per_node, unusable)


def read_swf(path: Path | str, slots_per_node: int = 1, unusable: Unusable = "refuse") -> Iterator[Job]:
    """Yield the jobs of a file in the Standard Workload Format, one at a time.

    Args:
        path: The file; lines that begin with `;` are comments.
        slots_per_node: Processors of a node: a job takes as few nodes as can hold it, evenly.
        unusable: What to do with a job without run time or processors: refuse the file, or leave the job out.

    A job's demand is what it was allocated, else what it requested; its estimate is the requested time; it depends on its
    preceding job, without think time. Memory is per processor in the file and per node here.

    Raises:
        DataError: With file:line: not 18 numbers, a value below -1, jobs that are not sorted by submission, no submission.

    Source: version 2.2 of the format, Parallel Workloads Archive.
    """
    last_s, seen = -math.inf, set()
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith(";"):
                continue
            where = f"{path}:{number}"
            values = _swf_numbers(text, where)
            job_id, submit_s, run_s, preceding = int(values[0]), values[1], values[3], int(values[16])
            last_s = _in_order(submit_s, last_s, where)
            demand = int(values[4] if values[4] > 0 else values[7])
            if run_s <= 0 or demand <= 0:
                if unusable == "refuse":
                    raise DataError(
                        f"{where}: job {job_id} has run time {run_s:g} and {demand} processors; allowed: above 0; read "
                        "with unusable='skip' to leave such jobs out"
                    )
                continue
            if job_id in seen:
                raise DataError(f"{where}: job {job_id} is there twice; each job needs a number of its own")
            nodes, slots = node_shape(demand, slots_per_node)
            memory_kib = next((m for m in (values[9], values[6]) if m > 0), 0.0)
            yield Job(
                job_id,
                submit_s,
                nodes,
                run_s,
                values[8] if values[8] > 0 else run_s,
                slots,
                memory_bytes=memory_kib * 1024 * slots,
                user=f"{values[11]:g}" if values[11] >= 0 else "",
                depends_on=(preceding,) if preceding in seen else (),
            )
            seen.add(job_id)


def read_csv(path: Path | str, slots_per_node: int = 8, unusable: Unusable = "refuse") -> Iterator[Job]:
    """Yield the jobs of a CSV table with a header, one at a time.

    Args:
        path: The file. Columns are found by the names in `CSV_COLUMNS`; others are ignored.
        slots_per_node: Accelerators of a node: a job takes as few nodes as can hold it, evenly.
        unusable: What to do with a job without run time or accelerators: refuse the file, or leave the job out.

    Times of submission are seconds, or dates; dates are counted from the first. An id that is no whole number is kept as
    the job's payload, and the job is numbered by its row.

    Raises:
        DataError: With file:line: a column is missing, a value cannot be read or is negative, rows are not sorted.
    """
    with Path(path).open(newline="", encoding="utf-8", errors="replace") as lines:
        rows = csv.DictReader(lines)
        columns = _csv_columns(rows.fieldnames or (), f"{path}:1")
        first: float | None = None
        last_s = -math.inf
        for number, row in enumerate(rows):
            where = f"{path}:{rows.line_num}"
            cells = {ours: (row.get(theirs) or "").strip() for ours, theirs in columns.items()}
            at_s, dated = _moment(cells["submit"], columns["submit"], where)
            first = at_s if first is None and dated else first
            at_s -= first or 0.0
            last_s = _in_order(at_s, last_s, where)
            run_s = _number(cells["run"] or "0", columns["run"], where)
            demand = int(_number(cells["demand"] or "0", columns["demand"], where))
            if run_s == 0 or demand == 0:
                if unusable == "refuse":
                    raise DataError(
                        f"{where}: {columns['run']} is {run_s:g} and {columns['demand']} is {demand}; allowed: above 0; "
                        "read with unusable='skip' to leave such jobs out"
                    )
                continue
            yield _csv_job(cells, columns, where, number, at_s, run_s, node_shape(demand, slots_per_node))


def _csv_job(
    cells: Mapping[str, str],
    columns: Mapping[str, str],
    where: str,
    number: int,
    submit_s: float,
    run_s: float,
    shape: tuple[int, int],
) -> Job:
    def optional(name: str) -> float | None:
        return _number(cells[name], columns[name], where) if cells.get(name) else None

    name = cells.get("id", "")
    return Job(
        int(name) if name.isdecimal() else number,
        submit_s,
        shape[0],
        run_s,
        optional("estimate") or run_s,
        shape[1],
        priority=optional("priority") or 0.0,
        user=cells.get("user", ""),
        deadline_s=optional("deadline"),
        payload=None if name.isdecimal() else name or None,
    )


def _swf_numbers(text: str, where: str) -> list[float]:
    cells = text.split()
    if len(cells) != SWF_FIELDS:
        raise DataError(f"{where}: {len(cells)} fields; a job has {SWF_FIELDS}, and -1 where nothing is known")
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise DataError(f"{where}: {error}; a job is {SWF_FIELDS} numbers; a comment begins with ;") from error
    for field, value in enumerate(values, 1):
        if (value < 0 and value != -1) or not math.isfinite(value):
            raise DataError(f"{where}: field {field} is {value:g}; allowed: from 0, or -1 for not known")
    if values[1] == -1:
        raise DataError(f"{where}: the time of submission (field 2) is missing; a stream cannot be made without it")
    return values


def _in_order(submit_s: float, last_s: float, where: str) -> float:
    if submit_s < last_s:
        raise DataError(
            f"{where}: submitted at {submit_s:g} s, the job before at {last_s:g} s; sort the file by time of submission"
        )
    return submit_s


def _csv_columns(header: Iterable[str], where: str) -> dict[str, str]:
    names = {name.strip().lower(): name for name in header if name}
    found = {ours: next((names[n] for n in known if n in names), "") for ours, known in CSV_COLUMNS.items()}
    for ours in _NEEDED:
        if not found[ours]:
            raise DataError(
                f"{where}: no column for {ours}; allowed names: {', '.join(CSV_COLUMNS[ours])}; {near(ours, names)}"
            )
    return {ours: theirs for ours, theirs in found.items() if theirs}


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{where}: {column} is {text!r}; allowed: a number from 0") from error
    if not 0 <= value < math.inf:
        raise DataError(f"{where}: {column} is {value:g}; allowed: a number from 0")
    return value


def _moment(text: str, column: str, where: str) -> tuple[float, bool]:
    """Return seconds, and whether they were written as a date (a date without a zone is read as UTC)."""
    if not text:
        raise DataError(f"{where}: {column} is empty; a stream cannot be made without the time of submission")
    try:
        float(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text)
        except ValueError as error:
            raise DataError(f"{where}: {column} is {text!r}; allowed: seconds from 0, or a date") from error
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp(), True
    return _number(text, column, where), False
