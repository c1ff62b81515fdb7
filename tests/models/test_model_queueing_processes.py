"""The processes of arrival and service: their moments, their replay, a rate that changes, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    ARRIVAL_KINDS,
    SERVICE_KINDS,
    Arrivals,
    ServiceTimes,
    arrival_times,
    service_kind,
    service_times,
)

TRACE = [0.5, 0.5, 1.0, 2.5, 4.0]


def _arrivals(kind, seed=0, rate=50.0):
    return Arrivals(kind, rate, seed=seed, times_s=TRACE if kind == "trace" else None)


# --- arrivals ---------------------------------------------------------------------------------------------------------
def test_clockwork_arrives_by_the_clock():
    assert arrival_times(4, "constant", 2.0).tolist() == [0.5, 1.0, 1.5, 2.0]


def test_a_trace_arrives_as_recorded_or_stretched_to_a_rate():
    assert arrival_times(9, "trace", times_s=TRACE).tolist() == TRACE
    twice_as_fast = Arrivals("trace", 2 * 5 / 4, times_s=TRACE)
    assert twice_as_fast.next_until(1.0).tolist() == [0.25, 0.25, 0.5]
    assert twice_as_fast.next_until(9.0).tolist() == [1.25, 2.0]
    assert twice_as_fast.next_until(99.0).tolist() == []


def test_poisson_counts_have_the_variance_of_poisson():
    times = arrival_times(200_000, "poisson", 40.0, seed=2)
    counts = np.histogram(times, np.arange(0.0, times[-1], 1.0))[0]
    assert counts.mean() == pytest.approx(40, rel=0.01)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.06)
    assert np.var(np.diff(times)) * 40**2 == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("ratio", "share", "length_s"), [(10.0, 0.1, 0.2), (4.0, 0.5, 1.0)])
def test_bursts_keep_the_mean_and_disperse_as_computed(ratio, share, length_s):
    arrivals = Arrivals("mmpp", 40.0, seed=4, burst_ratio=ratio, burst_frac=share, burst_length_s=length_s)
    times = arrivals.next_until(20_000.0)
    assert len(times) / 20_000 == pytest.approx(40, rel=0.03)
    window_s = 40 * length_s / share  # far longer than a burst, so that the limit is near
    counts = np.histogram(times, np.arange(0.0, 20_000.0, window_s))[0]
    assert counts.var() / counts.mean() == pytest.approx(arrivals.scv, rel=0.2)
    assert arrivals.scv > 3


def test_variability_of_the_others():
    assert [_arrivals(kind).scv for kind in ("constant", "poisson")] == [0.0, 1.0]
    gaps = np.diff(TRACE)
    assert _arrivals("trace").scv == pytest.approx(gaps.var() / gaps.mean() ** 2)


@settings(max_examples=40)
@given(st.sampled_from(ARRIVAL_KINDS), st.integers(0, 99), st.lists(st.floats(0, 7), max_size=30))
def test_a_seed_gives_one_sequence_whatever_the_pieces(kind, seed, steps):
    whole = _arrivals(kind, seed).next_until(sum(steps))
    pieces, at = _arrivals(kind, seed), 0.0
    found = []
    for step in steps:
        at += step
        found.extend(pieces.next_until(at))
    assert found == whole.tolist()
    assert np.all(np.diff(whole) >= 0)
    assert _arrivals(kind, seed).take(len(whole)).tolist() == whole.tolist()


def test_another_seed_is_another_sequence_and_services_are_not_arrivals():
    assert arrival_times(5, "poisson", 1.0, seed=1).tolist() != arrival_times(5, "poisson", 1.0, seed=2).tolist()
    gaps = np.diff(arrival_times(10_001, "poisson", 1.0, seed=7))
    assert abs(np.corrcoef(gaps, service_times(10_000, "exponential", 1.0, seed=7))[0, 1]) < 0.05


def test_a_changed_rate_holds_from_now_on_and_a_pause_is_made_up_for_by_nobody():
    arrivals = Arrivals("constant", 1.0)
    assert arrivals.next_until(2.5).tolist() == [1.0, 2.0]
    arrivals.change_rate(2.0)  # half of the interval has passed
    assert arrivals.next_until(3.5).tolist() == [2.75, 3.25]
    arrivals.change_rate(0.0)
    assert arrivals.next_until(10.0).tolist() == []
    assert (arrivals.rate_per_s, arrivals.now_s) == (0.0, 10.0)
    arrivals.change_rate(1.0)
    assert arrivals.next_until(12.0).tolist() == [10.5, 11.5]


@pytest.mark.parametrize("kind", ["poisson", "mmpp", "constant"])
def test_the_rate_after_a_change_is_the_new_one(kind):
    arrivals = Arrivals(kind, 10.0, seed=3, burst_length_s=0.05)
    assert len(arrivals.next_until(1000.0)) == pytest.approx(10_000, rel=0.06)
    arrivals.change_rate(30.0)
    assert len(arrivals.next_until(2000.0)) == pytest.approx(30_000, rel=0.06)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Arrivals("poison", 1.0), "no arrivals 'poison'; did you mean 'poisson'"),
        (lambda: Arrivals("poisson", -1.0), "rate_per_s must be >= 0 and finite, got -1; 0 is a pause"),
        (lambda: Arrivals("poisson", math.inf), "rate_per_s .* got inf"),
        (lambda: Arrivals("poisson"), "poisson arrivals need rate_per_s >= 0, got none"),
        (lambda: Arrivals("poisson", 1.0, times_s=[1.0]), "poisson arrivals take no times_s"),
        (lambda: Arrivals("poisson", 1.0, seed=-1), "seed must be a whole number >= 0"),
        (
            lambda: Arrivals("mmpp", 1.0, burst_ratio=1.0),
            "burst_ratio must be > 1 and finite, got 1; .* without bursts: poisson",
        ),
        (lambda: Arrivals("mmpp", 1.0, burst_frac=0.0), "burst_frac must be > 0"),
        (lambda: Arrivals("mmpp", 1.0, burst_frac=1.0), "bursts all the time are poisson"),
        (lambda: Arrivals("mmpp", 1.0, burst_length_s=0.0), "burst_length_s must be > 0"),
        (lambda: Arrivals("trace"), "a trace needs arrival times, got none; give times_s in seconds"),
        (lambda: Arrivals("trace", times_s=[]), "a trace needs arrival times, got none"),
        (
            lambda: Arrivals("trace", times_s=[1.0, 3.0, 2.0]),
            "must be sorted, got 2 after 3 at position 2; sort the trace",
        ),
        (lambda: Arrivals("trace", times_s=[1.0, math.nan]), "got nan; a missing time must be filled in"),
        (lambda: Arrivals("trace", times_s=[-1.0, 2.0]), "arrival times must be >= 0"),
        (lambda: Arrivals("trace", times_s=[0.0]), "a trace needs a length"),
        (lambda: Arrivals("poisson", 0.0).take(1), "no arrivals to take: rate_per_s is 0"),
        (lambda: arrival_times(-1, "poisson", 1.0), "count must be a whole number >= 0"),
        (lambda: Arrivals("poisson", 1.0).change_rate(-2.0), "rate_per_s must be >= 0"),
    ],
)
def test_arrivals_refuse_and_say_why(make, says):
    with pytest.raises(ModelInputError, match=says):
        make()


def test_time_does_not_go_back():
    arrivals = Arrivals("poisson", 1.0)
    arrivals.next_until(5.0)
    with pytest.raises(ModelInputError, match="t_s must be >= 5 and finite, got 4"):
        arrivals.next_until(4.0)


# --- services ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "scv"),
    [
        ("deterministic", 0.0),
        ("gamma", 0.25),
        ("gamma", 0.7),
        ("exponential", 1.0),
        ("hyperexponential", 2.0),
        ("hyperexponential", 9.0),
    ],
)
def test_services_have_the_moments_they_were_asked_for(kind, scv):
    times = service_times(400_000, kind, 0.02, scv=scv, seed=6)
    assert times.mean() == pytest.approx(0.02, rel=0.015)
    assert times.var() / times.mean() ** 2 == pytest.approx(scv, rel=0.04, abs=1e-12)
    assert ServiceTimes(kind, 0.02, scv=scv).scv == scv
    assert service_kind(scv) == kind


def test_both_branches_of_a_hyperexponential_carry_half_of_the_work():
    times, share = service_times(400_000, "hyperexponential", 1.0, scv=9.0, seed=1), (1 + math.sqrt(0.8)) / 2
    for t in (0.1, 1.0, 5.0, 20.0):
        longer = share * math.exp(-2 * share * t) + (1 - share) * math.exp(-2 * (1 - share) * t)
        assert np.mean(times > t) == pytest.approx(longer, abs=4 * math.sqrt(longer / 400_000))


@settings(max_examples=30)
@given(st.sampled_from(sorted(SERVICE_KINDS)), st.lists(st.integers(0, 40), max_size=12))
def test_services_come_the_same_in_any_pieces(kind, counts):
    trace = [3.0, 1.0, 2.0] if kind == "trace" else None
    pieces = ServiceTimes(kind, None if trace else 2.0, seed=9, times_s=trace)
    found = [x for count in counts for x in pieces.take(count)]
    assert found == service_times(sum(counts), kind, None if trace else 2.0, seed=9, times_s=trace).tolist()


def test_a_trace_of_services_goes_round_and_may_be_scaled():
    services = ServiceTimes("trace", times_s=[1.0, 2.0, 3.0])
    assert services.take(5).tolist() == [1, 2, 3, 1, 2]
    services.change(4.0)
    assert services.take(2).tolist() == [6, 2]
    assert services.scv == pytest.approx(1 / 6)


def test_a_changed_mean_holds_for_the_next_draws():
    services = ServiceTimes("gamma", 1.0, seed=2)
    services.take(10)
    services.change(5.0, 0.1)
    later = services.take(100_000)
    assert later.mean() == pytest.approx(5.0, rel=0.01)
    assert later.var() / later.mean() ** 2 == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ServiceTimes("exponentail", 1.0), "did you mean 'exponential'"),
        (lambda: ServiceTimes("exponential", 0.0), "mean_s must be > 0 and finite, got 0"),
        (lambda: ServiceTimes("exponential"), "mean_s must be > 0"),
        (
            lambda: ServiceTimes("hyperexponential", 1.0, scv=0.0),
            "scv of hyperexponential service must be > 1, got 0; take det",
        ),
        (lambda: ServiceTimes("gamma", 1.0, scv=0.0), "scv of gamma service must be > 0 and < 1, got 0"),
        (lambda: ServiceTimes("gamma", 1.0, scv=1.0), "exponential for 1"),
        (lambda: ServiceTimes("deterministic", 1.0, scv=0.5), "scv of deterministic service must be 0"),
        (lambda: ServiceTimes("exponential", 1.0, scv=2.0), "scv of exponential service must be 1"),
        (lambda: ServiceTimes("gamma", 1.0, scv=-1.0), "scv must be >= 0"),
        (lambda: ServiceTimes("gamma", 1.0, times_s=[1.0]), "gamma service takes no times_s"),
        (lambda: ServiceTimes("trace"), "a trace needs service times"),
        (lambda: ServiceTimes("trace", times_s=[1.0, math.nan]), "service times must be >= 0 and finite, got nan"),
        (lambda: ServiceTimes("trace", times_s=[0.0, 0.0]), "mean of the service times must be > 0"),
        (lambda: ServiceTimes("trace", scv=2.0, times_s=[1.0]), "a trace has its own variability"),
        (lambda: ServiceTimes("exponential", 1.0).take(1.5), "count must be a whole number"),
        (lambda: service_kind(-1.0), "scv must be >= 0"),
    ],
)
def test_services_refuse_and_say_why(make, says):
    with pytest.raises(ModelInputError, match=says):
        make()
