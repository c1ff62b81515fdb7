import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    RateCurve,
    attainable_flops,
    flat_rate,
    oversubscription_factor,
    ridge_point_flop_per_byte,
    roofline_time_s,
    shared_bandwidth_bytes_per_s,
    time_sliced_time_s,
)

CURVE = RateCurve.from_points([(100, 1e9), (400, 4e9), (1600, 4e9)])
positive = st.floats(1e-3, 1e12)


@pytest.mark.parametrize(
    ("size", "want"),
    [
        pytest.param(100, 1e9, id="a-measured-point-is-met"),
        pytest.param(200, 2e9, id="half-way-in-log-size-is-half-way-in-log-rate"),
        pytest.param(800, 4e9, id="flat-between-equal-rates"),
        pytest.param(25, 1e9, id="a-factor-4-below-holds-the-first-rate"),
        pytest.param(6400, 4e9, id="a-factor-4-above-holds-the-last-rate"),
    ],
)
def test_rate_curve_hand_computed(size, want):
    assert CURVE.rate(size) == pytest.approx(want)


def test_rate_curve_says_what_it_interpolated():
    assert CURVE.inside(np.array([99, 100, 1600, 1601])).tolist() == [False, True, True, False]


@pytest.mark.parametrize("size", [24.9, 6401, 0, -1, math.nan, math.inf])
def test_rate_curve_refuses_beyond_its_reach(size):
    with pytest.raises(ModelInputError):
        CURVE.rate(np.array([100, size]))


def test_rate_curve_takes_the_median_of_repeats_and_any_order():
    assert RateCurve.from_points([(8, 5), (2, 1), (8, 100), (8, 4)]).rates == (1, 5)


@pytest.mark.parametrize("points", [[], [(0, 1)], [(1, 0)], [(1, math.nan)]], ids=["none", "size-0", "rate-0", "nan"])
def test_rate_curve_refuses_bad_points(points):
    with pytest.raises(ModelInputError):
        RateCurve.from_points(points)


def test_rate_curve_refuses_a_reach_below_one():
    with pytest.raises(ModelInputError, match="reach"):
        RateCurve.from_points([(1, 1)], reach=0.5)


def test_time_is_work_over_the_rate_at_the_size_of_each_operation():
    assert CURVE.time_s(8e9, 200) == pytest.approx(4.0)


def test_a_catalog_rate_answers_every_size():
    assert flat_rate(3e9).rate(np.array([1e-9, 1.0, 1e15])) == pytest.approx([3e9] * 3)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=12), st.floats(0, 1))
def test_rate_curve_stays_between_the_rates_it_measured(points, where):
    curve = RateCurve.from_points(points)
    low, high = math.log(curve.sizes[0]), math.log(curve.sizes[-1])
    rate = curve.rate(math.exp(low + where * (high - low)))
    assert min(curve.rates) * (1 - 1e-9) <= rate <= max(curve.rates) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("flop", "moved", "want"),
    [
        pytest.param(4e9, 1e6, 2.0, id="bound-by-arithmetic"),
        pytest.param(1e6, 4e9, 8.0, id="bound-by-memory"),
        pytest.param(2e9, 5e8, 1.0, id="at-the-ridge-both-take-as-long"),
        pytest.param(0, 0, 0.0, id="no-work-no-time"),
    ],
)
def test_roofline_hand_computed(flop, moved, want):
    assert roofline_time_s(flop, moved, 2e9, 0.5e9) == pytest.approx(want)


def test_no_limit_on_one_side_leaves_the_other():
    assert roofline_time_s(1e9, 1e9, math.inf, 1e9) == 1.0


def test_ridge_moves_right_when_only_the_cores_grow():
    assert ridge_point_flop_per_byte(np.array([17.6e9, 73.6e9]), 16e9) == pytest.approx([1.1, 4.6])


@given(positive, positive, positive, positive)
def test_roofline_time_and_roof_are_one_law(flop, moved, peak, bandwidth):
    attained = flop / roofline_time_s(flop, moved, peak, bandwidth)
    assert attained == pytest.approx(attainable_flops(flop / moved, peak, bandwidth))
    assert attained <= peak * (1 + 1e-9)


@given(positive, positive)
def test_the_ridge_is_where_the_roof_bends(peak, bandwidth):
    ridge = ridge_point_flop_per_byte(peak, bandwidth)
    assert attainable_flops(ridge, peak, bandwidth) == pytest.approx(peak)
    assert attainable_flops(ridge / 2, peak, bandwidth) == pytest.approx(peak / 2)


@pytest.mark.parametrize(
    ("ranks", "cores", "threads", "want"),
    [(1, 2, 1, 1), (2, 2, 1, 1), (3, 2, 1, 1.5), (4, 2, 1, 2), (2, 2, 2, 2), (1, 64, 8, 1)],
    ids=["spare", "full", "three-on-two", "double", "threads-count", "many-cores"],
)
def test_oversubscription_hand_computed(ranks, cores, threads, want):
    assert oversubscription_factor(ranks, cores, threads) == want


def test_switch_overhead_counts_only_when_cores_are_shared():
    assert time_sliced_time_s(10e-3, np.array([2, 4]), 2, 1, 0.1) == pytest.approx([10e-3, 22e-3])


def test_bandwidth_is_shared_only_past_saturation():
    assert shared_bandwidth_bytes_per_s(10e9, 15e9, np.array([1, 2, 3])).tolist() == [10e9, 7.5e9, 5e9]


# Measured on 2 cores before this code was written: 5 ms of arithmetic per rank, then 1 MiB all-reduced.
@pytest.mark.parametrize(
    ("ranks", "allreduce_s", "step_s"),
    [(4, 0.37e-3, 11.6e-3), (8, 1.1e-3, 22.65e-3), (4, 0.68e-3, 12.3e-3), (8, 1.9e-3, 26.85e-3)],
    ids=["openmpi-4", "openmpi-8", "mpich-4", "mpich-8"],
)
def test_time_slicing_is_low_by_what_its_docstring_says(ranks, allreduce_s, step_s):
    low_by = step_s / (time_sliced_time_s(5e-3, ranks, 2) + allreduce_s) - 1
    assert 0.06 <= low_by <= 0.24


def test_dimensions(u):
    flops, bandwidth = 3 * u.flop / u.s, 2 * u.byte / u.s
    assert roofline_time_s(6 * u.flop, 2 * u.byte, flops, bandwidth).check("[time]")
    assert (ridge_point_flop_per_byte(flops, bandwidth) * u.byte / u.flop).check("[]")
    assert (attainable_flops(1 * u.flop / u.byte, flops, bandwidth) / flops).check("[]")
    assert time_sliced_time_s(3 * u.ms, 4, 2, 1, 0.1).to("ms").magnitude == pytest.approx(6.6)
    assert (shared_bandwidth_bytes_per_s(bandwidth, bandwidth, 2) / bandwidth).check("[]")
