"""Memory against what others measured: nvidia-smi and PyTorch peaks, micro-batches that fitted, and one that did not."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiinfra_widgets.models.transformer import Plan, Transformer
from aiinfra_widgets.models.transformer.memory import fits, memory_per_rank

ROWS = list(csv.DictReader((Path(__file__).parents[3] / "data" / "published.csv").open(newline="")))
GIB = 2**30
#: Shapes that the rows do not print: Llama 3.1 8B (its model card); nanotron's scripts/scaling_benchmarks.py.
LLAMA = Transformer(
    layers=32, hidden=4096, heads=32, kv_heads=8, seq_len=8192, vocab=128256, ffn=14336, gated=True, tied=False
)
SHAPES = {
    "Llama-3.1-8B": LLAMA,
    "nanotron-3.57B": Transformer(layers=28, hidden=3072, heads=32, seq_len=4096, vocab=131072, ffn=8192, gated=True),
    "nanotron-8.86B": replace(LLAMA, kv_heads=32, seq_len=4096, vocab=131072),
}


def model_of(row):
    if row["model"] in SHAPES:
        return SHAPES[row["model"]]
    return Transformer(**{k: int(row[k]) for k in ("layers", "hidden", "heads", "vocab")}, seq_len=int(row["seq"]))


def plan_of(row, *, flash):
    return Plan(
        **{f"{k}_size": int(row[k]) for k in ("dp", "tp", "pp", "cp")},
        micro_batch_size=int(row["micro_batch"]),
        global_batch_size=int(row["global_batch"]),
        zero_stage=int(row["zero_stage"]),
        recompute=row["recompute"] or "none",
        precision=row["precision"],
        flash_attention=flash,
    )


def memory_errors():
    """Return (id, relative error); "GB" is read as printed, the reading is nvidia-smi's or PyTorch's peak reserved."""
    found = {}
    for row in (r for r in ROWS if r["kind"] == "memory"):
        got = memory_per_rank(model_of(row), plan_of(row, flash=not row["id"].startswith("bloom")))
        predicted = got.device_bytes if "nvidia-smi" in row["unit"] else got.reserved_bytes
        found[row["id"]] = float(predicted) / (float(row["value"]) * (GIB if row["unit"] == "GiB" else 1e9)) - 1
    return found


def test_published_memory():
    errors = memory_errors()
    assert len(errors) >= 17
    assert np.mean(np.abs(list(errors.values()))) < 0.06
    assert max(map(abs, errors.values())) < 0.20, max(errors.items(), key=lambda item: abs(item[1]))


def test_bloom_grows_with_the_micro_batch_as_measured():
    # Rows 776 and 777 differ in the micro-batch (4, 6) alone: 55 and 66 GB.
    by_id = {row["id"]: row for row in ROWS}
    small, large = (
        memory_per_rank(model_of(r), plan_of(r, flash=False)).device_bytes
        for r in (by_id["bloomtopo-776-mem"], by_id["bloomtopo-777-mem"])
    )
    assert large - small == pytest.approx(11e9, rel=0.1)


def foundry():
    return [r for r in ROWS if r["source"].startswith("MosaicML") and r["kind"] == "perf"]


def ratio(row, times=1):
    """Return predicted over installed memory at `times` the row's micro-batch."""
    plan = plan_of(row, flash=True)
    bigger = replace(
        plan, micro_batch_size=times * plan.micro_batch_size, global_batch_size=times * plan.global_batch_size
    )
    capacity = (40 if "40GB" in row["accelerator"] else 80) * GIB
    fit = fits(model_of(row), bigger, capacity, fused_loss=True)
    return 1 - float(fit.spare_bytes) / capacity


def test_every_published_micro_batch_of_llm_foundry_fits():
    # Their trainer's loss is one fused kernel. Each row ran, so each must fit.
    rows = foundry()
    assert len(rows) >= 60
    assert max((ratio(row), row["id"]) for row in rows)[0] <= 1


def test_llm_foundrys_micro_batches_were_nearly_the_largest():
    # They chose the micro-batch to fill the device: twice as much fits on few rows, four times on hardly any.
    rows = foundry()
    assert np.mean([ratio(row, 2) > 1 for row in rows]) > 0.7
    assert np.mean([ratio(row, 4) > 1 for row in rows]) > 0.95


def test_bloom_without_a_pipeline_runs_out_of_memory():
    # BigScience, tr11-176B prequel, 25 February 2022: 48 replicas of tp 8, pp 1, micro-batch 1 on A100 80 GB: out of memory.
    model = Transformer(layers=72, hidden=14336, heads=64, seq_len=2048, vocab=250680)
    plan = Plan(
        dp_size=48,
        tp_size=8,
        micro_batch_size=1,
        global_batch_size=2016,
        zero_stage=1,
        recompute="full",
        precision="fp16",
    )
    assert not fits(model, plan, 80 * GIB).fits
    assert fits(model, plan, 80 * GIB).binds in ("weights_bytes", "gradients_bytes")


def test_thirteen_billion_parameters_on_one_v100_each_need_zero_2():
    # Rajbhandari et al. 2020: ZeRO-2 trains 13 billion on 128 V100 of 32 GB without model parallelism, plain replicas stop at 1.4.
    # Layers and width here are ours: 12.7 billion parameters.
    model = Transformer(layers=62, hidden=4096, heads=32, seq_len=1024, vocab=50257)
    plan = Plan(dp_size=128, micro_batch_size=2, global_batch_size=256, recompute="full", precision="fp16")
    assert fits(model, replace(plan, zero_stage=2), 32 * GIB).fits
    assert not fits(model, plan, 32 * GIB).fits
    assert not fits(replace(model, layers=48, hidden=2048), plan, 32 * GIB).fits  # 2.5 billion
