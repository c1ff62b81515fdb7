"""One report of a batch as a process: started, limited, judged by what it left, with nothing of it left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ...launch.processes import die_with_parent, tail, tree
from ..results import write_json
from .folder import MARK, Folder, end_marked, now, read_json
from .plan import Job

#: A child ends its report by itself at the limit; one that has not done so by then is killed.
PATIENCE_S = 60.0
#: To save what there is after a request to stop.
STOP_WAIT_S = 30.0


class Running:
    """A report that is being made.

    Args:
        job: What to make.
        folder: Of the batch.
        pdf: Whether a PDF is wanted as well.
        attempt: Which one this is, from 1.
    """

    def __init__(self, job: Job, folder: Folder, *, pdf: bool, attempt: int) -> None:
        self.job, self.folder, self.attempt = job, folder, attempt
        self.path = folder.begin(job.id)
        self.started_at, self._started_s = now(), time.monotonic()
        self._mark, self._killed = uuid.uuid4().hex, False
        asked = {
            "notebook": str(job.notebook.absolute()), "given": dict(job.given), "cell_s": job.cell_s, "wall_s": job.wall_s,
            "pdf": pdf, "mark": self._mark, "attempt": attempt,
        }  # fmt: skip
        write_json(self.path / "job.json", asked)
        with (self.path / "log.txt").open("w") as log:
            # A session of its own: a Ctrl-C is the batch's to handle. When the batch is killed, the child is asked to end.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aiinfra_widgets.reports.batch.child", str(self.path / "job.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: self._mark},
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def ended(self) -> bool:
        """Whether the process is gone; one far beyond its limit is killed here."""
        if self._process.poll() is not None:
            return True
        if time.monotonic() - self._started_s > self.job.wall_s + PATIENCE_S:
            self._kill()
        return False

    def keep(self) -> dict[str, Any]:
        """Make the ended report a whole one, and return its outcome."""
        left = end_marked(self._mark)
        outcome = {**self._judged(), "left_running": left}
        self.folder.keep(self.job.id, outcome)
        return outcome

    def ask_to_stop(self) -> None:
        """Ask the child to end its kernel and save."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def stop(self) -> Path | None:
        """See the asked child end, and put its half report aside; return where."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_WAIT_S)
        self._kill()
        end_marked(self._mark)
        return self.folder.put_aside(self.path)

    def _kill(self) -> None:
        self._killed = self._process.poll() is None
        for process in tree(self._process.pid) if self._killed else ():
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()

    def _judged(self) -> dict[str, Any]:
        code = self._process.returncode
        results = read_json(self.path / "results.json") or {}
        error = results.get("error")
        if code == 0 and results.get("status") == "done":
            error = None
        elif error is None or code == 1:
            error = self._died(code)
        stem = self.job.notebook.stem
        files = {kind: f"{stem}.{kind}" for kind in ("html", "ipynb", "pdf")} | {
            "results": "results.json",
            "log": "log.txt",
        }
        return {
            "format": 1,
            "id": self.job.id,
            "status": "failed" if error else "done",
            "error": {k: error.get(k) for k in ("name", "message", "cell")} if error else None,
            "digest": self.job.digest,
            "attempt": self.attempt,
            "started_at": self.started_at,
            "ended_at": now(),
            "duration_s": round(time.monotonic() - self._started_s, 3),
            "files": {kind: name for kind, name in files.items() if (self.path / name).exists()},
        }

    def _died(self, code: int) -> dict[str, Any]:
        """Say how a process ended that could not say it itself."""
        last = tail(self.path / "log.txt", 3)
        if code == 1 and last:  # an error of the lab's own: its text says it all
            name, _, message = last.splitlines()[-1].partition(": ")
            return {"name": name, "message": message, "cell": None}
        if self._killed:
            why = f"it did not end within {PATIENCE_S:g} s after its wall-time limit of {self.job.wall_s:g} s, and was killed"
            return {"name": "WallTimeLimit", "message": why, "cell": None}
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = "; out of memory is the usual reason" if code == -signal.SIGKILL else ""
        return {
            "name": "ReportProcessDied",
            "message": f"the report's process {how}{hint}; last output: {last or 'none'}",
            "cell": None,
        }
