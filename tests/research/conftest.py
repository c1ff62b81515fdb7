"""Sweeps on real ranks of a service that only sleeps: no net to import, no core to share."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aiinfra_widgets.research.sweeps import Sweep, plan_sweep

MARK = "AIINFRA_RESEARCH_TEST"
#: Seconds of load, in windows of 40 ms: more than settle, and enough for a median.
SERVICE = {"duration_s": 1.8, "window_s": 0.04, "mean_service_s": 0.005, "arrival_rate_per_s": 60}


def of_this_test(value: str) -> list[psutil.Process]:
    """Return the living processes that a test started, but not this one."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.pid != os.getpid() and process.environ().get(MARK) == value
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A home and a mark for every process of this test; what is left of them afterwards is ended."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    monkeypatch.setenv("AIINFRA_HOME", str(tmp_path / "home"))
    yield value
    for process in of_this_test(value):
        process.kill()


@pytest.fixture(scope="session")
def done_once(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A finished sweep: two points, two repeats, and one point that this machine refuses. Not to be changed."""
    where = tmp_path_factory.mktemp("sweeps") / "done"
    return plan_sweep("serving", {"nodes": [1, 2, 200]}, fixed=SERVICE, repeats=2, out=where).run()


@pytest.fixture
def done(done_once: Sweep, tmp_path: Path) -> Sweep:
    """A copy of it."""
    shutil.copytree(done_once.path, tmp_path / "copy")
    return Sweep(tmp_path / "copy")
