"""Columns of numbers: two ways to read them that agree, and combining that equals pandas'."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.runs import columns

NAMES = ["tick", "t_s", "loss"]
FIELD = st.one_of(
    st.just(""),
    st.integers(0, 10**9).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.just("x3"),
)


@given(st.lists(st.lists(FIELD, min_size=1, max_size=4), min_size=1, max_size=8))
def test_few_lines_and_many_are_read_alike(lines):
    data = "".join(",".join(line) + "\n" for line in lines).encode()
    few = columns.parse(data, NAMES, ("tick",))
    too_long = b"," * columns.MANY_BYTES + b"\n"  # and left out
    many = columns.parse(data + too_long, NAMES, ("tick",))
    for name in NAMES:
        np.testing.assert_allclose(few[name], many[name], rtol=1e-14)


@pytest.mark.parametrize(
    ("data", "left"),
    [
        pytest.param(b"1,0.5,2.0\n2,0.6,\n", [1, 2], id="an-empty-field-is-not-measured"),
        pytest.param(b"1,0.5\n", [1], id="a-short-line"),
        pytest.param(b"1,0.52,0.6,1.0\n3,0.7,1.0\n", [3], id="a-line-that-was-torn-and-written-on"),
        pytest.param(b",0.5,1.0\n", [], id="no-tick"),
        pytest.param(b"1,0.5,oops\n", [1], id="no-number"),
    ],
)
def test_lines_that_are_not_whole(data, left):
    assert columns.parse(data, NAMES, ("tick", "t_s"))["tick"].tolist() == left


rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.one_of(st.none(), st.floats(-1e6, 1e6))), min_size=1, max_size=30
)


@given(rows, st.sampled_from(["max", "sum", "mean", "first"]))
def test_combining_equals_grouping(found, way):
    frame = pd.DataFrame(found, columns=["incarnation", "tick", "value"]).astype(float)
    mine = columns.combined({c: frame[c].to_numpy() for c in frame}, ("incarnation", "tick"), {"value": way})
    groups = frame.groupby(["incarnation", "tick"], sort=True, as_index=False)["value"]
    theirs = groups.sum(min_count=1) if way == "sum" else groups.agg(way)
    for name in ("incarnation", "tick", "value"):
        np.testing.assert_allclose(mine[name], theirs[name].to_numpy(float), rtol=1e-12, atol=1e-9)


def test_a_column_that_one_block_lacks_is_not_measured_there():
    found = columns.joined([{"tick": np.array([1.0])}, {"tick": np.array([2.0]), "loss": np.array([0.5])}])
    assert np.isnan(found["loss"][0])
    assert found["loss"][1] == 0.5
    assert columns.length(found) == 2
