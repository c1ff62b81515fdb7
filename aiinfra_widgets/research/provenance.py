"""Where numbers come from: versions, and the state of the source code in git where there is one. No host name, no user, no path."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from ..runs.layout import versions

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
PATIENCE_S = 5.0


def git_state(folder: Path) -> dict[str, Any]:
    """Return `commit` and `dirty` (files that git follows differ from it) of the repository around `folder`; {} where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return {}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def provenance(folder: Path | None = None) -> dict[str, Any]:
    """Return what a reader of the numbers must know of the software.

    Args:
        folder: The person's own work, whose git state is kept; None is the present folder.

    Returns:
        `versions`, `git` (of `folder`) and `lab_git` (of the lab, where it runs from a checkout); {} where there is no repository.
    """
    return {
        "versions": versions(),
        "git": git_state(folder or Path.cwd()),
        "lab_git": git_state(Path(__file__).parent),
    }


def _git(folder: Path, *words: str) -> str | None:
    # A look, never a lock: another git at work in the same repository must not notice us.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
