"""Deleting runs without losing any: a deleted run is moved to a folder beside the runs, from where it can be put back.

Only emptying the trash destroys something, and only what was put there.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from ..errors import ControlError, LabError, StorageError
from .home import make_private
from .layout import RunDir, inside, may_be_id
from .reader import RunReader
from .status import STALL_S, status


def trash_of(folder: Path) -> Path:
    """Return where the runs of `folder` go when they are deleted: beside it, so that moving one copies nothing."""
    return folder.resolve().parent / f"{folder.name}-trash"


def discard(name: str, folder: Path) -> Path:
    """Move one run of `folder` to the trash and return where it lies now.

    Args:
        name: The run's id: the name of a folder in `folder`, nothing else.
        folder: Where runs live.

    Raises:
        RunFormatError: No run of that name lies in `folder`.
        ControlError: It still goes on.
        StorageError: It cannot be moved.
    """
    run = inside(name, folder.resolve())
    if why := goes_on(run):
        raise ControlError(f"run {name} cannot be deleted: {why}; stop it first, then delete it")
    return _move(run.path, make_private(trash_of(folder)))


def restore(name: str, folder: Path) -> RunDir:
    """Move a deleted run back to `folder`.

    Raises:
        RunFormatError: No such run in the trash.
        StorageError: It cannot be moved.
    """
    return RunDir(_move(inside(name, trash_of(folder)).path, folder))


def trashed(folder: Path) -> list[str]:
    """Return the ids of the deleted runs of `folder`, newest first."""
    found = (p.parent for p in trash_of(folder).glob("*/run.json"))
    return sorted((p.name for p in found if may_be_id(p.name) and not p.is_symlink()), reverse=True)


def empty(folder: Path) -> int:
    """Delete for good every run in the trash of `folder`, and return how many.

    Raises:
        StorageError: One cannot be deleted; those before it are gone.
    """
    names = trashed(folder)
    for name in names:
        try:
            shutil.rmtree(trash_of(folder) / name)
        except OSError as error:
            raise StorageError(f"cannot delete {error.filename}: {error.strerror}; delete it by hand") from error
    return len(names)


def goes_on(run: RunDir) -> str:
    """Return why a run must not be touched - what it is doing - or "" where nothing works in it any more."""
    try:
        reader = RunReader(run)
        reader.poll_events()
        now = status(reader)
        return "" if now.final or now.state == "new" else f"it is {now.state} ({now.message})"
    except (LabError, KeyError, ValueError):  # of another release, or damaged: only its heartbeats can tell
        beats = [b.stat().st_mtime for b in (run.path / "heartbeats").glob("*")]
        fresh = bool(beats) and time.time() - max(beats) < STALL_S
        return "its ranks wrote into it a moment ago" if fresh else ""


def _move(path: Path, folder: Path) -> Path:
    target = folder / path.name
    if target.exists():
        raise StorageError(f"cannot move {path.name}: {target} is there already; move that one away first")
    try:
        os.rename(path, target)
    except OSError as error:
        raise StorageError(f"cannot move {path} to {folder}: {error.strerror}; move it by hand") from error
    return target
