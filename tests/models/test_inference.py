from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.inference import (
    INFERENCE_PARAMETERS,
    InferenceParameters,
    decode_step,
    expected_experts,
    kv_cache_bytes_per_token,
    largest_batch,
    predict_serving,
    prefill,
    weight_memory_bytes,
)
from aiinfra_widgets.models.transformer.architecture import Transformer
from aiinfra_widgets.models.transformer.cluster import Accelerator, Cluster

# Published shapes; parameters as the models' cards print them.
LLAMA_70B = Transformer(
    layers=80, hidden=8192, heads=64, kv_heads=8, ffn=28672, gated=True, vocab=32000, seq_len=4096, tied=False
)
QWEN3_8B = Transformer(
    layers=36,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_size=128,
    ffn=12288,
    gated=True,
    vocab=151936,
    seq_len=40960,
    tied=False,
)
MIXTRAL = Transformer(
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    ffn=14336,
    gated=True,
    vocab=32000,
    seq_len=4096,
    experts=8,
    active_experts=2,
    tied=False,
)
TINY = Transformer(layers=2, hidden=8, heads=2, seq_len=16, vocab=100, ffn=32, tied=True)
H100 = Accelerator(peak_flops=989e12, achievable_frac=0.75, memory_bytes=80e9, memory_bandwidth_bytes_per_s=3.35e12)
DGX = Cluster(H100, 8, 450e9, 3e-6, 50e9, 5e-6)
IDEAL = InferenceParameters(
    bandwidth_frac=1, step_overhead_s=0, layer_overhead_s=0, sequence_overhead_s=0, sampler_passes=0, reserve_frac=0
)
batches, contexts = st.floats(1, 1024), st.floats(0, 32768)


def test_cache_of_llama_2_70b():
    # Ainslie et al. 2023 (arXiv:2305.13245): grouped queries shrink the cache by heads / kv_heads.
    grouped = kv_cache_bytes_per_token(LLAMA_70B)
    assert grouped == 2 * 80 * 8 * 128 * 2
    assert kv_cache_bytes_per_token(replace(LLAMA_70B, kv_heads=64)) == 8 * grouped


def test_cache_of_opt_13b():
    # Kwon et al. 2023 (arXiv:2309.06180), section 3: 800 KB for one token of OPT-13B, 1.6 GB for 2048 of them.
    opt = Transformer(layers=40, hidden=5120, heads=40, seq_len=2048, vocab=50272)
    assert kv_cache_bytes_per_token(opt) == 800 * 1024
    assert kv_cache_bytes_per_token(opt) * 2048 == pytest.approx(1.6e9, rel=0.05)


def test_experts_hand_computed():
    assert expected_experts(MIXTRAL, 0) == 0
    assert expected_experts(MIXTRAL, 1) == pytest.approx(2)
    assert expected_experts(MIXTRAL, 2) == pytest.approx(8 * (1 - 0.75**2))
    assert expected_experts(MIXTRAL, 1000) == pytest.approx(8)
    assert expected_experts(TINY, 5) == 1


