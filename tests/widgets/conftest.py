"""A run directory as ranks would have left it, made by the same writers, so that views are tested without ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets.experiment import Experiment, experiment, experiment_names
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.layout import RunDir, write_json
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.writer import EventWriter, RecordWriter, SampleWriter

MACHINE = Machine("test-1", "2026-01-01", 2, 8 * 2**30)


class Recorded:
    """A training run that is written step by step.

    Args:
        folder: Where runs lie.
        monotonic: Moved on by one step time for every step.
    """

    def __init__(self, folder: Path) -> None:
        self.exp = experiment("training")
        self.spec = self.exp.spec.make({"steps": 1000})
        self.run: RunDir = layout.create(folder, "training", self.spec, MACHINE)
        self.event = EventWriter(self.run, 0, 0)
        self.writers = {n: SampleWriter(self.run, 0, n) for n in range(2)}
        self.tick, self.index = 0, -1
        for node in self.writers:
            EventWriter(self.run, 0, node)("started", pid=1, incarnation=0)

    def segment(self, **changes: int) -> None:
        """Begin a segment with these changes."""
        self.spec = self.spec.changed(changes) if changes else self.spec
        self.index += 1
        members = list(range(self.spec.nodes))
        self.event(
            "segment", segment=self.index, tick=self.tick, spec=self.spec.model_dump(), members=members, cause="test"
        )

    def steps(self, count: int, step_s: float = 0.01) -> None:
        """Write `count` steps that take `step_s`, nine tenths of it arithmetic."""
        for _ in range(count):
            self.tick += 1
            parts = {"data_time_s": 0.1 * step_s, "compute_time_s": 0.9 * step_s, "exposed_comm_time_s": 0.0}
            rest = {
                "straggler_wait_time_s": 0.0,
                "injected_time_s": 0.0,
                "runtime_time_s": 0.0,
                "loss": 1.0 / self.tick,
            }
            for node in range(self.spec.nodes):
                self.writers[node](self.tick, self.spec.nodes, self.index, {"step_time_s": step_s, **parts, **rest})
        for writer in self.writers.values():
            writer.flush()

    def end(self, state: str = "done") -> None:
        """Write the controller's outcome."""
        write_json(self.run.outcome(0), {"state": state, "tick": self.tick, "message": f"ended after step {self.tick}"})

    def reader(self) -> RunReader:
        """Return a reader that has read everything."""
        reader = RunReader(self.run)
        reader.poll()
        return reader


class RecordedErrands:
    """A run of the errands of this folder, written trip by trip on a clock of its own; node 0 is the desk.

    Args:
        folder: Where runs lie.
        values: Spec fields.
    """

    def __init__(self, folder: Path, **values: Any) -> None:
        self.exp = experiment("errands")
        self.spec = self.exp.spec.make({"nodes": 2, **values})
        self.run: RunDir = layout.create(folder, "errands", self.spec, MACHINE)
        self.event = EventWriter(self.run, 0, 0)
        self.records = RecordWriter(self.run, 0, 0, self.exp.records)
        self.writers = {n: SampleWriter(self.run, 0, n) for n in range(3)}
        self.tick, self.index, self.origin_s = 0, -1, time.monotonic()
        for node in self.writers:
            EventWriter(self.run, 0, node)("started", pid=1, incarnation=0)

    def segment(self, **changes: Any) -> None:
        """Begin a segment with these changes."""
        self.spec = self.spec.changed(changes)
        layout.keep_predictions(self.run, self.spec)
        self.index += 1
        members = list(range(self.spec.ranks))
        begun = {"segment": self.index, "tick": self.tick, "spec": self.spec.model_dump(), "members": members}
        self.event("segment", **begun, cause="test")

    def now_s(self) -> float:
        """Seconds of the run."""
        return time.monotonic() - self.origin_s

    def trip(self, carrier: int, errand: int, begin_s: float, end_s: float = math.nan, came_s: float = 0.0) -> None:
        """Write one row of the record."""
        self.records("trips", self.index, (carrier, errand, begin_s, end_s, came_s))

    def watch(self, count: int = 1, wait_s: float = math.nan) -> None:
        """Write `count` ticks; the desk and the carriers report different things."""
        for _ in range(count):
            self.tick += 1
            self.writers[0](self.tick, self.spec.ranks, self.index, {"errand_wait_s": wait_s, "errands_waiting": 1.0})
            for node in range(1, self.spec.ranks):
                self.writers[node](self.tick, self.spec.ranks, self.index, {"carrier_busy_frac": 0.25 * node})
        self.records.flush()
        for writer in self.writers.values():
            writer.flush()

    def reader(self) -> RunReader:
        """Return a reader that has read everything."""
        reader = RunReader(self.run)
        reader.poll()
        return reader


@pytest.fixture
def errands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Experiment]:
    """An experiment that is registered as any package may register one, for one test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "errands"))
    for found in (experiment, experiment_names):
        found.cache_clear()
    yield experiment("errands")
    for found in (experiment, experiment_names):
        found.cache_clear()


@pytest.fixture
def carried(errands: Experiment, tmp_path: Path) -> RecordedErrands:
    """A run of errands without a tick yet."""
    return RecordedErrands(tmp_path / "runs", errands_per_s=4.0, errand_s=0.4)


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """A run without a step yet."""
    return Recorded(tmp_path / "runs")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test alone."""
    monkeypatch.setenv("AIINFRA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Make labs believe that somebody looks at them."""
    from aiinfra_widgets.widgets import lab

    monkeypatch.setattr(lab, "headless", lambda: False)
    yield lambda: None
    for found in lab.labs():
        found._unfollow()
