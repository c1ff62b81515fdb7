"""Where the lab keeps what it makes: one folder per user, chosen by AIINFRA_HOME or the platform's data directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from stat import S_ISDIR

from ..errors import StorageError

ENV = "AIINFRA_HOME"


def home() -> Path:
    """Return the user's folder; nothing is created.

    Raises:
        StorageError: It is somebody else's: this user may not look into it.
    """
    if os.environ.get(ENV):
        return _readable(Path(os.environ[ENV]).expanduser().resolve())
    from platformdirs import user_data_path

    return _readable(user_data_path("aiinfra"))


def _readable(folder: Path) -> Path:
    """Refuse a folder here, once, that every later look into it would stumble over."""
    try:
        closed = S_ISDIR(folder.stat().st_mode) and not os.access(folder, os.R_OK | os.X_OK)
    except PermissionError:
        closed = True
    except OSError:
        closed = False  # not there yet; who makes it says what stands in the way
    if closed:
        raise StorageError(f"cannot read {folder}: Permission denied; set {ENV} to a folder of yours")
    return folder


def runs_folder() -> Path:
    """Where runs are made unless a command says otherwise."""
    return home() / "runs"


def machines_folder() -> Path:
    """Where calibration writes profiles."""
    return home() / "machines"


def pools_folder() -> Path:
    """Where pools of ranks keep their state; safe to delete while no pool is up."""
    return home() / "pools"


def ledger_path() -> Path:
    """The file in which a learner's own predictions are kept, beside the runs."""
    return home() / "ledger.jsonl"


def cache_folder() -> Path:
    """Generated data sets; safe to delete."""
    return home() / "cache"


def make_private(folder: Path) -> Path:
    """Create `folder` (0700 where it is new, and so is the user's folder above it) and return it.

    Raises:
        StorageError: Read-only, full, or a file is in the way; says which variable to set.
    """
    try:
        above = [home()] if folder.is_relative_to(home()) else []
        for one in (*above, folder):  # `parents` alone would make what is above as open as the system's default
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cannot write in {folder}: {reason}; set {ENV} to a folder that you may write, "
            f"for example: {ENV}=/path/with/space aiinfra ..."
        ) from error
    return folder
