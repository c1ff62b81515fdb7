"""The command with real ranks: one JSON object on standard output, exit codes, scripted changes, resuming."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mpi

NET = ("--set", "workload=net-10-5-2", "--set", "global_batch=64")


def test_a_run_prints_one_object_of_the_promised_form(aiinfra, home):
    said = aiinfra(
        "run",
        "training",
        "--nodes",
        "2",
        *NET,
        "--set",
        "steps=60",
        "--change",
        "step=30 nodes=1",
        "--note",
        "a <b>note</b>",
        "--json",
    )
    assert said.code == 0, said.err
    found = said.json
    assert {"run", "status", "segments", "events"} <= set(found)
    assert (found["status"], found["calibrated"], found["experiment"]) == ("done", False, "training")
    assert Path(found["run"]).is_absolute()
    assert Path(found["run"]).parent == home / "runs"
    first, second = found["segments"]
    assert (first["nodes"], first["first_tick"]) == (2, 0)
    assert (second["nodes"], second["first_tick"]) == (1, first["ticks"])
    assert first["ticks"] >= 30
    assert first["ticks"] + second["ticks"] == 60
    for segment in found["segments"]:
        step = segment["quantities"]["step_time_s"]
        assert {"predicted", "measured", "relative_error", "method"} <= set(step)
        assert step["measured"] > 0
        assert step["method"] == "measured"
        assert step["predicted"] is None  # nothing was calibrated in this home, and nothing is made up
    assert any(e["kind"] == "resized" for e in found["events"])
    listed = aiinfra("runs", "--json").json
    assert [(r["run"], r["status"], r["nodes"], r["ticks"], r["note"]) for r in listed] == [
        (Path(found["run"]).name, "done", 1, 60, "a <b>note</b>")
    ]
    table = aiinfra("runs").out
    assert Path(found["run"]).name in table
    assert "done" in table
    shown = aiinfra("watch", "last")
    assert shown.code == 0
    assert "segment 0: 2 nodes" in shown.out
    assert "no prediction: machine profile" in shown.out
    done = aiinfra("resume", "last")
    assert "is done; start a new run" in done.message


def test_a_run_that_was_stopped_is_resumed_by_the_end_of_its_name(aiinfra):
    stopped = aiinfra("run", "training", *NET, "--set", "steps=80", "--change", "step=40 stop", "--json")
    assert stopped.code == 0, stopped.err
    first = stopped.json
    assert first["status"] == "stopped"
    tick = first["segments"][0]["ticks"]
    assert tick >= 40
    name = Path(first["run"]).name
    assert first["next"] == f"resume at step {tick} with: aiinfra resume {name}"
    again = aiinfra("resume", name[-4:], "--json")
    assert again.code == 0, again.err
    assert again.json["status"] == "done"
    assert [(s["first_tick"], s["ticks"]) for s in again.json["segments"]] == [(0, tick), (tick, 80 - tick)]


def test_a_run_that_goes_on_is_asked_and_says_what_became_of_it(aiinfra):
    begun = aiinfra("run", "training", "--nodes", "2", *NET, "--set", "steps=10000000", "--detach", "--json")
    name = Path(begun.json["run"]).name
    try:
        applied = aiinfra("ask", "last", "nodes=1", "learning_rate=0.01", "--wait", "60", "--json")
        assert applied.code == 0, applied.err
        assert (applied.json["kind"], applied.json["run"]) == ("applied", name)
        assert applied.json["tick"] >= 0
        assert "done at step" in aiinfra("ask", name[-4:], "checkpoint").out
        assert aiinfra("ask", "last", "global_batch=1", "--json").json["kind"] == "applied"
        later = aiinfra("ask", "last", "step=10000000", "pause", "--json")
        assert (later.code, later.json["kind"], later.json["tick"]) == (0, "asked", None), (
            "nobody waits for a tick to come"
        )
        for words, says in (
            (("nodes=0",), "nodes: got 0; allowed: a whole number from 1 to 512"),
            (("nodes=2",), "nodes: got 2; with global_batch 1 some would have no sample"),
            (("steps=5",), "steps cannot change while the run goes on"),
            (("fly",), "'fly' is neither key=value nor one of pause"),
            (("pause", "resume"), "pause and resume are two verbs"),
            (("step=soon", "pause"), "step is a whole number from 0"),
            (("pause", "hard=1"), "hard: no such field"),
        ):
            said = aiinfra("ask", "last", *words)
            assert (said.code, said.out) == (1, "")
            assert says in said.message
    finally:
        stopped = aiinfra("ask", "last", "stop")
    assert stopped.code == 0, stopped.err
    assert aiinfra("watch", "last").out.count("stopped: stopped by cli") == 1
    assert f"run {name} has ended" in aiinfra("ask", "last", "nodes=1").message


def test_results_for_a_person(aiinfra):
    said = aiinfra("run", "training", "--nodes", "2", *NET, "--set", "steps=40")
    assert said.code == 0, said.err
    for words in ("segment 0: 2 nodes, 40 steps from 0", "(measured)", "done: ended after step 40", "run: "):
        assert words in said.out
    assert "{" not in said.out


def test_a_folder_of_ones_own(aiinfra, tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = aiinfra("run", "training", *NET, "--set", "steps=5", "--runs", "mine", "--json")
    assert said.code == 0, said.err
    assert Path(said.json["run"]).parent == tmp_path / "mine"
    assert len(aiinfra("runs", "--runs", "mine", "--json").json) == 1
    assert not (home / "runs").exists()


def test_what_diverges_is_printed_as_json_all_the_same(aiinfra):
    said = aiinfra(
        "run",
        "training",
        "--set",
        "workload=linear-regression",
        "--set",
        "learning_rate=10",
        "--set",
        "evaluate_every=1",
        "--json",
    )
    assert said.code == 2
    assert said.json["status"] == "failed"
    assert "lower learning_rate" in said.json["message"]
    numbers = [e.get("held_out_loss") for e in said.json["events"] if e["kind"] == "evaluated"]
    assert all(n is None or math.isfinite(n) for n in numbers)


def test_doctor_looks_at_everything(aiinfra):
    said = aiinfra("doctor", "--json")
    checks = {c["what"]: c for c in said.json}
    assert said.code == 0
    assert checks["two ranks"] == {"what": "two ranks", "state": "ok", "found": "start, and agree", "advice": ""}
    assert checks["calibration"]["state"] == "limited"
    assert checks["calibration"]["advice"] == "aiinfra calibrate"
    assert {c["state"] for c in said.json} <= {"ok", "limited"}


def test_standard_output_holds_nothing_but_the_object_in_a_real_shell(home):
    argv = [sys.executable, "-c", "from aiinfra_widgets.cli import main; main()"]
    words = ["run", "training", *NET, "--set", "steps=5", "--json"]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    assert done.stdout.lstrip().startswith("{")
