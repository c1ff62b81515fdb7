"""Shapes of transformers: parameter counts as their publishers print them, and what is no shape at all."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer import Transformer

LLAMA_2_7B = Transformer(layers=32, hidden=4096, heads=32, seq_len=4096, vocab=32000, ffn=11008, gated=True, tied=False)
MIXTRAL = Transformer(
    layers=32, hidden=4096, heads=32, kv_heads=8, seq_len=4096, vocab=32000,
    ffn=14336, gated=True, experts=8, active_experts=2, tied=False,
)  # fmt: skip
SMALL = Transformer(layers=2, hidden=8, heads=2, seq_len=4, vocab=10)


@pytest.mark.parametrize(
    ("model", "published", "tolerance"),
    [
        # Counts of the published weight files; norms have no bias in the Llama family, which we count.
        pytest.param(LLAMA_2_7B, 6_738_415_616, 1e-4, id="llama-2-7b"),
        pytest.param(
            replace(LLAMA_2_7B, layers=80, hidden=8192, heads=64, kv_heads=8, head_size=128, ffn=28672, vocab=128256),
            70_553_706_496, 1e-4, id="llama-3.1-70b-grouped-queries",
        ),
        pytest.param(
            replace(LLAMA_2_7B, layers=126, hidden=16384, heads=128, kv_heads=8, ffn=53248, vocab=128256),
            405_853_388_800, 1e-4, id="llama-3.1-405b",
        ),
        pytest.param(MIXTRAL, 46_702_792_704, 1e-4, id="mixtral-8x7b-all-experts"),
        pytest.param(
            Transformer(layers=70, hidden=14336, heads=112, seq_len=2048, vocab=250880),
            176_247_271_424, 1e-3, id="bloom-176b-tied-without-positions",
        ),
        pytest.param(
            Transformer(layers=12, hidden=768, heads=12, seq_len=1024, vocab=50257, positions=1024),
            124_439_808, 1e-3, id="gpt-2-learned-positions",
        ),
        # Brown et al. 2020, table 2.1, and Chowdhery et al. 2022, table 1: printed to three and five digits.
        pytest.param(
            Transformer(layers=96, hidden=12288, heads=96, seq_len=2048, vocab=50257, positions=2048),
            174.6e9, 1e-3, id="gpt-3",
        ),
        pytest.param(
            Transformer(
                layers=118, hidden=18432, heads=48, kv_heads=1, head_size=256, seq_len=2048, vocab=256000,
                ffn=73728, gated=True,
            ),
            540.35e9, 1e-3, id="palm-one-key-head-of-its-own-size",
        ),
    ],
)  # fmt: skip
def test_parameters_are_the_published_ones(model, published, tolerance):
    assert model.parameters == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "billions"),
    [
        pytest.param(24, 2304, 24, 1.7, id="1.7B"),
        pytest.param(36, 4096, 32, 7.5, id="7.5B"),
        pytest.param(80, 12288, 96, 145.6, id="145B"),
        pytest.param(105, 20480, 128, 529.6, id="530B"),
        pytest.param(128, 25600, 160, 1008.0, id="1T"),
    ],
)
def test_parameters_of_narayanan_table_1(layers, hidden, heads, billions):
    model = Transformer(layers=layers, hidden=hidden, heads=heads, seq_len=2048, vocab=51200, positions=2048)
    assert model.parameters / 1e9 == pytest.approx(billions, abs=0.06)


def test_active_parameters_of_mixtral_as_its_report_prints_them():
    # Jiang et al. 2024: 47 billion parameters, of which a token uses 13 billion.
    assert MIXTRAL.active_parameters / 1e9 == pytest.approx(12.9, abs=0.05)


def test_parameters_by_hand():
    # Hidden 8: four projections 4*64, two matrices 2*8*32, norms 4*8; embedding 10*8, last norm 16.
    assert SMALL.attention_parameters == 256
    assert SMALL.expert_parameters == 512
    assert SMALL.layer_parameters == 256 + 512 + 32
    assert SMALL.parameters == 2 * 800 + 80 + 16
    assert replace(SMALL, tied=False).parameters == SMALL.parameters + 80
    assert replace(SMALL, positions=4).parameters == SMALL.parameters + 32
    assert replace(SMALL, gated=True).parameters == SMALL.parameters + 2 * 256
    assert replace(SMALL, kv_heads=1).parameters == SMALL.parameters - 2 * 64


def test_what_is_left_out_is_the_usual_shape():
    assert Transformer(2, 8, 2, 4, 10, kv_heads=2, head_size=4, ffn=32) == SMALL  # one expert, as many key heads


@given(experts=st.integers(2, 64), layers=st.integers(1, 40))
@settings(max_examples=20)
def test_experts_that_all_work_are_one_dense_block_cut_in_pieces(experts, layers):
    dense = Transformer(layers, 512, 8, 64, 1000, ffn=64 * experts)
    pieces = replace(dense, ffn=64, experts=experts, active_experts=experts)
    routers = layers * 512 * experts
    assert pieces.parameters == dense.parameters + routers
    assert pieces.active_parameters == pieces.parameters
    assert dense.active_parameters == dense.parameters


@given(
    layers=st.integers(1, 100),
    width=st.integers(1, 100),
    factor=st.integers(2, 5),
    grown=st.sampled_from(["layers", "hidden", "vocab", "ffn", "experts"]),
)
@settings(max_examples=40)
def test_more_of_anything_is_more_parameters(layers, width, factor, grown):
    small = Transformer(layers, 8 * width, 8, 128, 1000, ffn=100, head_size=width)
    assert replace(small, **{grown: factor * getattr(small, grown)}).parameters > small.parameters


def test_arrays_hold_one_model_per_element():
    models = [SMALL, LLAMA_2_7B, MIXTRAL]
    many = Transformer(**{f.name: np.array([getattr(m, f.name) for m in models]) for f in fields(Transformer)})
    assert many.parameters.tolist() == [m.parameters for m in models]
    assert many.active_parameters.tolist() == [m.active_parameters for m in models]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"layers": 0}, "layers must be a whole number >= 1 and finite, got 0", id="no-layers"),
        pytest.param({"hidden": 8.5}, "hidden must be a whole number", id="half-a-column"),
        pytest.param({"vocab": float("nan")}, "vocab must be", id="not-a-number"),
        pytest.param({"heads": "many"}, "heads must be a whole number >= 1 and finite, got 'many'", id="text"),
        pytest.param({"kv_heads": 3}, "heads / kv_heads must be a whole number", id="groups-of-unequal-size"),
        pytest.param({"kv_heads": 4}, "heads / kv_heads must be a whole number >= 1", id="more-keys-than-queries"),
        pytest.param(
            {"active_experts": 2}, "a token cannot pass more experts than there are", id="more-than-there-are"
        ),
        pytest.param({"ffn": 0}, "ffn must be > 0", id="no-feed-forward"),
        pytest.param({"head_size": -1}, "head_size must be > 0", id="negative-head"),
        pytest.param({"positions": -1}, "positions must be", id="negative-positions"),
        pytest.param({"layers": np.array([2, 0])}, "got 0", id="one-of-an-array"),
    ],
)
def test_what_is_no_shape_is_refused(change, words):
    with pytest.raises(ModelInputError, match=words):
        replace(SMALL, **change)
