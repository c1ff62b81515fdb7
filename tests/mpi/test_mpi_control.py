"""Control of a run that goes on: what is asked is done at a boundary and acknowledged, or refused with a reason."""

from __future__ import annotations

import json
import os
import time

import pytest

from aiinfra_widgets.errors import AdmissionError, ControlError, SpecError
from aiinfra_widgets.launch.session import delete
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.layout import RunDir

CLOSE = {"rel": 2e-3, "abs": 2e-6}
#: Long enough that it never ends by itself while something is asked of it.
LONG = {"steps": 1_000_000, "checkpoint_every_s": 0.0}


def stop(lab, reader):
    now = lab.session.stop(reader, wait_s=60)
    assert now.state == "stopped", now
    return now


def by_hand(reader, name, content):
    """Put a file into the inbox the way any programme could: written aside, then renamed."""
    part = reader.run.inbox / f".{name}"
    part.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    part.rename(reader.run.inbox / f"{name}.json")
    return name


def test_a_change_is_acknowledged_with_its_tick_and_cost(lab):
    reader = lab.start(**LONG)
    lab.ticked(reader, 5)
    asked = lab.session.ask(reader, {"nodes": 3, "learning_rate": 0.01})
    answer = lab.answer(reader, asked.id)
    assert answer["kind"] == "applied"
    assert answer["tick"] >= 5
    assert answer["cost_s"] > 0
    segment = reader.segments()[-1]
    assert (segment.spec.nodes, segment.spec.learning_rate, segment.cause) == (3, 0.01, asked.id)
    assert segment.first_tick == answer["tick"]
    assert [e["nodes"] for e in reader.kind("resized")] == [3]
    assert not list(reader.run.inbox.iterdir())
    assert [p.stem for p in reader.run.taken.iterdir()] == [asked.id]
    stop(lab, reader)


def test_the_first_tick_under_a_change_is_the_one_after_it_was_asked_for(lab):
    reader = lab.done(["step=20 nodes=2"], steps=40)
    first, second = reader.segments()
    assert (first.first_tick, first.ticks, second.ticks) == (0, second.first_tick, 40 - second.first_tick)
    assert second.first_tick >= 20
    assert (reader.ticks["nodes"].iloc[second.first_tick :] == 2).all()
    assert (reader.ticks["nodes"].iloc[: second.first_tick] == 1).all()


def test_several_requests_at_one_boundary_end_as_the_last_one_says(lab):
    changes = ["step=10 nodes=4", "step=10 nodes=2", "step=10 learning_rate=0.01", "step=10 checkpoint"]
    reader = lab.done(changes, nodes=1)
    assert [e["kind"] for e in reader.kind("applied", "refused")] == ["applied"] * 4
    assert (reader.spec.nodes, reader.spec.learning_rate) == (2, 0.01)
    assert len(reader.segments()) == 2


def test_pause_holds_every_node_and_resume_goes_on(lab, curve):
    reader = lab.start(["step=20 pause"], nodes=2, steps=60)
    lab.until(reader, lambda now: now.state == "paused")
    reader.poll()
    held = len(reader.ticks)
    time.sleep(0.3)
    reader.poll()
    assert len(reader.ticks) == held
    assert held >= 20
    lab.session.ask(reader, verb="resume")
    assert lab.end(reader).state == "done"
    assert [e["kind"] for e in reader.kind("paused", "resumed")] == ["paused", "resumed"]
    assert curve(reader) == pytest.approx(curve(lab.done(nodes=2, steps=60)), **CLOSE)


def test_nodes_may_join_and_leave_while_the_run_is_paused(lab, curve):
    reader = lab.start(["step=20 pause"], nodes=2, steps=60)
    lab.until(reader, lambda now: now.state == "paused")
    for nodes in (4, 1, 3):
        assert lab.answer(reader, lab.session.ask(reader, {"nodes": nodes}).id)["kind"] == "applied"
        assert lab.until(reader, lambda now: True).state == "paused"
        assert reader.spec.nodes == nodes
    lab.session.ask(reader, verb="resume")
    assert lab.end(reader).state == "done"
    assert curve(reader) == pytest.approx(curve(lab.done(steps=60)), **CLOSE)
    assert reader.ticks["nodes"].iloc[-1] == 3


def test_a_node_that_left_does_not_take_those_it_left_for_those_at_work_now(lab, curve):
    """Down by two steps and up by one: the node that left first hears that the members are those of when it left."""
    changes = [f"step={10 * i} nodes={n}" for i, n in enumerate((2, 1, 2, 4, 3, 2, 3, 1, 4), 1)]
    reader = lab.done(changes, nodes=3, steps=120)
    assert [e["nodes"] for e in reader.kind("resized")] == [2, 1, 2, 4, 3, 2, 3, 1, 4]
    assert curve(reader) == pytest.approx(curve(lab.done(steps=120)), **CLOSE)


