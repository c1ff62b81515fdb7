"""kill -9 in the middle of a sweep: it goes on where it was, nothing is lost, nothing is run twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets.research.folder import Journal
from aiinfra_widgets.research.sweeps import Sweep

from .conftest import SERVICE, of_this_test

COMMAND = [sys.executable, "-c", "from aiinfra_widgets.cli import main; main()", "sweep"]
PATIENCE_S = 90.0


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (value := true()):
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s in vain for {what}"
        time.sleep(0.02)
    return value


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in Journal(folder / "journal.jsonl").lines() if line["kind"] == kind]


@pytest.mark.faults
def test_a_killed_sweep_goes_on_and_runs_nothing_twice(mark: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    fixed = [word for k, v in SERVICE.items() if k != "arrival_rate_per_s" for word in ("--set", f"{k}={v}")]
    rates = ["--over", "arrival_rate_per_s=20,40,60"]
    process = subprocess.Popen([*COMMAND, "serving", *rates, *fixed, "-o", str(folder)], stderr=subprocess.DEVNULL)
    try:
        # In the middle: one trial has ended, another one has begun and measures.
        until(lambda: lines(folder, "ended"), "the first trial")
        before = len(lines(folder, "ended"))
        until(
            lambda: len({p.parts[-3] for p in folder.glob("runs/*/samples/*.csv")}) > before, "the next trial at work"
        )
    finally:
        process.kill()
        process.wait()
    ended = {line["trial"]: line["run"] for line in lines(folder, "ended")}
    plan, there = (folder / "plan.json").read_bytes(), {p.name for p in (folder / "runs").iterdir()}
    assert 1 <= len(ended) < 3
    torn = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(torn + b'{"kind": "ended", "tri')  # as a full disk leaves it
    resumed = subprocess.run([*COMMAND, "--resume", str(folder), "--json"], capture_output=True, text=True, timeout=200)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["counts"] == {"done": 3}
    # Nothing is lost: the plan, and every run that was there.
    assert (folder / "plan.json").read_bytes() == plan
    runs = {p.name for p in (folder / "runs").iterdir()}
    assert there <= runs
    # Nothing is run twice: what had ended has the run that it had; each trial ends once; one more run than trials at most.
    after = lines(folder, "ended")
    assert Counter(line["trial"] for line in after) == {0: 1, 1: 1, 2: 1}
    assert {line["trial"]: line["run"] for line in after}.items() >= ended.items()
    begun = Counter(line["trial"] for line in lines(folder, "begun"))
    assert all(begun[trial] == 1 for trial in ended)
    assert len(runs) <= sum(begun.values()) <= 4
    assert len(runs) > len(there - {*ended.values()})
    table = Sweep(folder).table()
    measured = table[(table["quantity"] == "mean_response_s") & table["settled"]]
    assert sorted(measured["arrival_rate_per_s"]) == [20, 40, 60]
    assert measured["measured"].notna().all()
    assert measured["predicted"].notna().all()
    until(lambda: not of_this_test(mark), "the end of every process")


@pytest.mark.mpi
@pytest.mark.slow
def test_a_run_that_ended_before_its_line_was_written_is_taken_as_it_is(mark: str, done: Sweep) -> None:
    """The kill between the end of a run and its line in the journal."""
    whole = done.journal.path.read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(whole) if '"done"' in line)
    trial = json.loads(whole[last])["trial"]
    done.journal.path.write_text("".join(whole[:last]))
    before = {p.name for p in done.folder.runs.iterdir()}
    assert trial not in done.ends()
    done.run()
    assert {p.name for p in done.folder.runs.iterdir()} == before
    assert done.ends()[trial].state == "done"
    assert done.ends()[trial].run in before


@pytest.mark.mpi
def test_a_journal_cut_anywhere_is_a_beginning_of_it(done: Sweep) -> None:
    data, whole = done.journal.path.read_bytes(), done.journal.lines()
    for cut in range(0, len(data), 7):
        done.journal.path.write_bytes(data[:cut])
        kept = done.journal.lines()
        assert kept == whole[: len(kept)]
        done.journal("begun", 0, attempt=9)  # what is written next is never glued to a torn line
        assert done.journal.lines()[:-1] == kept
        assert done.journal.lines()[-1]["attempt"] == 9
