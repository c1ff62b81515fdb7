"""Closed forms of queues: by hand, in their limits, against chains solved as chains, and against published tables."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    allen_cunneen_wait_s,
    erlang_b,
    erlang_c,
    kingman_bound_wait_s,
    little_length,
    little_rate_per_s,
    little_time_s,
    md1_wait_s,
    mdc_wait_s,
    mg1_wait_s,
    mm1_response_s,
    mm1_wait_s,
    mmc_queue_length,
    mmc_response_s,
    mmc_shared_cores_response_s,
    mmc_shared_cores_wait_s,
    mmc_wait_s,
    mmck_queue_length,
    mmck_rejected_frac,
    mmck_throughput_per_s,
    mmck_wait_s,
    naive_response_s,
    transient_queue_length,
    utilization,
)

loads, servers, scvs = st.floats(0.01, 0.99), st.integers(1, 200), st.floats(0, 20)


def _birth_death(birth, death, states):
    """Stationary probabilities of a chain that goes up with birth(n) and down with death(n)."""
    logs = np.cumsum([0.0, *(math.log(birth(n) / death(n + 1)) for n in range(states - 1))])
    return special.softmax(logs)


# --- by hand ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "arguments", "want"),
    [
        pytest.param(utilization, (3.0, 2.0, 3), 0.5, id="three-servers-half-busy"),
        pytest.param(mm1_wait_s, (0.5, 1.0), 1.0, id="mm1-waits-as-long-as-it-serves"),
        pytest.param(mm1_response_s, (8.0, 10.0), 0.5, id="mm1-one-over-the-difference"),
        pytest.param(md1_wait_s, (0.5, 1.0), 0.5, id="md1-half-of-mm1"),
        pytest.param(mg1_wait_s, (0.8, 1.0, 4.0), 10.0, id="pk-four-times-as-variable"),
        pytest.param(erlang_b, (1.0, 1.0, 2), 0.2, id="erlang-b-half-over-two-and-a-half"),
        pytest.param(erlang_c, (2.0, 1.0, 3), 4 / 9, id="erlang-c-four-ninths"),
        pytest.param(mmc_wait_s, (2.0, 1.0, 3), 4 / 9, id="mmc-room-for-one"),
        pytest.param(mmc_queue_length, (2.0, 1.0, 3), 8 / 9, id="mmc-length"),
        pytest.param(mmck_rejected_frac, (1.0, 1.0, 1, 1), 1 / 3, id="finite-three-equal-states"),
        pytest.param(mmck_throughput_per_s, (1.0, 1.0, 1, 1), 2 / 3, id="finite-throughput"),
        pytest.param(mmck_queue_length, (1.0, 1.0, 1, 1), 1 / 3, id="finite-one-of-three-waits"),
        pytest.param(mmck_wait_s, (1.0, 1.0, 1, 1), 0.5, id="finite-half-of-the-admitted-wait-one"),
        pytest.param(kingman_bound_wait_s, (0.5, 1.0, 1.0, 1.0), 2.5, id="kingman-two-and-a-half"),
        pytest.param(naive_response_s, (100.0, 200.0), 0.5, id="the-articles-half-a-second-at-double-load"),
        pytest.param(little_length, (4.0, 0.25), 1.0, id="little-length"),
        pytest.param(little_time_s, (1.0, 4.0), 0.25, id="little-time"),
        pytest.param(little_rate_per_s, (1.0, 0.25), 4.0, id="little-rate"),
    ],
)
def test_hand_computed(function, arguments, want):
    assert function(*arguments) == pytest.approx(want, rel=1e-12)


# Hillier & Lieberman, Introduction to Operations Research, county hospital: 2 patients and 3 treatments per hour.
@pytest.mark.parametrize(
    ("doctors", "length", "wait", "response"), [(1, 4 / 3, 2 / 3, 1.0), (2, 1 / 12, 1 / 24, 3 / 8)]
)
def test_county_hospital_as_published(doctors, length, wait, response):
    assert mmc_queue_length(2.0, 3.0, doctors) == pytest.approx(length)
    assert mmc_wait_s(2.0, 3.0, doctors) == pytest.approx(wait)
    assert mmc_response_s(2.0, 3.0, doctors) == pytest.approx(response)


# Gross & Harris, Fundamentals of Queueing Theory, car inspection: 3 stations of 6 minutes, one car a minute, room for 4 more.
# The book goes on from p0 = 1/1141 rounded to 0.00088, which is 0.4 % too much.
def test_car_inspection_as_published():
    car = (1.0, 1 / 6, 3, 4)
    assert mmck_rejected_frac(*car) == pytest.approx(576 / 1141, rel=1e-12)
    assert mmck_queue_length(*car) == pytest.approx(3.09, rel=5e-3)
    assert mmck_wait_s(*car) + 6 == pytest.approx(12.3, rel=5e-3)
    assert 60 * mmck_rejected_frac(*car) == pytest.approx(30.4, rel=5e-3)


# Offered load at which 1 % of the calls are lost, from the usual Erlang B tables (three decimals printed).
@pytest.mark.parametrize(
    ("lines", "erlangs"), [(1, 0.010), (5, 1.361), (10, 4.461), (20, 12.031), (50, 37.901), (100, 84.064)]
)
def test_erlang_b_as_tabulated(lines, erlangs):
    assert erlang_b(erlangs - 5e-4, 1.0, lines) <= 0.01 <= erlang_b(erlangs + 5e-4, 1.0, lines)


# --- against other ways to the same number --------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_erlang_against_its_definition_in_fractions(count):
    load = Fraction(count * 4, 5)
    terms = [load**k / math.factorial(k) for k in range(count + 1)]
    lost, waits = terms[-1] / sum(terms), terms[-1] / (terms[-1] + (1 - load / count) * sum(terms[:-1]))
    assert erlang_b(float(load), 1.0, count) == pytest.approx(float(lost), rel=1e-13)
    assert erlang_c(float(load), 1.0, count) == pytest.approx(float(waits), rel=1e-13)


@pytest.mark.parametrize("load", [1.0, 500.0, 990.0, 1500.0])
def test_erlang_b_is_stable_for_a_thousand_servers(load):
    k = np.arange(1001)
    logs = k * math.log(load) - special.gammaln(k + 1)
    assert erlang_b(load, 1.0, 1000) == pytest.approx(math.exp(logs[-1] - special.logsumexp(logs)), rel=1e-9)


@given(loads, st.integers(1, 12), st.integers(0, 40), st.floats(0.1, 3.0))
def test_finite_queue_is_its_chain(load, count, places, stretch):
    rate = load * stretch * count  # also above what the servers carry
    p = _birth_death(lambda n: rate, lambda n: min(n, count), count + places + 1)
    waiting = float(np.maximum(np.arange(len(p)) - count, 0) @ p)
    assert mmck_rejected_frac(rate, 1.0, count, places) == pytest.approx(p[-1], rel=1e-9)
    assert mmck_queue_length(rate, 1.0, count, places) == pytest.approx(waiting, rel=1e-9, abs=1e-15)
    assert mmck_wait_s(rate, 1.0, count, places) * mmck_throughput_per_s(rate, 1.0, count, places) == pytest.approx(
        waiting, rel=1e-9, abs=1e-15
    )


@given(st.floats(0.05, 0.9), st.integers(1, 12), st.integers(1, 12))
def test_shared_cores_are_their_chain(load, count, cores):
    at_once = min(count, cores)
    rate, n = load * at_once, np.arange(1500)
    p = _birth_death(lambda n: rate, lambda n: min(n, at_once), len(n))
    assert mmc_shared_cores_wait_s(rate, 1.0, count, cores) * rate == pytest.approx(
        float(np.maximum(n - count, 0) @ p), rel=1e-9, abs=1e-12
    )
    assert mmc_shared_cores_response_s(rate, 1.0, count, cores) * rate == pytest.approx(float(n @ p), rel=1e-9)


def _mdc_exact_wait(rho, count):
    """M/D/c by its own chain (Crommelin 1932): who is there one service time later has come since, or waited before."""
    load, states = rho * count, int(count + 60 / (1 - rho) + 100)
    came = np.exp(np.arange(states) * math.log(load) - load - special.gammaln(np.arange(states) + 1))
    chain = np.zeros((states, states))
    for n in range(states):
        left = max(n - count, 0)
        chain[n, left:] = came[: states - left]
    equations = chain.T - np.eye(states)
    equations[-1] = 1
    p = np.linalg.solve(equations, np.eye(states)[-1])
    return float(np.maximum(np.arange(states) - count, 0) @ p) / load


@pytest.mark.parametrize("count", [1, 2, 4, 16, 32])
@pytest.mark.parametrize(("rho", "tolerance"), [(0.3, 0.125), (0.5, 0.03), (0.7, 0.03), (0.9, 0.02)])
def test_constant_service_against_the_exact_chain(rho, count, tolerance):
    exact = _mdc_exact_wait(rho, count)
    assert mdc_wait_s(rho * count, 1.0, count) == pytest.approx(exact, rel=1e-9 if count == 1 else tolerance)


# --- limits -----------------------------------------------------------------------------------------------------------
@given(loads, st.floats(1e-3, 1e3), scvs)
def test_general_formulas_fall_back_to_special_ones(rho, rate, scv):
    arrivals = rho * rate
    assert mmc_wait_s(arrivals, rate, 1) == pytest.approx(mm1_wait_s(arrivals, rate))
    assert mmc_response_s(arrivals, rate, 1) == pytest.approx(mm1_response_s(arrivals, rate))
    assert mg1_wait_s(arrivals, rate, 1.0) == pytest.approx(mm1_wait_s(arrivals, rate))
    assert mg1_wait_s(arrivals, rate, 0.0) == md1_wait_s(arrivals, rate)
    assert mdc_wait_s(arrivals, rate, 1) == pytest.approx(md1_wait_s(arrivals, rate))
    assert allen_cunneen_wait_s(arrivals, rate, 1, 1.0, scv) == pytest.approx(mg1_wait_s(arrivals, rate, scv))
    assert mmck_rejected_frac(arrivals, rate, 3, 0) == pytest.approx(erlang_b(arrivals, rate, 3))
    assert kingman_bound_wait_s(arrivals, rate, 1.0, scv) >= mg1_wait_s(arrivals, rate, scv)


@given(loads, servers)
def test_variability_one_is_exponential_and_more_servers_never_hurt(rho, count):
    rate = rho * count
    wait = mmc_wait_s(rate, 1.0, count)
    assert allen_cunneen_wait_s(rate, 1.0, count) == wait
    assert little_length(rate, wait) == pytest.approx(mmc_queue_length(rate, 1.0, count))
    assert mmc_wait_s(rate, 1.0, count + 1) <= wait
    assert wait <= mm1_wait_s(rho, 1.0) * (1 + 1e-9)  # one queue for all, not one each
    assert 0 <= erlang_b(rate, 1.0, count) <= erlang_c(rate, 1.0, count) <= 1
    assert mmc_shared_cores_response_s(rate, 1.0, count, count) == pytest.approx(wait + 1)
    assert mmc_shared_cores_wait_s(rate, 1.0, count, count + 3) == pytest.approx(wait)


def test_a_long_finite_queue_is_an_infinite_one():
    assert mmck_wait_s(1.6, 1.0, 2, 2000) == pytest.approx(mmc_wait_s(1.6, 1.0, 2), rel=1e-9)
    assert mmck_throughput_per_s(5.0, 1.0, 2, 2000) == pytest.approx(2.0)  # overloaded, it lets through what it can


# --- no room left -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rho", [1.0, 1.5, 40.0])
@pytest.mark.parametrize(
    "wait",
    [
        lambda rho: mm1_wait_s(rho, 1.0),
        lambda rho: mm1_response_s(rho, 1.0),
        lambda rho: mmc_wait_s(4 * rho, 1.0, 4),
        lambda rho: mmc_queue_length(4 * rho, 1.0, 4),
        lambda rho: mg1_wait_s(rho, 1.0, 0.0),
        lambda rho: mdc_wait_s(4 * rho, 1.0, 4),
        lambda rho: allen_cunneen_wait_s(4 * rho, 1.0, 4, 0.0, 0.0),
        lambda rho: kingman_bound_wait_s(rho, 1.0, 0.0, 0.0),
        lambda rho: mmc_shared_cores_wait_s(2 * rho, 1.0, 4, 2),
        lambda rho: mmc_shared_cores_response_s(2 * rho, 1.0, 4, 2),
    ],
)
def test_what_the_servers_cannot_carry_waits_forever_and_never_a_negative_time(wait, rho):
    assert wait(rho) == math.inf
    assert 0 <= wait(0.999) < math.inf
    assert wait(np.array([0.5, rho])).tolist() == [pytest.approx(wait(0.5)), math.inf]


@pytest.mark.parametrize("scv", [0.0, 1.0])
def test_above_capacity_the_queue_grows_by_the_difference(scv):
    grown = transient_queue_length(5.0, 2.0, 2, np.array([1e3, 2e3]), scv, scv)
    assert np.diff(grown)[0] == pytest.approx(1e3, rel=1e-3)
    assert transient_queue_length(5.0, 2.0, 2, 0.0) == 0


def test_at_capacity_it_grows_with_the_root_of_time_and_below_it_settles():
    one, four = transient_queue_length(2.0, 1.0, 2, np.array([1e4, 4e4]))
    assert four == pytest.approx(2 * one)
    settled = transient_queue_length(0.95, 1.0, 1, np.array([1e5, 1e6]))
    assert settled[0] == pytest.approx(settled[1])
    assert settled[1] == pytest.approx(mmc_queue_length(0.95, 1.0, 1) + 1, rel=0.03)  # one too high, as it says


@given(st.floats(0.5, 2.0), st.floats(0, 1e4), st.floats(0, 1e4), scvs)
def test_the_transient_never_shrinks_and_never_falls_below_the_fluid(rho, early, late, scv):
    early, late = sorted((early, late))
    first, then = transient_queue_length(rho, 1.0, 1, np.array([early, late]), scv, scv)
    assert 0 <= first <= then * (1 + 1e-9) + 1e-9
    assert then >= max(rho - 1, 0) * late * (1 - 1e-9)


def test_the_naive_time_is_none_and_falls_with_the_load(u):
    assert naive_response_s(100 / u.s, 200 / u.s).dimensionless
    assert naive_response_s(100.0, 200.0) < naive_response_s(100.0, 100.0)
    assert mm1_response_s(90.0, 100.0) > mm1_response_s(50.0, 100.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mmc_wait_s(-1.0, 1.0, 2), "arrival_rate_per_s must be >= 0 and finite, got -1"),
        (lambda: mmc_wait_s(1.0, 0.0, 2), r"service_rate_per_s must be > 0, got 0; 1 / mean service time"),
        (lambda: mmc_wait_s(1.0, 1.0, 0), "num_servers must be a whole number >= 1"),
        (lambda: mmc_wait_s(1.0, 1.0, 2.5), r"got 2\.5; a service has at least one server"),
        (lambda: mg1_wait_s(1.0, 1.0, -0.5), "service_scv must be >= 0"),
        (lambda: mmck_wait_s(1.0, 1.0, 2, -1), "queue_limit must be a whole number >= 0"),
        (lambda: mmc_shared_cores_wait_s(1.0, 1.0, 2, 0), "num_cores"),
        (lambda: naive_response_s(1.0, 0.0), "offered_load_per_s must be > 0"),
    ],
)
def test_outside_the_domain_is_refused_and_says_what_is_allowed(call, says):
    with pytest.raises(ModelInputError, match=says):
        call()


def test_dimensions(u):
    rate, service = 90 / u.minute, 1 / u.s
    for wait, plain in (
        (mm1_response_s(0.5 / u.s, 60 / u.minute), mm1_response_s(0.5, 1.0)),
        (mmc_wait_s(rate, service, 2), mmc_wait_s(1.5, 1.0, 2)),
        (mmc_response_s(rate, service, 2), mmc_response_s(1.5, 1.0, 2)),
        (mg1_wait_s(30 / u.minute, service, 4.0), mg1_wait_s(0.5, 1.0, 4.0)),
        (mdc_wait_s(rate, service, 2), mdc_wait_s(1.5, 1.0, 2)),
        (allen_cunneen_wait_s(rate, service, 2, 2.0, 0.5), allen_cunneen_wait_s(1.5, 1.0, 2, 2.0, 0.5)),
        (kingman_bound_wait_s(30 / u.minute, service), kingman_bound_wait_s(0.5, 1.0)),
        (mmck_wait_s(rate, service, 2, 3), mmck_wait_s(1.5, 1.0, 2, 3)),
        (mmc_shared_cores_wait_s(rate, service, 4, 2), mmc_shared_cores_wait_s(1.5, 1.0, 4, 2)),
        (mmc_shared_cores_response_s(rate, service, 4, 2), mmc_shared_cores_response_s(1.5, 1.0, 4, 2)),
    ):
        assert wait.check("[time]")
        assert wait.to("s").magnitude == pytest.approx(plain)
    assert mmck_throughput_per_s(rate, service, 2, 3).check("1/[time]")
    assert erlang_c(rate, service, 2) == pytest.approx(erlang_c(1.5, 1.0, 2))
    length = transient_queue_length(rate, service, 1, 2 * u.minute)
    assert length == pytest.approx(transient_queue_length(1.5, 1.0, 1, 120.0))
    assert little_length(rate, 10 * u.s).to("").magnitude == pytest.approx(15)