def test_a_paused_run_can_be_stopped_and_checkpointed(lab):
    reader = lab.start(["step=10 pause"], nodes=2, **LONG)
    lab.until(reader, lambda now: now.state == "paused")
    for _ in range(3):  # of the same tick: none of them may touch the one that LATEST names
        assert lab.answer(reader, lab.session.ask(reader, verb="checkpoint").id)["kind"] == "applied"
    now = stop(lab, reader)
    tick = reader.kind("end")[0]["tick"]
    assert f"resume at step {tick}" in now.next_step
    assert checkpoint.load(reader.run)[0]["tick"] == tick


def test_a_stopped_run_continues_where_it_was(lab, curve):
    straight = curve(lab.done(nodes=2, steps=120))
    reader = lab.start(["step=50 stop"], nodes=2, steps=120)
    assert lab.end(reader).state == "stopped"
    tick = reader.kind("end")[0]["tick"]
    again = lab.session.resume(reader.run, room=lab.room)
    assert lab.until(again, lambda now: True).state != "stopped"  # from now on it is starting, whatever it was
    assert lab.end(again).state == "done"
    begun = again.kind("segment")
    assert [(e["incarnation"], e["cause"]) for e in begun] == [(0, "start"), (1, "resume")]
    assert begun[1]["tick"] == tick
    assert curve(again) == pytest.approx(straight, **CLOSE)


def test_a_resumed_run_keeps_its_last_configuration_and_what_is_scheduled(lab):
    reader = lab.start(
        ["step=10 nodes=3", "step=20 checkpoint", "step=25 nodes=1", "step=30 stop", "step=60 nodes=2"], steps=80
    )
    assert lab.end(reader).state == "stopped"
    again = lab.session.resume(reader.run, room=1)  # a pool of one would do, though the checkpoint was made by three
    assert lab.end(again).state == "done"
    assert [(s.spec.nodes, s.cause) for s in again.segments()][2:4] == [(1, again.segments()[2].cause), (1, "resume")]
    assert again.segments()[-1].spec.nodes == 2
    assert again.segments()[-1].first_tick >= 60


