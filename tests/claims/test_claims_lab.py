"""The lab without a page: commit, change, measure, show; and what a wrong call says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiinfra_widgets.claims import Evidence, Measurement, claims
from aiinfra_widgets.claims.trials import Trials
from aiinfra_widgets.course import ledger
from aiinfra_widgets.errors import ProbeError, SpecError, UnknownNameError
from aiinfra_widgets.widgets.claims import ClaimsLab
from aiinfra_widgets.widgets.claims_chart import claim_chart, columns, in_words
from aiinfra_widgets.widgets.claims_table import math_html, statement_html, table_html, why_html


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClaimsLab:
    """A lab with a home of its own, for a script."""
    monkeypatch.setenv("AIINFRA_HOME", str(tmp_path / "home"))
    return ClaimsLab(seconds=10)


def test_commit_measure_and_settle(lab: ClaimsLab) -> None:
    lab.commit("S1-edge", True)
    lab.commit("S1-edge", False)  # too late: the first word counts
    lab.measure("S1-edge")
    [entry] = ledger.read()
    assert (entry["question"], entry["value"], entry["measured"]) == ("S1-edge", 1.0, 0.0)
    assert entry["spec"]["distance_m"] == "100 km"
    lab.measure("S1-edge")
    assert len(ledger.read()) == 1
    found = json.loads(json.dumps(lab.results()))
    row = next(r for r in found["claims"] if r["id"] == "S1-edge")
    assert row["verdict"] == "refuted"
    assert row["belief"] is True
    assert row["dimension"] == {"right": False, "expected": "a time", "found": "length \u00d7 time / information"}
    assert row["measured"]["points"][0]["at"] == 0.0
    assert found["message"] == "1 of 11 claims measured on this machine"


def test_changed_inputs_are_worked_out_anew(lab: ClaimsLab) -> None:
    lab.change("S1-xfer", size_bytes="5 GB")
    lab.change("S1-xfer", rate_bytes_per_s="10 Gbit/s")
    assert lab.trials.dimensions("S1-xfer").shown == "4 s"
    with pytest.raises(SpecError, match="which is a length"):
        lab.change("S1-xfer", size_bytes="5 km")
    assert lab.trials.dimensions("S1-xfer").shown == "4 s", "what is refused changes nothing"


@pytest.mark.parametrize("wrong", [0, 9.9, -5, float("nan"), float("inf"), "60"])
def test_a_budget_that_is_none(wrong: object) -> None:
    with pytest.raises(SpecError, match="seconds: got"):
        Trials(wrong)  # type: ignore[arg-type]


def test_unknown_claims_are_named(lab: ClaimsLab) -> None:
    for call in (lab.measure, lab.figure, lab.show):
        with pytest.raises(UnknownNameError, match="did you mean 'S1-xfer'"):
            call("S1-xfr")
    with pytest.raises(UnknownNameError):
        lab.commit("S9", True)


def test_a_measurement_that_fails_is_said_and_the_rest_goes_on(lab: ClaimsLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiinfra_widgets.claims.measure_link.HEADROOM", 1e-12)  # no machine moves so much
    lab.measure("S1-xfer", "S1-edge")
    assert "close what else runs" in lab.trials.problems["S1-xfer"]
    assert lab.trials.evidence("S1-xfer") is None
    assert lab.trials.evidence("S1-edge") is not None
    assert "Not measured" in why_html(lab.trials, claims()["S1-xfer"])
    with pytest.raises(ProbeError):
        claims()["S1-xfer"].measure(1.0)  # type: ignore[misc]


def test_what_two_claims_share_is_measured_once() -> None:
    trials = Trials(60)
    assert trials.claims["S1-train"].measure is trials.claims["S3-DP"].measure
    budgets = {c.measure: trials.budget_s(c) for c in trials.claims.values() if c.measure}
    assert sum(budgets.values()) == pytest.approx(60)
    assert trials.budget_s(trials.claims["S2-P"]) == 0.0


def test_a_verdict_stays_covered_until_the_learner_has_committed(lab: ClaimsLab) -> None:
    covered = table_html(lab.trials, frozenset())
    assert "refuted" not in covered
    assert covered.count("covered until you commit") == len(claims())
    lab.commit("S1-xfer", False)
    table = table_html(lab.trials, frozenset({"S1-xfer"}))
    assert "\u2715 refuted" in table
    assert "gives 80 s" in table
    assert "You were right on 1 of 1" in table
    assert table_html(lab.trials, frozenset(claims())).count("<tr>") == 12


@pytest.mark.parametrize("name", list(claims()))
def test_every_claim_has_a_figure_and_a_statement(lab: ClaimsLab, name: str) -> None:
    claim = claims()[name]
    data, x, y = columns(claim, lab.trials.drawn_at(name), None)
    chart = claim_chart(claim, data, x, y)
    assert {k.source for k in chart.keys} >= {"claim", "right", "points"}
    assert data["span"]["end"] > data["span"]["start"]
    assert "nothing measured" in in_words(claim, None)
    assert "<math" in math_html(claim.latex)
    assert claim.about in statement_html(claim)
    assert lab.figure(name).title.text


def test_measured_points_stand_in_the_figure() -> None:
    claim = claims()["S2-R"]
    points = [
        Measurement(at, 0.5 + at, 0.5, 0.9, 5, label=way, setting={"overlap": i})
        for i, way in enumerate(claim.axes.ways)
        for at in (0.05, 0.1, 0.15, 0.2)
    ]
    found = Evidence(tuple(points), {"train_s": 0.05, "infer_s": 0.05, "overlap": 1.0}, "planted", "", 1.0)
    data, x, _ = columns(claim, {**claim.values(), **found.rig}, found)
    for source in ("points", "more"):
        assert len(data[source]["value"]) == 4
        assert max(data[source]["value"]) < data["span"]["end"]
    assert x.unit == "ms"
    assert set(claim.axes.ways) == {p.label for p in found.points}
    assert "overlapped" in in_words(claim, found)
