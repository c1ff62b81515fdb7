"""Gate 5: the student version, filled in by script well and badly, is graded right; the same with the machine loaded by others."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from course_submissions import CHINESE, LAB, REPO, SOURCE, copied, empty, endless, good, submit, tampered, wrong_trend

from aiinfra_widgets.course import grading, sheet
from aiinfra_widgets.errors import DataError, StorageError

pytest.importorskip("nbgrader", reason="grading needs the extra: pip install -e '.[course]'")
pytestmark = [pytest.mark.labs, pytest.mark.timeout(1200)]
#: The points that each way of filling in deserves: predicted-first, speed-up, serial-share, batch-trend.
DESERVED = {
    "good": [3, 4, 3, 4],
    "empty": [0, 0, 0, 0],
    "wrong": [3, 4, 3, 1],
    "copied": [3, 2, 3, 4],
    "late": [0, 4, 3, 4],
    "tampered": [0, 0, 0, 0],
}
FILLS = {"wrong": wrong_trend, "copied": copied, "late": good, "tampered": tampered, "good": good, "empty": empty}


def class_of(folder: Path, record: dict[str, Any], names: list[str]) -> list[grading.Submission]:
    """Let each of these hand in; `late` committed after the reveal, and `good` has the Chinese edition."""
    late = {**record, "ledger": [record["ledger"][0] | {"at": "2099-01-01T00:00:00.000+00:00"}]}
    for name in names:
        edition = CHINESE if name == "good" else SOURCE
        submit(folder / name, FILLS[name], late if name == "late" else record, edition)
    return grading.submissions([folder])


def scores(results: list[grading.Result]) -> dict[str, list[float]]:
    assert {r.status for r in results} == {"graded"}, [(r.student, r.note) for r in results]
    return {r.student: [m["points"] for m in r.marks] for r in results}


@contextlib.contextmanager
def busy_machine(processes: int = 4) -> Iterator[None]:
    """Others compute on every core meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_well_and_badly_filled_in(tmp_path: Path, record: dict[str, Any]) -> None:
    """The core of the gate: one that deserves all points, and one that gave itself all of them."""
    kept = tmp_path / "kept"
    results = grading.grade(
        class_of(tmp_path / "in", record, ["good", "tampered"]), REPO / "labs", limit_s=600, cell_s=300, keep=kept
    )
    assert scores(results) == {n: DESERVED[n] for n in ("good", "tampered")}
    notes = {r.student: r.note for r in results}
    assert "printed other points" in notes["tampered"]
    assert "printed other points" not in notes["good"]
    assert "the same run as tampered" in notes["good"]
    assert (kept / "good" / f"{LAB}.ipynb").exists()


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True], ids=["quiet", "loaded"])
def test_every_way_gets_what_it_deserves(loaded: bool, tmp_path: Path, record: dict[str, Any]) -> None:
    with busy_machine() if loaded else contextlib.nullcontext():
        results = grading.grade(
            class_of(tmp_path, record, list(DESERVED)), REPO / "labs", jobs=2, limit_s=900, cell_s=300
        )
    assert scores(results) == DESERVED


@pytest.mark.slow
def test_one_that_never_ends_is_ended_with_all_that_it_started(tmp_path: Path, record: dict[str, Any]) -> None:
    before = {p.pid for p in psutil.process_iter()}
    submit(tmp_path / "endless", endless, record)
    (result,) = grading.grade(grading.submissions([tmp_path]), REPO / "labs", limit_s=45, cell_s=300)
    assert (result.status, result.points, result.of) == ("too slow", 0, 14)
    time.sleep(0.5)
    left = [
        p
        for p in psutil.process_iter(["cmdline"])  # None of a zombie
        if p.pid not in before and "time.sleep(600)" in " ".join(p.info["cmdline"] or [])
    ]
    assert not left


def test_what_cannot_be_graded_is_told_and_stops_nobody(tmp_path: Path) -> None:
    submit(tmp_path / "forgot", good, None)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / f"{LAB}.ipynb").write_text("{ not a notebook")
    found = {r.student: r for r in grading.grade(grading.submissions([tmp_path]), REPO / "labs", limit_s=600)}
    assert (found["forgot"].status, found["forgot"].points, found["forgot"].of) == ("no record", 0, 14)
    assert found["broken"].status == "unreadable"


def test_cells_of_the_sheet_are_no_formulas(tmp_path: Path) -> None:
    mark = {"exercise": "speed-up", "points": 2.5, "of": 4.0, "lines": []}
    evil = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "a\nb"]
    results = [grading.Result(name, LAB, "graded", [mark], note="=1+1") for name in evil]
    sheet.save(results, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "grades.csv").read_text(encoding="utf-8-sig"))))
    assert [r["student"][0] for r in rows] == ["'"] * 6 + ["a"]
    assert all(r["note"].startswith("'=") and r["points"] == "2.5" for r in rows)
    assert json.loads((tmp_path / "grades.json").read_text())["results"][0]["student"] == evil[0]
    with pytest.raises(StorageError, match="already"):
        sheet.save(results, tmp_path)


@pytest.mark.parametrize(
    ("path", "student"),
    [
        pytest.param(f"alice/{LAB}.ipynb", "alice", id="folder"),
        pytest.param(f"{LAB}_bob.ipynb", "bob", id="suffix"),
        pytest.param("carol.ipynb", "carol", id="name"),
    ],
)
def test_whose_notebook_it_is(path: str, student: str, tmp_path: Path) -> None:
    made = submit(tmp_path / "made", empty, None)
    target = tmp_path / "in" / path
    target.parent.mkdir(parents=True)
    made.rename(target)
    assert [s.student for s in grading.submissions([tmp_path / "in"])] == [student]


def test_nothing_to_grade_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no notebook"):
        grading.submissions([tmp_path])
