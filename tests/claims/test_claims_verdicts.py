"""The verdict follows from numbers: evidence is planted on either side of every line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiinfra_widgets.claims import Claim, Curve, Evidence, Measurement, claims, judge
from aiinfra_widgets.claims.verdicts import SIGNS, in_words, percent

TRAIN = claims()["S1-train"]
RIG = {"single_s": 1.0, "serial_frac": 0.05}


def planted(*points: tuple[float, float], spread: float = 0.001, **more: object) -> Evidence:
    found = tuple(Measurement(at, v, v * (1 - spread), v * (1 + spread), 9, judged=at > 1) for at, v in points)
    return Evidence(found, RIG, "planted", "2020-01-01T00:00:00+00:00", 1.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("speedup", "word"),
    [(2.0, "holds here"), (1.85, "holds here"), (1.7, "close"), (1.5, "refuted"), (0.8, "refuted"), (2.6, "close")],
)
def test_how_far_off_decides(speedup: float, word: str) -> None:
    assert judge(TRAIN, planted((1, 1.0), (2, speedup))).word == word


def test_the_spread_decides_where_the_claim_lies_inside() -> None:
    assert judge(TRAIN, planted((1, 1.0), (2, 1.5), spread=0.4)).word == "holds here"


def test_the_reference_is_not_judged() -> None:
    verdict = judge(TRAIN, planted((1, 1.0), (2, 1.0)))
    assert verdict.word == "refuted"
    assert [g.claim_error for g in verdict.groups] == [1.0]


def test_the_other_way_round_is_refuted_however_near() -> None:
    eta, rig = claims()["S4-eta"], {"tasks": 24.0, "task_s": 1.0, "k": 1.6, "cores": 2.0}
    points = tuple(Measurement(at, v, v, v, 9) for at, v in ((1.0, 1.5), (2.0, 0.81), (4.0, 1.72)))
    verdict = judge(eta, Evidence(points, rig, "planted", "", 1.0))
    assert verdict.groups[0].opposite
    assert verdict.word == "refuted"
    assert "goes the other way" in verdict.because[0]


def overlap(sequential: float, overlapped: float) -> Evidence:
    """Planted: factors on what holds one after the other (R by the claim), and on what holds overlapped (1.0)."""
    points = []
    for at in (0.05, 0.1):
        points.append(
            Measurement(at, sequential * 0.1 / (0.1 + at), 0, 0, 9, label="one after the other", setting={"overlap": 0})
        )
        points.append(Measurement(at, overlapped, 0, 0, 9, label="overlapped", setting={"overlap": 1}))
    return Evidence(tuple(points), {"train_s": 0.05, "infer_s": 0.05, "overlap": 1.0}, "planted", "", 1.0)


def test_one_way_and_not_the_other_holds_in_part() -> None:
    verdict = judge(claims()["S2-R"], overlap(1.0, 1.0))
    assert verdict.word == "holds in part"
    assert [g.word for g in verdict.groups] == ["holds here", "refuted"]
    assert abs(verdict.groups[1].right_error) < 0.02
    assert judge(claims()["S2-R"], overlap(0.5, 1.0)).word == "refuted"


def test_a_busy_machine_settles_nothing() -> None:
    idle, busy = planted((1, 1.0), (2, 0.5)), planted((1, 1.0), (2, 0.5), busy=True)
    assert judge(TRAIN, idle).word == "refuted"
    assert judge(TRAIN, busy).word == "unclear"
    fine = planted((1, 1.0), (2, 1.55), busy=True)
    assert judge(TRAIN, fine).word == "refuted", "the right model is near, so the measurement tells"


def test_the_calibrated_curve_goes_before_the_formula() -> None:
    curve = Curve((1.0, 2.0), (1.0, 1.5), (1.0, 1.4), (1.0, 1.6), "calibrated")
    found = judge(TRAIN, planted((1, 1.0), (2, 1.5), curve=curve)).groups[0]
    assert found.right_error == pytest.approx(0.0)


def test_dimension_and_arithmetic_go_before_agreement() -> None:
    def wrong(claim: Claim) -> str:
        return judge(claim, planted((1, 1.0), (2, 2.0))).word

    assert wrong(TRAIN) == "holds here"
    assert wrong(replace(TRAIN, result="B", examples=())) == "refuted"
    example = replace(TRAIN.examples[0], result="5 h")
    assert wrong(replace(TRAIN, examples=(example,))) == "refuted"
    rounded = replace(TRAIN.examples[0], result="6.1 h")
    assert wrong(replace(TRAIN, examples=(rounded,))) == "holds here", "printed numbers are rounded"


def test_a_claim_of_nothing_is_no_division() -> None:
    edge = claims()["S1-edge"]
    point = Measurement(0.0, 0.08, 0.079, 0.081, 9)
    rig = {"rate_bytes_per_s": 1.25e6, "size_bytes": 1e5, "processing_s": 0.0}
    verdict = judge(edge, Evidence((point,), rig, "planted", "", 1.0))
    assert verdict.groups[0].claim_error == -1.0
    assert verdict.groups[0].right_error == pytest.approx(0.0)


def test_words_and_signs() -> None:
    assert len({sign for _, sign in SIGNS.values()}) == len(SIGNS), "a sign says it without colour"
    assert percent(0.12) == "+12 %"
    assert percent(-0.12) == "\u221212 %"
    assert percent(4.0) == "5\u00d7"
    assert percent(-0.9) == "0.1\u00d7"
    assert percent(float("nan")) == "\u2013"
    assert percent(float("inf")) == "\u221e"
    assert in_words(0.001) == "what was measured"
    assert in_words(-0.2) == "20 % less than was measured"
    assert in_words(9.0) == "10 times what was measured"
