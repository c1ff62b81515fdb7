"""The simple rules that the models must beat, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiinfra_widgets.models.transformer import Accelerator, Cluster, Plan, Transformer
from aiinfra_widgets.validation.baselines import CONSTANT_HFU, baselines, ideal_time_s
from aiinfra_widgets.validation.metrics import Published
from aiinfra_widgets.validation.rows import COLUMNS, Row
from aiinfra_widgets.validation.training_rows import Job

MODEL = Transformer(layers=2, hidden=64, heads=4, seq_len=32, vocab=100)
PLAN = Plan(dp_size=8, global_batch_size=8, recompute="full")
CLUSTER = Cluster(Accelerator(1e9, 0.8, 80e9, 2e9), 8, 1e9, 0.0, 1e9, 0.0)
#: 96 B s l h^2 (1 + s/6h + V/16lh) over eight devices of 1e9 flop/s.
IDEAL_S = 96 * 8 * 32 * 2 * 64**2 * (1 + 32 / (6 * 64) + 100 / (16 * 2 * 64)) / 8e9


def job(source, accelerator, hfu, metric="iter_time_s"):
    """A run that reached this share of the peak."""
    cells = {"id": "x", "source": source, "accelerator": accelerator, "metric": metric}
    row = Row("mine.csv:2", dict.fromkeys(COLUMNS, "") | cells)
    published = Published(8, 32, 2, 64, 100, 8, 1e9)
    return Job(row, MODEL, PLAN, CLUSTER, published, IDEAL_S / hfu)


def test_the_ideal_time_is_all_operations_at_the_full_peak():
    assert ideal_time_s(job("a", "A100", 0.5)) == pytest.approx(IDEAL_S)
    plain = replace(job("a", "A100", 0.5), plan=replace(PLAN, recompute="none"))
    assert ideal_time_s(plain) < IDEAL_S


def test_the_rules_by_hand():
    # Shares: A100 0.5 (source a) and 0.25 (source b); H100 0.4 (source b).
    jobs = [job("a", "A100", 0.5), job("b", "A100", 0.25), job("b", "H100", 0.4)]
    constant, device, source = baselines(jobs)
    # 0.45 for all: time off by share / 0.45 - 1.
    want = [abs(share / CONSTANT_HFU - 1) for share in (0.5, 0.25, 0.4)]
    assert (constant.fitted, constant.rows, constant.held_out_mape) == (0, 3, None)
    assert constant.mape == pytest.approx(100 * sum(want) / 3)
    # A100: the median of its two is 0.375; H100 has its own.
    assert (device.name, device.fitted) == ("constant HFU per accelerator", 2)
    assert device.mape == pytest.approx(100 * (abs(0.5 / 0.375 - 1) + abs(0.25 / 0.375 - 1) + 0) / 3)
    # Left out: a has b's A100 only, b's A100 has a's, b's H100 has no other and takes all of a's.
    left = [0.5 / 0.25 - 1, 1 - 0.25 / 0.5, 1 - 0.4 / 0.5]
    assert device.held_out_mape == pytest.approx(100 * sum(left) / 3)
    # Source b: the median of 0.25 and 0.4 is 0.325.
    assert (source.fitted, source.held_out_mape) == (2, None)
    assert source.mape == pytest.approx(100 * (0 + (1 - 0.25 / 0.325) + (0.4 / 0.325 - 1)) / 3)


def test_rows_of_one_layer_are_not_steps():
    steps = [job("a", "A100", 0.5), job("b", "A100", 0.25)]
    assert baselines([*steps, job("c", "A100", 0.9, metric="layer_fwd_ms")]) == baselines(steps)
    assert baselines([job("c", "A100", 0.9, metric="layer_fwd_ms")]) == []
    assert baselines([]) == []


def test_a_single_row_is_predicted_by_itself_and_left_out_by_the_constant():
    _, device, source = baselines([job("a", "A100", 0.5)])
    assert device.mape == source.mape == pytest.approx(0)
    assert device.held_out_mape == pytest.approx(100 * (0.5 / CONSTANT_HFU - 1))


def test_containers_of_one_product_are_one_source():
    names = [f"NVIDIA Megatron-Bridge ({n} Container)" for n in ("25.09", "25.11")]
    assert baselines([job(n, "H100", 0.4) for n in names])[2].fitted == 1
