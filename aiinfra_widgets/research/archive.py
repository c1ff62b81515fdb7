"""Runs and sweeps as one zip file that another person opens and reruns. Any tool opens it: plain CSV and JSON inside, and a README.

    aiinfra-archive.json    what is inside, with the SHA-256 of every file
    README.txt
    NAME/...                a run directory, or the directory of a sweep

An archive of somebody else is read with suspicion: every name is checked before anything is written, sizes are counted while
unpacking and not believed, links and anything that is no plain file are refused, checksums and formats are verified in a folder
beside the target, and only then is it moved into place. Nothing that is there is ever overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import ControlError, DataError, LabError, StorageError
from ..runs.home import home, make_private, runs_folder
from ..runs.layout import DEVICES, RunDir, may_be_id, versions
from ..runs.reader import RunReader
from ..runs.status import status
from . import folder as folders
from .folder import SweepDir

FORMAT = 1
INDEX, README = "aiinfra-archive.json", "README.txt"
#: What an archive may hold at most; an honest one of a day's sweeps stays far below.
MOST_FILES, MOST_BYTES, MOST_INDEX_BYTES = 200_000, 8 * 2**30, 64 * 2**20
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK = 2**20
_BROKEN = (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
_WORDS = """Runs of aiinfra lab: what was asked, what was predicted before, what was measured.

