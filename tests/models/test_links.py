"""A measured link: its table, its line, and the three stages of an all-reduce over hosts, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.links import MeasuredLink, hierarchical_allreduce_time_s

#: 1 ms and 100 MB/s, without noise.
SIZES = np.array([1e3, 1e5, 1e6, 1e7])
NETWORK = MeasuredLink.from_points(zip(SIZES, 1e-3 + SIZES / 1e8, strict=True))
MEMORY = MeasuredLink.from_points([(1e3, 1e-6), (1e6, 1e-3)])


def test_a_link_without_noise_gives_its_latency_and_bandwidth_back():
    assert NETWORK.line.alpha_s == pytest.approx(1e-3, rel=1e-3)
    assert 1 / NETWORK.line.beta_s_per_byte == pytest.approx(1e8, rel=1e-3)
    assert NETWORK.bandwidth_oneway_bytes_per_s == pytest.approx(1e8)


@pytest.mark.parametrize(
    ("size", "want_s"),
    [
        pytest.param(1e6, 11e-3, id="measured"),
        pytest.param(0, 1.01e-3, id="below-is-the-smallest"),
        pytest.param(3e7, 301e-3, id="beyond-at-the-last-bandwidth"),
        pytest.param(np.sqrt(1e5 * 1e6), np.sqrt(2e-3 * 11e-3), id="halfway-in-logs"),
    ],
)
def test_time_of_a_message(size, want_s):
    assert NETWORK.time_s(size) == pytest.approx(want_s)
    assert NETWORK.time_s(np.array([size, size])) == pytest.approx([want_s, want_s])


def test_three_stages_by_hand():
    # 4 ranks on each of 3 hosts, 3 MB: two rounds of a tree up and down at 3 ms, and four messages of 1 MB at 11 ms.
    assert hierarchical_allreduce_time_s(3e6, 3, 4, MEMORY, NETWORK) == pytest.approx(4 * 3e-3 + 4 * 11e-3)
    assert hierarchical_allreduce_time_s(3e6, 1, 1, MEMORY, NETWORK) == 0.0
    assert hierarchical_allreduce_time_s(1e6, 1, 2, MEMORY, NETWORK) == pytest.approx(2e-3)
    # Adding takes 1 ns a byte: in each round inside, and n - 1 times a share of the ring.
    added_s = hierarchical_allreduce_time_s(3e6, 3, 4, MEMORY, NETWORK, 1e-9) - (4 * 3e-3 + 4 * 11e-3)
    assert added_s == pytest.approx(2 * 3e-3 + 2 * 1e-3)


def test_what_is_no_link_is_refused():
    with pytest.raises(ModelInputError, match="two sizes at least, got 1"):
        MeasuredLink.from_points([(8, 1e-6)])
    with pytest.raises(ModelInputError, match="time_s"):
        MeasuredLink.from_points([(8, 0.0), (16, 1e-6)])
    with pytest.raises(ModelInputError, match="size_bytes"):
        NETWORK.time_s(-1)
