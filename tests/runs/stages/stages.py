"""An experiment that records single steps: a pipeline whose stages are predicted by the simulation. Declarations only."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiinfra_widgets.experiment import Experiment, Spec, Timeline, knob
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.models.kinds import KINDS
from aiinfra_widgets.models.schedule_simulation import SimulatedStep, simulate
from aiinfra_widgets.quantities import Prediction, Value
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.writer import EventWriter, RecordWriter, SampleWriter

MACHINE = Machine("test-1", "2026-01-01", 2, 8 * 2**30)


class StagesSpec(Spec):
    """Equal stages."""

    nodes: int = knob(2, "Stages.", label="Nodes", ge=1, le=16, live=True, group="System")
    microbatches: int = knob(4, "Of a step.", label="Micro-batches", ge=1, le=64, live=True, group="System")
    forward_s: float = knob(0.01, "Of a micro-batch.", unit="s", ge=1e-4, le=1.0, live=True, group="System")


def step(spec: StagesSpec, slower: float = 1.0) -> SimulatedStep:
    """One step, as predicted; as measured, a little slower."""
    each = [spec.forward_s * slower] * spec.nodes
    more = {"p2p_s": 0.1 * spec.forward_s * slower, "update_s": 0.2 * spec.forward_s}
    return simulate("1f1b", spec.microbatches, each, [2 * x for x in each], **more)


class Stages(Experiment):
    """Steps of a pipeline."""

    name: ClassVar[str] = "stages"
    title: ClassVar[str] = "Stages"
    spec: ClassVar[type[Spec]] = StagesSpec
    program: ClassVar[str] = "nowhere:Nothing"
    compared: ClassVar[tuple[str, ...]] = ("step_time_s",)
    records: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "operations": ("tick", "rank", "kind", "microbatch", "start_s", "end_s")
    }
    timeline: ClassVar[Timeline | None] = Timeline(
        "operations", "rank", "kind", "start_s", "end_s", "Rank", "Operation", frame="tick", kinds=KINDS,
        detail="microbatch", details="Micro-batch",
    )  # fmt: skip

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """Simulate one step."""
        assert isinstance(spec, StagesSpec)
        found = step(spec)
        return Prediction(
            {"step_time_s": Value("step_time_s", found.step_time_s)}, extra={"operations": found.columns()}
        )


class RecordedStages:
    """A run of it, written as ranks would: each for itself, after its step.

    Args:
        folder: Where runs lie.
        values: Spec fields.
    """

    def __init__(self, folder: Path, **values: Any) -> None:
        self.exp = Stages()
        self.spec: Any = StagesSpec.make(values)
        self.run = layout.create(folder, "stages", self.spec, MACHINE)
        self.event = EventWriter(self.run, 0, 0)
        self.records = [RecordWriter(self.run, 0, n, self.exp.records) for n in range(16)]
        self.samples = [SampleWriter(self.run, 0, n) for n in range(16)]
        self.tick, self.index = 0, -1

    def segment(self, **changes: Any) -> None:
        """Begin a segment with these changes."""
        self.spec = self.spec.changed(changes)
        layout.keep_predictions(self.run, self.spec)
        self.index += 1
        begun = {"segment": self.index, "tick": self.tick, "spec": self.spec.model_dump(), "members": [0]}
        self.event("segment", **begun, cause="test")

    def step(self, slower: float = 1.2, ranks: int | None = None, wait: bool = False) -> SimulatedStep:
        """Write one step; only by the first `ranks` ranks where given; `wait`: for as long as it takes."""
        self.tick += 1
        found = step(self.spec, slower)
        if wait:
            time.sleep(found.step_time_s)
        for i in found.intervals:
            if ranks is None or i.rank < ranks:
                detail = i.microbatch if i.microbatch >= 0 else math.nan
                row = (self.tick, i.rank, i.kind, detail, i.start_s, i.end_s)
                self.records[i.rank]("operations", self.index, row)
        for rank in range(self.spec.nodes if ranks is None else ranks):
            self.samples[rank](self.tick, self.spec.nodes, self.index, {"step_time_s": found.step_time_s})
            self.records[rank].flush()
            self.samples[rank].flush()
        return found

    def reader(self) -> RunReader:
        """Return a reader that has read everything."""
        reader = RunReader(self.run)
        reader.poll()
        return reader