Open and run again with the lab:   aiinfra import THIS.zip      then   aiinfra rerun NAME
Without it: everything is CSV, JSON or JSON lines. Of a run: run.json (what was asked), predictions/ (made before),
samples/ (a line for each step and node), events/, machine.json (the calibration). Of a sweep: plan.json, table.csv, runs/.
Times in samples and events are seconds of a monotonic clock. Logs and events may name paths of the machine it was made on.
"""


def pack(paths: Sequence[Path | str], target: Path | str, *, checkpoints: bool = True) -> Path:
    """Write runs and sweeps into one new zip file, and return its path.

    Args:
        paths: Directories of runs or sweeps; what still goes on is refused.
        target: The file; it must not be there yet.
        checkpoints: Also the states that a run can be resumed from; by far the largest part.

    Raises:
        ControlError: The file is there, nothing or something that still goes on was named, or two of one name.
        RunFormatError: Neither a run nor a sweep.
        StorageError: It cannot be written; what was begun is removed.
    """
    to = Path(target).expanduser().resolve()
    found = [Path(p).expanduser().resolve() for p in paths]
    names = [p.name for p in found]
    if not found or len(set(names)) < len(names):
        raise ControlError(f"got {', '.join(names) or 'nothing'}; name at least one run or sweep, and each once")
    items = [{"name": p.name, "kind": _kind(p)} for p in found]
    for item in items:
        if not _names_one(item["name"], item["kind"]):
            raise ControlError(
                f"{item['name'][:80]!r} is no name for a {item['kind']} that goes elsewhere; rename its folder"
            )
    digests: dict[str, str] = {}
    try:
        with to.open("xb") as file:
            try:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
                    for path in found:
                        for name, source in _files(path, checkpoints):
                            digests[name] = _add(archive, name, source)
                    archive.writestr(README, _WORDS)
                    about = {"format": FORMAT, "items": items, "versions": versions(), "files": digests}
                    archive.writestr(INDEX, json.dumps(about, indent=1))
            except BaseException:
                to.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise ControlError(f"{to} is there already; choose a new name") from None
    except OSError as error:
        raise StorageError(
            f"cannot write {to}: {error.strerror or error}; free some space or choose another place"
        ) from error
    return to


def _kind(path: Path) -> str:
    """Return "run" or "sweep" of something that has ended."""
    if (path / "plan.json").is_file():
        folder = SweepDir(path)
        folder.read_plan()
        with folders.alone(folder):
            return "sweep"
    reader = RunReader(RunDir(path))
    reader.poll()
    now = status(reader)
    if not now.final and now.state != "new":
        raise ControlError(f"run {path.name} is {now.state}; stop it before you export it")
    return "run"


def _files(path: Path, checkpoints: bool) -> Iterator[tuple[str, Path]]:
    for folder, inside, names in os.walk(path, followlinks=False):
        inside[:] = sorted(d for d in inside if not d.startswith(".") and (checkpoints or d != "checkpoints"))
        for name in sorted(names):
            source = Path(folder, name)
            # What begins with a dot is a part of a file, a lock or a reserve; a link leads out of the run; a token is nobody's business.
            plain = not name.startswith(".") and not source.is_symlink() and source.is_file() and name != "front.json"
            if plain and all(_PART.fullmatch(p) for p in source.relative_to(path.parent).parts):
                yield source.relative_to(path.parent).as_posix(), source


def _add(archive: zipfile.ZipFile, name: str, source: Path) -> str:
    digest = hashlib.sha256()
    info = zipfile.ZipInfo.from_file(source, name, strict_timestamps=False)
    info.compress_type = zipfile.ZIP_DEFLATED
    with source.open("rb") as data, archive.open(info, "w", force_zip64=True) as into:
        while chunk := data.read(_CHUNK):
            digest.update(chunk)
            into.write(chunk)
    return digest.hexdigest()


def unpack(
    archive: Path | str, *, runs: Path | None = None, sweeps: Path | None = None, most_bytes: int = MOST_BYTES
) -> list[Path]:
    """Unpack what `pack` wrote, and return the directories of its runs and sweeps.

    Args:
        archive: The file.
        runs: Where runs go; None is the lab's own folder.
        sweeps: Where sweeps go; None is the lab's own folder.
        most_bytes: Unpacked size at which it is refused.

    Raises:
        DataError: Not such an archive, damaged, or built to do harm; nothing is left behind.
        ControlError: A run or sweep of that name is there already; nothing was changed.
        StorageError: There is no place.
    """
    path = Path(archive).expanduser()
    into = {"run": runs or runs_folder(), "sweep": sweeps or home() / "sweeps"}
    try:
        with zipfile.ZipFile(path) as opened:
            items, digests = _index(path, opened)
            members = _checked(path, opened, items, digests, most_bytes)
            targets = {name: into[kind] / name for name, kind in items.items()}
            for target in targets.values():
                if target.exists() or target.is_symlink():
                    raise ControlError(
                        f"{target} is there already, and is left as it is; rename it, or import into another folder"
                    )
            return _place(path, opened, members, items, targets, most_bytes)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except LabError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: not a readable archive ({error}); copy it again") from error


def _place(
    path: Path, opened: zipfile.ZipFile, members: Mapping[str, tuple[zipfile.ZipInfo, str]], items: Mapping[str, str],
    targets: Mapping[str, Path], most_bytes: int,
) -> list[Path]:  # fmt: skip
    """Unpack beside the targets, verify, and move into place."""
    parts = {
        kind: make_private(next(t.parent for n, t in targets.items() if items[n] == kind))
        / f".import-{secrets.token_hex(4)}"
        for kind in set(items.values())
    }
    left = most_bytes
    try:
        for part in parts.values():
            part.mkdir(mode=0o700)
        for name, (info, digest) in members.items():
            target = parts[items[name.split("/")[0]]].joinpath(*name.split("/"))
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            left -= _extract(path, opened, info, digest, target, left)
        for name, kind in items.items():
            _verify(path, parts[kind] / name, kind)
        for name, target in targets.items():
            if target.exists():
                raise ControlError(f"{target} has come to be there meanwhile, and is left as it is")
            (parts[items[name]] / name).rename(target)
    except OSError as error:
        raise StorageError(
            f"cannot unpack {path}: {error.strerror or error}; free some space or import into another folder"
        ) from error
    finally:
        for part in parts.values():
            shutil.rmtree(part, ignore_errors=True)
    return list(targets.values())


def _extract(path: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo, digest: str, target: Path, left: int) -> int:
    """Write one file, counting what really comes out; return its size."""
    seen, size = hashlib.sha256(), 0
    try:
        source = opened.open(info)
    except _BROKEN as error:
        raise DataError(f"{path}: {info.filename} cannot be read ({error}); copy the archive again") from error
    with source, target.open("xb") as file:
        while True:
            try:
                chunk = source.read(_CHUNK)
            except _BROKEN as error:
                raise DataError(f"{path}: {info.filename} is damaged ({error}); copy the archive again") from error
            if not chunk:
                break
            size += len(chunk)
            if size > min(left, info.file_size):
                raise DataError(
                    f"{path}: {info.filename} unpacks to more than it says, or than is allowed; it is not unpacked"
                )
            seen.update(chunk)
            file.write(chunk)
    if seen.hexdigest() != digest:
        raise DataError(
            f"{path}: {info.filename} is not what was packed (its checksum differs); copy the archive again"
        )
    return size


def _index(path: Path, opened: zipfile.ZipFile) -> tuple[dict[str, str], dict[str, str]]:
    """Return kind by name of what is inside, and checksum by file, of an archive whose index can be believed so far."""
    listed = [i for i in opened.infolist() if i.filename == INDEX]
    if len(listed) != 1 or listed[0].file_size > MOST_INDEX_BYTES:
        raise DataError(
            f"{path}: no archive of this lab: it has no {INDEX}; one is made with: aiinfra export RUN -o x.zip"
        )
    with opened.open(listed[0]) as file:
        about = json.loads(file.read(MOST_INDEX_BYTES))
    if not isinstance(about, dict) or about.get("format") != FORMAT or not isinstance(about.get("files"), dict):
        found = about.get("format") if isinstance(about, dict) else None
        raise DataError(f"{path}: an archive of format {found!r}; this release reads {FORMAT}")
    items = about.get("items")
    good = isinstance(items, list) and all(isinstance(i, dict) and i.get("kind") in {"run", "sweep"} for i in items)
    if not good or not items or not all(_names_one(str(i.get("name")), i["kind"]) for i in items):
        raise DataError(f"{path}: {INDEX} names no runs, or names that no run can have")
    digests = {str(k): str(v) for k, v in about["files"].items()}
    return {str(i["name"]): str(i["kind"]) for i in items}, digests


def _checked(
    path: Path, opened: zipfile.ZipFile, items: Mapping[str, str], digests: Mapping[str, str], most_bytes: int
) -> dict[str, tuple[zipfile.ZipInfo, str]]:
    """Return every file to be unpacked with its checksum, after looking at all names, kinds and sizes."""
    members: dict[str, tuple[zipfile.ZipInfo, str]] = {}
    seen: set[str] = set()
    infos = opened.infolist()
    size = sum(i.file_size for i in infos)
    if len(infos) > MOST_FILES or size > most_bytes:
        most = f"{MOST_FILES} files, {most_bytes / 2**30:.3g} GiB"
        raise DataError(f"{path}: holds {len(infos)} files of {size / 2**30:.3g} GiB; allowed: {most}")
    for info in infos:
        name = info.filename
        if name in (INDEX, README) or info.is_dir():  # folders come with their files
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not _safe(name) or name.casefold() in seen or info.orig_filename != name:
            raise DataError(
                f"{path}: holds a file named {name!r}, which no archive of this lab has; nothing was unpacked"
            )
        if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
            raise DataError(f"{path}: {name!r} is a link, a device or encrypted; nothing was unpacked")
        if name.split("/")[0] not in items or "/" not in name or name not in digests:
            raise DataError(f"{path}: {name!r} is not in its index; nothing was unpacked")
        seen.add(name.casefold())
        members[name] = (info, digests[name])
    missing = sorted(set(digests) - set(members))
    if missing:
        raise DataError(f"{path}: {missing[0]} is in its index, and not in the archive; copy it again")
    return members


def _safe(name: str) -> bool:
    """Whether every part of a name is a plain one, on any system: no way up, no root, no drive, no device, nothing hidden."""
    parts = name.split("/")
    plain = all(_PART.fullmatch(p) and not p.endswith(".") and p.split(".")[0].casefold() not in DEVICES for p in parts)
    return plain and len(parts) <= 12 and len(name) <= 400


def _names_one(name: str, kind: str) -> bool:
    """Whether a run or a sweep may be called so."""
    return may_be_id(name) if kind == "run" else _safe(name) and "/" not in name


def _verify(path: Path, folder: Path, kind: str) -> None:
    """Refuse what has the right names but is no run, or no sweep."""
    try:
        if kind == "sweep":
            _, plan, exp, _ = folders.read(folder)
            folders.trials_of(exp, plan)
            return
        run = RunDir(folder)
        if run.read_manifest().get("id") != folder.name:
            raise DataError(f"run.json of {folder.name} tells another id")
        run.read_spec()
        run.read_machine()
        for sub in run.folders():  # empty ones are not packed
            sub.mkdir(parents=True, exist_ok=True)
    except (LabError, *_BROKEN, TypeError) as error:
        raise DataError(f"{path}: {folder.name} is not a {kind} that this release can open: {error}") from error
