"""Somebody's runs, and a second user of the machine."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's import mode leaves it out

from attacks import STRANGER

from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.layout import RunDir


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of somebody, beside a folder of runs that are nobody's business; the working folder is empty."""
    monkeypatch.setenv("AIINFRA_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "home" / "runs"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def run(runs: Path) -> RunDir:
    """A run that was made and never launched."""
    return layout.create(runs, "training", spec_of("training", {}), found())


@pytest.fixture
def stranger() -> Iterator[int]:
    """The number of another user of this machine; made for the tests where nobody has made it."""
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    made = subprocess.run(
        ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", STRANGER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode not in (0, 9):  # 9: is there already
        pytest.skip(f"cannot make a second user: {made.stderr.strip()}")
    yield pwd.getpwnam(STRANGER).pw_uid
    if made.returncode == 0:
        subprocess.run(["userdel", STRANGER], capture_output=True, check=False)
