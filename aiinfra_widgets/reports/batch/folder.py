"""What lies where in a batch's folder, and which of it is whole.

    index.html, batch.json, batch.log   what a person, a script and an operator read
    reports/ID/                         a report that has ended, with `outcome.json`: moved here in one step, never changed again
    under-way/ID/                       a report that is being made; after a crash, half of one
    aside/ID-WHEN/                      halves and reports that were made again; the batch never reads it
    .lock, .holder.json                 one batch at a time, and who

A report is whole when it lies in `reports/` with its outcome, which is written before the move. So there is no moment at which
half a report can be taken for a whole one, however the batch ends.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import psutil

from ...errors import ControlError, StorageError
from ..results import write_json

#: In the environment of everything that a report starts, so that what outlives it is found.
MARK = "AIINFRA_REPORT_MARK"
END_WAIT_S = 5.0


class Folder:
    """The folder of one batch.

    Args:
        root: Made if needed.

    Raises:
        StorageError: It cannot be written.
        ControlError: Something that is no batch lies there.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self.index, self.record, self.log = (self.root / n for n in ("index.html", "batch.json", "batch.log"))
        self.reports, self.under_way, self.aside = (self.root / n for n in ("reports", "under-way", "aside"))
        here = {p.name for p in self.root.iterdir()} if self.root.is_dir() else set()
        if here and not here & {self.record.name, self.reports.name}:
            raise ControlError(
                f"{root}: holds {', '.join(sorted(here)[:3])}, and no batch; choose an empty or a new folder with -o"
            )
        try:
            for path in (self.reports, self.under_way):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{root}: cannot be made ({error.strerror or error}); choose another folder with -o"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it when this process is gone, however it went.

        Raises:
            ControlError: Another batch holds it; who, since when.
        """
        lock, holder = filelock.FileLock(self.root / ".lock"), self.root / ".holder.json"
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ControlError(
                f"{self.root}: {_held_by(read_json(holder))}; wait for its end, or choose another -o"
            ) from None
        try:
            write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def outcome(self, id_: str) -> dict[str, Any] | None:
        """Return how a report ended, None where there is no whole one."""
        return read_json(self.reports / id_ / "outcome.json")

    def begin(self, id_: str) -> Path:
        """Return a new empty folder for a report that is about to be made."""
        path = self.under_way / id_
        path.mkdir()
        return path

    def keep(self, id_: str, outcome: dict[str, Any]) -> None:
        """Make a report that has ended a whole one: its outcome first, then the move.

        Raises:
            StorageError: The disk is full, or the folder is gone.
        """
        here, there = self.under_way / id_, self.reports / id_
        write_json(here / "outcome.json", outcome)
        self._move(here, there)

    def put_aside(self, path: Path) -> Path | None:
        """Move a folder out of the way, its content untouched; None where it was empty, and is gone."""
        with suppress(OSError):
            path.rmdir()
            return None
        self.aside.mkdir(exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        names = [f"{path.name}-{stamp}", *(f"{path.name}-{stamp}.{i}" for i in range(1, 1000))]
        target = next(self.aside / n for n in names if not (self.aside / n).exists())
        self._move(path, target)
        return target

    def recover(self) -> tuple[list[str], dict[str, int]]:
        """Tidy up after a batch that was killed; return what was done, one sentence for each, and how often each half was tried.

        What its reports left running is ended, a report that was whole but for the last step is kept, halves are put aside.
        """
        said, attempts = [], {}
        for half in sorted(p for p in self.under_way.iterdir() if p.is_dir()):
            job = read_json(half / "job.json") or {}
            attempts[half.name] = int(job.get("attempt", 1))
            ended = end_marked(str(job.get("mark", "")))
            if ended:
                said.append(f"{half.name}: {ended} processes of it were still there, and were ended")
            if read_json(half / "outcome.json") and not (self.reports / half.name).exists():
                self._move(half, self.reports / half.name)
                said.append(f"{half.name}: had ended when the batch was killed; kept")
            else:
                kept = self.put_aside(half)
                said.append(f"{half.name}: was under way when the batch ended; made again" + _kept(kept, self.root))
        torn = (p for p in self.reports.iterdir() if p.is_dir() and not read_json(p / "outcome.json"))
        said += [
            f"{p.name}: has no outcome, so it is not whole{_kept(self.put_aside(p), self.root)}" for p in sorted(torn)
        ]
        return said, attempts

    def _move(self, here: Path, there: Path) -> None:
        try:
            here.rename(there)
            for folder in {here.parent, there.parent}:
                descriptor = os.open(folder, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
        except OSError as error:
            raise StorageError(f"{here}: cannot be moved to {there} ({error.strerror or error})") from error


def marked(value: str) -> list[psutil.Process]:
    """Return the living processes, other than this one, that carry the mark of a report."""
    found = []
    for process in psutil.process_iter() if value else ():
        try:
            other = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if other and process.environ().get(MARK) == value:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or somebody else's
    return found


def end_marked(value: str, wait_s: float = END_WAIT_S) -> int:
    """Give what a report left running `wait_s` to end by itself, terminate the rest, then kill it; return how many were told to."""
    until = time.monotonic() + wait_s
    while (left := marked(value)) and time.monotonic() < until:
        time.sleep(0.1)
    told = len(left)
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(left, timeout=wait_s)
    while left := marked(value):  # what they started meanwhile, too
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
    return told


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def now() -> str:
    """The time, as it is written in every record."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _kept(path: Path | None, root: Path) -> str:
    return f"; what there was of it lies in {path.relative_to(root)}" if path else ""


def _held_by(holder: dict[str, Any] | None) -> str:
    if not holder:
        return "another batch has just started here"
    return f"process {holder.get('pid')} on {holder.get('host')} has been making this batch since {holder.get('since')}"
