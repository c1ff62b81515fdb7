"""Training with the GPU: the same loss as on the processor, staged through the host or by NCCL, with live changes."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.gpu
CLOSE = {"rel": 1e-2, "abs": 1e-4}


@pytest.mark.parametrize("nodes", [1, 2])
def test_ranks_that_share_a_gpu_train_like_the_processor(lab, curve, nodes):
    on_gpu = lab.done(device="cuda", nodes=nodes)
    assert curve(on_gpu) == pytest.approx(curve(lab.done(nodes=nodes)), **CLOSE)
    assert on_gpu.ticks["gpu_memory_bytes"].min() > 0


def test_the_state_on_a_gpu_is_exact_over_live_changes(lab, curve):
    changes = ["step=10 nodes=2", "step=20 learning_rate=0.02", "step=25 checkpoint", "step=30 nodes=1"]
    assert curve(lab.done(changes, device="cuda")) == pytest.approx(curve(lab.done(changes)), **CLOSE)


def test_each_rank_with_a_gpu_of_its_own_sums_by_nccl(lab, curve):
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, found {torch.cuda.device_count()}")
    assert curve(lab.done(device="cuda", nodes=2)) == pytest.approx(curve(lab.done(nodes=2)), **CLOSE)


@pytest.mark.parametrize(
    "plan",
    [
        {"nodes": 2, "tp_size": 2},
        {"nodes": 2, "pp_size": 2, "num_microbatches": 2},
        {"nodes": 2, "zero_stage": 3},
        {"nodes": 4, "tp_size": 2, "pp_size": 2, "num_microbatches": 2, "recompute": True},
    ],
    ids=str,
)
def test_plans_of_ranks_that_share_a_gpu_train_like_the_processor(lab, curve, plan):
    work = {"workload": "gpt-char", "global_batch": 8, "steps": 12, "learning_rate": 1e-3}
    assert curve(lab.done(device="cuda", **work, **plan)) == pytest.approx(curve(lab.done(**work)), **CLOSE)


def test_16_bits_and_a_compiled_net_on_a_gpu_stay_near(lab, curve):
    work = {"workload": "gpt-char", "global_batch": 8, "steps": 12, "learning_rate": 1e-3, "device": "cuda"}
    exact = curve(lab.done(**work))
    assert curve(lab.done(precision="bf16", **work)) == pytest.approx(exact, rel=3e-2)
    assert curve(lab.done(precision="bf16", compile=True, **work)) == pytest.approx(exact, rel=3e-2)


@pytest.mark.parametrize("plan", [{"tp_size": 2}, {"pp_size": 2, "num_microbatches": 4}, {"zero_stage": 3}], ids=str)
def test_plans_by_nccl_where_each_rank_has_a_gpu(lab, curve, plan):
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, found {torch.cuda.device_count()}")
    work = {"workload": "gpt-char", "global_batch": 8, "steps": 12, "learning_rate": 1e-3}
    on_gpus = lab.done(device="cuda", transport="nccl", nodes=2, **work, **plan)
    assert curve(on_gpus) == pytest.approx(curve(lab.done(**work)), **CLOSE)
