"""Memory of the fullest rank: formulas as printed by their authors, and what must hold for every plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer import Plan, Transformer
from aiinfra_widgets.models.transformer.memory import MEMORY_PARAMETERS, PARTS, MemoryParameters, fits, memory_per_rank
from aiinfra_widgets.models.transformer.memory_activations import layer_activations, micro_batches_in_flight
from aiinfra_widgets.models.transformer.memory_states import (
    ElementBytes,
    StageParameters,
    stage_parameters,
    state_bytes,
)

GPT3 = Transformer(layers=96, hidden=12288, heads=96, seq_len=2048, vocab=51200)
LLAMA = Transformer(
    layers=32, hidden=4096, heads=32, kv_heads=8, seq_len=8192, vocab=128256, ffn=14336, gated=True, tied=False
)
MOE = replace(LLAMA, experts=8, active_experts=2)


@pytest.mark.parametrize(
    ("plan", "per_sbh"),
    [
        pytest.param(Plan(), 34 + 80, id="equation-1-alone"),
        pytest.param(Plan(tp_size=8), 10 + 24 / 8 + 80 / 8, id="equation-2-tensor-parallel"),
        pytest.param(Plan(tp_size=8, sequence_parallel=True), (34 + 80) / 8, id="equation-4-sequence-parallel"),
        pytest.param(Plan(recompute="selective"), 34, id="selective"),
        pytest.param(Plan(tp_size=8, sequence_parallel=True, recompute="selective"), 34 / 8, id="equation-6-selective"),
        pytest.param(Plan(recompute="full"), 2, id="full"),
        pytest.param(Plan(flash_attention=True), 34, id="flash-never-writes-the-scores"),
        pytest.param(Plan(cp_size=4, flash_attention=True), 34 / 4, id="context-parallel"),
    ],
)
def test_activations_as_korthikanti_prints_them(plan, per_sbh):
    # Korthikanti et al. 2022, table 2, for GPT-3: 5 a s / h = 5 * 96 * 2048 / 12288 = 80.
    assert layer_activations(GPT3, plan, 2, dropout=True).kept == pytest.approx(per_sbh * 2048 * 1 * 12288)


@pytest.mark.parametrize(
    ("zero_stage", "gb"),
    [
        pytest.param(0, 120, id="none"),
        pytest.param(1, 31.4, id="os"),
        pytest.param(2, 16.6, id="os+g"),
        pytest.param(3, 1.9, id="os+g+p"),
    ],
)
def test_states_as_zero_prints_them(zero_stage, gb):
    # Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, 64 replicas, fp16 and Adam.
    plan = Plan(dp_size=64, global_batch_size=64, zero_stage=zero_stage, precision="fp16")
    states = state_bytes(StageParameters(7.5e9, 0, 0, 0), plan, ElementBytes.of(plan))
    assert (states.weights + states.gradients + states.optimizer) / 1e9 == pytest.approx(gb, abs=0.06)


@pytest.mark.parametrize(
    ("precision", "zero_stage", "bytes_per_parameter"),
    [
        pytest.param("fp16", 0, 16, id="fp16"),
        pytest.param("bf16", 0, 18, id="bf16-adds-gradients-in-fp32"),
        pytest.param("fp32", 0, 16, id="fp32-needs-no-master"),
        pytest.param("bf16", 3, 16, id="fsdp-gathers-from-the-master"),
    ],
)
def test_bytes_per_parameter(precision, zero_stage, bytes_per_parameter):
    plan = Plan(precision=precision, zero_stage=zero_stage)
    states = state_bytes(StageParameters(1e9, 0, 0, 0), plan, ElementBytes.of(plan))
    assert states.weights + states.gradients + states.optimizer == pytest.approx(bytes_per_parameter * 1e9)


def test_hybrid_sharding_shards_within_its_group():
    plan = Plan(dp_size=64, global_batch_size=64, zero_stage=3, shard_size=8)
    states = state_bytes(StageParameters(8e9, 0, 0, 0), plan, ElementBytes.of(plan))
    assert states.weights + states.gradients + states.optimizer == pytest.approx(16 * 1e9)


@pytest.mark.parametrize(
    ("plan", "first", "last"),
    [
        pytest.param({"schedule": "gpipe", "global_batch_size": 8}, 8, 8, id="gpipe-all-of-them"),
        pytest.param({"schedule": "1f1b", "global_batch_size": 8}, 4, 1, id="1f1b-the-stages-behind"),
        pytest.param({"schedule": "1f1b", "global_batch_size": 2}, 2, 1, id="no-more-than-there-are"),
        pytest.param({"schedule": "interleaved", "interleave": 2, "global_batch_size": 8}, 5.5, 2.5, id="interleaved"),
        pytest.param({"schedule": "zero_bubble", "global_batch_size": 8}, 4, 4, id="zero-bubble-is-level"),
    ],
)
def test_micro_batches_in_flight(plan, first, last):
    # Four stages. Interleaved as Korthikanti et al. print it: L (1 + 3 / (4 * 2)) layers' worth, L = 4 stages.
    assert micro_batches_in_flight(Plan(pp_size=4, **plan)) == (first, last)


def test_parameters_of_the_stages_are_the_models():
    # One stage holds all; with as many stages as two, the tied embedding is on both ends.
    alone = stage_parameters(LLAMA, Plan(), first=True)
    assert alone.held == pytest.approx(LLAMA.parameters, rel=1e-5)
    ends = [stage_parameters(GPT3, Plan(pp_size=2, global_batch_size=2), first=first).held for first in (True, False)]
    assert sum(ends) == pytest.approx(GPT3.parameters + GPT3.embedding_parameters, rel=1e-5)


def test_logits_of_the_last_stage_are_the_peak():
    # 2 * 8192 tokens * 128256 entries * 12 bytes = 25.2 GB; with a fused loss 4 bytes.
    plan = Plan(micro_batch_size=2, global_batch_size=2, recompute="full", flash_attention=True)
    assert memory_per_rank(LLAMA, plan).logits_bytes == pytest.approx(25.216e9, rel=1e-3)
    assert memory_per_rank(LLAMA, plan, fused_loss=True).logits_bytes == pytest.approx(25.216e9 / 3, rel=1e-3)
    split = replace(plan, pp_size=2, global_batch_size=16)
    assert memory_per_rank(LLAMA, split).on_last_stage
    assert not memory_per_rank(LLAMA, plan).on_last_stage
    assert not memory_per_rank(LLAMA, replace(split, pp_size=8, recompute="none")).on_last_stage


BOUNDARY = 2 * 8192 * 4096  # bytes of LLAMA's residual stream for one sequence


@pytest.mark.parametrize(
    ("model", "plan", "want"),
    [
        pytest.param(LLAMA, Plan(pp_size=2, global_batch_size=2), 2 * BOUNDARY, id="received-activation-and-gradient"),
        pytest.param(LLAMA, Plan(tp_size=2, sequence_parallel=True), BOUNDARY, id="the-gathered-sequence"),
        pytest.param(LLAMA, Plan(tp_size=2), 0, id="all-reduce-in-place"),
        pytest.param(
            LLAMA, Plan(cp_size=2, zero_stage=3), 2 * 2 * (2 * 8192 / 2 * 8 * 128), id="two-blocks-of-keys-and-values"
        ),
        pytest.param(
            MOE,
            Plan(dp_size=8, global_batch_size=8, ep_size=8, zero_stage=3),
            2 * 2 * BOUNDARY,
            id="tokens-to-two-experts",
        ),
        pytest.param(LLAMA, Plan(dp_size=2, global_batch_size=2), 0.75 * 2 * LLAMA.parameters, id="bucketed-gradients"),
    ],
)
def test_buffers(model, plan, want):
    assert memory_per_rank(model, plan).communication_bytes == pytest.approx(want, rel=1e-5)


def test_a_stage_keeps_what_it_sent():
    # Two stages of 16 layers, two micro-batches in flight, full recomputation: 16 inputs and one output each.
    plan = Plan(pp_size=2, global_batch_size=8, recompute="full", flash_attention=True)
    got = memory_per_rank(replace(LLAMA, vocab=1000), plan)
    assert not got.on_last_stage
    assert got.activations_bytes == pytest.approx(2 * 17 * BOUNDARY)


def test_experts_shard_over_what_expert_parallelism_leaves():
    plan = Plan(dp_size=64, global_batch_size=64, ep_size=8, zero_stage=1)
    states = state_bytes(StageParameters(64e6, 8e6, 0, 0), plan, ElementBytes.of(plan))
    assert states.optimizer == pytest.approx(12 * (1e6 + 1e6))


def test_experts_are_spread_and_each_token_passes_two():
    whole, spread = (memory_per_rank(MOE, Plan(dp_size=8, global_batch_size=8, ep_size=ep)) for ep in (1, 8))
    experts = MOE.layers * MOE.experts * MOE.expert_parameters
    assert whole.weights_bytes - spread.weights_bytes == pytest.approx(2 * experts * 7 / 8)
    dense, moe = (layer_activations(m, Plan(flash_attention=True), 2).kept for m in (LLAMA, MOE))
    tokens = MOE.seq_len
    assert moe - dense == pytest.approx(2 * tokens * (4 * MOE.ffn + 2 * 2 * MOE.hidden))


@st.composite
def plans(draw):
    dp, mb = draw(st.sampled_from([1, 2, 8, 32])), draw(st.integers(1, 8))
    return Plan(
        dp_size=dp,
        tp_size=draw(st.sampled_from([1, 2, 4, 8])),
        pp_size=draw(st.sampled_from([1, 2, 4])),
        cp_size=draw(st.sampled_from([1, 2])),
        micro_batch_size=mb,
        global_batch_size=dp * mb * draw(st.integers(1, 16)),
        zero_stage=draw(st.integers(0, 3)),
        schedule=draw(st.sampled_from(["gpipe", "1f1b", "zero_bubble"])),
        recompute=draw(st.sampled_from(["none", "selective", "full"])),
        flash_attention=draw(st.booleans()),
        sequence_parallel=draw(st.booleans()),
        precision=draw(st.sampled_from(["fp16", "bf16", "fp8", "fp32"])),
    )


MODELS = st.sampled_from([GPT3, LLAMA, MOE])


@given(MODELS, plans())
def test_parts_add_up(model, plan):
    got = memory_per_rank(model, plan)
    assert all(part >= 0 for part in got.parts().values())
    assert set(got.parts()) == set(PARTS)
    assert sum(got.parts().values()) == pytest.approx(got.total_bytes)
    assert got.allocated_bytes + got.fragmentation_bytes + got.runtime_bytes == pytest.approx(got.device_bytes)
    assert got.allocated_bytes <= got.reserved_bytes <= got.device_bytes
    assert got.parts()[str(got.largest_part)] == max(got.parts().values())


@given(MODELS, plans())
def test_one_rank_needs_no_communication(model, plan):
    alone = replace(plan, dp_size=1, tp_size=1, pp_size=1, cp_size=1)
    got = memory_per_rank(model, replace(alone, global_batch_size=alone.micro_batch_size))
    assert got.communication_bytes == 0
    assert got.gathered_bytes == 0
    assert got.runtime_bytes == MEMORY_PARAMETERS.context_bytes


@given(MODELS, plans())
def test_a_larger_micro_batch_needs_more(model, plan):
    larger = replace(plan, micro_batch_size=2 * plan.micro_batch_size, global_batch_size=2 * plan.global_batch_size)
    assert memory_per_rank(model, larger).total_bytes > memory_per_rank(model, plan).total_bytes


@given(MODELS, plans(), st.sampled_from(["tp_size", "cp_size", "pp_size", "dp_size"]))
def test_more_ranks_hold_no_more_states(model, plan, degree):
    more = replace(plan, **{degree: 2 * getattr(plan, degree), "global_batch_size": 2 * plan.global_batch_size})
    few, many = (memory_per_rank(model, p) for p in (plan, more))
    for part in ("weights_bytes", "gradients_bytes", "optimizer_bytes"):
        assert getattr(many, part) <= getattr(few, part) * (1 + 1e-12)


@given(MODELS, plans())
def test_tensor_parallelism_shrinks_every_tensor(model, plan):
    assume(not plan.sequence_parallel)  # it gathers the whole sequence once, which a single rank need not
    few, many = (memory_per_rank(model, replace(plan, tp_size=t)) for t in (2, 4))
    assert many.allocated_bytes < few.allocated_bytes


@given(MODELS, plans(), st.integers(0, 2))
def test_a_higher_zero_stage_needs_no_more(model, plan, stage):
    plan = replace(plan, dp_size=32, global_batch_size=32 * plan.micro_batch_size)
    lower, higher = (memory_per_rank(model, replace(plan, zero_stage=z)).total_bytes for z in (stage, stage + 1))
    assert higher <= lower * (1 + 1e-12)


@given(MODELS, plans())
def test_recomputing_more_keeps_less(model, plan):
    kept = [memory_per_rank(model, replace(plan, recompute=r)).activations_bytes for r in ("none", "selective", "full")]
    assert kept[0] >= kept[1] >= kept[2]


@given(MODELS, plans(), st.booleans(), st.booleans())
def test_an_array_is_many_scalars(model, plan, dropout, fused):
    # Shape, plan, words and switches all as arrays, against one call for each.
    other = replace(
        plan, tp_size=8, zero_stage=3, recompute="full", precision="bf16", schedule="gpipe", flash_attention=True
    )
    fields = {name: np.array([getattr(plan, name), getattr(other, name)]) for name in Plan.__dataclass_fields__}
    sizes = np.array([[2048], [8192]])
    many = memory_per_rank(replace(model, seq_len=sizes), Plan(**fields), dropout=dropout, fused_loss=fused)
    for row, seq_len in enumerate(sizes[:, 0]):
        for column, one in enumerate((plan, other)):
            got = memory_per_rank(replace(model, seq_len=seq_len), one, dropout=dropout, fused_loss=fused)
            for name in PARTS:
                assert getattr(many, name)[row, column] == pytest.approx(getattr(got, name)), name
            assert many.largest_part[row, column] == got.largest_part


@given(MODELS, plans())
def test_wider_elements_scale_what_is_kept(model, plan):
    half, full = (layer_activations(model, plan, e).kept for e in (2, 4))
    assert full == pytest.approx(2 * half)


@given(MODELS, plans(), st.floats(1e9, 1e13))
def test_fits_says_what_is_left(model, plan, capacity):
    got = fits(model, plan, capacity)
    assert got.fits == (got.prediction.total_bytes <= capacity)
    assert got.spare_bytes == pytest.approx(capacity - got.prediction.total_bytes)
    assert got.binds == got.prediction.largest_part


def test_what_binds_is_named():
    plan = Plan(dp_size=8, global_batch_size=8, recompute="full", flash_attention=True)
    assert fits(LLAMA, plan, 80e9).binds == "optimizer_bytes"
    assert fits(
        LLAMA, replace(plan, recompute="none", zero_stage=3, micro_batch_size=8, global_batch_size=64), 80e9
    ).binds == ("activations_bytes")


def test_another_optimizer():
    # 8-bit Adam with an fp32 master: 4 + 1 + 1 bytes.
    got = memory_per_rank(LLAMA, Plan(), optimizer_bytes_per_parameter=6)
    assert got.optimizer_bytes == pytest.approx(6 * LLAMA.parameters, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "plan", "how", "says"),
    [
        pytest.param(LLAMA, Plan(pp_size=64, global_batch_size=64), {}, "no more stages than layers", id="stages"),
        pytest.param(LLAMA, Plan(pp_size=8, interleave=16, schedule="interleaved"), {}, "fewer chunks", id="chunks"),
        pytest.param(LLAMA, Plan(dp_size=8, global_batch_size=8, ep_size=8), {}, "holds an expert", id="dense-experts"),
        pytest.param(MOE, Plan(ep_size=8), {}, "subdivides dp_size", id="experts-without-replicas"),
        pytest.param(LLAMA, Plan(), {"optimizer_bytes_per_parameter": -1}, "takes 12, got -1|got -1", id="optimizer"),
    ],
)
def test_outside_the_domain(model, plan, how, says):
    with pytest.raises(ModelInputError, match=says):
        memory_per_rank(model, plan, **how)


def test_a_capacity_is_positive():
    with pytest.raises(ModelInputError, match="memory_bytes must be > 0"):
        fits(LLAMA, Plan(), 0)


def test_every_parameter_has_meaning_and_bounds():
    for name, (low, high, meaning) in MemoryParameters.bounds().items():
        assert low < getattr(MEMORY_PARAMETERS, name) < high
        assert len(meaning) > 20
