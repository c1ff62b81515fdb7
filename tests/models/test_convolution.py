from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.convolution import (
    ConvParameters,
    data_parallel_step,
    hierarchical_allreduce_time_s,
    training_step,
)
from aiinfra_widgets.models.convolution_nets import NETS, ConvNet, Layer, resnet
from aiinfra_widgets.models.transformer.cluster import Accelerator, Cluster

V100 = Accelerator(125e12, 0.8, 16e9, 900e9)
DGX1 = Cluster(V100, 8, 150e9, 3e-6, 6.25e9, 5e-6)
IDEAL = ConvParameters(
    matrix_frac=1, vector_frac=1, half_width=0, bandwidth_frac=1, winograd_gain=1, layout_passes=0, kernel_time_s=0, jitter_frac=0,
    contention_frac=0,
)  # fmt: skip
RN50 = resnet()


# torchvision's model pages: parameters exact, operations ("GFLOPS" there are multiply-accumulates) to two decimals.
# Inception without its auxiliary head: 27,161,264 - 3,326,696 parameters.
@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"),
    [
        pytest.param("ResNet-50", 25_557_032, 4.09, id="resnet-50"),
        pytest.param("ResNet-101", 44_549_160, 7.80, id="resnet-101"),
        pytest.param("ResNet-152", 60_192_808, 11.51, id="resnet-152"),
        pytest.param("VGG16", 138_357_544, 15.47, id="vgg16"),
        pytest.param("AlexNet", 61_100_840, 0.71, id="alexnet"),
        pytest.param("InceptionV3", 23_834_568, 5.71, id="inception-v3"),
    ],
)
def test_published_counts(name, parameters, giga_macs):
    net = NETS[name]()
    assert net.parameters == parameters
    assert net.forward_flop / 2e9 == pytest.approx(giga_macs, abs=0.006)
    assert net.layers[-1].out_channels == 1000


def test_first_version_of_resnet_50():
    # He et al. 2015, table 1: 3.8 billion multiply-accumulates, with the stride in the first 1 x 1 of a block.
    first = resnet(50, stride_in_3x3=False)
    assert first.forward_flop / 2e9 == pytest.approx(3.8, abs=0.1)
    assert first.parameters == RN50.parameters


def test_one_layer_hand_counted():
    layer = Layer("c", 3, 8, (3, 3), 1, (10, 10), (10, 10))
    net = ConvNet("one", (layer,))
    assert (layer.weights, layer.parameters, layer.macs) == (216, 216 + 16, 21_600)
    assert net.forward_flop == 43_200
    assert net.training_flop == 2 * 43_200  # forward and weights: nobody asks for the gradient of the images
    assert net.activation_bytes(2) == 2 * 2 * 800


def test_one_layer_timed_by_hand():
    net = ConvNet(
        "two", (Layer("a", 4, 4, (1, 1), 1, (10, 10), (10, 10)), Layer("b", 4, 4, (1, 1), 1, (10, 10), (10, 10)))
    )
    slow_units = Accelerator(1e3, 1, 1e9, 1e12)
    step = training_step(net, slow_units, 5, parameters=IDEAL)
    # 1600 multiply-accumulates a layer and image; forward, weights twice, input once (of the second layer).
    assert step.product_time_s == pytest.approx(5 * 2 * 1600 * 5 / 1e3)
    slow_memory = Accelerator(1e15, 1, 1e9, 1e3)
    step = training_step(net, slow_memory, 5, parameters=IDEAL)
    assert step.product_time_s == pytest.approx(5 * (5 * 800 + 16) * 2 / 1e3)
    # Fused norm and activation: eight passes of 400 elements in each layer; momentum: five of the fp32 weights.
    assert step.pass_time_s == pytest.approx((2 * 8 * 400 * 5 * 2 + 5 * 4 * net.parameters) / 1e3)


