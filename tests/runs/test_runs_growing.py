"""A table that grows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.runs.growing import Growing


def columns(frame):
    return {str(name): frame[name].to_numpy() for name in frame}


@given(st.lists(st.integers(0, 3000), max_size=6))
def test_appending_equals_concatenating(sizes):
    table, parts, at = Growing(("tick",)), [], 0
    for size in sizes:
        part = pd.DataFrame({"tick": np.arange(at, at + size), "loss": np.random.default_rng(at).random(size)})
        table.append(columns(part))
        parts.append(part)
        at += size
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"tick": np.array([], np.int64)})
    pd.testing.assert_frame_equal(table.frame()[list(whole.columns)], whole, check_dtype=False)


def test_a_view_does_not_change_and_whole_numbers_stay_whole():
    table = Growing(("tick",))
    table.append(columns(pd.DataFrame({"tick": [1, 2], "loss": [0.5, 0.25]})))
    before = table.frame()
    table.append(columns(pd.DataFrame({"tick": range(3, 5000), "loss": 0.0})))
    assert before["tick"].tolist() == [1, 2]
    assert before["loss"].tolist() == [0.5, 0.25]
    assert table.frame()["tick"].dtype == np.int64


def test_a_column_that_comes_later_was_not_measured_before():
    table = Growing(("tick",))
    table.append(columns(pd.DataFrame({"tick": [1]})))
    table.append(columns(pd.DataFrame({"tick": [2], "energy_j": [3.0]})))
    assert np.isnan(table.frame()["energy_j"][0])
    assert table.frame()["energy_j"][1] == 3.0
