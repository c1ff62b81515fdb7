"""One report: check the parameters, run the notebook, save what happened, whatever happened."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.filters import strip_ansi
from papermill.exceptions import PapermillExecutionError

from ..errors import ReportError, StorageError
from . import results as handed
from .common import CELL_TIMEOUT_S, START_TIMEOUT_S
from .engine import EXECUTED, FAILED, KEY, NOT_RUN, Execution, Progress, WallTimeLimit, is_code, is_marker, status_of
from .html import heading, to_html
from .parameters import check, effective, read_notebook
from .privacy import scrub_data, scrubber

#: Set in the kernel, so that widgets leave a figure and a table instead of waiting for a person.
HEADLESS = "AIINFRA_HEADLESS"
PAPERMILL_STATUS = {EXECUTED: "completed", FAILED: "failed", NOT_RUN: "pending"}


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Where a report lies and how it ended.

    Attributes:
        status: "done" when every code cell was executed, else "failed".
        notebook, html, results: The three files.
        error: One sentence, or "".
        data: What `results.json` holds.
    """

    status: str
    notebook: Path
    html: Path
    results: Path
    error: str
    data: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every code cell was executed."""
        return self.status == "done"


def report(
    notebook: Path,
    parameters: Mapping[str, Any],
    out: Path,
    *,
    timeout_s: float = CELL_TIMEOUT_S,
    start_timeout_s: float = START_TIMEOUT_S,
    wall_s: float | None = None,
    progress: Progress | None = None,
    on_end: Callable[[int | None], None] | None = None,
) -> ReportResult:
    """Run `notebook` with `parameters` and leave the executed notebook, one offline page and `results.json` in `out`.

    Nothing is ever overwritten: a folder that holds a report of this name is refused before anything runs. A notebook
    that fails is saved all the same, with its error in all three files; the answer says failed, nothing is raised.

    Args:
        notebook: A Python notebook; its folder is the kernel's working folder.
        parameters: By name; strings are converted to the type of the default.
        out: Folder, made if needed.
        timeout_s: For each cell; a cell that takes longer fails and the kernel is killed.
        start_timeout_s: For the kernel to answer.
        wall_s: For the whole notebook; one that takes longer is ended in its cell and saved as failed. In the main thread only.
        progress: Called with (code cells done, of how many, first line of the next).
        on_end: Called with the kernel's process id once that process is gone, so that what it started can be told.

    Raises:
        ReportError: Wrong parameters, no notebook, a report already there; nothing has run.
        StorageError: `out` cannot be written.
        KeyboardInterrupt, SystemExit: Interrupted or terminated; the report was saved first.
    """
    notebook, out = Path(notebook).absolute(), Path(out).absolute()
    source = read_notebook(notebook)
    given = check(source, parameters)
    files = _Files.claim(out, notebook.stem)
    environment = {**os.environ, HEADLESS: "1", handed.ENV: str(files.handed)}
    execution = Execution(
        source, given, files.scratch, notebook.parent, environment, timeout_s, start_timeout_s, progress
    )
    started = datetime.now(UTC)
    trouble: BaseException | None = None
    try:
        with _terminate_as_exit(wall_s):
            execution.run()
    except PapermillExecutionError:
        pass  # the failed cell says it better
    except BaseException as error:  # also an interrupt: what was run so far is saved before it goes on
        trouble = error
    finally:
        if on_end:
            on_end(execution.kernel_pid)
    executed = execution.notebook if execution.notebook is not None else source
    wrapped = _wrap(executed, notebook, effective(source, given), given, started, trouble, files)
    result = _save(executed, wrapped, notebook, files, progress)
    if trouble is not None and not isinstance(trouble, Exception | WallTimeLimit):
        raise trouble
    return result


@dataclass(frozen=True, slots=True)
class _Files:
    """Every path that a report writes."""

    notebook: Path
    html: Path
    results: Path
    scratch: Path
    handed: Path

    @classmethod
    def claim(cls, out: Path, stem: str) -> _Files:
        scratch = out / f".{stem}.part.ipynb"
        files = cls(
            out / f"{stem}.ipynb", out / f"{stem}.html", out / "results.json", scratch, out / f".{stem}.results"
        )
        taken = [p.name for p in (files.notebook, files.html, files.results) if p.exists()]
        if taken:
            raise ReportError(
                f"{out}: already holds {', '.join(taken)}; a report is never overwritten; "
                "choose another folder with -o, or move that one away"
            )
        try:
            out.mkdir(parents=True, exist_ok=True)
            scratch.write_text("")
            files.handed.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{out}: cannot be written ({error.strerror or error}); choose another folder with -o"
            ) from error
        return files


def _wrap(
    executed: nbformat.NotebookNode,
    notebook: Path,
    parameters: Mapping[str, Any],
    given: Mapping[str, Any],
    started: datetime,
    trouble: BaseException | None,
    files: _Files,
) -> dict[str, Any]:
    """Return the content of `results.json`; the status comes from the cells, not from papermill's word."""
    cells = _cells(executed)
    error = _error(executed, cells, trouble)
    try:
        results = handed.load(files.handed)
    except ReportError as unreadable:
        results, error = (
            None,
            error or {"name": "ReportError", "message": str(unreadable), "cell": None, "traceback": ""},
        )
    error = error or _run_error(results)
    done = not error and all(c["status"] == EXECUTED for c in cells)
    ended = datetime.now(UTC)
    wrapped = {
        "format": handed.FORMAT,
        "status": "done" if done else "failed",
        "notebook": notebook.name,
        "parameters": dict(parameters),
        "given": sorted(given),
        "cells": cells,
        "error": error,
        "results": results,
        "started_at": started.isoformat(timespec="seconds"),
        "ended_at": ended.isoformat(timespec="seconds"),
        "duration_s": round((ended - started).total_seconds(), 3),
        "versions": handed.versions(),
        "machine": handed.machine(),
        "files": {"notebook": files.notebook.name, "html": files.html.name},
    }
    scrub = scrubber({"notebook folder": notebook.parent, "report folder": files.notebook.parent})
    cleaned: dict[str, Any] = scrub_data(wrapped, scrub)
    return cleaned


