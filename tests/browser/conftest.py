"""A JupyterLab on the labs of this tree, with a home of its own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's import mode leaves it out

from lab_driver import left_running


@pytest.fixture
def lab_home() -> Iterator[Path]:
    """A short path, for sockets lie in it; afterwards nothing that was started there may be left."""
    home = Path(tempfile.mkdtemp(prefix="ab-"))
    yield home
    left = left_running(home / "lab")
    for process in left:
        process.kill()
    shutil.rmtree(home, ignore_errors=True)
    assert not left, f"left running: {[p.pid for p in left]}"


@pytest.fixture
def calibrated_home(lab_home: Path, profile: Path) -> Path:
    """The same, of somebody who has calibrated this machine."""
    machines = lab_home / "lab" / "machines"
    machines.mkdir(parents=True, exist_ok=True)
    shutil.copy(profile, machines)
    return lab_home


@pytest.fixture
def notebooks(lab_home: Path, repo: Path) -> Path:
    """The labs, copied: JupyterLab saves into them."""
    folder = lab_home / "labs"
    folder.mkdir()
    for notebook in (repo / "labs").glob("*.ipynb"):
        shutil.copy(notebook, folder)
    return folder
