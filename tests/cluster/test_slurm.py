"""Runs in allocations of a real Slurm: submitted, changed while they go on, cancelled, put back into the queue, and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mini_slurm import MiniSlurm, network

from aiinfra_widgets.errors import AdmissionError, LaunchError, SpecError
from aiinfra_widgets.launch import slurm as launcher
from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.launch.slurm import SlurmRequest
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import Status, status

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
HERE = SlurmRequest(time_limit_s=600, network=network())
TRAINING = {"workload": "digits-cnn", "nodes": 2, "steps": 1_000_000, "global_batch": 64}


@pytest.fixture
def session(login: MiniSlurm) -> Iterator[Session]:
    made = Session(place=HERE)
    yield made
    made.close()


def until(reader: RunReader, holds: Callable[[Status], Any], seconds: float = 90.0) -> Status:
    """Look until it holds, and return the status then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reader.poll()
        now = status(reader)
        if holds(now):
            return now
        assert now.state != "failed", f"{now}\n{[e.get('tail', e['kind']) for e in reader.events]}"
        time.sleep(0.1)
    raise AssertionError(f"not after {seconds:g} s: {now}, {[e['kind'] for e in reader.events]}")


def stepped(at_least: int) -> Callable[[Status], bool]:
    return lambda now: max(now.last_tick.values(), default=0) >= at_least


def job_of(session: Session) -> str:
    assert session.pool is not None
    return session.pool.job


def test_submitted_changed_while_it_goes_on_and_stopped(session, login):
    reader = session.launch("training", spec_of("training", TRAINING), room=3)
    until(reader, stepped(20))
    hosts = login.hosts_of(job_of(session))
    assert len(set(hosts)) == 3
    session.ask(reader, {"nodes": 3})
    until(reader, lambda _: any(e["nodes"] == 3 for e in reader.kind("resized")))
    with pytest.raises(AdmissionError, match=r"got 4; Slurm's job \d+ holds 1 to 3; .*--on slurm"):
        session.ask(reader, {"nodes": 4})
    assert session.stop(reader, wait_s=30).state == "stopped"
    session.close()
    login.until_idle()
    assert launcher.queue(session.pool.job if session.pool else "").over


def test_a_full_cluster_says_why_the_run_waits_and_stop_takes_it_out_of_the_queue(session, login):
    login.call("sbatch", "--parsable", "--ntasks=4", "--time=5", "--output=/dev/null", "--wrap=sleep 300")
    reader = session.launch("training", spec_of("training", TRAINING))
    job = job_of(session)
    now = until(reader, lambda now: "is pending (" in now.message)
    assert now.state == "starting"
    assert f"job {job} of Slurm is pending (" in now.message
    now = session.stop(reader, wait_s=1.0)
    assert now.state == "interrupted"
    assert launcher.queue(job).state == "CANCELLED"


def test_scancel_interrupts_the_run_which_can_be_resumed(session, login):
    reader = session.launch("training", spec_of("training", {**TRAINING, "checkpoint_every_s": 1.0}))
    until(reader, lambda _: reader.kind("checkpoint"))
    login.call("scancel", job_of(session))  # Slurm ends the ranks at once: what is left is the last checkpoint
    now = until(reader, lambda now: now.final)
    assert now.state == "interrupted"
    assert "cancelled" in now.message
    again = Session(place=HERE)
    try:
        resumed = again.resume(reader.run)
        tick = max(now.last_tick.values())
        until(resumed, stepped(tick + 20))
    finally:
        again.close()


def test_near_its_time_limit_the_run_goes_on_in_the_next_start_of_the_job(session, login):
    reader = session.launch("training", spec_of("training", TRAINING))
    until(reader, stepped(20))
    job = job_of(session)
    login.call("scancel", "--batch", "--signal=USR1", job)  # what Slurm sends a minute before the limit
    first = begun_again(reader)
    assert first["tick"] >= 20
    assert job_of(session) == job
    until(reader, stepped(first["tick"] + 20))
    assert session.stop(reader, wait_s=30).state == "stopped"


@pytest.mark.parametrize(
    "which", [pytest.param(0, id="with-the-supervisor"), pytest.param(1, id="with-a-rank", marks=pytest.mark.slow)]
)
def test_a_node_that_fails_puts_the_job_back_and_the_run_goes_on(session, login, which):
    reader = session.launch("training", spec_of("training", {**TRAINING, "checkpoint_every_s": 1.0}))
    until(reader, lambda _: reader.kind("checkpoint"))
    job = job_of(session)
    node = int(login.hosts_of(job)[which].removeprefix("n"))  # Slurm may have put it beside one that came back just now
    try:
        login.kill_node(node)
        first = begun_again(reader, 120)
        assert first["tick"] > 0
        assert f"n{node}" not in login.hosts_of(job)
        until(reader, stepped(first["tick"] + 20))
    finally:
        login.start_node(node)
        session.close()
        login.until_idle(60)


def begun_again(reader: RunReader, seconds: float = 90.0) -> dict[str, Any]:
    """Wait for the next incarnation's first segment, and see that the run never looked ended meanwhile."""
    until(reader, lambda now: _never_final(now) and _second(reader), seconds)
    return _second(reader)[0]


def _second(reader: RunReader) -> list[dict[str, Any]]:
    return [e for e in reader.kind("segment") if e["incarnation"] == 1]


def _never_final(now: Status) -> bool:
    assert not now.final, now
    return True


def test_what_slurm_refuses_is_told_in_its_own_words(login):
    with pytest.raises((AdmissionError, LaunchError), match=r"(?s)partition|account"):
        Session(place=SlurmRequest(partition="nowhere")).launch("training", spec_of("training", TRAINING))
    with pytest.raises(AdmissionError, match="Slurm refuses 64 ranks"):
        Session(place=SlurmRequest()).launch("training", spec_of("training", TRAINING), room=64)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"partition": "a b"}, "partition: got 'a b'; allowed: letters", id="a-word"),
        pytest.param({"time": "soon"}, "time: got 'soon'; allowed: such as 90s", id="a-time"),
        pytest.param({"time": "5s"}, "allowed: 60 s to a year", id="too-short"),
        pytest.param({"partitions": "x"}, "did you mean", id="a-near-word"),
        pytest.param({"gpus_per_task": "-1"}, "gpus_per_task: got -1", id="a-number"),
    ],
)
def test_a_request_that_is_wrong_says_what_is_allowed(given, said):
    with pytest.raises(SpecError, match=said):
        SlurmRequest.parse(given)
