"""A time measured over a grid of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.grid import TimeGrid

LINE = TimeGrid.from_points(["n"], [({"n": n}, 1e-6 * n) for n in (1, 4, 16)])
PLANE = TimeGrid.from_points(["w", "b"], [({"w": w, "b": b}, 1e-9 * w * b) for w in (8, 64, 512) for b in (16, 256)])


@pytest.mark.parametrize(
    ("sizes", "want"),
    [
        pytest.param((4,), 4e-6, id="on-a-point"),
        pytest.param((2,), 2e-6, id="between-in-logarithms"),
        pytest.param((64,), 64e-6, id="beyond-along-the-slope"),
        pytest.param((0.25,), 0.25e-6, id="below-along-the-slope"),
    ],
)
def test_hand_computed(sizes, want):
    assert LINE.time_s(*sizes) == pytest.approx(want)


@given(st.floats(1, 1e4), st.floats(1, 1e4))
def test_a_power_law_is_recovered_everywhere(w, b):
    assert PLANE.time_s(w, b) == pytest.approx(1e-9 * w * b)


def test_one_call_is_one_sweep():
    w, b = np.array([8.0, 100.0, 512.0])[:, None], np.array([16.0, 20.0, 300.0, 1000.0])[None, :]
    assert PLANE.time_s(w, b) == pytest.approx(1e-9 * w * b)
    assert PLANE.time_s(w, b).shape == (3, 4)


def test_beyond_the_grid_time_never_falls_and_never_outgrows_size():
    falling = TimeGrid.from_points(["n"], [({"n": 1}, 2e-6), ({"n": 2}, 1e-6)])
    assert falling.time_s(8) == pytest.approx(1e-6)
    steep = TimeGrid.from_points(["n"], [({"n": 1}, 1e-6), ({"n": 2}, 8e-6)])
    assert steep.time_s(4) == pytest.approx(16e-6)


def test_an_axis_of_one_point_is_constant():
    one = TimeGrid.from_points(["n", "b"], [({"n": 2, "b": b}, b * 1e-6) for b in (1, 10)])
    assert one.time_s(7, 10) == pytest.approx(10e-6)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        pytest.param([], "no measured point", id="nothing"),
        pytest.param([({"w": 1, "b": 1}, 1.0), ({"w": 2, "b": 2}, 1.0)], "holes", id="holes"),
        pytest.param([({"w": 1, "b": 1}, 0.0)], "measured time", id="no-time"),
    ],
)
def test_what_is_no_grid_is_refused(points, says):
    with pytest.raises(ModelInputError, match=says):
        TimeGrid.from_points(["w", "b"], points)


def test_sizes_are_checked():
    with pytest.raises(ModelInputError, match="needed: w, b"):
        PLANE.time_s(3)
    with pytest.raises(ModelInputError, match="b"):
        PLANE.time_s(3, 0)
    assert PLANE.inside(8, 256)
    assert not PLANE.inside(8, 257)
