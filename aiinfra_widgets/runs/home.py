"""Where the lab keeps what it makes: one folder per user, chosen by AIINFRA_HOME or the platform's data directory."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import StorageError

ENV = "AIINFRA_HOME"


def home() -> Path:
    """Return the user's folder; nothing is created."""
    if os.environ.get(ENV):
        return Path(os.environ[ENV]).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("aiinfra")


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
    """Create `folder` (0700 where it is new) and return it.

    Raises:
        StorageError: Read-only, full, or a file is in the way; says which variable to set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cannot write in {folder}: {reason}; set {ENV} to a folder that you may write, "
            f"for example: {ENV}=/path/with/space aiinfra ..."
        ) from error
    return folder
