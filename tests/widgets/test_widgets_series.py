"""A long series in few points: bounded, ordered, and its parts still add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.widgets.series import Thinned, upper


@given(st.lists(st.integers(1, 70), min_size=1, max_size=30), st.sampled_from([2, 8, 20]))
def test_bounded_ordered_and_the_mean_is_kept(batches: list[int], limit: int) -> None:
    series, tick = Thinned(("tick", "a", "b", "whole"), limit), 0
    for n in batches:
        ticks = np.arange(tick + 1, tick + n + 1)
        series.extend({"tick": ticks, "a": ticks % 7, "b": ticks % 3, "whole": ticks % 7 + ticks % 3})
        tick += n
    found = series.columns()
    assert len(series) < limit
    assert (np.diff(found["tick"]) > 0).all()
    assert found["a"] + found["b"] == pytest.approx(found["whole"])
    covered = len(series) * series.stride
    assert tick - covered < series.stride, "rows were lost"
    assert found["a"].sum() * series.stride == pytest.approx(sum(t % 7 for t in range(1, covered + 1)))


def test_streaming_adds_only_what_is_new_and_says_when_all_changed() -> None:
    series = Thinned(("tick", "v"), 4)
    assert series.extend({"tick": [1, 2, 3], "v": [1.0, 2.0, 3.0]}) == 3
    assert series.columns(1)["tick"].tolist() == [3]
    assert series.extend({"tick": [4], "v": [4.0]}) is None
    assert series.columns()["v"].tolist() == [1.5, 3.5]
    assert series.extend({"tick": [5], "v": [5.0]}) == 0, "half a point is not shown"


def test_what_is_not_measured_is_left_out_of_a_mean() -> None:
    series = Thinned(("tick", "v"), 2)
    series.extend({"tick": [1, 2, 3, 4], "v": [np.nan, 2.0, np.nan, 4.0]})
    assert series.columns()["v"].tolist() == [3.0]


def test_steps_done_again_after_a_resume_replace_the_old_ones() -> None:
    series = Thinned(("tick", "v"), 100)
    series.extend({"tick": [1, 2, 3, 4], "v": [1, 1, 1, 1]})
    assert series.cut(3)
    series.extend({"tick": [3, 4], "v": [2, 2]})
    assert series.columns()["tick"].tolist() == [1, 2, 3, 4]
    assert series.columns()["v"].tolist() == [1, 1, 2, 2]
    assert not series.cut(9)


def test_an_odd_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Thinned(("tick",), 3)


def test_the_axis_ignores_a_hiccup_and_shows_a_stretch() -> None:
    calm = np.full(160, 10.0)
    hiccup, stretch = calm.copy(), calm.copy()
    hiccup[50] = 1000.0
    stretch[60:80] = 100.0
    assert upper(hiccup) == upper(calm)
    assert upper(stretch) > 100
    assert upper([np.nan]) is None


def test_the_axis_shows_nearly_every_value_of_a_series_that_is_mostly_nothing() -> None:
    rare = np.zeros(100)
    rare[::10] = 5.0
    assert upper(rare) >= 5.0
