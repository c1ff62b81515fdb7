import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets import models
from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models import (
    ALLREDUCE_MODELS,
    algbw_bytes_per_s,
    binomial_broadcast_time_s,
    busbw_bytes_per_s,
    busbw_factor,
    fastest_allreduce,
    halving_doubling_allreduce_time_s,
    point_to_point_time_s,
    recursive_doubling_allreduce_time_s,
    ring_allgather_time_s,
    ring_allreduce_time_s,
    ring_reduce_scatter_time_s,
    tree_allreduce_time_s,
)

ALL = [*ALLREDUCE_MODELS.values(), ring_reduce_scatter_time_s, ring_allgather_time_s, binomial_broadcast_time_s]
sizes, ranks, links, latencies = st.floats(1, 1e12), st.integers(2, 4096), st.floats(1e6, 1e12), st.floats(0, 1e-2)


@pytest.mark.parametrize(
    ("size", "n", "bw", "alpha", "want"),
    [
        pytest.param(8e9, 1, 25e9, 5e-6, 0.0, id="one-rank-is-free"),
        pytest.param(0.0, 4, 25e9, 5e-6, 30e-6, id="empty-message-is-latency-only"),
        pytest.param(4e9, 4, 1e9, 0.0, 6.0, id="four-ranks-move-one-and-a-half-payloads"),
        pytest.param(1e6, 2, 1e9, 1e-3, 3e-3, id="two-ranks-swap-halves-twice"),
    ],
)
def test_ring_hand_computed(size, n, bw, alpha, want):
    assert ring_allreduce_time_s(size, n, bw, alpha) == pytest.approx(want)


# 1 s latency and 1 s payload make the time a count of steps: (latency steps) + (payloads moved).
@pytest.mark.parametrize(
    ("model", "n", "want"),
    [
        pytest.param(tree_allreduce_time_s, 2, 2 + 2, id="tree-2-up-and-down"),
        pytest.param(tree_allreduce_time_s, 5, 6 + 6, id="tree-5-needs-three-levels"),
        pytest.param(tree_allreduce_time_s, 8, 6 + 6, id="tree-8-the-same-three"),
        pytest.param(recursive_doubling_allreduce_time_s, 8, 3 + 3, id="doubling-8"),
        pytest.param(recursive_doubling_allreduce_time_s, 5, 4 + 4, id="doubling-5-folds-to-4-and-back"),
        pytest.param(halving_doubling_allreduce_time_s, 8, 6 + 1.75, id="halving-8-moves-as-little-as-the-ring"),
        pytest.param(halving_doubling_allreduce_time_s, 6, 6 + 3.5, id="halving-6-folds-to-4-and-back"),
        pytest.param(ring_allreduce_time_s, 8, 14 + 1.75, id="ring-8"),
        pytest.param(ring_reduce_scatter_time_s, 8, 7 + 0.875, id="reduce-scatter-8"),
        pytest.param(ring_allgather_time_s, 8, 7 + 0.875, id="allgather-8"),
        pytest.param(binomial_broadcast_time_s, 9, 4 + 4, id="broadcast-9-needs-four-rounds"),
    ],
)
def test_steps_hand_counted(model, n, want):
    assert model(1.0, n, 1.0, 1.0) == pytest.approx(want)


def _rounds_to_reach_everyone(n):
    """Broadcast simulated: each round every rank that knows tells one that does not."""
    known, rounds = 1, 0
    while known < n:
        known, rounds = min(n, 2 * known), rounds + 1
    return rounds


def test_broadcast_rounds_against_a_simulation():
    for n in range(1, 1100):
        assert binomial_broadcast_time_s(0, n, 1, 1.0) == _rounds_to_reach_everyone(n)


def _ring_simulated(n, size, bandwidth, latency):
    """Chunks really go round: count what it takes until every rank holds the sum of all, message by message."""
    holds = [[{r} for _ in range(n)] for r in range(n)]  # holds[rank][chunk] = whose contributions are in it
    time = 0.0
    for phase in range(2):
        for step in range(n - 1):
            sent = [((r - step + phase) % n, holds[r][(r - step + phase) % n]) for r in range(n)]
            for r in range(n):
                chunk, content = sent[r]
                holds[(r + 1) % n][chunk] = content | holds[(r + 1) % n][chunk] if phase == 0 else content
            time += latency + size / n / bandwidth
    assert all(chunk == set(range(n)) for rank in holds for chunk in rank)
    return time


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_ring_against_chunks_that_go_round(n):
    assert ring_allreduce_time_s(1e6, n, 1e9, 1e-5) == pytest.approx(_ring_simulated(n, 1e6, 1e9, 1e-5))


def test_point_to_point_is_latency_plus_size_over_bandwidth():
    assert point_to_point_time_s(np.array([0, 1e9]), 1e9, 0.5) == pytest.approx([0.5, 1.5])


def test_ten_gigabytes_over_a_gigabit_take_eighty_seconds_not_the_articles_eight():
    assert point_to_point_time_s(10e9, 1e9 / 8, 0.0) == pytest.approx(80.0)


