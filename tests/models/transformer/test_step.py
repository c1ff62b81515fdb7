"""The time of a step: its parts, its limits, its direction, and many plans at once."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer import (
    PARAMETERS,
    PARTS,
    Accelerator,
    Cluster,
    Plan,
    StepPrediction,
    Transformer,
    predict_step,
)
from aiinfra_widgets.models.transformer.pipeline import plan_bubble_frac
from aiinfra_widgets.models.transformer.plan import KERNELS, PRECISION_BYTES, RECOMPUTE

GPT = Transformer(layers=24, hidden=2048, heads=16, seq_len=2048, vocab=51200)
A100 = Accelerator(312e12, 0.8, 80e9, 2e12)
DGX = Cluster(A100, 8, 300e9, 3e-6, 25e9, 6e-6)
#: No loss but arithmetic: memory and links without limit, no host in the way.
IDEAL = Cluster(replace(A100, memory_bandwidth_bytes_per_s=1e60), 8, np.inf, 0.0, np.inf, 0.0)
PLAIN = replace(PARAMETERS, layer_overhead_s=0.0)
DEVICE_FIELDS = ("peak_flops", "achievable_frac", "memory_bandwidth_bytes_per_s")
LINK_FIELDS = (
    "node_bandwidth_oneway_bytes_per_s", "fabric_bandwidth_oneway_bytes_per_s", "node_latency_s", "fabric_latency_s",
)  # fmt: skip

flags = st.booleans()
models = st.builds(
    lambda stages, width, kv, seq, gated, experts, tied: Transformer(
        layers=8 * stages, hidden=1024 * width, heads=16, kv_heads=kv, seq_len=seq, vocab=32000, gated=gated,
        experts=experts, active_experts=min(2, experts), tied=tied,
    ),
    st.integers(1, 8), st.integers(1, 8), st.sampled_from([1, 4, 16]), st.sampled_from([512, 4096, 32768]),
    flags, st.sampled_from([1, 8]), flags,
)  # fmt: skip
plans = st.builds(
    lambda dp, tp, pp, cp, micro, count, chunks, **words: Plan(
        dp_size=dp, tp_size=tp, pp_size=pp, cp_size=cp, micro_batch_size=micro, global_batch_size=dp * micro * count * pp,
        interleave=chunks if pp > 1 else 1, schedule="interleaved" if chunks > 1 and pp > 1 else "1f1b", **words,
    ),
    *[st.sampled_from(n) for n in ([1, 3, 8, 64], [1, 2, 8], [1, 2, 8], [1, 2], [1, 4], [1, 2, 8], [1, 2])],
    zero_stage=st.integers(0, 3), shard_size=st.sampled_from([0, 1]), sequence_parallel=flags,
    recompute=st.sampled_from(RECOMPUTE), flash_attention=flags, precision=st.sampled_from(["bf16", "fp16", "fp8"]),
    compiled=flags, attention_kernel=st.sampled_from(KERNELS), overlap_tensor=flags, overlap_pipeline=flags,
    overlap_grad_reduce=flags, split_p2p=flags, multi_rail=flags,
)  # fmt: skip


def step_time_s(model, plan, cluster=DGX, parameters=PARAMETERS):
    return float(predict_step(model, plan, cluster, parameters).step_time_s)


def stacked(objects):
    """One object of arrays from many of the same kind."""
    kind = type(objects[0])
    return kind(**{f.name: np.array([getattr(o, f.name) for o in objects]) for f in fields(kind)})


@given(models, plans)
@settings(max_examples=50)
def test_parts_add_up_and_none_is_negative(model, plan):
    found = predict_step(model, plan, DGX)
    parts = [float(getattr(found, part)) for part in PARTS]
    assert min(parts) >= 0
    assert found.step_time_s == pytest.approx(sum(parts))
    assert found.exposed_comm_time_s == pytest.approx(sum(parts[2:7]))
    assert found.exposed_comm_time_s <= found.comm_time_s * (1 + 1e-9)
    assert found.tokens_per_s * found.step_time_s == pytest.approx(plan.global_batch_size * model.seq_len)
    assert found.mfu * found.step_time_s * 312e12 * plan.world_size == pytest.approx(found.model_flop)
    assert found.hfu / found.mfu == pytest.approx(found.hardware_flop / found.model_flop)
    assert 0 < found.mfu <= found.hfu


@given(models, st.integers(0, 3), st.sampled_from(RECOMPUTE), flags)
@settings(max_examples=20)
def test_one_rank_communicates_nothing_and_never_waits(model, zero_stage, recompute, flag):
    plan = Plan(
        zero_stage=zero_stage, recompute=recompute, sequence_parallel=flag, split_p2p=flag, flash_attention=flag
    )  # fmt: skip
    found = predict_step(model, plan, DGX)
    assert (found.comm_time_s, found.exposed_comm_time_s, found.bubble_time_s) == (0, 0, 0)
    assert found.step_time_s == pytest.approx(found.compute_time_s + found.optimizer_time_s)


@given(st.lists(st.tuples(models, plans), min_size=2, max_size=5))
@settings(max_examples=40)
def test_arrays_give_what_single_calls_give(jobs):
    together = predict_step(stacked([m for m, _ in jobs]), stacked([p for _, p in jobs]), DGX)
    alone = [predict_step(m, p, DGX) for m, p in jobs]
    for name in (*[f.name for f in fields(StepPrediction)], "step_time_s", "exposed_comm_time_s"):
        want = [float(getattr(one, name)) for one in alone]
        assert np.broadcast_to(getattr(together, name), len(jobs)).tolist() == pytest.approx(want), name


def test_a_sweep_over_one_field_broadcasts():
    found = predict_step(GPT, Plan(dp_size=np.array([[1], [2]]), tp_size=np.array([1, 2, 4]), global_batch_size=2), DGX)
    assert found.step_time_s.shape == (2, 3)
    assert found.step_time_s[1, 2] == step_time_s(GPT, Plan(dp_size=2, tp_size=4, global_batch_size=2))


@given(models, plans, st.sampled_from(DEVICE_FIELDS))
@settings(max_examples=50)
def test_a_faster_device_is_never_slower(model, plan, field):
    better = replace(A100, **{field: 1.2 * getattr(A100, field), "peak_16bit_flops": None})
    assert step_time_s(model, plan, replace(DGX, accelerator=better)) <= step_time_s(model, plan)


@given(models, plans, st.sampled_from(LINK_FIELDS), st.floats(1.01, 100))
@settings(max_examples=50)
def test_a_better_link_is_never_slower(model, plan, field, factor):
    better = getattr(DGX, field) * (factor if "bandwidth" in field else 1 / factor)
    assert step_time_s(model, plan, replace(DGX, **{field: better})) <= step_time_s(model, plan) * (1 + 1e-12)


@given(models, plans, st.sampled_from(["layers", "hidden", "vocab", "seq_len", "ffn"]), st.integers(2, 3))
@settings(max_examples=50)
def test_a_larger_model_is_never_faster(model, plan, grown, factor):
    changes = {grown: factor * getattr(model, grown)}
    if grown == "hidden":
        changes["head_size"] = factor * model.head_size
    assert step_time_s(replace(model, **changes), plan) > step_time_s(model, plan)


@given(models, plans)
@settings(max_examples=50)
def test_more_recomputation_is_never_faster(model, plan):
    none, selective, full = (step_time_s(model, replace(plan, recompute=word)) for word in RECOMPUTE)
    assert none < selective <= full * (1 + 1e-12)


@given(models, plans, st.sampled_from(["overlap_tensor", "overlap_pipeline", "overlap_grad_reduce", "multi_rail"]))
@settings(max_examples=40)
def test_hiding_or_widening_communication_is_never_slower(model, plan, switch):
    off, on = (step_time_s(model, replace(plan, **{switch: value})) for value in (False, True))
    assert on <= off * (1 + 1e-12)


@given(models, plans, st.integers(2, 4))
@settings(max_examples=40)
def test_a_larger_batch_takes_longer_but_less_than_in_proportion(model, plan, factor):
    small = step_time_s(model, plan)
    large = step_time_s(model, replace(plan, global_batch_size=factor * plan.global_batch_size))
    assert small < large <= factor * small * (1 + 1e-12)


@given(models, plans)
@settings(max_examples=40)
def test_the_bubble_is_the_schedules_share_of_what_a_stage_does(model, plan):
    found = predict_step(model, replace(plan, zero_stage=0, overlap_grad_reduce=True), IDEAL, PLAIN)
    assert found.comm_time_s == 0
    want = (plan.pp_size - 1) / (plan.num_microbatches * plan.interleave)
    assert found.bubble_time_s == pytest.approx(want * found.compute_time_s)
    assert plan_bubble_frac(plan) == pytest.approx(want)


@given(models, plans)
@settings(max_examples=40)
def test_without_memory_and_links_hfu_is_what_the_best_product_reaches(model, plan):
    # Fused attention skips what a mask hides, and the router's product is left out: unfused and dense here.
    model = replace(model, experts=1, active_experts=1)
    plain = replace(plan, flash_attention=False, pp_size=1, interleave=1, schedule="1f1b", precision="bf16")
    found = predict_step(model, plain, IDEAL, PLAIN)
    assert found.hfu == pytest.approx(0.8)
    assert found.step_time_s == pytest.approx(found.compute_time_s)


@pytest.mark.parametrize("precision", PRECISION_BYTES)
def test_a_step_on_one_device_by_hand(precision):
    # No memory, no links: 2 x 2048 tokens, 24 layers of 24 h^2 + 4 s h, a head of 2 h V, three times over.
    device = replace(IDEAL.accelerator, is_newer=True)
    plan = Plan(micro_batch_size=2, global_batch_size=4, precision=precision)
    found = predict_step(GPT, plan, replace(IDEAL, accelerator=device), PLAIN)
    weights, scores, head = 24 * 24 * 2048**2, 24 * 4 * 2048 * 2048, 2 * 2048 * 51200
    slow = PARAMETERS.fp8_rate_frac if precision == "fp8" else 1
    flop = 3 * 4 * 2048 * (weights / slow + scores + head)
    assert found.step_time_s == pytest.approx(flop / (312e12 * 0.8 * PARAMETERS.newer_rate_frac))


def test_the_update_by_hand():
    model = replace(GPT, layers=8)
    found = predict_step(model, Plan(dp_size=8, global_batch_size=8), DGX)
    want = PARAMETERS.optimizer_bytes * model.parameters / (2e12 * PARAMETERS.memory_frac)
    assert found.optimizer_time_s == pytest.approx(want, rel=1e-4)  # the last norm is not counted
    shared = predict_step(model, Plan(dp_size=8, global_batch_size=8, zero_stage=1), DGX)
    assert shared.optimizer_time_s == pytest.approx(found.optimizer_time_s / 8)


def test_gathers_are_hidden_behind_arithmetic_until_they_are_longer():
    plan = Plan(dp_size=64, global_batch_size=64, zero_stage=3, recompute="full")
    quick, slow = (predict_step(GPT, plan, replace(DGX, fabric_bandwidth_oneway_bytes_per_s=bw)) for bw in (25e9, 25e6))
    assert quick.comm_time_s < quick.compute_time_s
    assert quick.exposed_dp_comm_time_s == pytest.approx(PARAMETERS.hidden_comm_cost * quick.comm_time_s)
    assert slow.comm_time_s > slow.compute_time_s
    want = slow.comm_time_s - (1 - PARAMETERS.hidden_comm_cost) * slow.compute_time_s
    assert slow.exposed_dp_comm_time_s == pytest.approx(want)


def test_context_is_hidden_behind_arithmetic_until_it_is_longer():
    # A vocabulary of one: all arithmetic is in the layers, behind which keys and values travel.
    model, plan = replace(GPT, vocab=1, seq_len=32768), Plan(cp_size=8)
    cost = PARAMETERS.overlapped_comm_cost
    quick, slow = (
        predict_step(model, plan, replace(DGX, node_bandwidth_oneway_bytes_per_s=bw)) for bw in (300e9, 300e6)
    )
    for found, hidden in ((quick, True), (slow, False)):
        context_s = found.comm_time_s - found.exposed_dp_comm_time_s
        assert (context_s < found.compute_time_s) == hidden
        want = cost * context_s if hidden else context_s - (1 - cost) * found.compute_time_s
        assert found.exposed_cp_comm_time_s == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "plan", "words"),
    [
        pytest.param(GPT, Plan(tp_size=3), "tp_size that divides the heads", id="heads"),
        pytest.param(GPT, Plan(pp_size=48), "no more stages than layers", id="stages"),
        pytest.param(GPT, Plan(ep_size=4), "ep_size that divides the experts", id="experts"),
        pytest.param(GPT, Plan(tp_size=np.array([1, 3])), "tp_size that divides the heads", id="one-of-an-array"),
    ],
)
def test_what_cannot_be_spread_is_refused(model, plan, words):
    with pytest.raises(ModelInputError, match=words):
        predict_step(model, plan, DGX)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        pytest.param(A100, {"peak_flops": 0}, "peak_flops must be > 0 .*check the catalog row", id="no-peak"),
        pytest.param(A100, {"achievable_frac": 1.2}, "achievable_frac must be > 0 and <= 1", id="more-than-the-peak"),
        pytest.param(A100, {"memory_bandwidth_bytes_per_s": -1}, "got -1", id="negative-bandwidth"),
        pytest.param(DGX, {"per_node": 0}, "per_node must be a whole number", id="empty-node"),
        pytest.param(DGX, {"fabric_bandwidth_oneway_bytes_per_s": 0}, "must be > 0", id="no-fabric"),
        pytest.param(DGX, {"node_latency_s": -1e-6}, "node_latency_s must be >= 0", id="negative-latency"),
    ],
)
def test_what_is_no_machine_is_refused(kind, change, words):
    with pytest.raises(ModelInputError, match=words):
        replace(kind, **change)
