"""Percentiles of waits and responses, and the load that a limit allows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    allen_cunneen_wait_s,
    arrival_times,
    erlang_c,
    ggc_response_percentile_s,
    ggc_response_tail_frac,
    ggc_wait_percentile_s,
    highest_rate_per_s,
    knee_rate_per_s,
    mm1_response_s,
    mmc_response_percentile_s,
    mmc_response_s,
    mmc_response_tail_frac,
    mmc_wait_percentile_s,
    mmc_wait_s,
    mmc_wait_tail_frac,
    service_times,
    simulate_queue,
    slo_rate_per_s,
)

loads, servers, quantiles = st.floats(0.01, 0.98), st.integers(1, 50), st.floats(0.01, 0.999)


# Hillier & Lieberman, county hospital: 2 patients, 3 treatments per hour; three decimals printed.
@pytest.mark.parametrize(
    ("doctors", "hours", "share"),
    [(1, 0, 0.667), (1, 0.5, 0.404), (1, 1, 0.245), (2, 0, 0.167), (2, 0.5, 0.022), (2, 1, 0.003)],
)
def test_county_hospital_as_published(doctors, hours, share):
    assert mmc_wait_tail_frac(2.0, 3.0, doctors, hours) == pytest.approx(share, abs=6e-4)


@given(loads, st.floats(1e-3, 1e3), quantiles)
def test_one_server_responds_exponentially(rho, rate, quantile):
    mean = mm1_response_s(rho * rate, rate)
    assert mmc_response_percentile_s(rho * rate, rate, 1, quantile) == pytest.approx(
        -mean * math.log1p(-quantile), rel=1e-9
    )
    assert mmc_response_tail_frac(rho * rate, rate, 1, mean) == pytest.approx(math.exp(-1), rel=1e-9)


@given(loads, servers, quantiles)
def test_a_percentile_is_where_the_tail_says(rho, count, quantile):
    queue = (rho * count, 1.0, count)
    assert mmc_response_tail_frac(*queue, mmc_response_percentile_s(*queue, quantile)) == pytest.approx(1 - quantile)
    wait = mmc_wait_percentile_s(*queue, quantile)
    assert mmc_wait_tail_frac(*queue, wait) == pytest.approx(min(1 - quantile, erlang_c(*queue)))
    assert (wait > 0) == (erlang_c(*queue) > 1 - quantile)


# With 3 servers at load 2 waits leave at the service rate, where the textbook form divides by zero.
@pytest.mark.parametrize(("rate", "count"), [(0.3, 1), (2.0, 3), (2.0 + 1e-9, 3), (3.9, 4), (1.0, 4), (30.0, 40)])
def test_response_tail_against_the_integral_over_service_times(rate, count):
    waits, room = float(erlang_c(rate, 1.0, count)), count - rate
    for t in (0.1, 1.0, 3.7, 12.0):
        waited = integrate.quad(lambda s, t=t: math.exp(-s - room * (t - s)), 0, t, epsabs=1e-13)[0]
        assert mmc_response_tail_frac(rate, 1.0, count, t) == pytest.approx(math.exp(-t) + waits * waited, rel=1e-9)


@pytest.mark.parametrize(("rate", "count"), [(0.7, 1), (2.0, 3), (9.0, 10)])
def test_tails_add_up_to_the_mean(rate, count):
    response = integrate.quad(lambda t: float(mmc_response_tail_frac(rate, 1.0, count, t)), 0, 400, limit=400)[0]
    wait = integrate.quad(lambda t: float(mmc_wait_tail_frac(rate, 1.0, count, t)), 0, 400, limit=400)[0]
    assert response == pytest.approx(mmc_response_s(rate, 1.0, count), rel=1e-7)
    assert wait == pytest.approx(mmc_wait_s(rate, 1.0, count), rel=1e-7)


@given(loads, servers, quantiles)
def test_general_percentiles_fall_back_to_the_exact_ones(rho, count, quantile):
    queue = (rho * count, 1.0, count, quantile)
    assert ggc_wait_percentile_s(*queue) == mmc_wait_percentile_s(*queue)
    exact = mmc_response_percentile_s(*queue)
    assert ggc_response_percentile_s(*queue) == pytest.approx(exact, rel=1e-9)
    assert ggc_response_percentile_s(*queue, 1.0, 0.999) == pytest.approx(exact, rel=0.02, abs=0.005)  # no seam at 1
    assert ggc_response_percentile_s(*queue, 1.0, 1.001) == pytest.approx(exact, rel=0.02, abs=0.005)


@given(loads, servers, st.floats(0, 5), st.floats(0, 5))
def test_percentiles_rise_with_quantile_and_load(rho, count, arrival_scv, service_scv):
    quantile = np.array([0.1, 0.5, 0.9, 0.99])
    now = ggc_response_percentile_s(rho * count, 1.0, count, quantile, arrival_scv, service_scv)
    more = ggc_response_percentile_s((rho + 0.01) * count, 1.0, count, quantile, arrival_scv, service_scv)
    assert np.all(np.diff(now) >= -1e-9)
    assert np.all(more >= now * (1 - 1e-9))


def test_without_variability_nobody_waits():
    assert ggc_wait_percentile_s(0.9, 1.0, 1, 0.99, 0.0, 0.0) == 0
    assert ggc_response_percentile_s(0.9, 1.0, 1, 0.99, 0.0, 0.0) == pytest.approx(1.0)
    assert ggc_response_percentile_s(1.0, 1.0, 1, 0.99, 0.0, 0.0) == math.inf


@pytest.mark.parametrize("percentile", [mmc_wait_percentile_s, mmc_response_percentile_s, ggc_response_percentile_s])
def test_edges(percentile):
    assert percentile(0.5, 1.0, 1, 0.0) == 0
    assert percentile(0.5, 1.0, 1, 1.0) == math.inf
    assert percentile(np.array([1.0, 3.0]), 1.0, 1, 0.5).tolist() == [math.inf, math.inf]
    with pytest.raises(ModelInputError, match=r"quantile must be >= 0 and <= 1, got 95; write 50 % as 0.5"):
        percentile(0.5, 1.0, 1, 95)


def test_where_nothing_can_be_served_everything_is_late():
    assert mmc_wait_tail_frac(2.0, 1.0, 1, 1e9) == 1
    assert mmc_response_tail_frac(2.0, 1.0, 1, 1e9) == pytest.approx(1)


# Off by as the docstrings say; five seeds, whose mean has a noise of about 3 %.
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    ("kind", "scv", "low", "high"),
    [
        ("exponential", 1.0, -0.03, 0.03),
        ("deterministic", 0.0, -0.05, 0.13),
        ("gamma", 0.5, -0.05, 0.08),
        ("hyperexponential", 4.0, -0.20, 0.08),
    ],
)
def test_percentiles_are_as_far_off_as_they_say(kind, scv, low, high, count):
    rate, quantile = 0.7 * count, np.array([0.9, 0.95, 0.99])
    seen = []
    for seed in range(5):
        arrivals = arrival_times(100_000, "poisson", rate, seed=seed)
        services = service_times(100_000, kind, 1.0, scv=scv, seed=seed)
        seen.append(simulate_queue(arrivals, services, num_servers=count).after(500).response_percentile_s(quantile))
    predicted = ggc_response_percentile_s(rate, 1.0, count, quantile, 1.0, scv)
    error = predicted / np.mean(seen, axis=0) - 1
    assert np.all((low <= error) & (error <= high)), error
    late = ggc_response_tail_frac(rate, 1.0, count, predicted, 1.0, scv)
    assert late == pytest.approx(1 - quantile)


def test_the_knee_of_one_server_is_half_its_capacity():
    assert knee_rate_per_s(10.0, 1) == pytest.approx(5.0)
    assert knee_rate_per_s(10.0, 1, stretch=10.0) == pytest.approx(9.0)
    assert knee_rate_per_s(10.0, 1, 1.0, 0.0) == pytest.approx(10 * 2 / 3)  # constant service: rho / 2 (1 - rho) = 1


@settings(max_examples=25)
@given(servers, st.floats(0, 4), st.floats(0, 4), st.floats(1, 20))
def test_at_the_knee_the_response_is_stretched(count, arrival_scv, service_scv, stretch):
    rate = knee_rate_per_s(3.0, count, arrival_scv, service_scv, stretch)
    wait = allen_cunneen_wait_s(rate, 3.0, count, arrival_scv, service_scv)
    if arrival_scv + service_scv > 1e-3:
        assert wait == pytest.approx((stretch - 1) / 3, rel=1e-6, abs=1e-9)
    assert 0 <= rate <= 3 * count


@settings(max_examples=25)
@given(servers, st.floats(0.5, 0.99), st.floats(0, 30))
def test_the_objective_is_met_and_would_not_be_met_with_more(count, quantile, slo):
    rate = slo_rate_per_s(1.0, count, slo, quantile)
    idle = -math.log1p(-quantile)
    if slo < idle:
        assert rate == pytest.approx(0, abs=1e-9)
    else:
        assert mmc_response_percentile_s(rate, 1.0, count, quantile) <= slo * (1 + 1e-9)
        assert mmc_response_percentile_s(rate * 1.001 + 1e-6, 1.0, count, quantile) >= slo * (1 - 1e-9)


def test_objective_of_one_server_in_closed_form():
    assert slo_rate_per_s(1.0, 1, 4.0, 0.95) == pytest.approx(1 - math.log(20) / 4)


def test_any_rising_response_can_be_solved():
    limit = np.array([0.5, 2.0, 8.0])
    assert highest_rate_per_s(lambda rate: 1 + rate, limit, 5.0) == pytest.approx([0, 1, 5])
    with pytest.raises(ModelInputError, match="below_per_s"):
        highest_rate_per_s(lambda rate: rate, 1.0, 0.0)


def test_dimensions(u):
    queue, plain = (90 / u.minute, 1 / u.s, 2, 0.95), (1.5, 1.0, 2, 0.95)
    for percentile in (
        mmc_wait_percentile_s,
        mmc_response_percentile_s,
        ggc_wait_percentile_s,
        ggc_response_percentile_s,
    ):
        assert percentile(*queue).to("s").magnitude == pytest.approx(percentile(*plain))
    assert mmc_wait_tail_frac(*queue[:3], 500 * u.ms) == pytest.approx(mmc_wait_tail_frac(*plain[:3], 0.5))
    assert mmc_response_tail_frac(*queue[:3], 500 * u.ms) == pytest.approx(mmc_response_tail_frac(*plain[:3], 0.5))
    assert knee_rate_per_s(60 / u.minute, 2).to("1/s").magnitude == pytest.approx(knee_rate_per_s(1.0, 2))
    assert slo_rate_per_s(60 / u.minute, 2, 4000 * u.ms).to("1/s").magnitude == pytest.approx(
        slo_rate_per_s(1.0, 2, 4.0)
    )
