"""A sweep is a directory. Each file has one writer, and none is edited in place:

plan.json          what is to be done, written first and once: factors, design, every trial with its whole Spec, provenance
machine.json       the machine profile that all predictions use
predictions/       what was predicted for each Spec, before anything was measured
journal.jsonl      a line when a trial begins and a line when it has ended, each forced to the disk
journal-N.jsonl    the same of point N, by the task of a job array that runs it; array.json names the job
runs/              one run directory for each attempt at a trial; its note says of which
table.parquet/csv  made from the above; may be deleted and made again
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ControlError, LabError, RunFormatError, StorageError
from ..experiment import Experiment, Spec, experiment
from ..machine.profile import Machine, load
from ..quantities import Prediction
from ..runs.layout import RunDir, write_json
from .design import Trial

FORMAT = 1


@dataclass(frozen=True, slots=True)
class SweepDir:
    """The one place that knows the file names of a sweep."""

    path: Path

    @property
    def plan(self) -> Path:
        """Written first, and once."""
        return self.path / "plan.json"

    @property
    def machine(self) -> Path:
        """The profile that all predictions use."""
        return self.path / "machine.json"

    @property
    def journal(self) -> Path:
        """What was begun and what has ended."""
        return self.path / "journal.jsonl"

    def journal_of(self, point: int) -> Path:
        """The same of one point, by the task of a job array that runs it."""
        return self.path / f"journal-{point}.jsonl"

    @property
    def runs(self) -> Path:
        """Run directories of all attempts."""
        return self.path / "runs"

    def prediction(self, spec: Spec) -> Path:
        """The prediction of this Spec."""
        return self.path / "predictions" / f"{spec.digest()}.json"

    def read_plan(self) -> dict[str, Any]:
        """Return plan.json.

        Raises:
            RunFormatError: Not a sweep, or of another format version.
        """
        try:
            data = json.loads(self.plan.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise RunFormatError(
                f"{self.path} is not a sweep: it has no plan.json; start one with: aiinfra sweep ... -o DIR"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunFormatError(f"{self.plan}: not readable as JSON ({error})") from error
        if not isinstance(data, dict) or data.get("kind") != "sweep" or not isinstance(data.get("trials"), list):
            raise RunFormatError(f"{self.plan}: holds no plan of a sweep; it was damaged or edited")
        if data.get("format") != FORMAT:
            raise RunFormatError(f"{self.plan}: a sweep of format {data.get('format')!r}; this release reads {FORMAT}")
        return data


def begin(path: Path, plan: Mapping[str, Any], machine: Machine) -> SweepDir:
    """Make the directory of a new sweep: its plan stands there before anything else happens.

    Raises:
        ControlError: There is something in `path` already; nothing was touched.
        StorageError: It cannot be written.
    """
    folder = SweepDir(path.expanduser().resolve())
    if folder.plan.exists():
        raise ControlError(
            f"{folder.path} holds a sweep already; go on with: aiinfra sweep --resume {folder.path}, or choose another -o"
        )
    try:
        if folder.path.exists() and any(folder.path.iterdir()):
            raise ControlError(f"{folder.path} is not empty; choose a new folder with -o")
        for sub in (folder.path, folder.path / "predictions", folder.runs):
            sub.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"cannot make a sweep in {folder.path}: {error.strerror or error}; choose another folder with -o"
        ) from error
    write_json(folder.machine, machine.to_json(), durable=True)
    write_json(folder.plan, {"format": FORMAT, "kind": "sweep", **plan}, durable=True)
    return folder


def trials_of(exp: Experiment, plan: Mapping[str, Any]) -> list[Trial]:
    """Return the trials of a plan, each Spec validated again: a plan may come from another release or another person.

    Raises:
        RunFormatError: A trial that is none.
        SpecError: A Spec that this release does not take.
    """
    try:
        return [
            Trial(i, int(t["point"]), int(t["repeat"]), exp.spec.make(t["spec"])) for i, t in enumerate(plan["trials"])
        ]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, LabError):
            raise
        raise RunFormatError(f"the plan of this sweep cannot be read ({error!r}); it was damaged or edited") from error


def keep_predictions(folder: SweepDir, exp: Experiment, trials: list[Trial], machine: Machine) -> None:
    """Predict every Spec that was not predicted yet, or keep the model's reason to refuse in its place."""
    for spec in {t.spec.digest(): t.spec for t in trials}.values():
        if folder.prediction(spec).exists():
            continue
        record: dict[str, Any] = {"spec": spec.model_dump(), "made_at_s": time.time()}
        try:
            record["prediction"] = exp.predict(spec, machine).to_json()
        except LabError as error:
            record["refused"] = str(error)
        write_json(folder.prediction(spec), record)


