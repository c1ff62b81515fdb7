"""Ranks that die, stand still or raise: what was measured stays readable, the status says what happened, resuming works."""

from __future__ import annotations

import math
import os
import signal

import psutil
import pytest

from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs import status as statuses
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.summary import summary


def whole(reader):
    """Every tick is there once, and its loss is a number."""
    ticks = reader.ticks["tick"].tolist()
    assert ticks == list(range(1, len(ticks) + 1))
    assert all(math.isfinite(x) for x in reader.ticks["loss"])
    return len(ticks)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_survivor_of_two_goes_on(owner, victim):
    reader = owner.start(2, nodes=2)
    os.kill(owner.pid(reader, victim), signal.SIGKILL)
    now = owner.until(reader, lambda s: s.state == "degraded")
    assert f"node {victim} died; the others went on at step" in now.message
    lost = reader.kind("rank-lost")[0]
    assert (lost["lost"], lost["nodes"], lost["by"]) == ([victim], 1, 1 - victim)
    owner.ticked(reader, lost["tick"] + 50)
    segments = reader.segments()
    assert [(s.spec.nodes, s.cause) for s in segments] == [(2, "start"), (1, "rank-lost")]
    assert segments[1].first_tick == lost["tick"]
    session = owner.sessions[-1]
    ended = session.stop(reader, wait_s=30)
    assert ended.state == "stopped"
    # The tick in which a node died is done again by the others; only what the dead had not yet written may miss.
    ticks = reader.ticks["tick"].tolist()
    assert ticks == sorted(set(ticks))
    assert set(range(lost["tick"] + 1, ticks[-1] + 1)) <= set(ticks)
    assert all(math.isfinite(x) for x in reader.ticks["loss"])
    survivor = reader.nodes[reader.nodes["node"] == 1 - victim]["tick"].tolist()
    assert survivor == list(range(1, ticks[-1] + 1))  # no tick was lost
    assert checkpoint.load(reader.run)[0]["tick"] == ticks[-1]


def test_what_is_asked_of_a_degraded_run_is_decided_by_the_survivor(owner):
    reader = owner.start(2, nodes=2)
    session = owner.sessions[-1]
    later = session.ask(reader, {"learning_rate": 0.01}, at_tick=10**6)
    os.kill(owner.pid(reader, 0), signal.SIGKILL)
    owner.until(reader, lambda s: s.state == "degraded")
    asked = session.ask(reader, {"global_batch": 32})
    owner.until(reader, lambda s: reader.answer(asked.id))
    assert reader.answer(asked.id)["by"] == 1
    assert [p.stem for p in reader.run.inbox.glob("*.json")] == [
        later.id
    ]  # what the dead controller had read is not lost
    more = session.ask(reader, {"nodes": 2})  # there is no spare one: relaunched from a checkpoint
    owner.until(reader, lambda s: reader.spec.nodes == 2 and s.state == "running")
    assert reader.answer(more.id)["kind"] == "applied"
    assert reader.run.incarnations() == 2
    assert reader.kind("segment")[-1]["tick"] == reader.kind("end")[0]["tick"]
    assert session.stop(reader, wait_s=30).state == "stopped"


def test_a_degraded_run_still_shrinks(owner):
    reader = owner.start(4, nodes=3)
    os.kill(owner.pid(reader, 3), signal.SIGKILL)  # an idle one: those at work need not notice
    os.kill(owner.pid(reader, 0), signal.SIGKILL)
    owner.until(reader, lambda s: s.state == "degraded")
    session = owner.sessions[-1]
    asked = session.ask(reader, {"nodes": 1})
    owner.until(reader, lambda s: reader.answer(asked.id))
    assert reader.kind("segment")[-1]["members"] == [1]
    owner.ticked(reader, reader.kind("segment")[-1]["tick"] + 20)
    assert session.stop(reader, wait_s=30).state == "stopped"
    assert reader.run.incarnations() == 1


