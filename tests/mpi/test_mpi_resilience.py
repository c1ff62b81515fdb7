"""Training under failures on real ranks: what is lost is done again to the bit, from a checkpoint that is really read."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

from aiinfra_widgets.experiments.resilience.books import PARTS
from aiinfra_widgets.experiments.resilience.spec import ResilienceSpec
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.runs.reader import RunReader

ROOM = 4
#: The job fails about once in 0.3 s; everything else is as short.
OFTEN = {
    "mtbf_s": 0.6, "interval_s": 0.1, "checkpoint_cost_s": 0.01, "restart_time_s": 0.02, "takeover_time_s": 0.01,
    "detection_time_s": 0.01, "duration_s": 20.0,
}  # fmt: skip


class Runs:
    """Starts runs in the folder's pool."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab

    def start(self, **values: Any) -> RunReader:
        """Start a run, and wait until it goes on."""
        reader = self.lab.session.launch("resilience", ResilienceSpec.make({**OFTEN, **values}), room=ROOM)
        self.lab.started.append(reader)
        self.lab.ticked(reader, 1)
        return reader

    def done(self, **values: Any) -> RunReader:
        """Carry out a whole run."""
        return self.ended(self.start(**values))

    def ended(self, reader: RunReader) -> RunReader:
        """Follow a run to its end."""
        now = self.lab.end(reader)
        assert now.state == "done", (now, reader.kind("error"))
        return reader


@pytest.fixture
def runs(lab: Any) -> Runs:
    """See Runs."""
    return Runs(lab)


def weights(reader: RunReader) -> dict[str, np.ndarray[Any, Any]]:
    """Return what the run ended with."""
    _, found = checkpoint.load(reader.run)
    return {name: found[name] for name in ("parameters", "momentum", "steps")}


def failed(reader: RunReader) -> int:
    """Return how many nodes failed."""
    return len(reader.kind("node-failed"))


@pytest.mark.parametrize("recovery", ["restart", "in-place"])
def test_after_failures_the_weights_are_those_of_a_run_without_any(runs: Runs, recovery: str) -> None:
    long = {"steps": 150, "duration_s": 300.0, "seed": 315}  # its first two failures come early, on a fast machine too
    struck = runs.done(recovery=recovery, mtbf_s=1.5, **long)
    clean = runs.done(mtbf_s=1e9, **long)
    assert failed(struck) >= 1
    assert failed(clean) == 0
    ours, theirs = weights(struck), weights(clean)
    assert ours["steps"].tolist() == [150]
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name]), name
    lost = struck.segments()[-1].values["lost_frac"].value
    assert lost > 0 if recovery == "restart" else lost == 0
    steps = struck.ticks["steps_kept"].to_numpy()
    assert recovery == "restart" or np.all(np.diff(steps) >= 0)  # survivors never go back


def test_every_second_is_in_the_books_and_the_trace_is_the_same_for_all(runs: Runs) -> None:
    told = []
    for interval_s in (0.05, 0.4):
        reader = runs.done(interval_s=interval_s, duration_s=3.0, seed=4)
        rows = reader.records("stretches")
        spent_s, ended_s = float(rows[list(PARTS)].to_numpy().sum()), float(rows["ended_s"].max())
        assert spent_s == pytest.approx(ended_s, rel=1e-6)
        assert ended_s >= 3.0
        value = reader.segments()[-1].values
        assert sum(value[f"{p}_frac"].value for p in ("checkpoint", "lost", "restart", "detection")) == pytest.approx(
            1 - value["training_goodput_frac"].value
        )
        told.append([e["node"] for e in reader.kind("node-failed")])
    common = min(map(len, told))
    assert common >= 2
    assert told[0][:common] == told[1][:common]


def test_live_changes_begin_segments_and_lose_nothing(runs: Runs) -> None:
    reader = runs.start(mtbf_s=1.0, duration_s=60.0)
    for changes in ({"interval_s": 0.3}, {"recovery": "in-place"}, {"nodes": 3}, {"mtbf_s": 50.0}):
        before = max(reader.ticks["tick"])
        asked = runs.lab.session.ask(reader, changes)
        assert runs.lab.answer(reader, asked.id)["kind"] == "applied"
        runs.lab.ticked(reader, int(before) + 3)
    runs.lab.session.ask(reader, verb="checkpoint")
    runs.lab.session.ask(reader, verb="stop")
    assert runs.lab.end(reader).state == "stopped"
    segments = reader.segments()
    assert [s.spec.nodes for s in segments] == [2, 2, 2, 3, 3]
    assert all(s.prediction is not None for s in segments)
    assert np.isfinite(weights(reader)["parameters"]).all()


def test_a_damaged_checkpoint_is_never_started_from(runs: Runs) -> None:
    reader = runs.start(interval_s=50.0, mtbf_s=8.0, detection_time_s=0.3)
    disk = RunDir(reader.run.work).checkpoints
    state = disk / (disk / "LATEST").read_text().strip() / "state-00000-of-00001.safetensors"
    whole = bytearray(state.read_bytes())
    whole[-8] ^= 1
    state.write_bytes(whole)
    now = runs.lab.end(reader)
    assert now.state == "failed"
    assert "checksum" in now.message


def test_a_rank_that_is_really_killed_is_survived(runs: Runs) -> None:
    reader = runs.start(duration_s=4.0, nodes=3)
    runs.lab.ticked(reader, 5)
    pid = next(e["pid"] for e in reader.kind("started") if e["by"] == 0)
    os.kill(pid, signal.SIGKILL)
    now = runs.lab.end(reader)
    assert now.state == "done", (now, reader.kind("error"))
    assert reader.kind("rank-lost")[0]["lost"] == [0]
    assert [segment.spec.nodes for segment in reader.segments()] == [3, 2, 3]  # the pool's spare rank takes the place
    assert np.isfinite(weights(reader)["parameters"]).all()