def test_a_stop_that_came_too_late_does_not_end_the_next_incarnation(lab):
    reader = lab.start(["step=10 stop"], steps=40)
    assert lab.end(reader).state == "stopped"
    by_hand(reader, "00000000000000000001-late", {"id": "00000000000000000001-late", "by": "lab", "verb": "stop"})
    again = lab.session.resume(reader.run, room=lab.room)
    assert lab.end(again).state == "done"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"changes": {"seed": 3}}, "seed cannot change while the run goes on; live fields: nodes, "),
        ({"changes": {"nodes": 0}}, "nodes: got 0; allowed: a whole number from 1 to 512"),
        ({"changes": {"nodes": 500}}, "this machine takes 1 to "),
        ({"changes": {"nodes": "many"}}, "nodes: cannot read 'many'"),
        ({"changes": {"learning_rate": float("nan")}}, "learning_rate: got nan; allowed: a number from"),
        ({"changes": {"learning_rate": [1]}}, "learning_rate: got [1]"),
        ({"changes": {"global_batch": 2}, "verb": "fly"}, "training cannot 'fly'"),
        ({"changes": {"nodes": 4, "global_batch": 2}}, "with global_batch 2 some would have no sample"),
        ({"changes": {"nodse": 2}}, "nodse: no such field; did you mean 'nodes'"),
        ({"verb": "explode"}, "training cannot 'explode'; known: checkpoint, fault, pause, resume, stop"),
        ({}, "nothing was asked"),
        ({"changes": [1]}, "changes and arguments are objects"),
        ({"verb": "stop", "at_tick": "soon"}, "at_tick is a whole number"),
        ({"verb": "stop", "id": 7}, "id and by are text"),
        ([1, 2], "not a request"),
        (7, "not a request"),
        (b"\xff\xfe{", "not a request"),
        (b'{"id": "x", "by": "me", "verb": "st', "not a request"),
        (b"[" * 100_000, "not a request"),
        (b" " * (2**20 + 1), "larger than"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_what_cannot_be_done_is_refused_with_a_reason_and_the_run_goes_on(lab, asked, says):
    reader = lab.start(nodes=2, global_batch=600, **LONG)
    lab.ticked(reader, 3)
    whole = {"id": "0-by-hand", "by": "nobody", **asked} if isinstance(asked, dict) else asked
    by_hand(reader, "0-by-hand", whole)
    lab.until(reader, lambda now: reader.kind("refused"))
    refused = reader.kind("refused")[0]
    assert says in refused["reason"]
    assert refused["tick"] >= 3
    assert not list(reader.run.inbox.glob("*.json"))
    lab.ticked(reader, max(r["tick"] for r in reader.latest().values()) + 5)
    stop(lab, reader)
    assert len(reader.segments()) == 1


def test_what_is_no_file_in_the_inbox_harms_nothing(lab, tmp_path):
    reader = lab.start(**LONG)
    lab.ticked(reader, 3)
    (tmp_path / "elsewhere.json").write_text(json.dumps({"id": "z", "by": "z", "verb": "stop"}))
    os.mkfifo(reader.run.inbox / "a-fifo.json")
    (reader.run.inbox / "b-link.json").symlink_to(tmp_path / "elsewhere.json")
    (reader.run.inbox / "c-dangling.json").symlink_to(tmp_path / "nowhere")
    (reader.run.inbox / "d-folder.json").mkdir()
    (reader.run.inbox / "not-looked-at.txt").write_text("x")
    lab.until(reader, lambda now: len(reader.kind("refused")) == 4)
    assert {e["request"] for e in reader.kind("refused")} == {"a-fifo", "b-link", "c-dangling", "d-folder"}
    assert (tmp_path / "elsewhere.json").exists()
    stop(lab, reader)


def test_what_is_wrong_is_refused_before_it_is_asked(lab):
    reader = lab.start(**LONG)
    lab.ticked(reader, 3)
    ask = lab.session.ask
    with pytest.raises(AdmissionError, match="this machine takes 1 to"):
        ask(reader, {"nodes": 500})
    with pytest.raises(ControlError, match="seed cannot change"):
        ask(reader, {"seed": 2})
    with pytest.raises(SpecError, match="global_batch: got 0; allowed: a whole number from 1 to 65536"):
        ask(reader, {"global_batch": 0})
    with pytest.raises(ControlError, match="cannot 'fly'"):
        ask(reader, verb="fly")
    with pytest.raises(ControlError, match="nothing was asked"):
        ask(reader)
    with pytest.raises(ControlError, match="why: no such argument"):
        ask(reader, verb="stop", arguments={"why": "x"})
    assert not list(reader.run.inbox.iterdir())
    with pytest.raises(ControlError, match="stop it before you delete it"):
        delete(reader.run)
    with pytest.raises(ControlError, match="stop it before you resume it"):
        lab.session.resume(reader.run)
    stop(lab, reader)
    with pytest.raises(ControlError, match="has ended"):
        ask(reader, {"nodes": 2})
    delete(reader.run)
    assert not reader.run.path.exists()


def test_what_is_asked_when_it_is_too_late_is_refused_too(lab):
    reader = lab.done(["step=30 nodes=2", "step=900 nodes=1"], steps=40)
    kinds = {e["request"]: e["kind"] for e in reader.kind("applied", "refused")}
    assert sorted(kinds.values()) == ["applied", "refused"]
    assert "the run ended before" in reader.kind("refused")[0]["reason"]


def test_a_run_that_is_done_is_not_resumed(lab):
    with pytest.raises(ControlError, match="is done; start a new run"):
        lab.session.resume(lab.done(steps=5).run)


def test_runs_of_one_owner_wait_for_each_other(lab):
    first, second = lab.start(steps=200), lab.start(steps=20)
    assert lab.end(second).state == "done"
    assert lab.end(first).state == "done"
    assert second.ticks["t_s"].iloc[0] > first.ticks["t_s"].iloc[-1]


def test_growing_beyond_the_pool_goes_on_by_itself(lab, make_lab, curve, tmp_path, monkeypatch):
    monkeypatch.setenv("AIINFRA_HOME", str(tmp_path))  # a pool of its own
    small = make_lab(tmp_path / "runs", room=1)
    try:
        reader = small.start(["step=30 learning_rate=0.02", "step=90 nodes=1"], nodes=1, steps=120)
        small.session.ask(reader, {"nodes": 2}, at_tick=50)
        now = small.end(reader)
        assert now.state == "done", now
        assert curve(reader) == pytest.approx(curve(lab.done(["step=30 learning_rate=0.02"], steps=120)), **CLOSE)
        relaunch = reader.kind("end")[0]
        assert (relaunch["state"], relaunch["nodes"]) == ("relaunch", 2)
        segments = reader.segments()
        assert [s.spec.nodes for s in segments] == [1, 1, 2, 1]
        assert segments[2].first_tick == relaunch["tick"] >= 50
        assert segments[3].first_tick >= 90  # what was scheduled outlived the relaunch
        assert sum(s.ticks for s in segments) == 120
        assert [e["kind"] for e in reader.kind("applied", "refused")] == ["applied"] * 3
        assert reader.run.incarnations() == 2
    finally:
        small.session.close()


def test_deleting_and_moving_a_run_that_has_ended_is_safe(lab, curve, tmp_path):
    reader = lab.done()
    before = curve(reader)
    moved = RunDir(reader.run.path.rename(tmp_path / "elsewhere"))  # perhaps before the supervisor has seen its end
    lab.done(steps=5)  # the pool is not blocked
    from aiinfra_widgets.runs.reader import RunReader
    from aiinfra_widgets.runs.status import status

    again = RunReader(moved)
    again.poll()
    assert curve(again) == before
    assert status(again).state == "done"
    reader.poll()
    assert status(reader).state == "interrupted"
    assert "deleted or moved" in status(reader).message
