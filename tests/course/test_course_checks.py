"""Exercises on a real record: the instructor's answers get every point, and each bad way loses the right ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from course_submissions import LAB, REPO, SOURCE, WORDS

from aiinfra_widgets.course import check_ledger, ledger, notebooks, table
from aiinfra_widgets.course.checks import check, find, names
from aiinfra_widgets.course.evidence import Evidence
from aiinfra_widgets.course.exercises import fits, near, trend
from aiinfra_widgets.errors import ControlError, UnknownNameError

pytestmark = pytest.mark.labs
#: The labs of the course guide; a lab on tools, such as sweeps, has no exercises.
LABS = [p for p in sorted((REPO / "labs").glob("[0-9][0-9]_*.ipynb")) if p.stem[:2] != "10"]


def solved(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the instructor's answers to the exercises of lab 1 on this record, by exercise."""
    found = {}
    for number, task in enumerate(notebooks.tasks(notebooks.read(SOURCE), LAB), 1):
        space = {"lab": Evidence(record), "table": table}
        exec(task.solution, space)
        found[task.exercise.name] = space[f"answer_{number}"]
    return found


def test_the_instructors_answers_get_every_point(record: dict[str, Any]) -> None:
    for name, answer in solved(record).items():
        mark = check(name, Evidence(record), answer)
        assert mark.points == mark.of == find(name).points, str(mark)


@pytest.mark.parametrize("name", names())
def test_nothing_gets_nothing_and_rubbish_does_not_raise(name: str, record: dict[str, Any]) -> None:
    found = Evidence(record)
    task = find(name)
    assert check(name, found, {}).points == 0
    assert check(name, found, dict.fromkeys(task.asks, ...)).points == 0
    for rubbish in (
        None,
        7,
        "text",
        {"x": object()},
        dict.fromkeys(task.asks, "nan"),
        dict.fromkeys(task.asks, -1e308),
    ):
        assert check(name, found, rubbish).points <= (2 if name == "predicted-first" else 0)  # the ledger's own points
        assert check(name, Evidence({}), rubbish).points == 0


def test_numbers_of_another_machine_are_not_ones_own(record: dict[str, Any]) -> None:
    answer = solved(record)["speed-up"]
    foreign = answer | {k: 3 * answer[k] for k in ("one_node_ms", "two_nodes_ms")}
    mark = check("speed-up", Evidence(record), foreign)
    assert mark.points == 2, str(mark)  # only the part that was lost is right
    assert "your own record holds" in str(mark)


def test_a_ratio_that_does_not_follow_is_told_which_one_does(record: dict[str, Any]) -> None:
    answer = solved(record)["speed-up"]
    mark = check("speed-up", Evidence(record), answer | {"speed_up": 2 * answer["speed_up"] + 1})
    assert mark.points == 3
    assert f"{answer['speed_up']:.2f}" in str(mark)


def _ends(record: dict[str, Any], large: float, small: float) -> dict[str, Any]:
    """Give the two batches these shares that are not compute."""
    for segment in record["results"]["segments"]:
        share = large if segment["spec"]["global_batch"] == 256 else small
        q = segment["quantities"]
        q["compute_time_s"] |= {"measured": (1 - share) * q["step_time_s"]["measured"], "measured_quartiles": None}
    return record


@pytest.mark.parametrize(
    ("large", "small", "said", "right"),
    [
        pytest.param(0.1, 0.5, "grows", True, id="clear"),
        pytest.param(0.1, 0.5, "shrinks", False, id="the-opposite"),
        pytest.param(0.1, 0.5, "stays", False, id="overlooked"),
        pytest.param(0.20, 0.22, "stays", True, id="hidden-by-noise"),
        pytest.param(0.20, 0.22, "grows", True, id="hidden-but-known-from-theory"),
        pytest.param(0.20, 0.22, "shrinks", False, id="hidden-and-against-theory"),
        pytest.param(0.22, 0.20, "shrinks", True, id="hidden-and-as-the-own-numbers-say"),
        pytest.param(0.22, 0.20, "grows", True, id="hidden-and-against-the-own-numbers-but-known-from-theory"),
        pytest.param(0.5, 0.1, "shrinks", True, id="the-own-run-counts"),
    ],
)
def test_a_trend_is_that_of_the_own_rows(
    own: dict[str, Any], large: float, small: float, said: str, right: bool
) -> None:
    answer = {
        "large_batch": 256, "small_batch": 32, "large_share_pct": 100 * large, "small_share_pct": 100 * small, "trend": said,
        "because": "b",
    }  # fmt: skip
    assert check("batch-trend", Evidence(_ends(own, large, small)), answer).points == (4 if right else 3)


