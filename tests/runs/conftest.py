"""A run directory that is written by hand, the way nodes write theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.layout import RunDir, write_json
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.writer import EventWriter, SampleWriter

HERE = Machine("here", "2026-01-01", 2, 8 * 2**30)


class Made:
    """A run and its writers."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self.spec = experiment("training").spec.make({"workload": "net-10-5-2", **values})
        self.run: RunDir = layout.create(folder, "training", self.spec, HERE, note="by hand")
        self._writers: dict[Any, Any] = {}

    def event(self, by: int | str, kind: str, incarnation: int = 0, **data: Any) -> None:
        """Append one event of one writer."""
        writer = self._writers.setdefault(("e", incarnation, by), None) or EventWriter(self.run, incarnation, by)
        self._writers["e", incarnation, by] = writer
        writer(kind, **data)

    def segment(
        self, index: int, tick: int, nodes: int, incarnation: int = 0, cause: str = "start", **values: Any
    ) -> None:
        """Begin a segment."""
        spec = self.spec.changed({"nodes": nodes, **values})
        told = {
            "segment": index,
            "tick": tick,
            "spec": spec.model_dump(),
            "members": list(range(nodes)),
            "cause": cause,
        }
        self.event(0, "segment", incarnation, **told)

    def sample(self, node: int, tick: int, nodes: int, segment: int, incarnation: int = 0, **values: float) -> None:
        """Write one sample and hand it to the system."""
        key = ("s", incarnation, node)
        if key not in self._writers:
            self._writers[key] = SampleWriter(self.run, incarnation, node)
        self._writers[key](
            tick, nodes, segment, {"step_time_s": 0.01 * (node + 1), "loss": 1 / tick, "sent_bytes": 8.0, **values}
        )
        self._writers[key].flush()

    def ticks(self, first: int, last: int, nodes: int, segment: int, incarnation: int = 0, **values: float) -> None:
        """Write the samples of every node for ticks first..last."""
        for tick in range(first, last + 1):
            for node in range(nodes):
                self.sample(node, tick, nodes, segment, incarnation, **values)

    def launched(self, incarnation: int = 0, pid: int | None = None, born_s: float | None = None) -> None:
        """Say that a launcher that lives (this process) has started it."""
        pid = pid or os.getpid()
        born_s = psutil.Process(pid).create_time() if born_s is None else born_s
        self.event("launch", "launching", incarnation, pid=pid, born_s=born_s, size=2)

    def outcome(self, state: str, incarnation: int = 0, **more: Any) -> None:
        """Write the controller's sentinel."""
        write_json(self.run.outcome(incarnation), {"state": state, "tick": 7, "message": "", "nodes": 2, **more})

    def age(self, seconds: float) -> None:
        """Make every file of the run older."""
        then = time.time() - seconds
        for path in self.run.path.rglob("*"):
            if path.is_file():
                os.utime(path, (then, then))

    def read(self) -> RunReader:
        """Return a reader that has looked once."""
        reader = RunReader(self.run)
        reader.poll()
        return reader


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """Make runs in one folder."""
    return lambda **values: Made(tmp_path / "runs", **values)


@pytest.fixture
def made(make: Callable[..., Made]) -> Made:
    """One run."""
    return make()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process to look at."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()
