"""Rows of communication: the shipped ones under 15 %, and every reason why one is left out."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from aiinfra_widgets.models.gpu_collectives import COLLECTIVE_PARAMETERS
from aiinfra_widgets.planning import hardware
from aiinfra_widgets.validation.comm_rows import METRICS, predict_comm_row
from aiinfra_widgets.validation.rows import COLUMNS, Row, read, shipped

CELLS = {
    "id": "mine-1", "source": "My lab", "kind": "comm", "model": "all-reduce", "accelerator": "H100-SXM5-80GB",
    "n_accel": "8", "metric": "busbw_GBps", "value": "400", "unit": "GB/s", "notes": "payload 17179869184 bytes",
}  # fmt: skip


def row(**changes):
    return Row("mine.csv:2", dict.fromkeys(COLUMNS, "") | CELLS | changes)


def predicted(**changes):
    value, reason = predict_comm_row(row(**changes))
    assert reason == ""
    return value


@pytest.fixture(scope="module")
def rows():
    return [r for r in read(shipped()) if r["metric"] in METRICS]


def test_shipped_rows_are_all_predicted_within_their_targets(rows):
    errors = {r["id"]: predict_comm_row(r)[0] / r.value - 1 for r in rows}
    busbw = [abs(errors[r["id"]]) for r in rows if r["metric"] == "busbw_GBps"]
    assert len(busbw) >= 20
    assert mean(busbw) < 0.15  # 8 % when this was written
    assert all(abs(errors[r["id"]]) < 0.05 for r in rows if r["metric"] != "busbw_GBps")


def test_a_large_array_on_one_node_is_what_its_link_and_switch_reach():
    link = hardware.cluster("dgx-h100", "bf16").node_bandwidth_oneway_bytes_per_s / 1e9
    assert predicted() == pytest.approx(link * COLLECTIVE_PARAMETERS.switch_frac, rel=0.05)
    # Switches of the generation before do not reduce: a ring.
    link = hardware.cluster("dgx-a100-80gb", "bf16").node_bandwidth_oneway_bytes_per_s / 1e9
    ring = link * COLLECTIVE_PARAMETERS.ring_frac
    assert predicted(accelerator="A100-SXM4-80GB") == pytest.approx(ring, rel=0.05)


def test_more_bytes_are_a_higher_bandwidth_and_no_size_is_a_large_one():
    sizes = [2**n for n in range(10, 35, 4)]
    rates = [predicted(notes=f"payload {size} bytes") for size in sizes]
    assert rates == sorted(rates)
    assert predicted(notes="") == pytest.approx(rates[-1], rel=0.05)


def test_across_nodes_the_fabric_is_the_limit():
    assert predicted(n_accel="16") < predicted()
    assert predicted(n_accel="64", notes="payload 65536 bytes") < predicted(n_accel="16", notes="payload 65536 bytes")


@pytest.mark.parametrize(("generation", "gb_per_s"), [("PCIe 4", 31.5), ("PCIe5", 63.0)])
def test_a_copy_from_the_host_is_the_share_of_its_bus(generation, gb_per_s):
    # 16 lanes of 16 or 32 GT/s in 128b/130b.
    found = predicted(metric="h2d_GBps", notes=f"pinned, {generation}.0 x16")
    assert found == pytest.approx(gb_per_s * COLLECTIVE_PARAMETERS.copy_frac, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"accelerator": "H100-SXM5-80G"}, "did you mean 'h100-sxm5-80gb'", id="unknown-accelerator"),
        pytest.param({"accelerator": ""}, "accelerators", id="no-accelerator"),
        pytest.param({"n_accel": ""}, "n_accel was not published", id="no-devices"),
        pytest.param({"metric": "h2d_GBps", "notes": ""}, "do not say which PCIe generation", id="no-generation"),
        pytest.param({"metric": "h2d_GBps", "notes": "PCIe 9"}, "pcie-9-x16", id="no-such-generation"),
        pytest.param({"n_accel": "1"}, "a collective needs two ranks", id="one-rank"),
    ],
)
def test_what_cannot_be_predicted_says_why_with_its_line(changes, words):
    value, reason = predict_comm_row(row(**changes))
    assert value is None
    assert reason.startswith("mine.csv:2: ")
    assert re.search(words, reason), reason
