"""The lab itself, without ranks: what it knows, what it refuses, and its screen as widgets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets import Lab
from aiinfra_widgets.errors import ControlError, SpecError, UnknownNameError
from aiinfra_widgets.runs.writer import EventWriter
from aiinfra_widgets.widgets.feed import Shown


def test_nothing_is_started_by_looking(home: Path) -> None:
    lab = Lab("training", nodes=2)
    assert lab.results()["status"] == "not started"
    assert lab.segments() == []
    assert repr(lab) == "Lab('training'): not started"
    assert not (home / "runs").exists()
    assert not (home / "pools").exists()
    json.dumps(lab.results())


def test_bad_input_is_refused_at_once(home: Path) -> None:
    with pytest.raises(UnknownNameError, match="training"):
        Lab("trainning")
    with pytest.raises(SpecError, match="nodes"):
        Lab("training", nodes=0)
    lab = Lab("training")
    with pytest.raises(ControlError, match="start one first"):
        lab.set(nodes=2)
    with pytest.raises(ControlError, match=r"lab\.run"):
        lab.wait()
    with pytest.raises(SpecError, match="step=N"):
        lab.run(["nodes=2"])
    assert not (home / "runs").exists()


def test_a_commitment_holds(home: Path) -> None:
    lab = Lab("training")
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ControlError, match="above 0"):
            lab.commit(wrong)
    lab.commit(0.008)
    with pytest.raises(ControlError, match="committed already"):
        lab.commit(0.009)
    with pytest.raises(ControlError, match="fixed"):
        lab.state.set_up({"nodes": 2})
    lab.state.start_over()
    lab.state.set_up({"nodes": 2})
    lab.commit(0.009)
    lines = [json.loads(x) for x in (home / "ledger.jsonl").read_text().splitlines()]
    assert [(x["value"], x["spec"]["nodes"]) for x in lines] == [(0.008, 1), (0.009, 2)]


@pytest.mark.parametrize("name", Shown(Lab("training").state.experiment).names)
def test_every_figure_is_there_before_the_run_and_embeds(home: Path, name: str) -> None:
    from bokeh.embed import json_item

    figure = Lab("training").figure(name)
    assert json_item(figure)["root_id"]
    assert all(axis.axis_label or name == "bars" for axis in figure.axis)


def test_an_unknown_figure_names_the_known(home: Path) -> None:
    with pytest.raises(UnknownNameError, match="loss"):
        Lab("training").figure("losss")


def test_figures_and_results_of_a_recorded_run(home: Path, recorded: Any) -> None:
    recorded.segment()
    recorded.steps(40)
    recorded.segment(nodes=2)
    recorded.steps(40, 0.006)
    recorded.end()
    lab = Lab("training")
    lab.state.reader, lab.state.phase = recorded.reader(), "running"
    status = lab.wait(1)
    assert status.state == "done"
    assert [s.spec.nodes for s in lab.segments()] == [1, 2]
    assert [c.row("step_time_s").measured.value for c in lab.comparison()] == pytest.approx([0.01, 0.006])
    points = lab.figure("speedup").select_one({"name": "points"}).data
    assert points["at"].tolist() == [1, 2]
    assert points["value"].tolist() == pytest.approx([1.0, 10 / 6])
    found = lab.results()
    assert [s["nodes"] for s in found["segments"]] == [1, 2]
    assert found["guess"] == {"quantity": "step_time_s", "value": None}


def test_the_screen_shows_one_control_for_each_field_and_unlocks_in_order(
    home: Path, watched: Callable[[], None]
) -> None:
    lab = Lab("training", workload="digits-perceptron", nodes=1, global_batch=256)
    screen = lab._the_screen()
    knobs = lab.state.experiment.spec.knobs()
    assert list(screen.setup) == list(knobs)
    assert list(screen.live) == [n for n, k in knobs.items() if k.live]
    assert screen.buttons["run"].disabled
    assert "not started" in screen.header.value

    screen.setup["nodes"].control.value = 3
    assert lab.state.spec.nodes == 3
    assert screen.live["nodes"].value() == 3
    screen.setup["slow_node"].control.value = "7"
    assert "allowed: -1 (none) to 2" in screen.setup["slow_node"].message.value or "allowed" in screen.header.value
    assert lab.state.spec.slow_node == -1

    screen.guess.value = "eight"
    screen.act("commit")
    assert "cannot read" in screen.guess_say.value
    assert screen.buttons["run"].disabled
    screen.guess.value = "8"
    screen.act("commit")
    assert lab.state.guess == pytest.approx(0.008)
    assert not screen.buttons["run"].disabled
    assert "8 ms" in screen.reveal.value
    assert "aiinfra-hidden" in screen.asking._dom_classes


def test_the_screen_draws_a_recorded_run_and_its_failure(
    home: Path, watched: Callable[[], None], recorded: Any
) -> None:
    recorded.segment()
    recorded.steps(30)
    lab = Lab("training", nodes=1)
    screen = lab._the_screen()
    recorded.event("error", tick=30, message="ValueError: bad <data>", traceback="Traceback <most recent>")
    lab.state.reader, lab.state.phase = recorded.reader(), "running"
    lab._update(lab.state.look())
    assert "failed" in screen.header.value
    assert "Traceback &lt;most recent&gt;" in screen.failure.value
    assert "start over" in screen.header.value
    assert "10 ms" in screen.table.value
    assert screen.buttons["stop"].disabled


def test_the_follower_ends_with_the_run_and_survives_a_deleted_one(
    home: Path, watched: Callable[[], None], recorded: Any
) -> None:
    import shutil

    recorded.segment()
    recorded.steps(30)
    recorded.event("launching", pid=1, born_s=0.0)
    recorded.end()
    lab = Lab("training")
    lab._the_screen()
    lab.state.reader, lab.state.phase = recorded.reader(), "running"
    lab._follow()
    assert lab._follower is not None
    lab._follower.join(10)
    assert not lab._follower.is_alive()
    assert lab.state.phase == "ended"
    lab.state.phase = "running"
    shutil.rmtree(recorded.run.path)
    lab._follow()
    lab._follower.join(10)
    assert not lab._follower.is_alive()
    assert [t.name for t in threading.enumerate() if t.name == "aiinfra-follow"] == []


def test_a_run_that_broke_is_offered_and_opened(home: Path, watched: Callable[[], None], recorded: Any) -> None:
    recorded.segment()
    recorded.steps(30)
    (recorded.run.checkpoints / "LATEST").write_text("25")
    EventWriter(recorded.run, 0, "launch")("owner-gone-end", message="its owner ended")
    home.mkdir()
    recorded.run.path.parent.rename(home / "runs")
    lab = Lab("training")
    assert recorded.run.id in lab._the_screen().header.value
    lab.open()
    screen = lab._the_screen()
    assert "interrupted" in screen.header.value
    assert lab.state.look().can_resume
    assert "aiinfra-hidden" not in screen.buttons["resume"]._dom_classes
    lab.state.experiment = type("Other", (), {"name": "other"})()  # type: ignore[assignment]
    with pytest.raises(ControlError, match="of 'training'"):
        lab.open(recorded.run.id)
