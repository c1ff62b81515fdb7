"""Designs over a real Spec: every point is allowed, nothing is counted twice, the order comes from the seed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import DataError, SpecError
from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.research import plan_file
from aiinfra_widgets.research.design import factor, points, trials

EXP = experiment("training")
BASE = EXP.spec.make({"steps": 50})


def planned(over, design="grid", num=None, seed=0, **how):
    factors = [factor(EXP, k, v) for k, v in over.items()]
    return trials(EXP, BASE, points(EXP, BASE, factors, design, num, seed), **{"repeats": 1, "seed": seed, **how})


def test_a_grid_is_every_combination_and_each_repeat_is_a_block() -> None:
    found = planned({"nodes": "1,2", "global_batch": [64, 128, 256]}, repeats=3, seed=4)
    combinations = [(t.spec.nodes, t.spec.global_batch) for t in found]
    assert Counter(combinations) == {(n, b): 3 for n in (1, 2) for b in (64, 128, 256)}
    assert all(t.spec.steps == 50 for t in found)
    blocks = [combinations[i : i + 6] for i in (0, 6, 12)]
    assert all(len(set(b)) == 6 for b in blocks)
    assert len({tuple(b) for b in blocks}) == 3  # each in an order of its own
    again = planned({"nodes": "1,2", "global_batch": [64, 128, 256]}, repeats=3, seed=4)
    assert found == again
    assert planned({"nodes": "1,2", "global_batch": [64, 128, 256]}, repeats=3, seed=5) != again


def test_one_at_a_time_varies_one_from_the_centre() -> None:
    found = planned({"nodes": [1, 2], "global_batch": [256, 512]}, "one-at-a-time", shuffle=False)
    assert [(t.spec.nodes, t.spec.global_batch) for t in found] == [(1, 256), (2, 256), (1, 512)]


@given(num=st.integers(1, 40), seed=st.integers(0, 2**16), design=st.sampled_from(["latin-hypercube", "sobol"]))
def test_space_is_filled_inside_the_ranges(num: int, seed: int, design: str) -> None:
    found = planned({"nodes": "1..4", "learning_rate": "0.001..0.1", "algorithm": "mpi,ring"}, design, num, seed)
    assert len(found) == num
    for t in found:
        assert 1 <= t.spec.nodes <= 4
        assert 0.001 <= t.spec.learning_rate <= 0.1
        assert t.spec.algorithm in ("mpi", "ring")
    if design == "latin-hypercube":  # one point in each stretch, evenly in the logarithm
        places = sorted(
            math.floor(num * min(math.log10(t.spec.learning_rate / 0.001) / 2, 1 - 1e-9) + 1e-9) for t in found
        )
        assert places == list(range(num))


def test_new_seeds_differ_by_repeat() -> None:
    found = planned({"nodes": [1, 2]}, repeats=3, new_seeds=True)
    assert {(t.repeat, t.spec.seed) for t in found} == {(0, 0), (1, 1), (2, 2)}


@pytest.mark.parametrize(
    ("over", "design", "num", "says"),
    [
        ({"nodess": [1]}, "grid", None, "did you mean 'nodes'"),
        ({"nodes": [1, 0]}, "grid", None, "nodes: got 0; allowed: a whole number from 1 to 512"),
        ({"nodes": [1, 1.5]}, "grid", None, "nodes: got 1.5"),
        ({"nodes": [1, 1]}, "grid", None, "twice"),
        ({"nodes": []}, "grid", None, "no value"),
        ({"algorithm": "mpi,rign"}, "grid", None, "did you mean 'ring'"),
        ({"nodes": "1..600"}, "sobol", 4, "allowed: a whole number from 1 to 512"),
        ({"nodes": "1..4"}, "grid", None, "a grid design needs values"),
        ({"nodes": "1,2"}, "sobol", None, "needs a number of points"),
        ({"nodes": "1,2"}, "latin", 3, "did you mean 'latin-hypercube'"),
        ({"algorithm": "mpi..ring"}, "sobol", 3, "only a number has a range"),
        ({}, "grid", None, "nothing varies"),
        ({"nodes": [1, 2], "tp_size": [1, 3]}, "grid", None, "the point nodes=1 tp_size=3 is not allowed"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(over, design, num, says) -> None:
    with pytest.raises(SpecError) as caught:
        planned(over, design, num)
    assert says in str(caught.value)


PLAN = "experiment: training\nover:\n  nodes: [1, 2]\n  learning_rate: 0.001..0.1\nset: {steps: 50}\ndesign: sobol\npoints: 4\n"


def test_a_plan_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    assert plan_file.read(path) == {
        "experiment": "training", "over": {"nodes": [1, 2], "learning_rate": "0.001..0.1"}, "fixed": {"steps": 50},
        "design": "sobol", "num_points": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("- 1", "holds no plan", id="list"),
        pytest.param(PLAN + "desing: grid", "did you mean 'design'", id="key"),
        pytest.param(PLAN + "repeats: many", "repeats: got 'many'; allowed: a whole number", id="type"),
        pytest.param("a: &x [1]\nb: [*x, *x]", "aliases", id="aliases"),
        pytest.param("experiment: !!python/object/apply:os.getcwd []", "not readable", id="tag"),
        pytest.param("experiment: training\nover: {nodes: [[1]]}", "allowed: a list of plain values", id="nested"),
        pytest.param("[" * 5000, "not readable", id="deep"),
        pytest.param("#" * 300_000, "more than 256 KiB", id="large"),
        pytest.param("experiment: training: x", "not readable", id="syntax"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        plan_file.read(path)
    assert says in str(caught.value)