def _cells(executed: nbformat.NotebookNode) -> list[dict[str, Any]]:
    return [
        {
            "cell": number,
            "id": cell.get("id", ""),
            "tags": list(cell.metadata.get("tags", [])),
            "status": status_of(cell),
            "duration_s": cell.metadata.get(KEY, {}).get("seconds"),
        }
        for number, cell in enumerate((c for c in executed.cells if is_code(c)), start=1)
    ]


def _error(
    executed: nbformat.NotebookNode, cells: list[dict[str, Any]], trouble: BaseException | None
) -> dict[str, Any] | None:
    codes = [c for c in executed.cells if is_code(c)]
    for row, cell in zip(cells, codes, strict=True):
        if row["status"] == FAILED:
            found = next((o for o in cell.outputs if o.output_type == "error"), None)
            if found:
                trace = strip_ansi("\n".join(found.traceback))  # type: ignore[no-untyped-call]
                return {"name": found.ename, "message": found.evalue, "cell": row["cell"], "traceback": trace}
            return _plain_error(trouble, row["cell"])
    if trouble is not None:
        return _plain_error(trouble, None)
    left = [row["cell"] for row in cells if row["status"] != EXECUTED]
    if left:
        message = f"the notebook ended itself before cell {left[0]}; {len(left)} of {len(cells)} cells were not run"
        return {"name": "SystemExit", "message": message, "cell": left[0] - 1 or None, "traceback": ""}
    return None


def _run_error(results: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A notebook whose cells all ran has failed all the same when the run that it reports did."""
    state = results.get("status") if results else None
    if state not in {"failed", "interrupted"} or results is None:
        return None
    return {
        "name": f"run {state}",
        "message": str(results.get("message", "")),
        "cell": None,
        "traceback": str(results.get("traceback") or ""),
    }


def _plain_error(trouble: BaseException | None, cell: int | None) -> dict[str, Any]:
    name = type(trouble).__name__ if trouble is not None else "CellExecutionError"
    message = str(trouble or "") or {"KeyboardInterrupt": "interrupted by the person who started it"}.get(name, "")
    return {"name": name, "message": message, "cell": cell, "traceback": ""}


def _save(
    executed: nbformat.NotebookNode, wrapped: dict[str, Any], notebook: Path, files: _Files, progress: Progress | None
) -> ReportResult:
    """Write the three files, the plainest first, so that a failure of one costs none of the others."""
    total = len(wrapped["cells"])
    if progress:
        progress(sum(c["status"] == EXECUTED for c in wrapped["cells"]), total, "writing the report")
    handed.write_json(files.results, wrapped)
    scrub = scrubber({"notebook folder": notebook.parent, "report folder": files.notebook.parent})
    private = scrub_data(executed, scrub)
    _settle(private)
    handed.write_text(files.notebook, nbformat.writes(private))
    title = heading(private) or notebook.stem.replace("_", " ")
    to_html(private, files.html, title, summary=wrapped, base=notebook.parent)
    for path in (files.scratch, files.handed):
        path.unlink(missing_ok=True)
    error = wrapped["error"]
    sentence = f"{error['name']}: {error['message']}" if error else ""
    if error and error["cell"]:
        sentence = f"cell {error['cell']}: {sentence}"
    return ReportResult(wrapped["status"], files.notebook, files.html, files.results, sentence, wrapped)


def _settle(executed: nbformat.NotebookNode) -> None:
    """Replace papermill's word on each cell by the evidence, and make sure that the result is a valid notebook."""
    if not any(is_code(c) and status_of(c) == FAILED for c in executed.cells):
        executed.cells = [c for c in executed.cells if not is_marker(c)]  # papermill marks announced errors as well
    for cell in executed.cells:
        if is_code(cell) and not is_marker(cell):
            status = status_of(cell)
            cell.metadata["papermill"] = {**cell.metadata.get("papermill", {}), "status": PAPERMILL_STATUS[status]}
            cell.metadata[KEY] = {**cell.metadata.get(KEY, {}), "status": status}
    nbformat.validate(executed)


@contextmanager
def _terminate_as_exit(wall_s: float | None) -> Iterator[None]:
    """While the notebook runs, SIGTERM and the end of `wall_s` raise SystemExit, so that the kernel is ended and the report saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    def overrun(number: int, frame: object) -> None:
        raise WallTimeLimit(
            f"the report took longer than its wall-time limit of {wall_s:g} s; nothing after this cell was run"
        )

    before = [(s, signal.signal(s, do)) for s, do in ((signal.SIGTERM, leave), (signal.SIGALRM, overrun))]
    signal.setitimer(signal.ITIMER_REAL, wall_s or 0.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before:
            signal.signal(number, handler)
