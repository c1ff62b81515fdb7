"""What every test may rely on: a home of its own, markers by folder, no way out to the network, a browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

REPO = Path(__file__).resolve().parent.parent
#: Tests in these folders carry the marker of the same name without saying so.
MARKED_FOLDERS = {"mpi", "labs", "browser", "faults", "security"}

# Set before anything of the lab is imported, and inherited by every process that a test starts: whatever is written
# goes to a folder that is removed afterwards, never to the user's. The name is short, for sockets go into it.
_HOME = Path(tempfile.mkdtemp(prefix="aiinfra-test-"))
os.environ.update(
    AIINFRA_HOME=str(_HOME / "lab"),
    XDG_DATA_HOME=str(_HOME / "data"),
    XDG_CONFIG_HOME=str(_HOME / "config"),
    XDG_CACHE_HOME=str(_HOME / "cache"),
    JUPYTER_CONFIG_DIR=str(_HOME / "jupyter"),
    JUPYTER_DATA_DIR=str(_HOME / "jupyter-data"),
    JUPYTER_RUNTIME_DIR=str(_HOME / "jupyter-runtime"),
    IPYTHONDIR=str(_HOME / "ipython"),
)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

# No example may fail for being slow (a busy neighbour makes anything slow), and a failure must come back next time.
hypothesis.settings.register_profile("lab", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("lab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, and skip what needs a GPU where torch finds none."""
    for item in items:
        for part in set(item.path.relative_to(REPO).parts) & MARKED_FOLDERS:
            item.add_marker(part)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_unconfigure() -> None:
    """Remove the home of this test process."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine, because the lab needs none."""

    def refuse(real: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            outside = self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(
                ("127.", "::1", "localhost")
            )
            if outside:
                raise AssertionError(f"a test tried to reach {address}; everything must work offline")
            return real(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", refuse(socket.socket.connect_ex))
        yield


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the tree."""
    return REPO


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots and the like are kept after the tests; ignored by git."""
    folder = REPO / "test-artifacts"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def profile() -> Path:
    """This machine's profile, calibrated shortly and once, in the home of the tests: what predictions are made from.

    The runner of the suites calibrates for all of them, and names the file in AIINFRA_TEST_PROFILE.
    """
    machines = Path(os.environ["AIINFRA_HOME"]) / "machines"
    if given := os.environ.get("AIINFRA_TEST_PROFILE"):
        machines.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(given, machines))
    aiinfra = str(Path(sys.executable).parent / "aiinfra")
    done = subprocess.run(
        [aiinfra, "calibrate", "--seconds", "25"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = sorted(machines.glob("*.json"))[-1:]
    return found


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium: CHROMIUM, else one on the PATH. Without one: skipped, but failed on a build machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found and shutil.which(found):
        return found
    why = f"no Chromium ({found or 'none of ' + ', '.join(names) + ' on the PATH'}); install one or set CHROMIUM"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
