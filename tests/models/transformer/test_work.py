"""Operations of a step: against the formulas that publications print, and against their published rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.models.transformer import Plan, Transformer
from aiinfra_widgets.models.transformer.work import (
    embedding_flop_per_token,
    head_flop_per_token,
    layer_work,
    model_flop_per_token,
    published_hardware_flop,
    published_model_flop,
    recomputed_flop_per_token,
    step_flop,
)

GPT = Transformer(layers=3, hidden=128, heads=4, seq_len=64, vocab=1000)
LLAMA = Transformer(
    layers=32, hidden=4096, heads=32, kv_heads=8, seq_len=8192, vocab=128256, ffn=14336, gated=True, tied=False
)
MIXTURE = replace(LLAMA, experts=8, active_experts=2)

shapes = st.builds(
    lambda layers, width, heads, seq, vocab: Transformer(layers, width * heads, heads, seq, vocab),
    st.integers(1, 128), st.integers(1, 256), st.integers(1, 128), st.integers(1, 65536), st.integers(1, 300_000),
)  # fmt: skip


@given(shapes)
@settings(max_examples=50)
def test_a_plain_layer_is_24_b_s_h2_and_4_b_s2_h(model):
    # Narayanan et al. 2021, appendix: one layer forward, B sequences; here for one token.
    h, s = model.hidden, model.seq_len
    assert layer_work(model).forward_flop == pytest.approx(24 * h**2 + 4 * s * h)


@given(shapes, st.integers(1, 4096))
@settings(max_examples=50)
def test_a_plain_step_is_equation_3_of_narayanan(model, batch):
    inputs = (batch, model.seq_len, model.layers, model.hidden, model.vocab)
    plan = Plan(global_batch_size=batch)
    assert step_flop(model, plan)[0] == pytest.approx(published_model_flop(*inputs))
    needed, done = step_flop(model, replace(plan, recompute="full"))
    assert needed == pytest.approx(published_model_flop(*inputs))
    assert done == pytest.approx(published_hardware_flop(*inputs))


def test_mfu_that_korthikanti_prints_beside_the_iteration_time():
    # Korthikanti et al. 2022, table 5, with selective recomputation: seconds on so many A100, and MFU in percent.
    table = [(4, 48, 6144, 8, 1.10, 41.5), (64, 96, 12288, 64, 13.75, 51.4), (280, 105, 20480, 280, 37.83, 56.0),
             (512, 128, 25600, 512, 71.49, 56.3)]  # fmt: skip
    for batch, layers, hidden, devices, seconds, mfu_pct in table:
        rate = published_model_flop(batch, 2048, layers, hidden, 51200) / seconds / devices
        assert 100 * rate / 312e12 == pytest.approx(mfu_pct, abs=0.25)


def test_one_layer_by_hand():
    # Llama 3.1 8B: q and output 4096 x 4096, k and v 4096 x 1024; three matrices 4096 x 14336; scores over 8192 tokens.
    work = layer_work(LLAMA)
    assert work.projections == 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024)
    assert work.attention == 2 * 2 * 8192 * 4096
    assert work.feed_forward == 2 * 3 * 4096 * 14336
    assert work.router == 0
    assert head_flop_per_token(LLAMA) == 2 * 4096 * 128256
    assert embedding_flop_per_token(LLAMA) == 0


def test_a_mixture_computes_its_active_experts_and_a_router():
    work = layer_work(MIXTURE)
    assert work.feed_forward == 2 * layer_work(LLAMA).feed_forward
    assert work.router == 2 * 4096 * 8
    assert work.attention == layer_work(LLAMA).attention


def test_as_many_key_heads_as_query_heads_is_plain_attention():
    assert layer_work(replace(LLAMA, kv_heads=32)).projections == 2 * 4 * 4096**2
    assert layer_work(replace(LLAMA, kv_heads=1)).attention == layer_work(LLAMA).attention


@given(shapes)
@settings(max_examples=20)
def test_a_step_is_six_operations_per_parameter_and_the_scores(model):
    # Kaplan et al. 2020: C = 6 N without embeddings (here with the output projection), and attention beside it.
    norms = 4 * model.hidden * model.layers + 2 * model.hidden
    scores = 12 * model.layers * model.seq_len * model.hidden
    assert model_flop_per_token(model) == pytest.approx(6 * (model.parameters - norms) + scores)


@pytest.mark.parametrize(
    ("recompute", "flash", "again"),
    [
        pytest.param("none", False, 0, id="none"),
        pytest.param("selective", False, 3 * 4 * 64 * 128, id="selective-attention"),
        pytest.param("selective", True, 3 * 12 * 128**2, id="selective-with-flash-every-second-product"),
        pytest.param("full", False, 3 * (24 * 128**2 + 4 * 64 * 128), id="full"),
        pytest.param("full", True, 3 * (24 * 128**2 + 4 * 64 * 128), id="full-with-flash"),
    ],
)
def test_what_is_computed_again_by_hand(recompute, flash, again):
    assert recomputed_flop_per_token(GPT, Plan(recompute=recompute, flash_attention=flash)) == again


@given(shapes, st.booleans())
@settings(max_examples=30)
def test_more_recomputation_is_more_operations_and_the_model_needs_the_same(model, flash):
    plans = Plan(recompute=np.array(["none", "selective", "full"]), flash_attention=flash)
    needed, done = step_flop(model, plans)
    assert done[0] == pytest.approx(needed)
    assert done[0] < done[1] < done[2]
    assert done[2] < 4 / 3 * needed + 1e-9 * needed  # the output projection is not computed again


@given(shapes, st.sampled_from(["layers", "hidden", "seq_len", "vocab"]), st.integers(2, 4))
@settings(max_examples=30)
def test_more_of_anything_is_more_work(model, grown, factor):
    larger = replace(model, head_size=None, ffn=None, **{grown: factor * getattr(model, grown)})
    assert model_flop_per_token(larger) > model_flop_per_token(model)
