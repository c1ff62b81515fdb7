"""The simulation: hand cases, laws that hold for every sequence, agreement with formulas and with an independent simulator."""

import math

import ciw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    RequestOutcome,
    arrival_times,
    erlang_b,
    md1_wait_s,
    mdc_wait_s,
    mg1_wait_s,
    mm1_wait_s,
    mmc_response_percentile_s,
    mmc_shared_cores_response_s,
    mmc_shared_cores_wait_s,
    mmc_wait_s,
    mmck_queue_length,
    mmck_rejected_frac,
    mmck_wait_s,
    service_times,
    simulate_queue,
)

OK, REJECTED, TIMED_OUT, UNFINISHED = RequestOutcome
NAN = math.nan


def _interval(values, batches=20):
    """99 % confidence interval of a stationary mean, by batch means: neighbours in a queue are not independent."""
    means = np.array([part.mean() for part in np.array_split(np.asarray(values), batches)])
    half = stats.t.ppf(0.995, batches - 1) * means.std(ddof=1) / math.sqrt(batches)
    return means.mean() - half, means.mean() + half


def _overlap(a, b):
    return a[0] <= b[1] and b[0] <= a[1]


def _run(rate, kind="exponential", count=20_000, *, seed=1, **rules):
    arrivals = arrival_times(count, "poisson", rate, seed=seed)
    result = simulate_queue(arrivals, service_times(count, kind, 1.0, seed=seed), **rules)
    return result.after(float(arrivals[count // 20]))


# --- by hand ----------------------------------------------------------------------------------------------------------
HAND = [
    pytest.param([0, 1, 2], [2, 2, 2], {}, [0, 2, 4], [2, 4, 6], [0, 0, 0], [OK] * 3, id="one-server-in-order"),
    pytest.param([0, 1, 2], [4, 4, 1], {"num_servers": 2}, [0, 1, 4], [4, 5, 5], [0, 1, 0], [OK] * 3, id="two-servers"),
    pytest.param([0, 5, 9], [1, 1, 1], {"num_servers": 2}, [0, 5, 9], [1, 6, 10], [0, 1, 0], [OK] * 3, id="idle-longest-first"),
    pytest.param(
        [0, 1, 2], [9, 1, 1], {"num_servers": 2, "dispatch": "round-robin"},
        [0, 1, 9], [9, 2, 10], [0, 1, 0], [OK] * 3, id="round-robin-does-not-look",
    ),
    pytest.param(
        [0, 1, 2], [9, 1, 1], {"num_servers": 2, "dispatch": "shortest-queue"},
        [0, 1, 2], [9, 2, 3], [0, 1, 1], [OK] * 3, id="shortest-queue-does",
    ),
    pytest.param(
        [0, 1, 2, 3], [5, 1, 1, 1], {"queue_limit": 1},
        [0, 5, NAN, NAN], [5, 6, 2, 3], [0, 0, -1, -1], [OK, OK, REJECTED, REJECTED], id="a-full-queue-rejects",
    ),
    pytest.param(
        [0, 1], [10, 1], {"timeout_s": 3.0},
        [NAN, NAN], [3, 4], [-1, -1], [TIMED_OUT, TIMED_OUT], id="clients-give-up-in-service-and-the-server-works-on",
    ),
    pytest.param(
        [0, 1, 2], [10, 2, 1], {"timeout_s": 9.5, "timeout_in_service": False},
        [0, 10, NAN], [10, 12, 11.5], [0, 0, -1], [OK, OK, TIMED_OUT], id="only-who-waits-leaves",
    ),
    pytest.param(
        [0, 1, 2, 3, 4], [1] * 5, {"batching": "fixed", "max_batch": 2, "batch_base_s": 3.0},
        [1, 1, 6, 6, NAN], [6, 6, 11, 11, NAN], [0, 0, 0, 0, -1], [OK] * 4 + [UNFINISHED], id="fixed-waits-for-full",
    ),
    pytest.param(
        [0, 1, 2, 9], [1, 1, 1, 1], {"batching": "dynamic", "max_batch": 4, "batch_wait_s": 1.5},
        [1.5, 1.5, 3.5, 10.5], [3.5, 3.5, 4.5, 11.5], [0] * 4, [OK] * 4, id="dynamic-waits-for-its-deadline",
    ),
    pytest.param(
        [0, 1, 2, 3], [4, 1, 1, 1], {"batching": "dynamic", "max_batch": 2, "batch_wait_s": 0.0},
        [0, 4, 4, 6], [4, 6, 6, 7], [0] * 4, [OK] * 4, id="greedy-takes-what-waits",
    ),
    pytest.param(
        [0, 0], [1, 1], {"num_servers": 2, "slow_server": 1, "slow_factor": 3.0},
        [0, 0], [1, 3], [0, 1], [OK] * 2, id="a-slow-server",
    ),
    pytest.param(
        [0, 0], [1, 3], {"num_servers": 2, "num_cores": 1},
        [0, 0], [2, 4], [0, 1], [OK] * 2, id="two-servers-share-a-core",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arrivals", "services", "rules", "start", "end", "server", "outcome"), HAND)
def test_hand_computed(arrivals, services, rules, start, end, server, outcome):
    result = simulate_queue(arrivals, services, **rules)
    begun = np.where(result.outcome == OK, result.start_s, NAN)
    want = np.where(np.array(outcome) == OK, np.array(start, dtype=float), NAN)
    np.testing.assert_allclose(begun, want, atol=1e-12)
    np.testing.assert_allclose(result.end_s, end, atol=1e-12)
    assert result.server.tolist() == server
    assert result.outcome.tolist() == outcome


def test_work_in_vain_occupies_the_server():
    result = simulate_queue([0, 1, 12], [10, 1, 1], timeout_s=3.0)
    assert result.busy.tolist() == [[0, 0, 10], [0, 12, 13]]
    assert result.utilization == pytest.approx(10 / 12)


def test_a_retry_comes_back_and_counts_from_its_first_arrival():
    result = simulate_queue([0, 1], [2, 1], queue_limit=0, retry_budget_frac=1.0, backoff_s=2.0)
    assert result.outcome.tolist() == [OK, OK]
    assert result.tries.tolist() == [1, 2]
    assert 2.0 <= result.start_s[1] <= 4.0  # one to three seconds after it was rejected
    assert result.response_s[1] == pytest.approx(result.end_s[1] - 1)
    gave_up = simulate_queue([0, 1], [1e6, 1], queue_limit=0, retry_budget_frac=2.0, max_tries=3)
    assert gave_up.tries.tolist() == [1, 3]
    assert gave_up.outcome.tolist() == [OK, REJECTED]


def test_averages_by_hand():
    result = simulate_queue([0, 1, 2, 8], [2, 2, 2, 1])
    assert result.mean_wait_s == pytest.approx((0 + 1 + 2 + 0) / 4)
    assert result.mean_response_s == pytest.approx((2 + 3 + 4 + 1) / 4)
    assert result.utilization == pytest.approx(6 / 8)
    assert result.queue_length == pytest.approx(3 / 8)
    assert result.throughput_per_s == pytest.approx(3 / 8)
    assert result.within_frac(3.0) == pytest.approx(3 / 4)
    assert result.response_percentile_s(0.5) == pytest.approx(2.5)
    later = result.after(1.5)
    assert later.mean_wait_s == pytest.approx(1.0)
    assert later.utilization == pytest.approx(4.5 / 6.5)
    assert later.queue_length == pytest.approx((0.5 + 1 + 1) / 6.5)


# --- laws of every sequence -------------------------------------------------------------------------------------------
RULES = st.fixed_dictionaries(
    {"num_servers": st.integers(1, 4), "dispatch": st.sampled_from(["central", "round-robin", "random", "shortest-queue", "two-choices"])},
    optional={
        "batching": st.sampled_from(["none", "fixed", "dynamic"]),
        "max_batch": st.integers(1, 5),
        "batch_wait_s": st.floats(0, 3),
        "batch_base_s": st.floats(0, 1),
        "queue_limit": st.integers(5, 9),
        "timeout_s": st.floats(0.1, 9),
        "timeout_in_service": st.booleans(),
        "retry_budget_frac": st.floats(0, 1),
        "slow_factor": st.floats(1, 5),
        "num_cores": st.integers(1, 4),
        "seed": st.integers(0, 9),
    },
)  # fmt: skip
REQUESTS = st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 5)), min_size=1, max_size=60)


@given(REQUESTS, RULES)
def test_nothing_is_lost_and_no_server_does_two_things_at_once(requests, rules):
    gaps, services = np.array(requests).T
    arrivals = np.cumsum(gaps)
    result = simulate_queue(arrivals, services, **rules)
    answered = result.outcome == OK
    assert set(result.outcome.tolist()) <= {OK, REJECTED, TIMED_OUT, UNFINISHED}
    assert (result.server >= 0).tolist() == answered.tolist() == np.isfinite(result.start_s).tolist()
    assert np.all(result.start_s[answered] >= arrivals[answered] - 1e-9)
    assert np.all(result.end_s[answered] - result.start_s[answered] >= services[answered] * (1 - 1e-6) - 1e-9)
    for server in range(rules["num_servers"]):
        mine = result.busy[result.busy[:, 0] == server]
        mine = mine[np.argsort(mine[:, 1])]
        assert np.all(mine[1:, 1] >= mine[:-1, 2] - 1e-9)
    assert (result.tries - 1).sum() <= rules.get("retry_budget_frac", 0) * len(arrivals) + 1e-9
    if rules.get("batching") != "fixed":
        assert not np.any(result.outcome == UNFINISHED)
    if "queue_limit" not in rules:
        assert not np.any(result.outcome == REJECTED)
    again = simulate_queue(arrivals, services, **rules)
    np.testing.assert_array_equal(again.end_s, result.end_s)


@given(REQUESTS, st.integers(1, 4), st.sampled_from(["central", "round-robin", "random"]), st.integers(0, 9))
def test_the_shortcut_and_the_event_loop_are_one_queue(requests, servers, dispatch, seed):
    gaps, services = np.array(requests).T
    rules = {"num_servers": servers, "dispatch": dispatch, "seed": seed, "slow_factor": 2.0, "batch_base_s": 0.5}
    short = simulate_queue(np.cumsum(gaps), services, **rules)
    events = simulate_queue(np.cumsum(gaps), services, queue_limit=10**9, **rules)
    np.testing.assert_allclose(short.start_s, events.start_s, atol=1e-9)
    np.testing.assert_allclose(short.end_s, events.end_s, atol=1e-9)
    assert short.utilization == pytest.approx(events.utilization, abs=1e-9, nan_ok=True)


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(1, 3), st.floats(0.2, 0.9))
def test_little_and_the_utilisation_law(seed, servers, rho):
    count = 4000
    arrivals = arrival_times(count, "poisson", rho * servers, seed=seed)
    services = service_times(count, "exponential", 1.0, seed=seed)
    result = simulate_queue(arrivals, services, num_servers=servers)
    span = arrivals[-1]
    assert result.queue_length * span == pytest.approx(result.wait_s.sum() - np.maximum(result.start_s - span, 0).sum())
    done = np.clip(span - result.start_s, 0, services)
    assert result.utilization * servers * span == pytest.approx(done.sum())


# --- against formulas -------------------------------------------------------------------------------------------------
def test_many_servers_against_erlang():
    result = _run(8.0, num_servers=10, queue_limit=0)
    assert result.share(REJECTED) == pytest.approx(erlang_b(8.0, 1.0, 10), rel=0.06)
    assert result.mean_wait_s == 0


@pytest.mark.parametrize("rho", [0.6, 1.5])
def test_a_finite_queue_against_its_formula(rho):
    result = _run(2 * rho, count=40_000, num_servers=2, queue_limit=4)
    assert result.share(REJECTED) == pytest.approx(mmck_rejected_frac(2 * rho, 1.0, 2, 4), rel=0.08)
    assert result.mean_wait_s == pytest.approx(mmck_wait_s(2 * rho, 1.0, 2, 4), rel=0.05)
    assert result.queue_length == pytest.approx(mmck_queue_length(2 * rho, 1.0, 2, 4), rel=0.05)


def test_servers_on_fewer_cores_against_their_chain():
    result = _run(0.7, count=40_000, num_servers=3, num_cores=1)
    low, high = _interval(result.response_s)
    assert low <= mmc_shared_cores_response_s(0.7, 1.0, 3, 1) <= high
    low, high = _interval(result.wait_s)
    assert low <= mmc_shared_cores_wait_s(0.7, 1.0, 3, 1) <= high


def test_percentiles_against_the_exact_ones():
    quantile = np.array([0.5, 0.95, 0.99])
    seen = [_run(1.4, num_servers=2, count=40_000, seed=s).response_percentile_s(quantile) for s in range(5)]
    assert np.mean(seen, axis=0) == pytest.approx(mmc_response_percentile_s(1.4, 1.0, 2, quantile), rel=0.03)


@pytest.mark.parametrize(("rho", "servers"), [(0.5, 4), (0.8, 8)])
def test_constant_service_of_many_servers_against_its_approximation(rho, servers):
    low, high = _interval(_run(rho * servers, "deterministic", 100_000, num_servers=servers).wait_s)
    assert low * 0.97 <= mdc_wait_s(rho * servers, 1.0, servers) <= high * 1.03


def test_above_capacity_the_queue_grows_and_no_wait_is_negative():
    result = _run(1.5, count=3000)
    thirds = np.array_split(result.wait_s, 3)
    assert thirds[0].mean() < thirds[1].mean() < thirds[2].mean()
    assert result.wait_s.min() >= 0
    assert result.utilization == pytest.approx(1, abs=0.01)


# --- what is better than what -----------------------------------------------------------------------------------------
def test_who_looks_before_choosing_waits_less():
    names = ("random", "round-robin", "two-choices", "shortest-queue", "central")
    waits = {
        name: np.mean([_run(3.2, num_servers=4, dispatch=name, seed=s).mean_wait_s for s in range(3)]) for name in names
    }
    assert waits["random"] > waits["round-robin"] > waits["two-choices"] > waits["shortest-queue"] > waits["central"]
    assert waits["random"] == pytest.approx(mm1_wait_s(0.8, 1.0), rel=0.15)  # four queues that do not know each other


def test_a_slow_server_hurts_most_who_does_not_look():
    rules = {"num_servers": 2, "slow_factor": 2.5, "count": 10_000}
    blind = (
        _run(0.9, dispatch="round-robin", **rules).mean_response_s
        / _run(0.9, dispatch="round-robin", num_servers=2).mean_response_s
    )
    looks = (
        _run(0.9, dispatch="shortest-queue", **rules).mean_response_s
        / _run(0.9, dispatch="shortest-queue", num_servers=2).mean_response_s
    )
    assert blind > 2 * looks > 2


def test_a_retry_budget_bounds_what_retries_add():
    free, tight, none = (
        _run(1.1, timeout_s=4.0, retry_budget_frac=share, max_tries=10, count=8000) for share in (10.0, 0.1, 0.0)
    )
    assert none.tries.max() == 1
    assert tight.tries.mean() <= 1.1 < free.tries.mean()
    assert free.within_frac(4.0) < none.within_frac(4.0)  # a storm of retries


# --- an independent simulator -----------------------------------------------------------------------------------------
HYPER = (1 + math.sqrt(3 / 5)) / 2
SERVICE = {
    "exponential": lambda: ciw.dists.Exponential(1.0),
    "deterministic": lambda: ciw.dists.Deterministic(1.0),
    "hyperexponential": lambda: ciw.dists.HyperExponential([2 * HYPER, 2 * (1 - HYPER)], [HYPER, 1 - HYPER]),
}


def _ciw_waits(rate, kind, servers, count):
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate)],
        service_distributions=[SERVICE[kind]()],
        number_of_servers=[servers],
    )
    ciw.seed(3)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(count, method="Finish")
    records = sorted(simulation.get_all_records(), key=lambda r: r.arrival_date)
    return np.array([r.waiting_time for r in records[count // 20 :]])


@pytest.mark.parametrize("rho", [0.5, 0.7])
@pytest.mark.parametrize(
    ("kind", "servers", "formula"),
    [
        pytest.param("exponential", 1, mm1_wait_s, id="M/M/1"),
        pytest.param("exponential", 2, lambda rate, mu: mmc_wait_s(rate, mu, 2), id="M/M/2"),
        pytest.param("deterministic", 1, md1_wait_s, id="M/D/1"),
        pytest.param("hyperexponential", 1, lambda rate, mu: mg1_wait_s(rate, mu, 4.0), id="M/H2/1"),
    ],
)
def test_formula_simulation_and_ciw_agree(kind, servers, formula, rho):
    theirs = _interval(_ciw_waits(rho * servers, kind, servers, 20_000))
    ours = _interval(_run(rho * servers, kind, 100_000, num_servers=servers).wait_s)
    exact = formula(rho * servers, 1.0)
    assert _overlap(ours, theirs)
    assert ours[0] <= exact <= ours[1]
    assert theirs[0] <= exact <= theirs[1]
    assert ours[1] - ours[0] < 0.35 * exact  # an interval that says something


# --- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: simulate_queue([1, 0], [1, 1]), "arrival_s must be sorted, got 0 after 1 at position 1"),
        (lambda: simulate_queue([], []), "a trace needs arrival_s, got none"),
        (lambda: simulate_queue([0, math.nan], [1, 1]), "arrival_s must be >= 0 and finite, got nan"),
        (lambda: simulate_queue([0, 1], [1]), "each request needs one service time, got 1 for 2 arrivals"),
        (lambda: simulate_queue([0], [-1]), "service_s must be >= 0"),
        (lambda: simulate_queue([0], [1], servers=2), "no rule 'servers'; did you mean 'num_servers'"),
        (lambda: simulate_queue([0], [1], dispatch="jsq"), "no dispatch 'jsq'; known: central"),
        (lambda: simulate_queue([0], [1], batching="full"), "no batching 'full'"),
        (lambda: simulate_queue([0], [1], num_servers=0), "num_servers must be a whole number >= 1"),
        (lambda: simulate_queue([0], [1], max_batch=0), "max_batch"),
        (lambda: simulate_queue([0], [1], queue_limit=-1), "queue_limit"),
        (
            lambda: simulate_queue([0], [1], batching="fixed", max_batch=4, queue_limit=2),
            "a fixed batch must fit into the queue",
        ),
        (lambda: simulate_queue([0], [1], timeout_s=0.0), "None is no timeout"),
        (lambda: simulate_queue([0], [1], slow_server=1), "slow_server must be a whole number >= 0 and <= 0, got 1"),
        (lambda: simulate_queue([0], [1], slow_factor=0.0), "slow_factor must be > 0"),
        (lambda: simulate_queue([0], [1], num_cores=0), "num_cores"),
        (lambda: simulate_queue([0], [1], batch_wait_s=-1.0), "batch_wait_s"),
        (lambda: simulate_queue([0], [1], retry_budget_frac=-1.0), "retry_budget_frac"),
        (lambda: simulate_queue([0], [1], max_tries=0), "max_tries"),
        (lambda: simulate_queue([0], [1], seed=-1), "seed"),
        (lambda: simulate_queue([0], [1]).after(5.0), "no request arrives from 5 s on: the last arrives at 0 s"),
        (lambda: simulate_queue([0], [1]).response_percentile_s(95), "quantile must be >= 0 and <= 1, got 95"),
    ],
)
def test_what_cannot_be_simulated_is_refused_and_says_why(call, says):
    with pytest.raises(ModelInputError, match=says):
        call()


def test_where_nothing_was_answered_there_is_no_mean():
    result = simulate_queue([0.0, 1.0], [5.0, 5.0], timeout_s=1.0)
    assert math.isnan(result.mean_response_s)
    assert math.isnan(result.response_percentile_s(0.5))
    assert result.within_frac(1.0) == 0
    assert result.share(TIMED_OUT) == 1
