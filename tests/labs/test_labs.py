"""Every lab, unattended, as `aiinfra report` runs it: on a machine that was calibrated, and on one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

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
    "lab", [p for p in (*LABS, *EDITIONS) if p.stem in QUICK], ids=lambda p: f"{p.parent.name}/{p.stem}"
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
