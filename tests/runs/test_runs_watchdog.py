"""What the watchdog names from files alone: no rank runs here, so silence, straggling and their end are written by hand."""

from __future__ import annotations

import os

import pytest

from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.runs import layout, watchdog
from aiinfra_widgets.runs.watchdog import Watchdog, pulse_of
from aiinfra_widgets.runs.writer import EventWriter

HEAD = "tick,t_s,nodes,segment,step_time_s,straggler_wait_time_s"


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A run of two nodes that somebody wrote down, its watchdog, and what that said."""
    run = layout.create(tmp_path / "runs", "training", spec_of("training", {"nodes": 2}), found())
    event, said = EventWriter(run, 0, 0), []
    for node in (0, 1):
        event("started", pid=2**22 + node)  # no such process
        run.heartbeat(0, node).touch()
    event(
        "segment", segment=0, tick=0, spec=spec_of("training", {"nodes": 2}).model_dump(), members=[0, 1], cause="start"
    )
    monkeypatch.setattr(watchdog, "QUIET_S", 0.0)
    return run, event, Watchdog(run, 0, lambda kind, **more: said.append({"kind": kind, **more})), said


def look(dog):
    dog._looked_s = -1e9
    dog.look()


def pulse(run, node, text):
    pulse_of(run, 0, node).write_text(text)


def samples(run, node, wait_s, ticks=range(1, 50)):
    rows = "\n".join(f"{t},{t * 0.01},2,0,0.01,{wait_s}" for t in ticks)
    run.samples(0, node).write_text(f"{HEAD}\n{rows}\n")


def test_of_two_silent_nodes_the_one_that_does_not_wait_is_named(watched, monkeypatch):
    run, _, dog, said = watched
    look(dog)
    monkeypatch.setattr(watchdog, "QUIET_S", 1e-6)
    monkeypatch.setattr(Watchdog, "_pulse", lambda self, node: pulse_of(run, 0, node).read_text())
    pulse(run, 0, "waits in ranks/collectives.py:44 (allreduce)")
    pulse(run, 1, "is busy in training/measure.py:9 (advance)")
    look(dog)
    assert [(e["kind"], e["what"], e["nodes"]) for e in said] == [("alarm", "stalled", [1])]
    assert "is busy in training/measure.py:9 (advance)" in said[0]["message"]
    look(dog)
    assert len(said) == 1  # said once
    for node in (0, 1):
        os.utime(run.heartbeat(0, node), ns=(1, 1))
    look(dog)
    assert said[1]["kind"] == "alarm-over"


def test_a_node_whose_own_thread_is_silent_too_is_the_one(watched, monkeypatch):
    _, _, dog, said = watched
    look(dog)
    monkeypatch.setattr(watchdog, "QUIET_S", 1e-6)
    monkeypatch.setattr(Watchdog, "_pulse", lambda self, node: "waits in x" if node == 0 else None)
    look(dog)
    assert said[0]["nodes"] == [1]
    assert "it gives no sign of life" in said[0]["message"]


def test_a_paused_run_stands_still_by_right(watched):
    _, event, dog, said = watched
    event("paused", tick=3)
    look(dog)
    look(dog)
    assert said == []


@pytest.mark.parametrize(
    ("waits", "named"), [((0.0, 0.006), [0]), ((0.006, 0.0), [1]), ((0.001, 0.002), []), ((0.006, 0.006), [])]
)
def test_a_straggler_is_the_node_that_the_others_wait_for(watched, waits, named):
    run, _, dog, said = watched
    for node, wait_s in enumerate(waits):
        samples(run, node, wait_s)
    for step in range(watchdog.LOOKS + 1):
        for node in (0, 1):
            os.utime(run.heartbeat(0, node), ns=(step + 1, step + 1))
        look(dog)
    found_ = [e for e in said if e["what"] == "straggler"]
    assert [e["nodes"] for e in found_] == ([named] if named else [])
    if named:
        assert found_[0]["excess_s"] == pytest.approx(0.006)
        assert "the others wait 6 ms for it in each step of 10 ms" in found_[0]["message"]


def test_one_more_kill_for_lack_of_memory_and_a_dead_node_belong_together(watched, monkeypatch):
    run, event, dog, said = watched
    run.samples(0, 1).write_text(f"tick,t_s,nodes,segment,memory_bytes\n1,1,2,0,{300 * 2**20}\n")
    event("rank-lost", lost=[0], tick=1, nodes=1)
    look(dog)
    assert said == []  # killed by somebody: the system counts nothing
    monkeypatch.setattr(watchdog, "out_of_memory_kills", lambda: dog._oom_seen + 1)
    event("rank-lost", lost=[1], tick=2, nodes=1)
    look(dog)
    assert (said[0]["what"], said[0]["nodes"], said[0]["memory_bytes"]) == ("out-of-memory", [1], 300 * 2**20)
    assert "node 1 was killed by the system for lack of memory; it held 300 MiB" in said[0]["message"]