@pytest.mark.parametrize("model", ALL)
def test_one_rank_is_free_whatever_the_size(model):
    assert model(1e9, 1, 1e9, 1.0) == 0


@given(sizes, ranks, links)
def test_busbw_recovers_the_link(size, n, bw):
    for name, model in (("allreduce", ring_allreduce_time_s), ("allgather", ring_allgather_time_s)):
        assert busbw_bytes_per_s(name, size, model(size, n, bw, 0.0), n) == pytest.approx(bw)


@given(sizes, ranks, links, latencies)
def test_reduce_scatter_and_allgather_make_an_allreduce(size, n, bw, alpha):
    halves = ring_reduce_scatter_time_s(size, n, bw, alpha) + ring_allgather_time_s(size, n, bw, alpha)
    assert halves == pytest.approx(ring_allreduce_time_s(size, n, bw, alpha))


@given(sizes, ranks, links, latencies)
def test_no_algorithm_beats_both_lower_bounds(size, n, bw, alpha):
    """ceil(log2 n) messages must follow one another, and each link carries 2(n-1)/n payloads or whole ones."""
    for model in ALLREDUCE_MODELS.values():
        assert model(size, n, bw, alpha) >= max(math.ceil(math.log2(n)) * alpha, (n - 1) / n * size / bw) * (1 - 1e-9)


@given(sizes, ranks, links, latencies)
def test_more_bytes_never_take_less_time_nor_more_latency(size, n, bw, alpha):
    for model in ALL:
        assert model(2 * size, n, bw, alpha) >= model(size, n, bw, alpha)
        assert model(size, n, bw, alpha + 1e-3) >= model(size, n, bw, alpha)
        assert model(size, n, bw * 2, alpha) <= model(size, n, bw, alpha)


def test_small_messages_want_few_steps_and_large_ones_few_bytes():
    chosen = fastest_allreduce(np.array([8, 1e9]), 16, 1e9, 1e-5)
    assert chosen.algorithm.tolist() == ["recursive doubling", "halving and doubling"]
    odd = fastest_allreduce(np.array([8, 1e9]), 6, 1e9, 1e-5)
    assert odd.algorithm.tolist() == ["recursive doubling", "ring"]


@given(sizes, ranks, links, latencies)
def test_the_fastest_is_the_least_of_all(size, n, bw, alpha):
    chosen = fastest_allreduce(size, n, bw, alpha)
    assert chosen.time_s == min(m(size, n, bw, alpha) for m in ALLREDUCE_MODELS.values())
    assert ALLREDUCE_MODELS[chosen.algorithm](size, n, bw, alpha) == chosen.time_s


# NVIDIA nccl-tests, doc/PERFORMANCE.md at 03a204a1, "Summary"; here for 8 ranks.
@pytest.mark.parametrize(
    ("collective", "published"),
    [
        ("allreduce", 2 * 7 / 8),
        ("allreduce_in_network", 7 / 9),
        ("reduce_scatter", 7 / 8),
        ("allgather", 7 / 8),
        ("alltoall", 7 / 8),
        ("broadcast", 1),
        ("reduce", 1),
    ],
)
def test_bus_bandwidth_factors_as_nccl_tests_publishes_them(collective, published):
    assert busbw_factor(collective, 8) == published
    assert busbw_factor(collective, np.array([8, 8])).tolist() == [published] * 2


def test_an_unknown_collective_names_the_near_ones():
    with pytest.raises(ModelInputError, match="allreduce"):
        busbw_factor("all_reduce", 4)


@pytest.mark.parametrize(
    "arguments",
    [(1e6, 0, 1e9, 0), (1e6, 2, 0, 0), (1e6, 2, -1, 0), (-1, 2, 1e9, 0), (1e6, 2, 1e9, -1), (math.inf, 2, 1e9, 0)],
    ids=["no-rank", "no-bandwidth", "negative-bandwidth", "negative-size", "negative-latency", "infinite-size"],
)
@pytest.mark.parametrize("model", ALL)
def test_outside_the_domain_is_refused(model, arguments):
    with pytest.raises(ModelInputError):
        model(*arguments)


def test_a_perfect_link_leaves_latency():
    assert ring_allreduce_time_s(1e9, 3, math.inf, 1e-6) == pytest.approx(4e-6)


def test_dimensions(u):
    for model in ALL:
        assert model(8 * u.GB, 6, 25 * u.GB / u.s, 5 * u.us).check("[time]"), model.__name__
    assert models.point_to_point_time_s(8 * u.GB, 25 * u.GB / u.s, 5 * u.us).check("[time]")
    bandwidth = busbw_bytes_per_s("allreduce", 8 * u.GB, 2 * u.s, 4)
    assert bandwidth.to("GB/s").magnitude == pytest.approx(6)
    assert algbw_bytes_per_s(8 * u.GB, 2 * u.s).to("GB/s").magnitude == pytest.approx(4)
