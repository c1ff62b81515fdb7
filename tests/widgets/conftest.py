"""A run directory as ranks would have left it, made by the same writers, so that views are tested without ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.layout import RunDir, write_json
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.writer import EventWriter, SampleWriter

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
