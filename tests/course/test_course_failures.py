"""The exercises of lab 11 on a record written by hand, with expectations worked out by hand; a real record is in tests/labs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from aiinfra_widgets.course.checks import check
from aiinfra_widgets.course.evidence import Evidence, record_of

#: Two nodes, each fails once in 4 s: the job once in 2 s. A checkpoint took 50 ms: Young's root of 2 x 0.05 x 2 is 0.447 s,
#: and Daly's series 0.447 (1 + 0.1118 / 3 + 0.0125 / 9) - 0.05 is 0.4145 s.
SPEC = {"nodes": 2, "mtbf_s": 4.0, "recovery": "restart"}
ANSWERS: dict[str, dict[str, Any]] = {
    "best-interval": {
        "checkpoint_ms": 50, "job_fails_once_in_s": 2, "young_s": 0.447, "exact_s": 0.4145, "twice_the_nodes": 0.71,
        "four_times_cheaper": 0.5, "because": "a",
    },
    "intervals-measured": {
        "best_s": 0.5, "measured_pct": 70, "predicted_pct": 68, "inside": "yes", "shortest_pays_for": "checkpoints",
        "longest_pays_for": "lost work",
    },
    "lost-work": {
        "interval_s": 4, "lost_pct": 60, "between_failures_s": 2.0, "lost_per_failure_s": 1.2, "never_saved": "b",
    },
    "price-of-failures": {
        "restart_goodput_pct": 50, "in_place_goodput_pct": 80, "extra_pct": 100, "price_ratio": 1.6, "energy_ratio": 1.5,
        "vanishes": "lost work", "because": "c",
    },
}  # fmt: skip


def row(spec: dict[str, Any], goodput: float, checkpoints: float, lost: float, **more: float) -> dict[str, Any]:
    """Return a row of which a tenth of the time is starting again, and what is left goes unnoticed."""
    shares = {"training_goodput_frac": goodput, "checkpoint_frac": checkpoints, "lost_frac": lost, "restart_frac": 0.1}
    found = {
        **shares,
        "detection_frac": 0.9 - goodput - checkpoints - lost,
        "checkpoint_cost_s": 0.05,
        "job_mtbf_s": 2.0,
        **more,
    }
    quantities: dict[str, Any] = {name: {"measured": value} for name, value in found.items()}
    ends = [goodput - 0.05, goodput + 0.05]
    quantities["training_goodput_frac"] |= {"predicted": goodput - 0.02, "measured_interval_95": ends}
    return {
        "segment": 0,
        "nodes": 2,
        "transient": False,
        "spec": {**SPEC, **spec},
        "quantities": quantities,
        "run": "/home/ada/runs/7",
    }


def record(*, survivors: bool = True, failures: bool = True) -> Evidence:
    """Return what was measured: two ways of recovery at one interval, and three intervals of which the longest is worse."""
    again = row({"interval_s": 1.0}, 0.5, 0.03, 0.3, cost_per_useful_hour_usd=0.16, energy_per_useful_hour_j=30e3)
    on = row(
        {"interval_s": 1.0, "recovery": "in-place"}, 0.8, 0.04, 0.0, cost_per_useful_hour_usd=0.1, energy_per_useful_hour_j=20e3
    )  # fmt: skip
    swept = [
        row({"interval_s": at}, *shares)
        for at, *shares in ((4.0, 0.2, 0.0, 0.6), (0.1, 0.5, 0.3, 0.0), (0.5, 0.7, 0.08, 0.1))
    ]
    points = [{"interval_s": at, "among_best": at < 4} for at in (0.1, 0.5, 4.0)]
    optimum = {"points": points, "optimum_among_best": True if failures else None}
    found = {"experiment": "resilience", "segments": [again, on] if survivors else [again]}
    return Evidence(record_of(SimpleNamespace(results=lambda: found), intervals=swept, optimum=optimum))


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_get_every_point(name: str) -> None:
    mark = check(name, record(), ANSWERS[name])
    assert mark.points == mark.of, str(mark)


@pytest.mark.parametrize(
    ("name", "wrong", "lost", "told"),
    [
        pytest.param("best-interval", {"job_fails_once_in_s": 4, "young_s": 0.632, "exact_s": 0.602}, 2, "divided by the nodes, is 2 s",
                     id="time-between-failures-of-a-node"),
        pytest.param("best-interval", {"young_s": 14.1}, 0.5, "0.447 s. Mind the milliseconds", id="milliseconds-taken-for-seconds"),
        pytest.param("best-interval", {"exact_s": 0.447}, 0.5, "both in seconds, is 0.41", id="young-taken-for-exact"),
        pytest.param("best-interval", {"twice_the_nodes": 0.5, "four_times_cheaper": 0.25}, 1, "0.71 times", id="no-root"),
        pytest.param("best-interval", {"checkpoint_ms": 90, "young_s": 0.6, "exact_s": 0.55}, 2, "holds 50", id="foreign-checkpoint"),
        pytest.param("intervals-measured", {"best_s": 4, "measured_pct": 20, "predicted_pct": 18}, 1, "cannot tell these apart: 0.1, 0.5 s",
                     id="a-worse-interval-read-right"),
        pytest.param("intervals-measured", {"best_s": 0.45}, 3, "none of the intervals", id="an-interval-never-measured"),
        pytest.param("intervals-measured", {"predicted_pct": 75}, 1, "70.0 / 68.0", id="foreign-prediction"),
        pytest.param("intervals-measured", {"inside": "no"}, 1, "between 65.0% and 75.0%", id="inside-and-denied"),
        pytest.param("intervals-measured", {"longest_pays_for": "checkpoints"}, 0.5, "lost work 60%", id="the-wrong-end"),
        pytest.param("lost-work", {"interval_s": 0.5}, 2, "0.5 s: 10 % / 2", id="numbers-of-another-row"),
        pytest.param("lost-work", {"lost_per_failure_s": 2.0}, 1, "1.2 s for each", id="half-an-interval"),
        pytest.param("lost-work", {"never_saved": "a"}, 1, "since the failure before", id="half-of-the-run"),
        pytest.param("price-of-failures", {"extra_pct": 50}, 1, "is 100 %", id="what-is-missing-taken-for-what-is-paid"),
        pytest.param("price-of-failures", {"energy_ratio": 1.9}, 0.5, "energy_ratio", id="foreign-energy"),
        pytest.param("price-of-failures", {"vanishes": "unnoticed"}, 0.5, "lost work 30%", id="what-stays"),
        pytest.param("price-of-failures", {"because": "a"}, 0.5, "a node that waits", id="no-reason"),
    ],
)  # fmt: skip
def test_a_mistake_costs_its_part_and_is_told(name: str, wrong: dict[str, Any], lost: float, told: str) -> None:
    mark = check(name, record(), ANSWERS[name] | wrong)
    assert mark.points == mark.of - lost, str(mark)
    assert told in str(mark)


def test_a_prediction_at_the_very_edge_may_be_either() -> None:
    found = record()
    for swept in found.more("intervals"):
        swept["quantities"]["training_goodput_frac"]["measured_interval_95"] = [0.685, 0.75]  # 0.68 was predicted
    for said in ("yes", "no"):
        assert check("intervals-measured", found, ANSWERS["intervals-measured"] | {"inside": said}).points == 4


def test_parts_that_cost_about_as_much_are_each_right() -> None:
    found = record()
    longest = next(r for r in found.more("intervals") if r["spec"]["interval_s"] == 4)
    longest["quantities"]["restart_frac"]["measured"] = 0.5  # lost work: 0.6
    answer = ANSWERS["intervals-measured"]
    assert check("intervals-measured", found, answer | {"longest_pays_for": "starting again"}).points == 4
    longest["quantities"]["restart_frac"]["measured"] = 0.4
    assert check("intervals-measured", found, answer | {"longest_pays_for": "starting again"}).points == 3.5


@pytest.mark.parametrize(
    ("name", "found", "points", "told"),
    [
        pytest.param("intervals-measured", record(failures=False), 3, "let them run longer", id="too-few-failures"),
        pytest.param("price-of-failures", record(survivors=False), 0, "Set Recovery to in-place", id="no-survivors"),
        pytest.param("intervals-measured", Evidence({}), 0, "Measure these", id="no-intervals"),
        pytest.param("best-interval", Evidence({}), 0, "no checkpoint yet", id="no-checkpoint"),
        pytest.param("lost-work", Evidence({}), 0, "No failure", id="no-failure"),
    ],
)
def test_what_is_missing_is_told_with_the_next_step(name: str, found: Evidence, points: float, told: str) -> None:
    mark = check(name, found, ANSWERS[name])
    assert mark.points == points, str(mark)
    assert told in str(mark)


def test_the_record_that_is_handed_in_names_no_folder() -> None:
    assert "/home/ada" not in str(record().record["more"])
    assert [r["run"] for r in record().more("intervals")] == ["7", "7", "7"]
