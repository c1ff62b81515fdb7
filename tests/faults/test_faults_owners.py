"""Owners, supervisors and launchers that die or are interrupted: no rank outlives them, and the run can be resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from aiinfra_widgets.launch import pool as pools
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.status import status

RUN = [
    "run", "training", "--nodes", "2", "--set", "workload=net-10-5-2", "--set", "steps=10000000", "--set", "evaluate_every=0",
    "--set", "checkpoint_every_s=0.2", "--json",
]  # fmt: skip
#: A kernel: launches with a grace and then only waits.
KERNEL = """
import sys, time
from aiinfra_widgets.launch.session import Session, spec_of
session = Session(grace_s=float(sys.argv[1]))
spec = spec_of("training", {"workload": "net-10-5-2", "nodes": 2, "steps": 10**7, "evaluate_every": 0, "checkpoint_every_s": 0.2})
print(session.launch("training", spec, room=2).run.path, flush=True)
time.sleep(600)
"""


def supervisor_of(reader):
    return next(int(e["pid"]) for e in reader.kind("launching"))


def test_a_killed_owner_takes_its_ranks_along_and_the_run_resumes_where_it_was(owner):
    process = owner.command(*RUN)
    reader = owner.newest()
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    process.kill()
    now = owner.ended(reader)
    owner.alone()
    assert now.state == "interrupted"
    assert f"its owner (process {process.pid}) ended" in now.message
    kept = checkpoint.load(reader.run)[0]["tick"]
    assert now.next_step == f"resume at step {kept} with: aiinfra resume {reader.run.id}"
    assert reader.ticks["tick"].tolist() == list(range(1, kept + 1))  # it had time for a last checkpoint
    again = owner.command("resume", "last", "--json")
    owner.resumed(reader)
    assert reader.kind("segment")[1]["tick"] == kept
    owner.ticked(reader, kept + 20)
    again.send_signal(signal.SIGINT)
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 3
    assert [s["first_tick"] for s in json.loads(out)["segments"]] == [0, kept]
    owner.alone()


def test_ctrl_c_stops_gracefully(owner):
    process = owner.command(*RUN)
    reader = owner.newest()
    owner.ticked(reader, 50)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    found = json.loads(out)
    assert process.returncode == 3, err
    assert (found["status"], found["message"]) == ("stopped", "stopped by interrupt")
    assert found["segments"][0]["ticks"] >= 50
    assert "Traceback" not in err
    owner.alone(5)


def test_sigterm_stops_gracefully_too(owner):
    process = owner.command(*RUN)
    reader = owner.newest()
    owner.ticked(reader, 10)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["status"]) == (3, "stopped")
    owner.alone(5)


def test_ctrl_c_before_the_ranks_are_up(owner):
    process = owner.command(*RUN)
    reader = owner.newest()
    owner.until(reader, lambda s: reader.kind("launching"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 3
    reader.poll()
    assert status(reader).final
    owner.alone()


def test_within_the_grace_another_process_takes_the_run_over(owner):
    process = subprocess.Popen([sys.executable, "-c", KERNEL, "300"], stdout=subprocess.PIPE, text=True)
    owner.processes.append(process)
    reader = owner.newest()
    owner.ticked(reader, 20)
    process.kill()
    process.wait()
    reader.poll()
    tick = max(r["tick"] for r in reader.latest().values())
    owner.ticked(reader, int(tick) + 200)  # it goes on without an owner
    session = owner.session(grace_s=0.0)
    taken = session.attach()
    assert taken is not None
    assert taken.run.path == reader.run.path
    owner.ticked(taken, int(tick) + 400)
    assert session.stop(taken, wait_s=30).state == "stopped"
    assert owner.session().attach() is None


def test_when_the_grace_is_over_the_run_is_checkpointed_and_ended(owner):
    process = subprocess.Popen([sys.executable, "-c", KERNEL, "1.5"], stdout=subprocess.PIPE, text=True)
    owner.processes.append(process)
    reader = owner.newest()
    owner.ticked(reader, 20)
    process.kill()
    process.wait()
    now = owner.ended(reader)
    assert now.state == "interrupted"
    assert "nobody took the run over in 2 s" in now.message
    assert checkpoint.load(reader.run)[0]["tick"] == reader.ticks["tick"].max()
    owner.alone()


def test_a_pool_of_a_living_owner_is_nobody_elses(owner):
    process = owner.command(*RUN)
    reader = owner.newest()
    owner.ticked(reader, 10)
    assert pools.ours() == []
    assert owner.session().attach() is None
    process.terminate()
    process.communicate(timeout=60)


def test_a_killed_supervisor_takes_the_ranks_along(owner):
    reader = owner.start(2, nodes=2)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    os.kill(supervisor_of(reader), signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state == "interrupted"
    assert now.message == "the launcher is gone, and so are its ranks"
    assert re.match(r"resume at step \d+ with: aiinfra resume ", now.next_step)
    owner.alone()
    session = owner.sessions[-1]
    again = session.resume(reader.run, room=2)
    owner.ticked(again, checkpoint.load(reader.run)[0]["tick"] + 20)
    assert session.stop(again, wait_s=30).state == "stopped"


def test_owner_and_supervisor_killed_together(owner):
    process = owner.command(*RUN)
    reader = owner.newest()
    owner.ticked(reader, 10)
    for pid in (process.pid, supervisor_of(reader)):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert owner.ended(reader).state == "interrupted"
    owner.alone()


@pytest.mark.parametrize("victim", ["supervisor", "mpiexec"])
def test_killed_while_the_ranks_come_up(owner, victim):
    session = owner.session()
    from aiinfra_widgets.launch.session import spec_of

    reader = session.launch("training", spec_of("training", {"workload": "net-10-5-2", "steps": 10**7}), room=2)
    owner.until(reader, lambda s: reader.kind("launching") and session.pool.state.get("mpiexec_pid"))
    time.sleep(0.4)  # Python is up, MPI perhaps not yet
    os.kill(supervisor_of(reader) if victim == "supervisor" else session.pool.state["mpiexec_pid"], signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state in {"interrupted", "failed"}
    session.close()
    owner.alone()


def test_a_detached_run_outlives_its_command_and_is_left_alone_by_others(owner):
    words = [w.replace("steps=10000000", "steps=30000") for w in RUN]
    process = owner.command(*words, "--detach", "--change", "step=100 nodes=1")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    started = json.loads(out)
    assert started["status"] == "starting"
    reader = owner.newest()
    assert started["run"] == str(reader.run.path)
    owner.ticked(reader, 200)
    other = owner.command("run", "training", "--set", "workload=net-10-5-2", "--set", "steps=20", "--json")
    out, err = other.communicate(timeout=90)
    assert other.returncode == 0, err
    assert json.loads(out)["run"] != started["run"]
    reader.poll()
    assert not status(reader).final or status(reader).state == "done"
    assert owner.ended(reader).state == "done"
    assert [s.spec.nodes for s in reader.segments()] == [2, 1]
    owner.alone()


def test_no_rank_survives_in_whatever_order_they_are_killed(owner):
    reader = owner.start(2, nodes=2)
    pids = [
        owner.pid(reader, 0),
        supervisor_of(reader),
        owner.sessions[-1].pool.state["mpiexec_pid"],
        owner.pid(reader, 1),
    ]
    for pid in pids:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    assert owner.ended(reader).final
    owner.alone()
