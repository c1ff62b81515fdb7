"""Sweeps as job arrays, the command line and the Lab on a real Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mini_slurm import MiniSlurm, network

from aiinfra_widgets.errors import AdmissionError, ControlError, SpecError
from aiinfra_widgets.launch import place, schedule
from aiinfra_widgets.launch.allocation import Allocation
from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.launch.slurm import SlurmRequest
from aiinfra_widgets.research import array, sweeps

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
AIINFRA = [sys.executable, "-c", "import sys; from aiinfra_widgets.cli import main; sys.exit(main())"]
ON_SLURM = ["--on", "slurm", "--slurm", "time=10min", "--slurm", f"network={network()}"]
SHORT = {"workload": "digits-perceptron", "nodes": 1, "steps": 60}


def aiinfra(*words: str, seconds: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AIINFRA, *words], capture_output=True, text=True, timeout=seconds, check=False)


def test_a_sweep_of_eight_is_one_array_whose_tasks_each_do_one_point(login: MiniSlurm, tmp_path: Path):
    over = {"global_batch": [16, 24, 32, 40, 48, 56, 64, 72]}
    found = sweeps.plan_sweep("training", over, out=tmp_path / "sweep", fixed=SHORT)
    job = array.submit(found, SlurmRequest(time_limit_s=600, network=network()))
    with pytest.raises(ControlError, match=f"job {job} of Slurm still works on the sweep"):
        array.submit(found, SlurmRequest())
    seen: list[int] = []
    array.follow(found, lambda done, total, what: seen.append(done))
    again = sweeps.open_sweep(found.path)
    assert again.counts() == {"done": 8}, [e.reason for e in again.ends().values()]
    assert seen[-1] == 8
    assert sorted(p.name for p in found.path.glob("journal-*.jsonl")) == [f"journal-{i}.jsonl" for i in range(8)]
    assert (found.path / "table.csv").exists()
    assert array.submit(again, SlurmRequest()) == ""  # nothing is left


def test_an_array_that_was_cancelled_is_resumed_where_it_was(login: MiniSlurm, tmp_path: Path):
    words = ["training", "--over", "global_batch=32,64", "--set", "workload=digits-perceptron", "--set", "steps=60"]
    login.call("sbatch", "--ntasks=4", "--time=5", "--output=/dev/null", "--wrap=sleep 300")  # so that nothing starts
    waiting = subprocess.Popen(
        [*AIINFRA, "sweep", *words, "-o", str(tmp_path / "s"), *ON_SLURM], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while not (job := tmp_path / "s" / "array.json").exists() and time.monotonic() < end and waiting.poll() is None:
        time.sleep(0.1)
    login.call("scancel", json.loads(job.read_text())["job"])
    login.call("scancel", f"--user={login.user}")
    waiting.wait(60)
    assert sweeps.open_sweep(tmp_path / "s").counts() == {"open": 2}
    done = aiinfra("sweep", "--resume", str(tmp_path / "s"), "--json", *ON_SLURM)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"done": 2}


def test_the_command_line_runs_on_slurm_and_says_what_it_is_asked(login: MiniSlurm):
    words = ["--nodes", "2", "--set", "workload=digits-perceptron", "--set", "steps=60", "--json"]
    done = aiinfra("run", "training", *words, *ON_SLURM)
    assert done.returncode == 0, done.stderr
    [folder] = (Path(os.environ["AIINFRA_HOME"]) / "runs").iterdir()
    queued = json.loads((folder / "events" / "0-owner.jsonl").read_text().splitlines()[0])
    assert queued["job"].isdecimal()
    wrong = aiinfra("run", "training", *words, "--slurm", "time=2h")
    assert wrong.returncode == 1
    assert "add --on slurm" in wrong.stderr


def test_a_scheduled_growth_beyond_the_allocation_is_refused_before_it_happens(login: MiniSlurm):
    session = Session(place=SlurmRequest(time_limit_s=600, network=network()))
    spec = spec_of("training", {**SHORT, "steps": 1_000_000, "nodes": 2})
    login.call("sbatch", "--ntasks=4", "--time=5", "--output=/dev/null", "--wrap=sleep 300")
    try:
        reader = session.launch("training", spec)
        later = schedule.parse_changes(reader.experiment, spec, ["step=500 nodes=4"])
        with pytest.raises(AdmissionError, match=r"got 4; Slurm's job \d+ holds 1 to 2; .*--room 4 --on slurm"):
            schedule.ask_all(session, reader, later)
        assert list(reader.run.inbox.iterdir()) == []
    finally:
        session.close()


def test_a_lab_shows_how_the_queue_stands(login: MiniSlurm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIINFRA_HEADLESS", "1")
    from aiinfra_widgets import Lab

    login.call("sbatch", "--ntasks=4", "--time=5", "--output=/dev/null", "--wrap=sleep 300")
    lab = Lab("training", on="slurm", slurm={"time": "10min", "network": network()}, **SHORT)
    lab.run()
    try:
        # Its reason and its plan, from its backfill, come in rounds of their own: Slurm may tell one without the other.
        said, end = "", time.monotonic() + 30
        while not ("of Slurm is pending (" in said and "expected to start at 20" in said):
            assert time.monotonic() < end, said
            said += lab.state.look().status.message + "\n"
            time.sleep(0.2)
    finally:
        now = lab.stop()
        lab.state.close()
    assert now.state == "interrupted"


def test_inside_an_allocation_slurm_is_that_allocation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    here = place.asked_for("slurm", {"slurm": {}})
    assert here == Allocation(number="12")
    with pytest.raises(AdmissionError, match="got 3; Slurm's job 12 has 2 tasks"):
        here.admit(3)
    with pytest.raises(SpecError, match="inside Slurm's job 12"):
        place.asked_for("slurm", {"slurm": {"partition": "gpu"}})
