"""Rows of training steps as jobs: what a row says by hand, why others are left out, and that they are predicted together."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aiinfra_widgets.models.transformer import PARAMETERS, predict_step
from aiinfra_widgets.models.transformer.compute import layer_time
from aiinfra_widgets.models.transformer.work import step_flop
from aiinfra_widgets.validation.metrics import LAYER_METRICS, STEP_METRICS
from aiinfra_widgets.validation.rows import COLUMNS, Row, read, shipped
from aiinfra_widgets.validation.training_rows import (
    METRICS,
    UNITS,
    Batch,
    UnexpressedError,
    express,
    express_plan,
    expressed,
    predict_times_s,
)

SC21 = {
    "id": "mine-1", "source": "Narayanan et al. 2021 (SC21)", "kind": "perf", "model": "GPT-145B", "layers": "80",
    "hidden": "12288", "heads": "96", "seq": "2048", "vocab": "51200", "global_batch": "2304", "micro_batch": "2",
    "accelerator": "A100-SXM4-80GB", "n_accel": "1536", "tp": "8", "pp": "8", "dp": "24", "vpp": "2",
    "zero_stage": "0", "recompute": "full", "precision": "fp16", "metric": "hw_tflops_per_accel", "value": "148",
    "unit": "TFLOP/s",
}  # fmt: skip
LLAMA = {
    **SC21, "source": "My lab", "model": "Llama-3.1-8B", "layers": "", "hidden": "", "heads": "", "vocab": "",
    "seq": "8192", "global_batch": "64", "micro_batch": "1", "accelerator": "H100-SXM5-80GB", "n_accel": "64",
    "tp": "1", "pp": "1", "dp": "", "vpp": "", "zero_stage": "3", "recompute": "", "precision": "bf16",
    "metric": "tokens_per_s_per_accel", "value": "6000", "unit": "tokens/s",
}  # fmt: skip


def row(cells=SC21, **changes):
    return Row("mine.csv:2", dict.fromkeys(COLUMNS, "") | cells | changes)


@pytest.fixture(scope="module")
def jobs():
    return expressed(read(shipped()))[0]


def test_a_row_of_sc21_by_hand():
    job = express(row())
    model, plan, cluster = job.model, job.plan, job.cluster
    assert (model.layers, model.hidden, model.heads, model.kv_heads, model.ffn) == (80, 12288, 96, 96, 4 * 12288)
    assert (plan.dp_size, plan.tp_size, plan.pp_size, plan.cp_size, plan.world_size) == (24, 8, 8, 1, 1536)
    assert (plan.num_microbatches, plan.interleave, plan.schedule) == (48, 2, "interleaved")
    assert (plan.recompute, plan.precision, plan.zero_stage) == ("full", "fp16", 0)
    assert not plan.flash_attention
    assert plan.split_p2p
    assert cluster.accelerator.peak_flops == 312e12
    assert cluster.per_node == 8
    # Equation 3 by hand: 96 B s l h^2 (1 + s/6h + V/16lh) over devices and their rate.
    flop = 96 * 2304 * 2048 * 80 * 12288**2 * (1 + 2048 / (6 * 12288) + 51200 / (16 * 80 * 12288))
    assert job.time_s == pytest.approx(flop / (1536 * 148e12))


def test_a_row_by_name_takes_its_shape_from_the_catalog():
    job = express(row(LLAMA))
    assert (job.model.layers, job.model.kv_heads, job.model.ffn, job.model.vocab) == (32, 8, 14336, 128256)
    assert job.model.gated
    assert not job.model.tied
    assert job.plan.dp_size == 64  # what is left of n_accel
    assert job.time_s == pytest.approx(64 * 8192 / (6000 * 64))
    assert job.cluster.accelerator.is_newer


def test_what_a_row_prints_comes_before_the_catalog():
    assert express(row(LLAMA, layers="16", vocab="32000")).model.layers == 16
    other = express(row(LLAMA, hidden="2048", heads="16", layers="16", vocab="32000")).model
    assert (other.kv_heads, other.ffn) == (
        16,
        4 * 2048,
    )  # another width is another model: nothing of the catalog's is kept


def test_a_shape_that_is_not_the_formulas_counts_its_own_operations():
    job = express(row(LLAMA, metric="mfu_pct", value="40", unit="%"))
    assert job.time_s == pytest.approx(
        step_flop(job.model, job.plan)[0] / (0.4 * 64 * job.cluster.accelerator.peak_flops)
    )


@pytest.mark.parametrize(
    ("changes", "field", "want"),
    [
        pytest.param({"notes": "torch.compile"}, "compiled", True, id="compiled"),
        pytest.param({"recompute": "selective+SP", "tp": "8", "dp": "8"}, "sequence_parallel", True, id="SP"),
        pytest.param({"recompute": "selective+SP", "tp": "8", "dp": "8"}, "recompute", "selective", id="selective"),
        pytest.param({"source": "llm-foundry"}, "attention_kernel", "flash_ported", id="ported-to-hopper"),
        pytest.param({}, "attention_kernel", "flash_native", id="of-its-years"),
        pytest.param({"tp": "2", "dp": "32"}, "sequence_parallel", True, id="megatron-core-does"),
        pytest.param({}, "sequence_parallel", False, id="not-without-tensor-parallelism"),
        pytest.param({"precision": "fp8-cs"}, "precision", "fp8", id="spelling"),
    ],
)
def test_what_the_software_did(changes, field, want):
    assert getattr(express(row(LLAMA, **changes)).plan, field) == want


def test_zero_3_of_sc21_ran_on_one_card_per_ring():
    assert not express(row(zero_stage="3", tp="1", pp="1", dp="1536", vpp="", global_batch="3072")).plan.multi_rail
    assert express(row()).plan.multi_rail


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"accelerator": "A100-SXM4-80"},
            "no 'A100-SXM4-80' .*did you mean 'a100-sxm4-80gb'",
            id="unknown-accelerator",
        ),
        pytest.param({"accelerator": "Abacus"}, "'Abacus'", id="no-accelerator-at-all"),
        pytest.param({"accelerator": ""}, "accelerator was not published", id="no-accelerator-given"),
        pytest.param({"tp": "64", "dp": "3"}, "heads / tp_size must be .*tp_size that divides the heads", id="heads"),
        pytest.param({"tp": "5"}, "dp 24 x tp 5 x pp 8 x cp 1 is 960, not the 1536 of n_accel", id="product"),
        pytest.param({"dp": "", "tp": "5"}, "tp 5 x pp 8 x cp 1 does not divide the 1536 accelerators", id="not-whole"),
        pytest.param({"global_batch": ""}, "global_batch was not published", id="no-batch"),
        pytest.param({"n_accel": "", "micro_batch": ""}, "n_accel, micro_batch was not published", id="both"),
        pytest.param({"global_batch": "2305"}, "whole number of micro-batches", id="batch-does-not-divide"),
        pytest.param({"pp": "128", "tp": "1", "dp": "12"}, "no more stages than layers", id="stages"),
        pytest.param({"precision": "int3"}, "no precision 'int3'; did you mean 'int8'", id="precision"),
        pytest.param({"precision": "fp8"}, "a100-sxm4-80gb has no peak rate in fp8; it has", id="no-such-unit-in-it"),
        pytest.param({"recompute": "some"}, "recompute must be one of none, selective, full, got 'some'", id="word"),
        pytest.param({"hidden": ""}, "hidden of 'GPT-9T' was not published, and the catalog lacks it", id="shape"),
        pytest.param({"model": "BERT-Large"}, "sequences are of many lengths", id="uneven"),
        pytest.param({"model": "llama2_70b_LoRA"}, "LoRA trains adapters", id="lora"),
        pytest.param({"unit": "GFLOP/s"}, "hw_tflops_per_accel is given in 'GFLOP/s'; write it in TFLOP/s", id="unit"),
        pytest.param({"metric": "iter_time_s", "unit": "ms"}, "iter_time_s is given in 'ms'; write it in s", id="ms"),
        pytest.param({"value": "0"}, "0 TFLOP/s is no usable hw_tflops_per_accel", id="nothing-done"),
        pytest.param({"metric": "time_to_train_min"}, "is no metric of a training step", id="another-metric"),
    ],
)
def test_what_cannot_be_expressed_says_why_with_its_line(changes, words):
    changes = {"model": "GPT-9T"} | changes
    with pytest.raises(UnexpressedError) as refused:
        express(row(**changes))
    assert str(refused.value).startswith("mine.csv:2: ")
    assert re.search(words, str(refused.value)), str(refused.value)


def test_a_file_of_good_and_bad_rows_gives_jobs_and_reasons_and_leaves_other_metrics_alone():
    rows = [row(), row(id="bad", accelerator="Abacus"), row(id="zero", value="0"), row(id="other", metric="busbw_GBps")]
    found, reasons = expressed(rows)
    assert [j.row["id"] for j in found] == ["mine-1"]
    assert set(reasons) == {"bad", "zero"}
    assert expressed([]) == ([], {})


def test_the_plan_of_a_row_needs_no_performance_metric():
    model, plan, cluster = express_plan(row(metric="mem_peak_gb", unit="GB"))
    assert (model.layers, plan.world_size, cluster.per_node) == (80, 1536, 8)


def test_together_gives_what_each_row_gives_alone(jobs):
    together = predict_times_s(jobs, PARAMETERS)
    for job, time_s in list(zip(jobs, together, strict=True))[::5]:
        assert predict_times_s([job], PARAMETERS)[0] == pytest.approx(time_s)
        if job.row["metric"] not in LAYER_METRICS:
            one = predict_step(job.model, job.plan, job.cluster, PARAMETERS)
            assert one.step_time_s == pytest.approx(time_s)


def test_rows_of_one_layer_are_compared_with_one_layer(jobs):
    layers = [j for j in jobs if j.row["metric"] in LAYER_METRICS]
    assert layers
    for job, time_s in zip(layers, Batch(layers).predict(PARAMETERS), strict=True):
        alone = layer_time(job.model, job.plan, job.cluster.accelerator, PARAMETERS)
        arithmetic = alone.forward_s if job.row["metric"] == "layer_fwd_ms" else alone.backward_s
        assert arithmetic < time_s < 2 * arithmetic  # with its tensor-parallel traffic
        assert job.time_s == pytest.approx(job.row.value / 1e3)


def test_every_metric_has_its_unit_and_every_shipped_row_carries_it():
    assert set(UNITS) == set(METRICS) == {*STEP_METRICS, *LAYER_METRICS}
    for found in read(shipped()):
        if found["metric"] in METRICS:
            assert found["unit"].split()[0] in UNITS[found["metric"]], found.where


def test_most_shipped_rows_are_expressed_and_every_other_says_why(jobs):
    rows = [r for r in read(shipped()) if r["metric"] in METRICS]
    reasons = expressed(rows)[1]
    assert len(jobs) + len(reasons) == len(rows)
    assert len(jobs) >= 150
    assert all(re.match(r"published\.csv:\d+: .{20}", reason) for reason in reasons.values())
    assert np.isfinite(Batch(jobs).time_s).all()
