"""The status of a run from evidence: a directory is made up for each state, with real processes where one is looked at."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest

from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import FINAL, latest_checkpoint_tick, status, traceback_of


def now(made):
    return status(made.read())


def at_work(made, nodes=2, ticks=3):
    """A run whose launcher lives and whose nodes have just reported."""
    made.launched()
    for node in range(nodes):
        made.event(node, "started", pid=os.getpid())
    made.segment(0, 0, nodes)
    made.ticks(1, ticks, nodes, 0)


def dead_pid(sleeper):
    """The pid of a process that has just ended, and when it was born."""
    born_s = psutil.Process(sleeper.pid).create_time()
    sleeper.kill()
    sleeper.wait()
    return sleeper.pid, born_s


def test_new(made):
    found = now(made)
    assert (found.state, found.final, found.ok) == ("new", False, False)
    assert found.next_step == f"start it with: aiinfra resume {made.run.id}"


def test_starting_from_the_moment_it_is_queued(made):
    made.event("owner", "queued", pid=os.getpid(), born_s=psutil.Process().create_time())
    assert now(made).state == "starting"
    made.launched()
    assert (now(made).state, now(made).message) == ("starting", "waiting for the ranks")


def test_running(made):
    at_work(made)
    found = now(made)
    assert (found.state, found.message, found.last_tick) == ("running", "2 nodes at work", {0: 3, 1: 3})


def test_paused_and_resumed_also_over_a_resize(made):
    at_work(made)
    made.event(0, "paused", tick=3)
    assert now(made).state == "paused"
    made.segment(1, 3, 1)
    assert now(made).state == "paused"
    made.event(0, "resumed", tick=3)
    assert (now(made).state, now(made).message) == ("running", "1 node at work")


def test_degraded_names_who_died_and_where_the_others_went_on(made):
    at_work(made, nodes=3)
    made.event(0, "rank-lost", lost=[1], tick=3, nodes=2)
    made.event(
        0,
        "segment",
        segment=1,
        tick=3,
        spec=made.spec.changed({"nodes": 2}).model_dump(),
        members=[0, 2],
        cause="rank-lost",
    )
    assert (now(made).state, now(made).message) == ("degraded", "node 1 died; the others went on at step 3")


def test_stalled_names_all_who_are_silent(made):
    at_work(made)
    made.age(60)
    found = now(made)
    assert found.state == "stalled"
    assert found.message.startswith("nodes 0, 1 stand still since 6")
    assert found.message.endswith("s, after step 3")
    assert not found.final


def test_stalled_names_the_process_that_was_stopped_and_not_those_who_wait_for_it(made, sleeper):
    at_work(made)
    made.event(1, "started", pid=sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    try:
        end = time.monotonic() + 30
        while psutil.Process(sleeper.pid).status() != "stopped" and time.monotonic() < end:
            time.sleep(0.01)
        made.age(20)
        found = now(made)
        assert found.message.startswith("node 1 stands still since 2")
        assert f"(process {sleeper.pid} was stopped)" in found.message
        assert found.next_step == f"kill -CONT {sleeper.pid}, or stop the run"
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)


def test_an_idle_node_does_not_stall_a_run(made):
    at_work(made)
    made.segment(1, 3, 1)
    beat = made.run.heartbeat(0, 1)
    os.utime(beat, (time.time() - 99, time.time() - 99))
    assert now(made).state == "running"


@pytest.mark.parametrize("state", ["done", "stopped", "failed", "interrupted"])
def test_the_sentinel_outweighs_everything(made, state):
    at_work(made)
    made.event(1, "error", message="x", tick=1)
    made.event("launch", "ranks-ended", exit_code=137, message="killed")
    made.outcome(state, message="because")
    made.age(100)
    found = now(made)
    assert (found.state, found.message, found.final, found.ok) == (state, "because", True, state in {"done", "stopped"})
    assert (found.next_step == "") == (state == "done")


def test_a_sentinel_without_a_message_names_the_tick(made):
    at_work(made)
    made.outcome("done")
    assert now(made).message == "ended after step 7"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"done"'])
def test_a_sentinel_that_is_none_is_no_evidence(made, text):
    at_work(made)
    made.run.outcome(0).write_text(text)
    assert now(made).state == "running"


def test_failed_by_what_a_node_recorded(made):
    at_work(made)
    made.event(1, "error", message="ValueError: no", tick=3, traceback="Traceback ...\nValueError: no\n")
    made.event("launch", "ranks-ended", exit_code=1, message="mpiexec ended")
    reader = made.read()
    found = status(reader)
    assert (found.state, found.message) == ("failed", "node 1 at step 3: ValueError: no")
    assert found.next_step == "no checkpoint was written; what was measured is kept; start a new run"
    assert traceback_of(reader).startswith("Traceback")


def test_failed_by_the_launcher_alone(made):
    at_work(made)
    made.event("launch", "ranks-ended", exit_code=137, message="a rank was killed")
    assert (now(made).state, now(made).message) == ("failed", "a rank was killed")
    assert traceback_of(made.read()) == ""


def test_interrupted_when_its_owner_was_gone(made):
    at_work(made)
    made.event("launch", "owner-gone-end", message="its owner (process 5) ended")
    assert (now(made).state, now(made).message) == ("interrupted", "its owner (process 5) ended")


def test_interrupted_when_the_launcher_is_gone_without_a_word(made, sleeper):
    pid, born_s = dead_pid(sleeper)
    made.launched(pid=pid, born_s=born_s)
    made.segment(0, 0, 1)
    made.ticks(1, 3, 1, 0)
    assert now(made).state == "running"  # its ranks may outlive it by a moment
    made.age(10)
    assert (now(made).state, now(made).message) == ("interrupted", "the launcher is gone, and so are its ranks")


def test_a_pid_that_was_used_again_is_not_the_launcher(made):
    made.launched(pid=os.getpid(), born_s=psutil.Process().create_time() - 1000)
    made.segment(0, 0, 1)
    made.ticks(1, 3, 1, 0)
    made.age(10)
    assert now(made).state == "interrupted"


def test_a_launcher_that_is_a_zombie_does_not_live(made, sleeper):
    made.launched(pid=sleeper.pid)
    sleeper.kill()
    end = time.monotonic() + 30
    while psutil.Process(sleeper.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.01)
    made.segment(0, 0, 1)
    made.age(10)
    assert now(made).state == "interrupted"


def test_queued_and_then_nothing(made, sleeper):
    pid, born_s = dead_pid(sleeper)
    made.event("owner", "queued", pid=pid, born_s=born_s)
    made.age(10)
    assert now(made).state == "interrupted"


def test_relaunching_as_long_as_somebody_does_it(made, sleeper):
    at_work(made)
    made.outcome("relaunch", nodes=4)
    made.event(0, "end", state="relaunch", nodes=4)
    assert (now(made).state, now(made).message) == ("starting", "relaunching with 4 nodes from step 7")
    assert made.read().spec.nodes == 4  # a slider must not spring back while the ranks come up
    made.event("launch", "launching", 1, pid=os.getpid(), born_s=psutil.Process().create_time())
    assert now(made).state == "starting"
    made.segment(1, 7, 3, incarnation=1)
    assert (now(made).state, made.read().spec.nodes) == ("running", 3)


def test_relaunching_and_then_nothing(made, sleeper):
    pid, born_s = dead_pid(sleeper)
    made.launched(pid=pid, born_s=born_s)
    made.segment(0, 0, 1)
    made.outcome("relaunch", nodes=4)
    made.age(10)
    assert now(made).state == "interrupted"


def test_a_job_that_is_put_back_is_not_over_before_its_scheduler_was_asked(made, sleeper, tmp_path):
    """The supervisor ends with its allocation, some seconds before the next who looks asks Slurm what became of the job."""
    pid, born_s = dead_pid(sleeper)
    made.event("launch", "launching", pid=pid, born_s=born_s, size=2, job="7", pool=str(tmp_path))
    made.segment(0, 0, 2)
    made.outcome("relaunch")
    made.age(10)
    assert now(made).state == "starting"
    said = {
        "state": "PENDING",
        "reason": "BeginTime",
        "waiting": True,
        "over": False,
        "job": "7",
        "wall_s": time.time(),
    }
    (tmp_path / "queue.json").write_text(json.dumps(said))
    assert "job 7 of Slurm is pending (BeginTime)" in now(made).message
    (tmp_path / "queue.json").write_text(json.dumps({**said, "state": "CANCELLED", "over": True}))
    assert (now(made).state, now(made).message.rpartition("; ")[2]) == (
        "interrupted",
        "job 7 of Slurm is cancelled (BeginTime)",
    )
    (tmp_path / "queue.json").unlink()
    made.age(60)
    assert now(made).state == "interrupted"  # nobody asks


def test_a_resumed_run_is_judged_by_its_newest_incarnation(made):
    at_work(made)
    made.event(0, "error", message="old", tick=3)
    made.event(0, "paused", tick=3)
    made.outcome("failed")
    made.launched(1)
    assert now(made).state == "starting"
    made.segment(1, 3, 1, incarnation=1)
    assert now(made).state == "running"
    made.outcome("done", 1)
    assert now(made).state == "done"
    assert traceback_of(made.read()) == ""


@pytest.mark.parametrize(
    ("text", "tick"),
    [("0000000040", 40), ("0000000040.a1b2c3", 40), ("40\n", 40), ("", None), ("x", None), ("\udcff", None)],
)
def test_the_tick_to_resume_from(made, text, tick):
    (made.run.checkpoints / "LATEST").write_text(text, errors="surrogateescape")
    reader = RunReader(made.run)
    assert latest_checkpoint_tick(reader) == tick
    made.outcome("stopped")
    made.event(0, "end")
    hint = f"resume at step 40 with: aiinfra resume {made.run.id}" if tick else "no checkpoint was written"
    assert hint in now(made).next_step


def test_final_states_are_those_after_which_nothing_comes():
    assert {"done", "stopped", "failed", "interrupted"} == FINAL
