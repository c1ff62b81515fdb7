"""Published metrics as iteration times: by hand for each formula, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.validation.metrics import (
    LAYER_METRICS,
    STEP_METRICS,
    Published,
    finite,
    iteration_time_s,
    metric_value,
)

#: Small enough for a pencil: 6 sequences of 12 tokens, 2 layers of width 4, 96 words, 8 devices of 1 Tflop/s.
TINY = Published(batch=6, seq_len=12, layers=2, hidden=4, vocab=96, accelerators=8, peak_flops=1e12)
#: 72 B s l h^2 = 165 888; s/6h = 0.5; V/12lh = 1 (V/16lh = 0.75). Hardware: 96 B s l h^2 = 221 184.
MODEL_FLOP = 165_888 * 2.5
HARDWARE_FLOP = 221_184 * 2.25


@pytest.mark.parametrize(
    ("metric", "value", "want"),
    [
        pytest.param("iter_time_s", 3.5, 3.5, id="as-printed"),
        pytest.param("tokens_per_s_per_accel", 9, 6 * 12 / (9 * 8), id="tokens-per-device"),
        pytest.param("samples_per_s_total", 2, 3, id="samples-of-the-whole-job"),
        pytest.param("images_per_s_total", 3, 2, id="images-of-the-whole-job"),
        pytest.param("hw_tflops_per_accel", 1e-6, HARDWARE_FLOP / 8e6, id="hardware-tflops"),
        pytest.param("model_tflops_per_accel", 1e-6, MODEL_FLOP / 8e6, id="model-tflops"),
        pytest.param("mfu_pct", 50, MODEL_FLOP / (8 * 0.5e12), id="mfu-against-the-peak"),
        pytest.param("hfu_pct", 50, HARDWARE_FLOP / (8 * 0.5e12), id="hfu-against-the-peak"),
        pytest.param("layer_fwd_ms", 7.7, 7.7e-3, id="milliseconds-of-a-layer"),
        pytest.param("layer_bwd_ms", 11.9, 11.9e-3, id="milliseconds-of-a-layer-backward"),
    ],
)
def test_iteration_time_by_hand(metric, value, want):
    assert iteration_time_s(metric, value, TINY) == pytest.approx(want)


inputs = st.builds(
    Published,
    batch=st.integers(1, 4096), seq_len=st.integers(1, 65536), layers=st.integers(1, 128), hidden=st.integers(1, 25600),
    vocab=st.integers(1, 300_000), accelerators=st.integers(1, 100_000), peak_flops=st.floats(1e12, 1e16),
    recompute=st.sampled_from(["none", "selective", "full"]), flop=st.none() | st.floats(1e12, 1e24),
)  # fmt: skip


@given(st.sampled_from([*STEP_METRICS, "images_per_s_total", *LAYER_METRICS]), st.floats(1e-3, 1e9), inputs)
@settings(max_examples=50)
def test_every_conversion_is_its_own_inverse(metric, value, published):
    time_s = iteration_time_s(metric, value, published)
    assert metric_value(metric, time_s, published) == pytest.approx(value)
    assert iteration_time_s(metric, metric_value(metric, time_s, published), published) == pytest.approx(time_s)


@given(st.sampled_from(STEP_METRICS[1:]), st.floats(1e-3, 1e6), inputs)
@settings(max_examples=30)
def test_twice_the_rate_is_half_the_time(metric, value, published):
    assert iteration_time_s(metric, 2 * value, published) == pytest.approx(
        iteration_time_s(metric, value, published) / 2
    )


# Korthikanti et al. 2022, table 5: batch, layers, hidden, devices, seconds, MFU and HFU in percent, as printed.
@pytest.mark.parametrize(
    ("batch", "layers", "hidden", "devices", "seconds", "mfu", "hfu"),
    [
        pytest.param(4, 48, 6144, 8, 1.10, 41.5, 43.7, id="22B"),
        pytest.param(64, 96, 12288, 64, 13.75, 51.4, 52.8, id="175B"),
        pytest.param(280, 105, 20480, 280, 37.83, 56.0, 57.0, id="530B"),
        pytest.param(512, 128, 25600, 512, 71.49, 56.3, 57.0, id="1T"),
    ],
)
def test_utilisation_as_korthikanti_prints_it(batch, layers, hidden, devices, seconds, mfu, hfu):
    p = Published(batch, 2048, layers, hidden, 51200, devices, 312e12, recompute="selective")
    assert metric_value("mfu_pct", seconds, p) == pytest.approx(mfu, abs=0.25)
    assert metric_value("hfu_pct", seconds, p) == pytest.approx(hfu, abs=0.25)


def test_a_shape_that_is_not_theirs_counts_its_own_operations():
    own = replace(TINY, flop=8e12)
    assert iteration_time_s("model_tflops_per_accel", 2, own) == pytest.approx(0.5)
    assert iteration_time_s("mfu_pct", 50, own) == pytest.approx(2)
    assert iteration_time_s("hw_tflops_per_accel", 2, replace(own, hardware=12e12)) == pytest.approx(0.75)


def test_nothing_computed_again_is_the_model_s_own_work():
    assert replace(TINY, recompute="none").hardware_flop() == TINY.model_flop() < TINY.hardware_flop()


def test_a_metric_that_is_none_is_refused():
    with pytest.raises(ValueError, match="time_to_train_min"):
        iteration_time_s("time_to_train_min", 1.0, TINY)


@pytest.mark.parametrize(
    ("value", "usable"), [(1.0, True), (0.0, False), (-1.0, False), (None, False), (float("nan"), False), (float("inf"), False)]
)  # fmt: skip
def test_what_is_a_usable_time(value, usable):
    assert finite(value) is usable
