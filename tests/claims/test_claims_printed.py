"""The claims as printed: the example of each, what its own formula makes of it, and what the model beside it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiinfra_widgets.claims import claims, judge
from aiinfra_widgets.claims.about_time import hybrid_s, pipeline_s, shared_out
from aiinfra_widgets.errors import ModelInputError, SpecError

IDS = ["S0-T", "S1-train", "S1-util", "S1-xfer", "S1-edge", "S2-P", "S2-R", "S3-DP", "S3-MP", "S3-HP", "S4-eta"]
#: By claim: (printed, what the printed formula gives) of each example, base units.
PRINTED = {
    "S0-T": [(1.0, 1.0), (0.5, 0.5), (0.5, 0.5)],
    "S1-train": [(6 * 3600, 6 * 3600)],
    "S1-xfer": [(8.0, 80.0)],
    "S1-edge": [(6.0, 0.08)],
    "S3-DP": [(2.5 * 3600, 2.5 * 3600)],
    "S3-MP": [(40 * 3600, 40 * 3600)],
    "S4-eta": [(1.0, 1.0)],
}
RIGHT_DIMENSION = {"S1-train", "S1-util", "S1-xfer", "S2-R", "S3-DP", "S3-MP", "S3-HP", "S4-eta"}


def test_every_row_of_the_table_is_there() -> None:
    assert list(claims()) == IDS
    for name, claim in claims().items():
        assert claim.id == name
        assert claim.measure or claim.senseless, "measured, or it says why not"
        assert claim.wrong
        assert claim.formula


@pytest.mark.parametrize("name", IDS)
def test_the_printed_example(name: str) -> None:
    worked = claims()[name].worked()
    assert [(w.printed, pytest.approx(w.computed, rel=1e-9)) for w in worked] == PRINTED.get(name, [])
    assert [w.same for w in worked] == [a == b for a, b in PRINTED.get(name, [])]


@pytest.mark.parametrize("name", IDS)
def test_dimension(name: str) -> None:
    assert claims()[name].dimensions().right == (name in RIGHT_DIMENSION)


def test_verdicts_without_a_measurement() -> None:
    refuted = {n for n, c in claims().items() if judge(c).word == "refuted"}
    assert refuted == {"S0-T", "S1-xfer", "S1-edge", "S2-P"}
    assert {judge(c).word for n, c in claims().items() if n not in refuted} == {"not tested"}
    assert "prints 8 s; its own formula gives 80 s" in " ".join(judge(claims()["S1-xfer"]).because)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("S0-T", math.inf),  # at its own capacity no queue has an end
        ("S1-train", 24 * 3600 * (0.05 + 0.95 / 4)),
        ("S1-util", 0.6),
        ("S1-xfer", 80.001),
        ("S1-edge", 0.0005 + 0.08 + 0.001),
        ("S2-P", 1 / 100),
        ("S3-DP", 10 * 3600 * (0.05 + 0.95 / 4)),
        ("S3-MP", 10 * 3600 * (8 + 3) / (8 * 4)),
        ("S3-HP", 5 * 3600 * (4 + 1) / (4 * 2)),
        ("S4-eta", 4.0),
    ],
)
def test_the_right_model_for_the_printed_inputs(name: str, expected: float) -> None:
    claim = claims()[name]
    assert claim.better(claim.values()) == pytest.approx(expected, rel=1e-9)


def test_resource_use_with_and_without_overlap() -> None:
    claim = claims()["S2-R"]
    assert claim.better(claim.values({"overlap": "0"})) == pytest.approx(claim.evaluate(claim.values()))
    assert claim.better(claim.values()) == pytest.approx(1.0, abs=0.01), "20 s of transfer beside 80 s of computing"


@pytest.mark.parametrize("name", IDS)
def test_the_figure_is_drawn_from_the_claim_and_the_right_model(name: str) -> None:
    claim = claims()[name]
    values = claim.values()
    at = np.asarray(claim.axes.at(**values), dtype=float)
    assert at.size > 3
    assert np.all(np.diff(at) > 0)
    for model in (claim.axes.says, claim.axes.right):
        drawn = [float(model(**{**values, claim.axes.swept: v})) for v in at[1:]]
        assert all(v >= 0 for v in drawn)
    assert any(i.name == claim.axes.swept for i in claim.inputs)


@pytest.mark.parametrize(
    ("name", "texts", "says"),
    [
        ("S1-xfer", {"size_bytes": "-10 GB"}, "Size: got '-10 GB'; allowed: above 0, such as 10 GB"),
        ("S1-xfer", {"size_bytes": "0 GB"}, "allowed: above 0"),
        ("S1-xfer", {"size_byte": "1 GB"}, "did you mean 'size_bytes'"),
        ("S1-xfer", {"rate_bytes_per_s": "1 GB"}, "which is a size; allowed: a data rate such as 1 Gbit/s"),
        ("S1-train", {"tasks": "2.5"}, "a whole number from 1"),
        ("S1-train", {"tasks": "0"}, "a whole number from 1"),
        ("S1-train", {"serial_frac": "120 %"}, "from 0 to 1"),
        ("S1-edge", {"distance_m": "-1 km"}, "from 0"),
        ("S2-R", {"overlap": "0.5"}, "a whole number from 0 to 1"),
    ],
)
def test_inputs_that_cannot_be_are_refused(name: str, texts: dict[str, str], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        claims()[name].values(texts)
    assert says in str(caught.value)


def test_pipelines() -> None:
    assert pipeline_s(10.0, 1, 8) == 10.0
    assert pipeline_s(10.0, 4, 1) == 10.0, "one micro-batch is in one stage at a time"
    assert pipeline_s(10.0, 4, 10_000) == pytest.approx(2.5, rel=1e-3), "with very many the bubble is gone"
    assert hybrid_s(10.0, 4, 1, 8) == pipeline_s(10.0, 4, 8)
    assert hybrid_s(10.0, 4, 4, 8) == 2.5, "data-parallel alone"
    with pytest.raises(ModelInputError, match="at least one stage"):
        pipeline_s(10.0, 0, 8)


def test_tasks_on_cores() -> None:
    assert shared_out(1000, 1, 4) == 1.0
    assert shared_out(1000, 4, 4) == 4.0
    assert shared_out(1000, 8, 4) == 4.0, "no more than there are cores"
    assert shared_out(10, 4, 4) == pytest.approx(10 / 3), "whole tasks: three rounds"