def test_experts_against_a_draw():
    rng = np.random.default_rng(3)
    drawn = [len({e for _ in range(6) for e in rng.permutation(8)[:2]}) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(expected_experts(MIXTRAL, 6), rel=0.02)


def test_one_decode_step_hand_computed():
    # Per layer 4 * 8 * 8 + 2 * 8 * 32 = 768 weights, two layers and a head of 800: 2336 weights, 4672 bytes.
    slow = Cluster(Accelerator(1e6, 1.0, 1e6, 1e3), 8, 1e9, 0.0, 1e9, 0.0)
    step = decode_step(TINY, slow, 1, 10, parameters=IDEAL)
    assert step.linear_time_s == pytest.approx(4.672)
    # The cache: 2 * 2 layers * 2 heads * 4 wide * 2 bytes = 64 bytes a token, ten of them.
    assert step.attention_time_s == pytest.approx(0.64)
    assert step.time_s == pytest.approx(4.672 + 0.64)
    # Where arithmetic binds: two flop per weight and sequence.
    fast = Cluster(Accelerator(1e3, 1.0, 1e6, 1e9), 8, 1e9, 0.0, 1e9, 0.0)
    assert decode_step(TINY, fast, 3, 10, parameters=IDEAL).linear_time_s == pytest.approx(3 * 2 * 2336 / 1e3)


def test_a_lonely_sequence_reads_every_weight_once():
    # The bound that everybody quotes: 16-bit weights of 70 B parameters over the bandwidth of the devices.
    step = decode_step(LLAMA_70B, DGX, 1, 0, tp_size=8, parameters=IDEAL)
    read = (LLAMA_70B.parameters - LLAMA_70B.embedding_parameters) * 2
    assert step.linear_time_s == pytest.approx(read / 8 / 3.35e12, rel=1e-3)


def test_prefill_is_bound_by_arithmetic():
    pass_ = prefill(LLAMA_70B, DGX, 1, 4096, tp_size=8, parameters=IDEAL)
    flop = 2 * (LLAMA_70B.parameters - 2 * LLAMA_70B.embedding_parameters) * 4096
    assert pass_.linear_time_s == pytest.approx(flop / (8 * 0.75 * 989e12), rel=1e-3)


def test_tensor_parallelism_costs_two_allreduces_a_layer():
    step = decode_step(LLAMA_70B, DGX, 1, 0, tp_size=8)
    # Doubling: three rounds of latency and payload, two times in each of 80 layers.
    assert step.comm_time_s == pytest.approx(160 * 3 * (3e-6 + 8192 * 2 / 450e9))
    assert decode_step(LLAMA_70B, DGX, 1, 0, tp_size=1).comm_time_s == 0
    assert decode_step(LLAMA_70B, DGX, 1, 0, tp_size=16).comm_time_s > 160 * 4 * 5e-6  # over the fabric


def test_what_fits():
    # 70 B weights at two bytes: not on one device of 80 GB, on two with room for little.
    assert largest_batch(LLAMA_70B, H100, 4096, 1) == 0
    room = 80e9 * 0.9 - weight_memory_bytes(LLAMA_70B, 4)
    assert largest_batch(LLAMA_70B, H100, 4096, 4) == np.floor(room / (kv_cache_bytes_per_token(LLAMA_70B) / 4 * 4096))
    # A head of keys and values is never split: sixteen devices hold as much cache per token as eight.
    per_token = [(72e9 - weight_memory_bytes(LLAMA_70B, n)) / largest_batch(LLAMA_70B, H100, 1, n) for n in (8, 16)]
    assert per_token[0] == pytest.approx(per_token[1], rel=1e-5)


def test_saturated_serving_by_littles_law():
    s = predict_serving(QWEN3_8B, DGX, 64, 200, 650)
    assert s.requests_per_s * 650 == pytest.approx(s.output_tokens_per_s)
    # Sequences in decode = rate times time in decode.
    assert s.requests_per_s * 650 * s.tpot_s == pytest.approx(64)
    assert s.response_s == pytest.approx(s.ttft_s + 649 * s.tpot_s)


@given(batches, contexts, st.sampled_from([1, 2, 4, 8]))
def test_parts_add_up_and_are_not_negative(batch, context, tp):
    step = decode_step(LLAMA_70B, DGX, batch, context, tp)
    parts = [getattr(step, f.name) for f in fields(step)]
    assert min(parts) >= 0
    assert step.time_s == pytest.approx(sum(parts))


@given(batches, contexts)
def test_more_work_takes_longer_and_batching_pays(batch, context):
    time = decode_step(QWEN3_8B, DGX, batch, context).time_s
    assert decode_step(QWEN3_8B, DGX, batch * 2, context).time_s >= time
    assert decode_step(QWEN3_8B, DGX, batch, context + 100).time_s >= time
    assert decode_step(QWEN3_8B, DGX, batch * 2, context).time_s <= 2 * time


@given(batches, contexts)
def test_never_faster_than_the_roofline(batch, context):
    ideal, real = (
        decode_step(QWEN3_8B, DGX, batch, context, parameters=p).time_s for p in (IDEAL, INFERENCE_PARAMETERS)
    )
    flop = 2 * batch * (QWEN3_8B.parameters - QWEN3_8B.embedding_parameters)
    assert real > ideal > 0.999 * flop / H100.peak_flops


@settings(max_examples=30)
@given(st.integers(1, 400))
def test_a_mixture_reads_between_its_active_and_all_its_experts(batch):
    dense_few = replace(MIXTRAL, experts=1, active_experts=1, ffn=2 * 14336)
    dense_all = replace(MIXTRAL, experts=1, active_experts=1, ffn=8 * 14336)
    memory_bound = Cluster(replace(H100, peak_flops=1e18), 8, 450e9, 3e-6, 50e9, 5e-6)
    few, mixed, everything = (
        decode_step(m, memory_bound, batch, 0, parameters=IDEAL).linear_time_s for m in (dense_few, MIXTRAL, dense_all)
    )
    assert few * (1 - 1e-9) <= mixed <= everything * (1 + 1e-9)


def test_long_answers_are_met_more_often():
    even, spread = (predict_serving(QWEN3_8B, DGX, 64, 200, 650, output_cv=cv) for cv in (0.0, 1.0))
    more = 64 * kv_cache_bytes_per_token(QWEN3_8B) * 325 / (3.35e12 * INFERENCE_PARAMETERS.bandwidth_frac)
    assert spread.tpot_s - even.tpot_s == pytest.approx(more)


def test_sweeps_in_one_call():
    batch = np.array([1, 8, 64, 512])[:, None]
    s = predict_serving(LLAMA_70B, DGX, batch, 500, np.array([100, 1000]), tp_size=np.array([4, 8]))
    assert s.output_tokens_per_s.shape == s.fits.shape == (4, 2)
    assert np.all(np.diff(s.output_tokens_per_s, axis=0) > 0)
    one = predict_serving(LLAMA_70B, DGX, 64, 500, 1000, tp_size=8)
    assert s.output_tokens_per_s[2, 1] == pytest.approx(one.output_tokens_per_s)


def test_dimensions(u):
    assert kv_cache_bytes_per_token(LLAMA_70B, 2 * u.byte).to("KiB").magnitude == pytest.approx(320)
    assert weight_memory_bytes(TINY, 1, 2 * u.byte).to("byte").magnitude == TINY.parameters * 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        pytest.param(lambda: decode_step(TINY, DGX, 0, 10), "batch must be >= 1", id="no-batch"),
        pytest.param(lambda: decode_step(TINY, DGX, 1, -1), "context_tokens must be >= 0", id="negative-context"),
        pytest.param(lambda: prefill(TINY, DGX, 1, 0), "prompt_tokens must be >= 1", id="no-prompt"),
        pytest.param(lambda: predict_serving(TINY, DGX, 1, 10, 0), "output_tokens", id="no-answer"),
        pytest.param(lambda: decode_step(TINY, DGX, 1, 1, 1.5), "tp_size must be a whole number", id="half-a-device"),
        pytest.param(lambda: largest_batch(TINY, H100, 0), "context_tokens", id="empty-sequences"),
        pytest.param(lambda: InferenceParameters(bandwidth_frac=1.2), "bandwidth_frac", id="faster-than-memory"),
        pytest.param(lambda: InferenceParameters(step_overhead_s=-1), "step_overhead_s", id="negative-time"),
        pytest.param(lambda: expected_experts(MIXTRAL, float("nan")), "num_tokens", id="nan"),
    ],
)
def test_outside_the_domain(call, says):
    with pytest.raises(ModelInputError, match=says):
        call()