def test_when_the_only_node_at_work_dies_the_run_fails_and_can_be_resumed(owner):
    reader = owner.start(3, nodes=1)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    os.kill(owner.pid(reader, 0), signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state == "failed"
    assert "every node at work died (0)" in now.message
    assert now.next_step.startswith("resume at step ")
    kept = checkpoint.load(reader.run)[0]["tick"]
    again = owner.sessions[-1].resume(reader.run, room=3)  # a fresh generation: one of the old is dead
    owner.until(again, lambda s: len(again.kind("segment")) == 2)
    assert again.kind("segment")[-1]["tick"] == kept
    owner.ticked(again, kept + 20)
    assert owner.sessions[-1].stop(again, wait_s=30).state == "stopped"


def test_the_death_of_an_idle_node_leaves_the_run_alone_and_its_pool_is_renewed(owner):
    reader = owner.start(2, nodes=1)
    idle = owner.pid(reader, 1)
    os.kill(idle, signal.SIGKILL)
    tick = max(s["tick"] for s in reader.latest().values())
    owner.ticked(reader, int(tick) + 200)
    session = owner.sessions[-1]
    assert session.stop(reader, wait_s=30).state == "stopped"
    assert whole(reader)
    again = owner.start(2, nodes=2)
    assert owner.pid(again, 1) != idle
    session.stop(again, wait_s=30)
    assert [s.spec.nodes for s in again.segments()] == [2]


def test_a_node_that_dies_while_the_run_is_paused(owner):
    reader = owner.start(3, nodes=3)
    session = owner.sessions[-1]
    session.ask(reader, verb="pause")
    owner.until(reader, lambda s: s.state == "paused")
    os.kill(owner.pid(reader, 0), signal.SIGKILL)
    owner.until(reader, lambda s: reader.kind("rank-lost"))
    assert owner.until(reader, lambda s: True).state == "paused"
    session.ask(reader, verb="resume")
    owner.until(reader, lambda s: s.state == "degraded")
    owner.ticked(reader, reader.kind("rank-lost")[0]["tick"] + 20)
    assert session.stop(reader, wait_s=30).state == "stopped"


def test_two_of_four_that_die_together(owner):
    reader = owner.start(4, nodes=4)
    for node in (0, 2):
        os.kill(owner.pid(reader, node), signal.SIGKILL)
    now = owner.until(reader, lambda s: s.final or sum(len(e["lost"]) for e in reader.kind("rank-lost")) == 2)
    # Either the other two go on, or the run ends and says so: it must not hang.
    if now.final:
        assert now.state == "failed"
        assert "resume at step" in now.next_step
    else:
        assert reader.kind("segment")[-1]["members"] == [1, 3]
        owner.ticked(reader, reader.kind("rank-lost")[-1]["tick"] + 20)
        assert owner.sessions[-1].stop(reader, wait_s=30).state == "stopped"


def test_a_run_that_diverges_fails_with_its_traceback(owner):
    session = owner.session()
    from aiinfra_widgets.launch.session import spec_of

    values = {"workload": "linear-regression", "learning_rate": 10.0, "nodes": 2, "evaluate_every": 1, "steps": 10_000}
    reader = session.launch("training", spec_of("training", values), room=2)
    now = owner.ended(reader)
    assert now.state == "failed"
    assert "the loss is " in now.message
    assert "lower learning_rate (now 10)" in now.message
    found = summary(reader)
    assert found["status"] == "failed"
    assert "Traceback (most recent call last)" in found["traceback"]
    assert "LabError: the loss is" in found["traceback"]
    assert whole_but_the_last(reader)
    owner.ranks_gone(session)
    again = owner.start(2, nodes=2)  # the pool is good for another run
    assert session.stop(again, wait_s=30).state == "stopped"


def whole_but_the_last(reader):
    ticks = reader.ticks["tick"].tolist()
    return ticks == list(range(1, len(ticks) + 1)) and len(ticks) > 1


def test_a_node_that_was_stopped_is_named(owner, monkeypatch):
    reader = owner.start(2, nodes=2)
    monkeypatch.setattr(statuses, "STALL_S", 1.0)
    pid = owner.pid(reader, 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        now = owner.until(reader, lambda s: s.state == "stalled")
        assert now.message.startswith("node 1 stands still since ")
        assert f"(process {pid} was stopped)" in now.message
        assert now.next_step == f"kill -CONT {pid}, or stop the run"
    finally:
        os.kill(pid, signal.SIGCONT)
    owner.until(reader, lambda s: s.state == "running")
    assert owner.sessions[-1].stop(reader, wait_s=30).state == "stopped"
    assert whole(reader)


def test_a_run_with_a_stopped_node_can_be_ended_and_resumed(owner):
    reader = owner.start(2, nodes=2)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    os.kill(owner.pid(reader, 1), signal.SIGSTOP)
    now = owner.sessions[-1].stop(
        reader, wait_s=1.0
    )  # firm; mpiexec wakes a stopped rank first, which may still be graceful
    assert now.final
    assert now.state != "done"
    assert "resume at step" in now.next_step
    owner.alone()
    again = owner.sessions[-1].resume(reader.run, room=2)
    owner.until(again, lambda s: len(again.kind("segment")) == 2)
    owner.ticked(again, again.kind("segment")[-1]["tick"] + 20)  # the stop that nobody took does not end it
    assert owner.sessions[-1].stop(again, wait_s=30).state == "stopped"


def test_a_run_directory_that_is_deleted_while_it_runs_ends_the_run(owner):
    import shutil

    reader = owner.start(2, nodes=2)
    while reader.run.path.exists():  # the ranks notice meanwhile, and remove a file of their own from under rmtree
        shutil.rmtree(reader.run.path, ignore_errors=True)
    now = owner.ended(reader)
    assert (now.state, "was deleted or moved" in now.message) == ("interrupted", True)
    session = owner.sessions[-1]
    owner.until(RunReader(owner.start(2, nodes=2).run), lambda s: s.state == "running")
    session.close()


def test_mpiexec_killed(owner):
    reader = owner.start(2, nodes=2)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    session = owner.sessions[-1]
    pids = [owner.pid(reader, n) for n in (0, 1)]
    os.kill(session.pool.state["mpiexec_pid"], signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state == "failed"
    assert "signal 9" in now.message
    assert "resume at step" in now.next_step
    for pid in pids:
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        assert not psutil.pid_exists(pid)
