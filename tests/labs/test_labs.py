"""Every lab, unattended, as `aiinfra report` runs it: on a machine that was calibrated, and on one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiinfra_widgets.course import ledger, notebooks
from aiinfra_widgets.course.checks import check
from aiinfra_widgets.course.evidence import Evidence, record_of
from aiinfra_widgets.workloads import catalog

REPO = Path(__file__).resolve().parents[2]
LABS = sorted((REPO / "labs").glob("[0-9][0-9]_*.ipynb"))
#: The same labs in other languages, in a folder for each.
EDITIONS = sorted((REPO / "labs").glob("*/[0-9][0-9]_*.ipynb"))
AIINFRA = Path(sys.executable).parent / "aiinfra"
QUICK = {
    "01_training_scaling": {"steps": 160, "nodes": 1, "changes": ["step=60 nodes=2"]},
    "02_response_time": {"duration_s": 9.0, "changes": ["window=45 nodes=2"]},
    "03_scheduling": {"jobs": 8, "mean_work_s": 0.5},
    "06_model_parallel": {
        "steps": 60, "global_batch": 4, "changes": ["step=20 tp_size=1", "step=40 tp_size=2 nodes=4"], "plan_steps": 15,
        "plans": ["nodes=1", "tp_size=1", "tp_size=2"],
    },
    "07_pipeline": {
        "steps": 40, "global_batch": 4, "depth": 2, "changes": ["step=20 num_microbatches=4"], "plan_steps": 15,
        "microbatches": [1, 4], "schedules": ["schedule=gpipe"],
    },
    "08_sharded": {
        "steps": 60, "global_batch": 4, "changes": ["step=20 zero_stage=1", "step=40 zero_stage=3"], "plan_steps": 15,
        "ways": ["compression=none", "compression=top-k"], "engines": ["engine=lab", "engine=torch-ddp"],
    },
    "09_workloads": {"workload": "digits-resnet", "share_of_steps": 0.1},
    "11_failures": {
        "duration_s": 11.0, "mtbf_s": 0.8, "interval_s": 0.4, "checkpoint_cost_s": 0.03, "restart_time_s": 0.05,
        "changes": ["window=25 interval_s=0.2", "window=50 recovery=in-place"], "sweep_s": 3.5, "intervals": [0.05, 0.15, 0.6],
    },
}  # fmt: skip
#: The node counts of the segments, the quantity that is asked for, and the last tick where it is known.
EXPECTED = {
    "01_training_scaling": ([1, 2], "step_time_s", 160),
    "02_response_time": ([1, 2], "mean_response_s", None),
    "03_scheduling": ([4], "mean_wait_s", None),
    "06_model_parallel": ([2, 2, 4], "step_time_s", 60),
    "07_pipeline": ([2, 2], "step_time_s", 40),
    "08_sharded": ([2, 2, 2], "step_time_s", 60),
    "09_workloads": ([2], "step_time_s", 30),
    "11_failures": ([2, 2, 2], "training_goodput_frac", None),
}
#: The lists of setups that a lab compares from the same beginning, and how far their losses may lie apart; None: other training.
SETUPS = {
    "06_model_parallel": {"plans": 1e-4},
    "07_pipeline": {"microbatches": 1e-4},
    "08_sharded": {"ways": None, "engines": 1e-4},
}


def test_every_lab_is_run_here() -> None:
    assert {p.stem for p in LABS} == {*QUICK, *ANSWERED}


def parameters(values: Mapping[str, object]) -> list[str]:
    """Return parameters as a person gives them to the command."""
    return [word for k, v in values.items() for word in ("-p", k, v if isinstance(v, str) else json.dumps(v))]


def aiinfra(*words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    return subprocess.run([str(AIINFRA), *words], capture_output=True, text=True, timeout=timeout, check=False)


#: Labs that are not about one run, with their parameters; the claims measure many small things.
ANSWERED: dict[str, dict[str, object]] = {
    "04_scale_out": {},
    "05_claims": {"seconds": 15.0},
    "10_sweeps": {"nodes": [1, 2, 4], "global_batch": [64, 256, 1024], "repeats": 1, "steps": 20},
}


Report = Callable[[Path, Mapping[str, object], Path], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str]) -> Report:
    """Report a lab, and print the seconds that it took: a lab should be done within a minute on two idle cores."""

    def run(lab: Path, given: Mapping[str, object], out: Path) -> subprocess.CompletedProcess[str]:
        begun = time.monotonic()
        done = aiinfra("report", str(lab), *parameters(given), "-o", str(out))
        with capfd.disabled():
            print(f"\n{lab.stem}: {time.monotonic() - begun:.0f} s headless", flush=True)
        return done

    return run


@pytest.mark.parametrize("lab", [p for p in LABS if p.stem in ANSWERED], ids=lambda p: p.stem)
def test_lab_without_a_run_answers_unattended(lab: Path, report: Report, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = report(lab, ANSWERED[lab.stem], out)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((out / "results.json").read_text())
    assert {c["status"] for c in record["cells"]} == {"executed"}
    assert record["error"] is None
    assert record["results"]["status"] == "done"
    assert not left_behind()
    assert (out / f"{lab.stem}.html").stat().st_size > 100_000


@pytest.mark.parametrize(
    "lab",
    [  # an edition has the cells of its lab, which a test of the texts compares: one of them runs each time
        pytest.param(p, id=f"{p.parent.name}/{p.stem}", marks=pytest.mark.slow if p in EDITIONS[1:] else ())
        for p in (*LABS, *EDITIONS)
        if p.stem in QUICK
    ],
)
def test_lab_runs_unattended_and_reads_the_run(lab: Path, profile: Path, report: Report, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = report(lab, QUICK[lab.stem], out)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((out / "results.json").read_text())
    assert record["status"] == "done"
    assert record["error"] is None
    assert {c["status"] for c in record["cells"]} == {"executed"}
    found = record["results"]
    assert found["status"] == "done"
    nodes, quantity, last = EXPECTED[lab.stem]
    assert [s["nodes"] for s in found["segments"]] == nodes
    for segment in found["segments"]:
        asked = segment["quantities"][quantity]
        assert asked["predicted"] > 0, segment["prediction_refused"]
        assert asked["measured"] > 0
        assert asked["relative_error"] == pytest.approx(asked["predicted"] / asked["measured"] - 1)
    for name, apart in SETUPS.get(lab.stem, {}).items():
        rows = found[name]
        assert [row["problem"] for row in rows] == [None] * len(rows)
        assert all(row["quantities"][quantity]["measured"] > 0 for row in rows)
        assert apart is None or all(row["difference_to_first_frac"] < apart for row in rows)
    # The results come from the run's files, never from rendered text: the run is there and says the same.
    run = Path(found["run"])
    lines = (run / "samples" / "0-0.csv").read_text().splitlines()
    assert last is None or lines[-1].split(",")[0] == str(last)
    assert (out / f"{lab.stem}.html").stat().st_size > 100_000
    assert not left_behind()
    if lab.stem in GRADED:
        the_instructors_answers_get_every_point(lab, found)


#: Labs whose exercises are graded here, on the record of this very run, and what their checks are given beside it.
GRADED = {"11_failures": {"intervals": "sweep", "optimum": "optimum"}}


def the_instructors_answers_get_every_point(lab: Path, found: dict[str, Any]) -> None:
    """Answer as the instructor does, after a learner's sentence; the same words with nothing read from the run get nothing."""
    for entry in ledger.read():
        ledger.explain(
            entry["entry"],
            "I expected more, for I forgot that a failure undoes what was done since the last checkpoint.",
        )
    own = Evidence(
        record_of(SimpleNamespace(results=lambda: found), **{name: found[name] for name in GRADED[lab.stem]})
    )
    for number, task in enumerate(notebooks.tasks(notebooks.read(lab), lab.stem), 1):
        space: dict[str, Any] = {"lab": own, **dict.fromkeys(GRADED[lab.stem].values(), own)}
        exec(task.solution, space)
        answer, name = space[f"answer_{number}"], task.exercise.name
        mark = check(name, own, answer)
        assert mark.points == mark.of == task.exercise.points, str(mark)
        foreign = {key: 3.7 * value + 1 if isinstance(value, float) else "z" for key, value in answer.items()}
        assert check(name, own, foreign).points <= (2 if name == "predicted-first" else 0), (
            name
        )  # the ledger's own points


