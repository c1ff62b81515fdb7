"""Batches and fork-join: exact cases, limits, and how far off the approximations are against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    allen_cunneen_wait_s,
    arrival_times,
    bulk_service_response_s,
    dynamic_batch_response_s,
    dynamic_batch_size,
    fixed_batch_response_s,
    fork_join_lower_s,
    fork_join_response_s,
    fork_join_upper_s,
    mdc_wait_s,
    mm1_response_s,
    service_times,
    simulate_queue,
)

loads = st.floats(0.01, 0.98)


def _simulated(rate, count=40_000, *, base, item, **rules):
    arrivals = arrival_times(count, "poisson", rate, seed=5)
    result = simulate_queue(arrivals, np.full(count, item), batch_base_s=base, **rules)
    return result.after(float(arrivals[count // 20]))


# --- fixed ------------------------------------------------------------------------------------------------------------
def test_batches_of_one_are_no_batches():
    assert fixed_batch_response_s(1.5, 1, 0.2, 0.8, 2) == pytest.approx(allen_cunneen_wait_s(1.5, 1.0, 2, 1.0, 0.0) + 1)
    assert dynamic_batch_response_s(1.5, 1, 0.2, 0.8, 7.0, 2) == pytest.approx(
        allen_cunneen_wait_s(1.5, 1.0, 2, 1.0, 0.0) + 1
    )
    assert dynamic_batch_size(1.5, 1, 0.2, 0.8, 7.0, 2) == 1


def test_a_full_batch_is_waited_for_long_at_low_load_and_forever_without():
    response = fixed_batch_response_s(np.array([0.0, 1e-3, 1.0, 3.9, 4.0]), 4, 0.6, 0.1, 1)
    assert response[0] == math.inf
    assert response[1] == pytest.approx(1500 + 1, rel=1e-3)  # three others at one in a thousand seconds, half of it
    assert response[2] < response[1]
    assert response[3] > response[2]
    assert response[4] == math.inf


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("size", [2, 16])
def test_fixed_batches_are_as_far_off_as_they_say(size, servers):
    for rho in (0.1, 0.5, 0.9):
        rate = rho * servers * size / (1 + 0.5 * size)
        seen = _simulated(rate, base=1.0, item=0.5, num_servers=servers, batching="fixed", max_batch=size)
        error = fixed_batch_response_s(rate, size, 1.0, 0.5, servers) / seen.mean_response_s - 1
        assert -0.01 <= error <= 0.10
        assert seen.mean_batch_size == size


# --- dynamic ----------------------------------------------------------------------------------------------------------
def test_without_load_a_lone_request_waits_for_its_deadline():
    idle = dynamic_batch_response_s(np.array([0.0, 1e-9]), 8, 1.0, 0.2, 0.5, 2)
    assert idle == pytest.approx([1.7, 1.7])
    assert dynamic_batch_size(0.0, 8, 1.0, 0.2, 0.5, 2) == 1


@settings(max_examples=30)
@given(st.floats(0.02, 0.95), st.integers(1, 64), st.floats(0, 10), st.floats(0, 5), st.integers(1, 8))
def test_dynamic_batches_stay_between_one_and_full_and_take_at_least_a_batch_of_one(rho, size, base, wait, servers):
    rate = rho * servers * size / (base + size)
    mean = dynamic_batch_size(rate, size, base, 1.0, wait, servers)
    assert 1 <= mean <= size * (1 + 1e-9)
    assert dynamic_batch_response_s(rate, size, base, 1.0, wait, servers) >= base + 1 - 1e-9
    assert dynamic_batch_response_s(1.001 * rate / rho, size, base, 1.0, wait, servers) == math.inf


@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("size", [2, 32])
@pytest.mark.parametrize("base", [0.1, 10.0])
def test_dynamic_batches_are_as_far_off_as_they_say(base, size, servers):
    for rho, deadline in ((0.3, 0.0), (0.5, 0.5), (0.7, 2.0), (0.9, 0.5)):
        rate, wait_s = rho * servers * size / (base + size), deadline * (base + 1)
        rules = {"num_servers": servers, "batching": "dynamic", "max_batch": size, "batch_wait_s": wait_s}
        seen = _simulated(rate, 20_000, base=base, item=1.0, **rules)
        predicted = dynamic_batch_response_s(rate, size, base, 1.0, wait_s, servers)
        assert predicted == pytest.approx(seen.mean_response_s, rel=0.22)
        assert dynamic_batch_size(rate, size, base, 1.0, wait_s, servers) == pytest.approx(
            seen.mean_batch_size, rel=0.3
        )


# --- bulk service -----------------------------------------------------------------------------------------------------
@given(loads)
def test_bulk_of_one_is_mm1(rho):
    assert bulk_service_response_s(rho, 1.0, 1) == pytest.approx(mm1_response_s(rho, 1.0), rel=1e-9)


def _bulk_chain(load, size, states=400):
    """M/M[1,B]/1 as a chain: idle, or busy with n waiting."""
    flow = np.zeros((states + 1, states + 1))
    flow[0, 1] = load
    for n in range(states):
        if n + 1 < states:
            flow[n + 1, n + 2] = load
        flow[n + 1, max(n - size, 0) + 1 if n else 0] += 1.0
    flow -= np.diag(flow.sum(axis=1))
    equations = flow.T.copy()
    equations[-1] = 1
    p = np.linalg.solve(equations, np.eye(states + 1)[-1])
    return float(np.maximum(np.arange(states + 1) - 1, 0) @ p) / load + 1


@pytest.mark.parametrize(("load", "size"), [(0.3, 2), (1.5, 2), (3.0, 4), (2.0, 100), (6.0, 8)])
def test_bulk_service_is_its_chain(load, size):
    assert bulk_service_response_s(load, 1.0, size) == pytest.approx(_bulk_chain(load, size), rel=1e-6)


def test_bulk_service_carries_less_than_its_limit():
    assert bulk_service_response_s(np.array([3.99, 4.0, 9.0]), 1.0, 4).tolist()[1:] == [math.inf, math.inf]
    assert bulk_service_response_s(0.0, 2.0, 4) == pytest.approx(0.5)


# --- fork and join ----------------------------------------------------------------------------------------------------
def _forked(rho, branches, count=60_000):
    arrivals = arrival_times(count, "poisson", rho, seed=3)
    slowest = np.zeros(count)
    for branch in range(branches):
        part = simulate_queue(arrivals, service_times(count, "exponential", 1.0, seed=100 + branch))
        slowest = np.maximum(slowest, part.end_s - arrivals)
    return slowest[1000:].mean()


@pytest.mark.parametrize("branches", [2, 8, 32])
@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_fork_join_is_simulated_within_five_percent_and_between_its_bounds(rho, branches):
    seen = _forked(rho, branches)
    assert fork_join_response_s(rho, 1.0, branches) == pytest.approx(seen, rel=0.05)
    assert fork_join_lower_s(rho, 1.0, branches) <= seen <= fork_join_upper_s(rho, 1.0, branches)


def test_two_branches_by_hand():
    assert fork_join_response_s(0.5, 1.0, 2) == pytest.approx(11.5 / 8 * 2)
    assert fork_join_upper_s(0.5, 1.0, 2) == pytest.approx(3.0)
    assert fork_join_lower_s(0.1, 1.0, 2) == pytest.approx(1.5)


@given(loads, st.integers(1, 32))
def test_fork_join_lies_between_its_bounds_and_is_one_queue_for_one_branch(rho, branches):
    low, mean, high = (f(rho, 1.0, branches) for f in (fork_join_lower_s, fork_join_response_s, fork_join_upper_s))
    assert low * (1 - 1e-9) <= mean <= high * (1 + 1e-9)
    if branches == 1:
        assert low == pytest.approx(high)
        assert mean == pytest.approx(mm1_response_s(rho, 1.0))


def test_too_many_branches_are_told_where_to_go():
    with pytest.raises(
        ModelInputError, match=r"num_branches must be .* <= 32, got 33; beyond 32 take fork_join_lower_s"
    ):
        fork_join_response_s(0.5, 1.0, 33)
    assert fork_join_upper_s(0.5, 1.0, 1000) > fork_join_lower_s(0.5, 1.0, 1000)
    assert fork_join_response_s(1.0, 1.0, 4) == math.inf


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fixed_batch_response_s(1.0, 0, 1.0, 1.0), "max_batch must be a whole number >= 1 and <= 4096, got 0"),
        (lambda: fixed_batch_response_s(1.0, 2, 0.0, 0.0), "a batch takes some time"),
        (lambda: dynamic_batch_response_s(1.0, 2, 1.0, 1.0, -1.0), "batch_wait_s must be >= 0"),
        (lambda: dynamic_batch_size(1.0, 2, 1.0, 1.0, 0.0, 0), "num_servers"),
        (lambda: bulk_service_response_s(1.0, 1.0, 1.5), "max_batch"),
    ],
)
def test_outside_the_domain_is_refused(call, says):
    with pytest.raises(ModelInputError, match=says):
        call()


def test_dimensions(u):
    fixed = fixed_batch_response_s(90 / u.minute, 4, 600 * u.ms, 0.1 * u.s, 1)
    assert fixed.to("s").magnitude == pytest.approx(fixed_batch_response_s(1.5, 4, 0.6, 0.1, 1))
    dynamic = dynamic_batch_response_s(90 / u.minute, 4, 600 * u.ms, 0.1 * u.s, 200 * u.ms, 2)
    assert dynamic.to("s").magnitude == pytest.approx(dynamic_batch_response_s(1.5, 4, 0.6, 0.1, 0.2, 2))
    bulk = bulk_service_response_s(90 / u.minute, 1 / u.s, 4)
    assert bulk.to("s").magnitude == pytest.approx(bulk_service_response_s(1.5, 1.0, 4))
    for model in (fork_join_lower_s, fork_join_response_s, fork_join_upper_s):
        assert model(30 / u.minute, 1 / u.s, 4).to("s").magnitude == pytest.approx(model(0.5, 1.0, 4))
    assert mdc_wait_s(30 / u.minute, 1 / u.s, 2).check("[time]")
