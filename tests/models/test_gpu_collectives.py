"""Collectives between GPUs: their three terms by hand, their limits and their direction."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.collectives import busbw_bytes_per_s, busbw_factor
from aiinfra_widgets.models.gpu_collectives import (
    COLLECTIVE_PARAMETERS,
    CollectiveParameters,
    gpu_collective_time_s,
    gpu_copy_time_s,
)

COLLECTIVES = ("allreduce", "allgather", "reduce_scatter", "alltoall", "broadcast", "reduce")
#: One second to start, one per hop, one for filling at each root, and all of the link.
ONES = CollectiveParameters(start_s=1, hop_s=1, fill_hops=1, ring_frac=1, switch_frac=1, copy_frac=1)
sizes, ranks, links = st.floats(1, 1e12), st.integers(2, 1024), st.floats(1e9, 1e12)


@pytest.mark.parametrize(
    ("size", "n", "options", "want"),
    [
        pytest.param(8e9, 1, {}, 0, id="one-rank-is-free"),
        pytest.param(0, 4, {}, 1 + 6, id="empty-is-start-and-hops"),
        # 32 bytes over 8 bytes/s on 4 ranks: 1.5 payloads, 6 s; 6 hops; their compromise is the root of 6 * 6.
        pytest.param(32, 4, {}, 1 + 6 + 6 + 6, id="all-reduce"),
        pytest.param(64, 4, {"collective": "allgather"}, 1 + 6 + 6 + 6, id="all-gather-moves-half"),
        pytest.param(32, 4, {"nodes": 2, "fabric_latency_s": 9}, 1 + 24 + 6 + 12, id="two-nodes-two-hops-of-fabric"),
    ],
)
def test_time_by_hand(size, n, options, want):
    assert gpu_collective_time_s(size, n, 8.0, parameters=ONES, **options) == pytest.approx(want)


def test_a_copy_by_hand():
    assert gpu_copy_time_s(16, 8.0, ONES) == 2
    assert gpu_copy_time_s(16, 8.0, replace(ONES, copy_frac=0.5)) == 4


def test_dimensions_of_a_copy(u):
    assert gpu_copy_time_s(8e9 * u.byte, 25e9 * u.byte / u.s).check("[time]")


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_large_array_reaches_the_rings_share_of_the_link(collective):
    time_s = gpu_collective_time_s(1e15, 8, 300e9, collective=collective)
    busbw = busbw_bytes_per_s(collective, 1e15, time_s, 8)
    assert busbw == pytest.approx(300e9 * COLLECTIVE_PARAMETERS.ring_frac, rel=1e-2)
    switched = busbw_bytes_per_s(
        collective, 1e15, gpu_collective_time_s(1e15, 8, 300e9, collective=collective, in_switch=True), 8
    )
    assert switched == pytest.approx(300e9 * COLLECTIVE_PARAMETERS.switch_frac, rel=1e-2)


@given(size=sizes, n=ranks, link=links, collective=st.sampled_from(COLLECTIVES))
@settings(max_examples=50)
def test_it_is_slower_than_the_wire_and_the_start_and_faster_than_twice_their_sum(size, n, link, collective):
    p = COLLECTIVE_PARAMETERS
    wire = size * busbw_factor(collective, n) / (link * p.ring_frac)
    least = p.start_s + 2 * (n - 1) * p.hop_s + wire
    # The root of a product is at most half of the sum: the compromise costs at most so much.
    found = gpu_collective_time_s(size, n, link, collective=collective)
    assert least <= found <= least * (1 + np.sqrt(p.fill_hops) / 2)


@given(size=sizes, n=ranks, link=links, factor=st.floats(1.01, 100))
@settings(max_examples=50)
def test_more_bytes_or_ranks_never_faster_and_a_faster_link_never_slower(size, n, link, factor):
    here = gpu_collective_time_s(size, n, link)
    assert gpu_collective_time_s(size * factor, n, link) > here
    assert gpu_collective_time_s(size, n + 1, link) > here
    assert gpu_collective_time_s(size, n, link * factor) < here
    assert gpu_collective_time_s(size, n, link, in_switch=True) <= here
    assert gpu_collective_time_s(size, n, link, nodes=2, fabric_latency_s=1e-6) > here


def test_arrays_give_what_single_calls_give():
    size, n = np.geomspace(1, 1e9, 7), np.array([[1], [2], [8]])
    found = gpu_collective_time_s(size, n, 300e9)
    want = [[float(gpu_collective_time_s(s, k, 300e9)) for s in size] for k in (1, 2, 8)]
    assert found.tolist() == pytest.approx(np.array(want))
    assert (found[0] == 0).all()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("start_s", 5e-6, 100e-6), ("hop_s", 0.2e-6, 5e-6), ("fill_hops", 0.5, 10), ("ring_frac", 0.6, 1),
        ("switch_frac", 0.8, 1.1), ("copy_frac", 0.7, 1),
    ],
)  # fmt: skip
def test_the_parameters_lie_in_the_ranges_that_their_docstring_gives(name, low, high):
    assert low <= asdict(COLLECTIVE_PARAMETERS)[name] <= high


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param((8, 0, 1e9), "world_size must be a whole number >= 1", id="no-rank"),
        pytest.param((8, 2.5, 1e9), "world_size must be a whole number", id="half-a-rank"),
        pytest.param((-8, 2, 1e9), "size_bytes must be >= 0", id="negative-size"),
        pytest.param((8, 2, 0), "link_bandwidth_oneway_bytes_per_s must be > 0", id="no-link"),
        pytest.param((float("nan"), 2, 1e9), "size_bytes must be", id="not-a-number"),
    ],
)
def test_what_is_no_collective_is_refused(arguments, words):
    with pytest.raises(ModelInputError, match=words):
        gpu_collective_time_s(*arguments)


@pytest.mark.parametrize("options", [{"nodes": 0}, {"fabric_latency_s": -1}], ids=str)
def test_what_is_no_fabric_is_refused(options):
    with pytest.raises(ModelInputError):
        gpu_collective_time_s(8, 2, 1e9, **options)


@pytest.mark.parametrize(("size", "link"), [(-1, 1e9), (1, 0), (1, float("nan"))])
def test_what_is_no_copy_is_refused(size, link):
    with pytest.raises(ModelInputError):
        gpu_copy_time_s(size, link)
