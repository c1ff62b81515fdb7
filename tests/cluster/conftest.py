"""Clusters from nothing: a real Slurm on this machine, with a home of its own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's import mode leaves it out

import mini_slurm
from mini_slurm import MiniSlurm


@pytest.fixture(scope="session")
def slurm() -> Iterator[MiniSlurm]:
    """Four nodes with one processor each, for all tests of a session."""
    if why := mini_slurm.missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="ais-"))
    with MiniSlurm(folder, nodes=4, cpus=1) as cluster:
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def login(slurm: MiniSlurm, profile: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniSlurm]:
    """This process as somebody on the login node, with a calibrated home of their own; nothing of theirs is left in the queue."""
    home = Path(tempfile.mkdtemp(prefix="aih-"))
    (home / "machines").mkdir()
    shutil.copy(profile, home / "machines")
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIINFRA_HOME", str(home))
    yield slurm
    slurm.call("scancel", f"--user={slurm.user}", check=False)
    slurm.until_idle()
    shutil.rmtree(home, ignore_errors=True)
