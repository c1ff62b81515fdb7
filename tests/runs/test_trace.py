"""A trace holds what was recorded and what was predicted of it, in the form that Perfetto and chrome://tracing read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets.errors import DataError, ModelInputError
from aiinfra_widgets.experiment import experiment, experiment_names
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.models.kinds import KINDS
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.trace import MEASURED, PREDICTED, chrome_trace
from aiinfra_widgets.runs.writer import EventWriter, RecordWriter

HERE = Machine("test-1", "2026-01-01", 2, 8 * 2**30)
#: Keys that the documented format requires of each kind of event.
REQUIRED = {
    "X": {"name", "cat", "ph", "ts", "dur", "pid", "tid"}, "B": {"name", "cat", "ph", "ts", "pid", "tid"},
    "i": {"name", "ph", "ts", "pid", "tid", "s"}, "M": {"name", "ph", "pid", "args"},
}  # fmt: skip


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The experiment of the folder `stages`, registered as any package may register one, for one test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stages"))
    for found in (experiment, experiment_names):
        found.cache_clear()
    import stages

    yield stages
    for found in (experiment, experiment_names):
        found.cache_clear()


def of(found: dict[str, Any], process: int, phase: str = "X") -> list[dict[str, Any]]:
    return [e for e in found["traceEvents"] if e["pid"] == process and e["ph"] == phase]


def test_every_event_has_the_keys_of_the_format_and_every_lane_a_name(stages: Any, tmp_path: Path) -> None:
    run = stages.RecordedStages(tmp_path, nodes=3)
    run.segment()
    run.step()
    found = chrome_trace(run.reader())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {"traceEvents", "displayTimeUnit", "otherData"} == set(found)
    assert found["otherData"] == {"run": run.run.id, "experiment": "stages", "machine": "test-1"}
    events = found["traceEvents"]
    assert {e["ph"] for e in events} == {"X", "i", "M"}
    for e in events:
        assert REQUIRED[e["ph"]] <= set(e), e
        assert isinstance(e["pid"], int)
        assert isinstance(e["tid"], int)
    names = {(e["name"], e["pid"], e["tid"]): e["args"] for e in events if e["ph"] == "M"}
    assert names["process_name", MEASURED, 0] == {"name": "Measured"}
    assert names["process_name", PREDICTED, 0] == {"name": "Predicted"}
    for e in events:
        assert e["ph"] not in "XB" or names["thread_name", e["pid"], e["tid"]] == {"name": f"Rank {e['tid']}"}
    assert {e["name"] for e in of(found, MEASURED)} == {"Forward", "Backward", "Communication", "Bubble", "Update"}
    assert {e["cat"] for e in of(found, MEASURED)} <= {part for _, part in KINDS}


def test_times_come_back_as_they_were_recorded(stages: Any, tmp_path: Path) -> None:
    run = stages.RecordedStages(tmp_path)
    run.segment()
    wrote = [run.step(slower=1.2), run.step(slower=1.5)]
    found = chrome_trace(run.reader())
    begins = {e["name"]: e["ts"] for e in found["traceEvents"] if e["ph"] == "i"}
    assert list(begins) == ["step 1", "step 2"]
    predicted = stages.step(run.spec)
    for number, step in enumerate(wrote, 1):
        for process, want in ((MEASURED, step), (PREDICTED, predicted)):
            mine = sorted(
                (e["tid"], e["ts"] - begins[f"step {number}"], e["dur"], e["name"], e["args"].get("microbatch", -1))
                for e in of(found, process)
                if e["args"]["tick"] == number
            )
            expected = sorted(
                (i.rank, i.start_s * 1e6, (i.end_s - i.start_s) * 1e6, KINDS[i.kind][0], i.microbatch)
                for i in want.intervals
            )
            named = [(row[0], row[3], row[4]) for row in mine]
            assert named == [(row[0], row[3], row[4]) for row in expected]
            times = [x for row in mine for x in row[1:3]]
            assert times == pytest.approx([x for row in expected for x in row[1:3]], abs=0.01)


def test_steps_do_not_overlap_and_stand_where_they_happened(stages: Any, tmp_path: Path) -> None:
    run = stages.RecordedStages(tmp_path, forward_s=0.002)
    run.segment()
    steps = [run.step(wait=True) for _ in range(3)]
    run.segment(microbatches=2)
    steps.append(run.step(wait=True))
    found = chrome_trace(run.reader())
    begins = [e for e in found["traceEvents"] if e["ph"] == "i"]
    assert [e["args"]["segment"] for e in begins] == [0, 0, 0, 1]
    for (first, second), step in zip(pairwise(begins), steps, strict=False):
        assert second["ts"] - first["ts"] >= step.step_time_s * 1e6 - 0.01
    newest = [e for e in of(found, PREDICTED) if e["args"]["tick"] == 4]
    assert {e["args"].get("microbatch", -1) for e in newest} == {-1, 0, 1}, "the prediction of its own segment"
    last = chrome_trace(run.reader(), last=2)
    assert [e["name"] for e in last["traceEvents"] if e["ph"] == "i"] == ["step 3", "step 4"]
    assert min(e["ts"] for e in last["traceEvents"]) == 0


def test_a_timeline_of_a_whole_run(tmp_path: Path) -> None:
    exp = experiment("scheduling")
    spec = exp.spec.make({})
    run = layout.create(tmp_path, exp.name, spec, HERE)
    EventWriter(run, 0, 0)("segment", segment=0, tick=0, spec=spec.model_dump(), members=[0], cause="test")
    record, columns = RecordWriter(run, 0, 0, exp.records), exp.records["intervals"]
    for end_s in (math.nan, 2.5):  # written when it begins, and again when it has ended
        row = {"node": 1.0, "job": 7.0, "start_s": 0.5, "end_s": end_s}
        record("intervals", 0, tuple(row.get(c, 3.0) for c in columns))
    row = {"node": 2.0, "job": 8.0, "start_s": 1.0, "end_s": math.nan}
    record("intervals", 0, tuple(row.get(c, 3.0) for c in columns))
    record.flush()
    found = chrome_trace(RunReader(run))
    [ended], [opened] = of(found, MEASURED), of(found, MEASURED, "B")
    assert (ended["name"], ended["tid"], ended["ts"], ended["dur"]) == ("Job 7", 1, 5e5, 2e6)
    assert (opened["name"], opened["tid"], opened["ts"]) == ("Job 8", 2, 1e6)
    assert set(ended["args"]) == set(columns) - set(row)
    with pytest.raises(ModelInputError, match="'scheduling' does not record by window"):
        chrome_trace(RunReader(run), last=1)


def test_without_intervals_it_says_why(stages: Any, tmp_path: Path) -> None:
    run = stages.RecordedStages(tmp_path)
    run.segment()
    with pytest.raises(DataError, match=f"run {run.run.id} has no trace: nothing was recorded in 'operations'"):
        chrome_trace(run.reader())
    run.step()
    with pytest.raises(ModelInputError, match="cannot write the last 0 steps: it must be at least 1"):
        chrome_trace(run.reader(), last=0)
    exp = experiment("calibration")
    other = layout.create(tmp_path, exp.name, exp.spec.make({}), HERE)
    with pytest.raises(DataError, match="'calibration' records no timeline; choose a run of an experiment that does"):
        chrome_trace(RunReader(other))
