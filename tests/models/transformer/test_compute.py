"""Time of arithmetic on one rank: shapes by hand, the limits of a machine, and which way it may go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.models.transformer import PARAMETERS, Accelerator, Plan, Transformer
from aiinfra_widgets.models.transformer.compute import (
    embedding_time_s,
    head_time_s,
    layer_time,
    matmul_time_s,
    rate_flops,
    tokens,
)
from aiinfra_widgets.models.transformer.work import head_flop_per_token, layer_work

GPT = Transformer(layers=2, hidden=1024, heads=16, seq_len=512, vocab=5120)
MIXTURE = replace(GPT, experts=8, active_experts=2)
A100 = Accelerator(312e12, 0.8, 80e9, 2e12)
#: Memory that costs nothing: what is left is arithmetic.
PURE = replace(A100, memory_bandwidth_bytes_per_s=1e60)
PLAIN = replace(PARAMETERS, layer_overhead_s=0.0)

sizes = st.integers(1, 10**5)


@pytest.mark.parametrize(
    ("m", "n", "k", "rate", "bandwidth", "traffic", "size", "want"),
    [
        pytest.param(2, 3, 5, 1.0, 1e60, 1.0, 2, 60, id="two-operations-each"),
        pytest.param(2, 3, 5, 1e60, 1.0, 1.0, 2, 2 * (10 + 15 + 6), id="three-operands-once"),
        pytest.param(2, 3, 5, 1e60, 1.0, 0.5, 1, 0.5 * 31, id="half-their-traffic-in-bytes-of-one"),
        pytest.param(2, 3, 5, 1.0, 1.0, 1.0, 2, 60 + 62, id="their-sum"),
        pytest.param(2, 3, 5, 1.0, 1.0, 0.0, 2, 60, id="no-traffic"),
    ],
)
def test_products_by_hand(m, n, k, rate, bandwidth, traffic, size, want):
    assert matmul_time_s(m, n, k, rate, bandwidth, traffic, size) == pytest.approx(want)


def test_dimensions_of_a_product(u):
    found = matmul_time_s(64, 32, 16, 1e12 / u.s, 1e9 * u.byte / u.s, 1.3, 2 * u.byte)
    assert found.check("[time]")
    assert found.to("s").magnitude == pytest.approx(matmul_time_s(64, 32, 16, 1e12, 1e9, 1.3, 2))


@given(sizes, sizes, sizes, st.integers(2, 9))
@settings(max_examples=30)
def test_a_larger_product_takes_longer_but_less_than_in_pieces(m, n, k, pieces):
    def time_s(rows):
        return matmul_time_s(rows, n, k, 3e14, 2e12, 1.3)

    assert time_s(m) < time_s(m * pieces) <= pieces * time_s(m) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("precision", "newer", "factor"),
    [
        pytest.param("bf16", False, 1.0, id="16-bits"),
        pytest.param("bf16", True, PARAMETERS.newer_rate_frac, id="power-bound"),
        pytest.param("fp8", True, PARAMETERS.newer_rate_frac * PARAMETERS.fp8_rate_frac, id="8-bits"),
    ],
)
def test_rate_by_hand(precision, newer, factor):
    assert rate_flops(Plan(precision=precision), replace(A100, is_newer=newer), PARAMETERS) == pytest.approx(
        312e12 * 0.8 * factor
    )


@pytest.mark.parametrize(("cp", "want"), [(1, 3 * 512), (4, 3 * 128)])
def test_tokens_of_a_rank(cp, want):
    assert tokens(GPT, Plan(micro_batch_size=3, global_batch_size=3, cp_size=cp)) == want


@pytest.mark.parametrize("model", [GPT, MIXTURE, replace(GPT, kv_heads=4, gated=True)], ids=["gpt", "mixture", "gqa"])
@pytest.mark.parametrize("degrees", [{}, {"tp_size": 4}, {"cp_size": 2}, {"tp_size": 2, "cp_size": 4}], ids=str)
def test_without_memory_only_arithmetic_is_left(model, degrees):
    plan = Plan(micro_batch_size=8, global_batch_size=8, **degrees)
    found = layer_time(model, plan, PURE, PLAIN)
    work = layer_work(model)
    flop = 8 * 512 * (work.forward_flop - work.router) / plan.world_size
    assert found.forward_s == pytest.approx(flop / (312e12 * 0.8))
    assert found.backward_s == pytest.approx(2 * found.forward_s)
    assert (
        found.attention_s == found.selective_s == pytest.approx(8 * 512 * work.attention / plan.world_size / 249.6e12)
    )
    assert head_time_s(model, plan, PURE, PLAIN) == pytest.approx(
        3 * 8 * 512 * head_flop_per_token(model) / plan.world_size / 249.6e12
    )
    assert embedding_time_s(model, plan, PURE, PLAIN) == pytest.approx(0, abs=1e-30)


def test_expert_parallelism_leaves_the_arithmetic_of_a_rank_as_it_is():
    # A rank sends as many tokens away as it gets; only the weights that it reads become fewer.
    alone, spread = (Plan(dp_size=8, micro_batch_size=8, global_batch_size=64, ep_size=ep) for ep in (1, 8))
    pure = [layer_time(MIXTURE, plan, PURE, PLAIN).forward_s for plan in (alone, spread)]
    assert pure[0] == pytest.approx(pure[1])
    real = [layer_time(MIXTURE, plan, A100, PLAIN).forward_s for plan in (alone, spread)]
    assert real[1] < real[0]


def test_memory_traffic_of_a_layer_by_hand():
    # A rate without limit, bandwidth of 1 byte/s, all shares at 1: bytes of one layer of width 8 with one token.
    model, device = Transformer(1, 8, 1, 1, 1), Accelerator(1e60, 1.0, 80e9, 1.0)
    p = replace(
        PLAIN, operand_traffic=0.0, unfused_elementwise_traffic=1.0, memory_frac=1.0, score_passes=2.0,
        score_passes_backward=1.0, backward_elementwise=2.0,
    )  # fmt: skip
    found = layer_time(model, Plan(), device, p)
    wide = 2 * (10 * 8 + 2 * 3 * 8 + 2 * 32)  # ten passes over the width, q k v twice, two matrices of the inner width
    scores = 2 * 2 * 1  # written and read once
    assert found.attention_s == pytest.approx(scores)
    assert found.forward_s == pytest.approx(wide + scores)
    assert found.backward_s == pytest.approx(2 * wide + scores)
    assert found.memory_bound_s == pytest.approx(3 * wide)


def test_sequence_parallelism_splits_what_tensor_parallelism_repeats():
    plain, split = (Plan(tp_size=8, sequence_parallel=on) for on in (False, True))
    assert layer_time(GPT, split, A100, PLAIN).forward_s < layer_time(GPT, plain, A100, PLAIN).forward_s
    alone = [layer_time(GPT, replace(plan, tp_size=1), A100, PLAIN).forward_s for plan in (plain, split)]
    assert alone[0] == alone[1]


def test_fused_attention_by_hand():
    # Half of the products under the causal mask, at a share of the rate; backward five products for two.
    plan = Plan(micro_batch_size=4, global_batch_size=4, flash_attention=True)
    masked, whole = (layer_time(replace(GPT, causal=on), plan, PURE, PLAIN) for on in (True, False))
    flop = 4 * 512 * layer_work(GPT).attention
    assert whole.attention_s == pytest.approx(flop / (249.6e12 * PARAMETERS.flash_frac))
    assert masked.attention_s == pytest.approx(whole.attention_s / 2)
    weights = masked.forward_s - masked.attention_s
    assert masked.backward_s == pytest.approx(2 * weights + 2.5 * masked.attention_s)
    assert masked.selective_s == pytest.approx(weights / 2)


def test_kernels_written_for_a_device_are_faster_than_ported_ones():
    kernels = np.array(["flash_ported", "flash", "flash_native"])
    found = layer_time(GPT, Plan(flash_attention=True, attention_kernel=kernels), A100, PARAMETERS).attention_s
    assert found[0] > found[1] > found[2]


def test_a_head_that_is_no_multiple_of_eight_slows_unfused_attention():
    odd = replace(GPT, heads=100, hidden=1000, kv_heads=100, head_size=10)
    even = replace(odd, head_size=16)
    slow, fine = (layer_time(m, Plan(), PURE, PLAIN).attention_s for m in (odd, even))
    assert slow / 10 == pytest.approx(fine / 16 * PARAMETERS.misaligned_head)
    fused = [layer_time(m, Plan(flash_attention=True), PURE, PLAIN).attention_s for m in (odd, even)]
    assert fused[0] < fused[1]


@given(
    micro=st.integers(1, 16),
    tp=st.sampled_from([1, 2, 4, 8]),
    flash=st.booleans(),
    compiled=st.booleans(),
    better=st.sampled_from(["peak_flops", "memory_bandwidth_bytes_per_s", "achievable_frac"]),
)
@settings(max_examples=40)
def test_a_better_device_is_never_slower(micro, tp, flash, compiled, better):
    plan = Plan(tp_size=tp, micro_batch_size=micro, global_batch_size=micro, flash_attention=flash, compiled=compiled)
    device = replace(A100, **{better: getattr(A100, better) * 1.2, "peak_16bit_flops": None})
    for part in ("forward_s", "backward_s", "attention_s", "memory_bound_s", "selective_s"):
        slow, fast = (getattr(layer_time(MIXTURE, plan, d, PARAMETERS), part) for d in (A100, device))
        assert fast <= slow
    assert head_time_s(GPT, plan, device, PARAMETERS) <= head_time_s(GPT, plan, A100, PARAMETERS)


@pytest.mark.parametrize("name", ["elementwise_traffic", "score_passes", "operand_traffic", "layer_overhead_s"])
def test_a_parameter_that_costs_more_takes_longer(name):
    flash = name == "elementwise_traffic"
    plan = Plan(flash_attention=flash, micro_batch_size=2, global_batch_size=2)
    more = replace(PARAMETERS, **{name: 1.5 * getattr(PARAMETERS, name)})
    assert layer_time(GPT, plan, A100, more).forward_s > layer_time(GPT, plan, A100, PARAMETERS).forward_s