@pytest.mark.slow
@pytest.mark.parametrize("workload", [f.name for f in map(catalog.facts, catalog.names()) if f.params < 2e6])
def test_the_zoo_reaches_its_goals_in_a_report(workload: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = aiinfra(
        "report", str(REPO / "labs" / "09_workloads.ipynb"), "-p", "workload", workload, "-o", str(out), timeout=3000
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((out / "results.json").read_text())["results"]
    assert found["good"] is True, f"{found['quality']}: {found['reached']}, goal {found['goal']}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(["-p", "node", "2"], "nodes", id="unknown-parameter-names-the-near-one"),
        pytest.param(["-p", "nodes", "two"], "nodes", id="ill-typed"),
        pytest.param(["-p", "nodes", "0"], "nodes", id="out-of-range"),
        pytest.param(["-p", "workload", "digits-cn"], "digits-cnn", id="unknown-workload"),
    ],
)
def test_wrong_parameters_are_errors_before_anything_runs(given: list[str], expected: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = aiinfra("report", str(LABS[0]), *given, "-o", str(out), timeout=60)
    assert done.returncode in {1, 2}
    assert expected in done.stderr
    assert not list(out.glob("*.ipynb")) or out.exists() is False


def test_a_failing_run_fails_the_report_and_leaves_no_rank(tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = aiinfra(
        "report",
        str(LABS[0]),
        "-p",
        "learning_rate",
        "10.0",
        "-p",
        "workload",
        "linear-regression",
        *parameters({"steps": 160}),
        "-o",
        str(out),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    record = json.loads((out / "results.json").read_text())
    assert record["status"] == "failed"
    assert "loss" in json.dumps(record)
    assert (out / f"{LABS[0].stem}.html").exists()
    assert not left_behind()


def left_behind() -> list[str]:
    """Command lines of ranks and supervisors of this test's home that still live."""
    import os
    import time

    import psutil

    home = os.environ["AIINFRA_HOME"]
    end = time.monotonic() + 10
    while True:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if home in line and ("aiinfra_widgets.ranks" in line or "aiinfra_widgets.launch.supervisor" in line):
                found.append(line)
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.2)