def test_one_device_has_no_communication():
    alone, job = training_step(RN50, V100, 128), data_parallel_step(RN50, DGX1, 128, 1)
    assert job.step_time_s == alone.step_time_s
    assert (job.straggler_wait_time_s, job.exposed_comm_time_s) == (0, 0)


def test_allreduce_by_levels():
    # A ring of two moves the payload once; between two nodes each device then moves its half.
    two = Cluster(V100, 2, 1.0, 0.0, 1.0, 0.0)
    assert hierarchical_allreduce_time_s(8.0, 2, two) == pytest.approx(8.0)
    assert hierarchical_allreduce_time_s(8.0, 4, two) == pytest.approx(8.0 + 4.0)
    assert hierarchical_allreduce_time_s(8.0, 1, two) == 0


@given(st.integers(1, 512), st.integers(1, 1024), st.sampled_from(["fp32", "tf32", "fp16"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_parts_add_up_and_no_faster_than_the_roofline(batch, ranks, precision, fused):
    step = data_parallel_step(RN50, DGX1, batch, ranks, precision, fused)
    parts = [getattr(step, f.name) for f in fields(step)]
    assert step.step_time_s == pytest.approx(sum(parts))
    assert min(parts) >= 0
    gain = 2.25 if precision == "fp32" else 1
    assert step.product_time_s > batch * RN50.training_flop / V100.peak_flops / gain


@given(st.integers(1, 256), st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_monotone(batch, exponent):
    def rate(b, n, **kw):
        return b * n / data_parallel_step(RN50, DGX1, b, n, **kw).step_time_s

    ranks = 2**exponent
    assert rate(batch * 2, ranks) > rate(batch, ranks)
    assert rate(batch, ranks) < rate(batch, ranks * 2) < 2 * rate(batch, ranks) * (1 + 1e-9)
    assert rate(batch, ranks, fused=True) > rate(batch, ranks, fused=False)
    assert rate(batch, ranks, precision="fp16") > rate(batch, ranks, precision="tf32")


def test_winograd_only_helps_where_it_applies():
    vgg, wide = NETS["VGG16"](), ConvNet("1x1", (Layer("a", 64, 64, (1, 1), 1, (56, 56), (56, 56)),))
    device = Accelerator(1e12, 1, 1e9, 1e15)
    for net, gain in ((vgg, 1.5), (wide, 1.0)):
        plain, fast = (
            training_step(net, device, 8, "fp32", parameters=replace(IDEAL, winograd_gain=g)) for g in (1, 2.25)
        )
        assert plain.product_time_s / fast.product_time_s >= gain
        assert plain.product_time_s / fast.product_time_s <= 2.25
        half = [
            training_step(net, device, 8, "fp16", parameters=replace(IDEAL, winograd_gain=g)).product_time_s
            for g in (1, 2.25)
        ]
        assert half[0] == half[1]


def test_sweeps_in_one_call():
    batch, ranks = np.array([1, 32, 256])[:, None], np.array([1, 8, 64, 512])
    times = data_parallel_step(RN50, DGX1, batch, ranks).step_time_s
    assert times.shape == (3, 4)
    assert times[1, 2] == pytest.approx(data_parallel_step(RN50, DGX1, 32, 64).step_time_s)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        pytest.param(lambda: training_step(RN50, V100, 0), "batch must be >= 1", id="no-batch"),
        pytest.param(lambda: training_step(RN50, V100, 8, "fp15"), "did you mean", id="misspelt-precision"),
        pytest.param(lambda: data_parallel_step(RN50, DGX1, 8, 1.5), "dp_size must be a whole", id="half-a-device"),
        pytest.param(lambda: ConvParameters(matrix_frac=1.1), "matrix_frac", id="above-peak"),
        pytest.param(lambda: ConvParameters(winograd_gain=9), "winograd_gain", id="too-good-a-trick"),
    ],
)
def test_outside_the_domain(call, says):
    with pytest.raises(ModelInputError, match=says):
        call()