def test_a_prediction_after_the_reveal_is_none(own: dict[str, Any]) -> None:
    own["ledger"][0]["at"] = "2099-01-01T00:00:00.000+00:00"
    mark = check("predicted-first", Evidence(own), {"my_prediction_was": "too high"})
    assert mark.points == 0
    assert "after the run began" in str(mark)


def test_the_second_prediction_of_a_setup_does_not_count(own: dict[str, Any]) -> None:
    """Who has seen a result and predicts the same setup again is judged by the first number."""
    first = own["ledger"][0] | {"entry": "0", "run": "earlier", "value": 50.0, "at": "2020-01-01T00:00:00.000+00:00"}
    own["ledger"].insert(0, first)
    assert check("predicted-first", Evidence(own), {"my_prediction_was": "too high"}).points == 3
    assert check("predicted-first", Evidence(own), {"my_prediction_was": "about right"}).points == 2


def test_without_a_prediction_there_are_no_points(own: dict[str, Any]) -> None:
    own["ledger"] = []
    assert check("predicted-first", Evidence(own), {"my_prediction_was": "too low"}).points == 0


@pytest.mark.parametrize(("text", "enough"), [("", False), ("too slow", False), ("a a a a a a a a a", False), (WORDS, True),
                                              ("因为两个节点共享同一台机器的内存带宽所以更慢", True)])  # fmt: skip
def test_an_explanation_is_a_sentence_in_any_script(text: str, enough: bool) -> None:
    assert check_ledger.explains(text) is enough


def test_the_latest_words_count_and_the_format_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    entry = ledger.commit("training", "step_time_s", 0.01, {"nodes": 1}, path)
    ledger.explain(entry, "first", path)
    ledger.explain(entry, "  then\nthis ", path)
    ledger.settle(entry, "run", 0.02, path)
    path.open("a").write('{"entry": "' + entry + '", "kind": "of a later release"}\n{"torn')
    assert [(e["value"], e["measured"], e["explanation"]) for e in ledger.read(path)] == [(0.01, 0.02, "then this")]
    with pytest.raises(ControlError, match="allowed"):
        ledger.explain(entry, " ", path)


def test_what_counts_as_the_same_number() -> None:
    segment = {"quantities": {"step_time_s": {"measured": 0.010, "measured_quartiles": [0.009, 0.014]}}}
    assert fits(10.9, [segment], "step_time_s", 1e3)
    assert fits(13.5, [segment], "step_time_s", 1e3)  # between the quartiles of a disturbed machine
    assert not fits(15.0, [segment], "step_time_s", 1e3)
    assert near(1.02, 1.0)
    assert not near(1.05, 1.0)
    assert [trend(1, 2), trend(2, 1), trend(1, 1.05)] == [1, -1, 0]


def test_numpy_numbers_are_numbers(record: dict[str, Any]) -> None:
    answer = {k: np.float64(v) if isinstance(v, float) else v for k, v in solved(record)["speed-up"].items()}
    assert check("speed-up", Evidence(record), answer).to_json()["points"] == 4


def test_an_unknown_exercise_names_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="speed-up"):
        find("sped-up")


@pytest.mark.parametrize("path", LABS, ids=lambda p: p.stem)
def test_every_lab_has_exercises_and_both_versions(path: Path) -> None:
    source = notebooks.read(path)
    tasks = notebooks.tasks(source, path.stem)
    assert len(tasks) >= (3 if path.stem[:2] in {"01", "02", "03", "11"} else 1)
    student, instructor = notebooks.student(source, path.stem), notebooks.instructor(source, path.stem)
    handed, told = ("\n".join(c.source for c in nb.cells) for nb in (student, instructor))
    for task in tasks:
        assert task.solution not in handed
        assert task.notes.splitlines()[0] not in handed
        assert task.solution in told
        assert task.notes.splitlines()[0] in told
        assert set(task.exercise.asks) == {
            k for k in task.exercise.asks if f'"{k}": ...' in task.cells["answer"].source
        }
    assert student.cells[-1].source.startswith("from aiinfra_widgets.course import hand_in")
    assert not any("solution" in notebooks.tags(c) for c in [*student.cells, *instructor.cells])


@pytest.mark.parametrize(
    "path", sorted((REPO / "labs").glob("*/[0-9][0-9]_*.ipynb")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_an_edition_is_graded_as_the_lab(path: Path) -> None:
    """nbgrader makes the assignment from the English lab, and stops at a submitted cell that this does not have."""
    known = notebooks.graded(notebooks.read(REPO / "labs" / path.name), path.stem)
    handed = notebooks.student(notebooks.read(path), path.stem)
    marked = [{c.id: c.metadata["nbgrader"] for c in nb.cells if "nbgrader" in c.metadata} for nb in (known, handed)]
    assert marked[0] == marked[1]