def prediction_of(folder: SweepDir, spec: Spec) -> tuple[Prediction | None, str]:
    """Return what was predicted, or None and the reason."""
    try:
        record = json.loads(folder.prediction(spec).read_text(encoding="utf-8"))
        found = Prediction.from_json(record["prediction"]) if "prediction" in record else None
    except (OSError, ValueError, KeyError, TypeError):
        return None, "the prediction is missing or damaged"
    return found, str(record.get("refused", ""))


class Journal:
    """Lines that survive a kill at any moment: whole ones count, a torn one never happened. Read with those of an array's tasks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """Return every whole line, oldest first."""
        found = []
        for path in self.path.parent.glob("journal*.jsonl"):
            for line in path.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and isinstance(entry.get("trial"), int):
                    found.append(entry)
        return sorted(found, key=lambda e: str(e.get("at", "")))

    def __call__(self, kind: str, trial: int, **data: Any) -> None:
        """Append one line and force it to the disk.

        Raises:
            StorageError: The disk is full or gone; the sweep can be resumed later.
        """
        line = {"kind": kind, "trial": trial, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **data}
        try:
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    torn = file.read(1) != b"\n"
                    file.write(b"\n" if torn else b"")
                file.write((json.dumps(line) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}; free some space, then resume the sweep"
            ) from error

    def ended(self) -> dict[int, dict[str, Any]]:
        """Return the last end of every trial that has one."""
        return {line["trial"]: line for line in self.lines() if line["kind"] == "ended"}

    def begun(self) -> dict[int, int]:
        """Return the last attempt of every trial that was begun."""
        return {line["trial"]: int(line.get("attempt", 0)) for line in self.lines() if line["kind"] == "begun"}


def note_of(trial: int, attempt: int) -> str:
    """Return the note by which a run says of which trial it is, whoever was killed when."""
    return f"sweep trial {trial} attempt {attempt}"


def run_of(folder: SweepDir, trial: int, attempt: int) -> RunDir | None:
    """Return the run of an attempt, or None where none was made."""
    for path in sorted(folder.runs.glob("*/run.json")):
        try:
            if RunDir(path.parent).read_manifest().get("note") == note_of(trial, attempt):
                return RunDir(path.parent)
        except RunFormatError:
            continue
    return None


@contextmanager
def alone(folder: SweepDir, name: str = ".lock") -> Iterator[None]:
    """Hold the sweep, or with a `name` of its own one point of it; a process that dies lets go.

    Raises:
        ControlError: Another process works on it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder.path / name, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ControlError(f"another process works on the sweep {folder.path}; wait for it, or end it first") from None
    except OSError as error:
        raise StorageError(f"cannot write in {folder.path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def read(path: Path | str) -> tuple[SweepDir, dict[str, Any], Experiment, Machine]:
    """Open what `begin` made: its folder, its plan, its experiment, its machine profile.

    Raises:
        RunFormatError: Not a sweep.
        UnknownNameError: Its experiment is not installed.
    """
    folder = SweepDir(Path(path).expanduser().resolve())
    plan = folder.read_plan()
    return folder, plan, experiment(str(plan.get("experiment"))), load(folder.machine)
