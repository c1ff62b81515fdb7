"""Making a batch: what is whole stays, what is not is made, as many at once as the machine bears, and one failure stops nothing else."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ControlError, ReportError
from ...machine.profile import Machine
from ..pdf import find_chromium
from ..results import write_json
from .admission import Admission
from .differences import earlier
from .folder import Folder, now, read_json
from .index import write_index
from .job import Running
from .plan import Job, Plan
from .record import DONE, FAILED, INTERRUPTED, RUNNING, Record

LOOK_S = 0.1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How a batch is made.

    Attributes:
        at_once: The most reports at a time.
        pdf: Print a PDF of each page as well.
        retry: Make what failed again; the failed report is put aside.
        previous: The batch to compare with; None takes the newest earlier one beside this one.
    """

    at_once: int = 1
    pdf: bool = False
    retry: bool = False
    previous: Path | None = None


def make(plan: Plan, out: Path, machine: Machine, options: Options, say: Say) -> dict[str, Any]:
    """Make every report of a plan that is not there yet, and return what `batch.json` then holds.

    Args:
        plan: What is asked for.
        out: A new folder, or the one of this batch.
        machine: Where it runs.
        options: See there.
        say: Called with one line for each thing that happens.

    Raises:
        ControlError: Another process is making this batch; the folder holds something else; there is no Chromium for the PDF; there is
            no such previous batch. Nothing has run then.
        StorageError: The folder cannot be written.
    """
    try:
        if options.pdf:
            find_chromium()  # before hours of work, not after
    except ReportError as error:
        raise ControlError(str(error)) from error
    if options.previous is not None and not read_json(options.previous / "batch.json"):
        raise ControlError(
            f"{options.previous}: holds no batch.json to compare with; give the folder of an earlier batch"
        )
    folder = Folder(out)
    with folder.lock(), _noticing_signals() as signals, folder.log.open("a", encoding="utf-8", buffering=1) as log:

        def tell(line: str) -> None:
            log.write(f"{now()} {line}\n")
            say(line)

        return _Batch(plan, folder, machine, options, tell, signals).run()


class _Batch:
    """One start of one batch."""

    def __init__(
        self, plan: Plan, folder: Folder, machine: Machine, options: Options, say: Say, signals: list[int]
    ) -> None:
        self.plan, self.folder, self.options, self.say, self.signals = plan, folder, options, say, signals
        self.admission = Admission(machine, options.at_once, plan.share_cores)
        self.running: list[Running] = []
        self.attempts: dict[str, int] = {}
        before = read_json(folder.record) or {}
        if before and before.get("title") != plan.title:
            raise ControlError(
                f"{folder.root}: holds the batch {before.get('title')!r}, and {plan.path.name} is {plan.title!r}; "
                "choose another folder with -o"
            )
        starts = before.get("starts", [])
        for start in starts:
            start.setdefault("ended", "killed")
        self.starts: list[dict[str, Any]] = [*starts, {"started_at": now()}]
        previous = options.previous or earlier(folder.root, plan.title, self.starts[0]["started_at"])
        self.record = Record(plan, folder, previous, self.starts)

    def run(self) -> dict[str, Any]:
        """Go through all reports once; a signal ends it early, with everything kept or put aside."""
        self.say(f"{len(self.plan.jobs)} reports of {self.plan.path.name}, at most {self.options.at_once} at a time")
        told, self.attempts = self.folder.recover()
        for line in told:
            self.say(line)
        waiting = [job for job in self.plan.jobs if self._wanted(job)]
        whole = len(self.plan.jobs) - len(waiting)
        if not waiting and len(self.starts) > 1:
            self.starts.pop()  # nothing is made, so it is no start
        if whole:
            self.say(f"{whole} of {len(self.plan.jobs)} reports are there already")
        if advice := self.admission.advice(waiting):
            self.record.notes.append(advice)
            self.say(advice)
        if self.plan.share_cores:
            self.record.notes.append(
                "Reports of this batch shared cores: times that they measured are disturbed by each other."
            )
        self._write(RUNNING)
        try:
            while (waiting or self.running) and not self.signals:
                if self._start(waiting) or self._collect():
                    self._write(RUNNING)
                else:
                    time.sleep(LOOK_S)
        finally:
            cut = bool(waiting or self.running)
            self._stop()
        state = INTERRUPTED if cut else self._state()
        self.starts[-1] |= {"ended_at": now(), "ended": state}
        self.say(f"the batch is {state}")
        return self._write(state)

    def _wanted(self, job: Job) -> bool:
        """Whether a report must be made; one that is out of date is put aside first."""
        outcome = self.folder.outcome(job.id)
        if outcome is None:
            return True
        self.attempts[job.id] = max(self.attempts.get(job.id, 0), int(outcome.get("attempt") or 1))
        why = ""
        if outcome.get("digest") != job.digest:
            why = "its notebook or its parameters have changed since it was made"
        elif outcome.get("status") == "failed" and self.options.retry:
            why = "it had failed"
        if not why:
            return False
        kept = self.folder.put_aside(self.folder.reports / job.id)
        self.say(
            f"{job.id}: made again, because {why}; the old one lies in {kept.relative_to(self.folder.root) if kept else '-'}"
        )
        return True

    def _start(self, waiting: list[Job]) -> bool:
        job = self.admission.next(waiting, [r.job for r in self.running])
        if job is None:
            return False
        waiting.remove(job)
        attempt = self.attempts.get(job.id, 0) + 1
        self.running.append(Running(job, self.folder, pdf=self.options.pdf, attempt=attempt))
        self.say(f"{job.id}: started")
        return True

    def _collect(self) -> bool:
        ended = [r for r in self.running if r.ended()]
        for report in ended:
            outcome = report.keep()
            self.running.remove(report)
            self.record.forget(report.job.id)
            error = outcome["error"]
            why = f": {error['name']}: {first_line(error['message'])}" if error else ""
            self.say(f"{report.job.id}: {outcome['status']} after {outcome['duration_s']:.0f} s{why}")
            if outcome["left_running"]:
                self.say(f"{report.job.id}: left {outcome['left_running']} processes running; they were ended")
        return bool(ended)

    def _stop(self) -> None:
        """End what still runs: asked all at once, then each seen to be gone, its half put aside."""
        for report in self.running:
            report.ask_to_stop()
        for report in self.running:
            kept = report.stop()
            self.say(
                f"{report.job.id}: stopped; it will be made again"
                + (f"; what there was lies in {kept.relative_to(self.folder.root)}" if kept else "")
            )
        self.running = []

    def _state(self) -> str:
        outcomes = [self.folder.outcome(job.id) for job in self.plan.jobs]
        return DONE if all(o and o["status"] == "done" for o in outcomes) else FAILED

    def _write(self, state: str) -> dict[str, Any]:
        data = self.record.data({r.job.id for r in self.running}, state)
        write_json(self.folder.record, data)
        write_index(data, self.folder.index)
        return data


def first_line(text: str | None) -> str:
    """Return the first line of a message that says something."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")


@contextmanager
def _noticing_signals() -> Iterator[list[int]]:
    """Yield a list to which SIGINT and SIGTERM are added; the second one ends the process where it stands."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return

    def notice(number: int, _: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = [(s, signal.signal(s, notice)) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield seen
    finally:
        for number, handler in before:
            signal.signal(number, handler)
