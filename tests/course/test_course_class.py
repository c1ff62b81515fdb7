"""The class view: who is in it, what counts, and a page that opens with the network off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aiinfra_widgets.course import Classroom, ledger

AIINFRA = Path(sys.executable).parent / "aiinfra"


@pytest.fixture
def handed_in(tmp_path: Path) -> Path:
    """Three ledgers: half, as measured, and four times, which was said a second time after the reveal."""
    for name, guesses in {"Ada": [0.005], "Bo": [0.01], "Cy": [0.04, 0.01]}.items():
        path = tmp_path / "in" / name / "ledger.jsonl"
        for guess in guesses:
            entry = ledger.commit("training", "step_time_s", guess, {"nodes": 1}, path)
            ledger.settle(entry, "run", 0.01, path)
        ledger.explain(entry, f"<b>{name}</b> thought of waiting", path)
    (tmp_path / "in" / "Di.jsonl").write_text("")
    (tmp_path / "in" / "Ed.ipynb").write_text("broken")
    return tmp_path / "in"


def test_first_predictions_count(handed_in: Path) -> None:
    room = Classroom.collect([handed_in], names=True)
    assert {g.learner: g.ratio for g in room.guesses} == {"Ada": 0.5, "Bo": 1.0, "Cy": 4.0}
    (group,) = room.groups()
    summary = group.summary()
    assert (summary["compared"], summary["median_ratio"], summary["below_half"], summary["above_double"]) == (
        3,
        1.0,
        0,
        1,
    )
    assert list(room.left_out) == ["Ed.ipynb"]
    assert room.table().loc[0, "predictions"] == 3


def test_learners_are_numbered_unless_names_are_asked_for(handed_in: Path) -> None:
    room = Classroom.collect([handed_in])
    assert {g.learner for g in room.guesses} <= {f"Learner {n}" for n in range(1, 6)}
    told = room.html() + json.dumps(room.to_json()["groups"])
    assert "Learner" in told
    for name in ("Ada/", "Bo/", "Cy/"):
        assert name not in told


def test_the_page_is_whole_and_escapes_what_learners_write(handed_in: Path, tmp_path: Path) -> None:
    out = tmp_path / "class.html"
    argv = [str(AIINFRA), "course", "collect", str(handed_in), "-o", str(out), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["groups"][0]["predictions"] == 3
    page = out.read_text()
    assert page.count("class='dot'") == 3
    assert "&lt;b&gt;Ada" in page
    assert "<b>Ada" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page
    again = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 1
    assert "already" in again.stderr
