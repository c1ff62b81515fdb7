"""How long a convolutional net takes to train: a roofline over its layers, and data parallelism in and between nodes.

A net (`convolution_nets`) is a list of products, each followed by passes over memory (norm, activation, sum). Products
run at a rate that depends on their shape, or at the memory's; passes run at the memory's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelInputError, near
from ._check import Number, magnitude, need
from .collectives import halving_doubling_allreduce_time_s, ring_allreduce_time_s
from .convolution_nets import ConvNet, Layer
from .stragglers import normal_max_factor
from .transformer.cluster import Accelerator, Cluster

Array = NDArray[np.float64]
ELEMENT_BYTES: Mapping[str, int] = MappingProxyType({"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2})


@dataclass(frozen=True, slots=True)
class ConvParameters:
    """What libraries of convolutions reach; the defaults are fitted on the rows that `Source` names.

    Attributes:
        matrix_frac: Share of the matrix units' peak that a wide product reaches.
        vector_frac: The same of the ordinary fp32 units.
        half_width: Channels at which a product reaches half of that (narrow products leave units idle).
        bandwidth_frac: Share of the memory bandwidth that passes reach.
        winograd_gain: By how much fewer multiplications a 3 x 3 or 5 x 5 convolution of stride 1 needs on the fp32 units.
        layout_passes: How often matrix units in 4-byte formats have inputs and outputs turned into their own layout.
        kernel_time_s: Start and end of one kernel.
        jitter_frac: Standard deviation of a device's step time over its mean; a job waits for its slowest device.
        contention_frac: By how much communication slows the computation that hides it.

    Raises:
        ModelInputError: A share outside 0 to 1, a negative number.

    Source: matrix_frac, vector_frac, half_width, layout_passes and jitter_frac are fitted on the rows of images per second
        (NVIDIA DeepLearningExamples, TensorFlow benchmarks 2017, MLPerf 4.0), one weight for rows that repeat each other.
        bandwidth_frac and kernel_time_s are assumed; winograd_gain is that of 2 x 2 outputs (Lavin & Gray 2016);
        contention_frac is assumed.
    """

    matrix_frac: Number = 0.79
    vector_frac: Number = 0.95
    half_width: Number = 84.0
    bandwidth_frac: Number = 0.9
    winograd_gain: Number = 2.25
    layout_passes: Number = 1.7
    kernel_time_s: Number = 4e-6
    jitter_frac: Number = 0.005
    contention_frac: Number = 0.1

    def __post_init__(self) -> None:
        for name in ("matrix_frac", "vector_frac", "bandwidth_frac"):
            need(name, getattr(self, name), 0, 1, above=True)
        for name in ("half_width", "layout_passes", "kernel_time_s", "jitter_frac", "contention_frac"):
            need(name, getattr(self, name))
        need("winograd_gain", self.winograd_gain, 1, 4, hint="4 is the bound for 4 x 4 outputs of 3 x 3 kernels")


CONV_PARAMETERS = ConvParameters()


@dataclass(frozen=True, slots=True)
class ConvStep:
    """One training step of one device, or of a job, in seconds; the parts add up to `step_time_s`.

    Attributes:
        product_time_s: Convolutions and dense layers.
        pass_time_s: Norms, activations, sums, pools, the optimiser.
        overhead_time_s: Starts of kernels.
        straggler_wait_time_s: Waiting for the slowest device.
        exposed_comm_time_s: All-reduce that no computation hides, and the slowing of what hides it.
    """

    product_time_s: Any
    pass_time_s: Any
    overhead_time_s: Any
    straggler_wait_time_s: Any
    exposed_comm_time_s: Any

    @property
    def step_time_s(self) -> Any:
        """The sum of the parts."""
        own = self.product_time_s + self.pass_time_s + self.overhead_time_s
        return own + self.straggler_wait_time_s + self.exposed_comm_time_s


def training_step(
    net: ConvNet,
    accelerator: Accelerator,
    batch: Number,
    precision: str = "fp16",
    fused: bool = True,
    parameters: ConvParameters = CONV_PARAMETERS,
) -> ConvStep:
    """Return the time of one training step on one device.

    Args:
        net: From `NETS`, or your own layers.
        accelerator: With the peak of that precision; achievable_frac is not used (`parameters` has its own).
        batch: B, images per step, at least 1; a number or an array.
        precision: One of ELEMENT_BYTES; "fp32" runs on the ordinary units, the others on matrix units.
        fused: Whether norm, activation and sum are one pass (MXNet's containers), or each its own (PyTorch, TensorFlow).
        parameters: What libraries reach.

    Raises:
        ModelInputError: An unknown precision, a batch below 1.

    Valid when: the input pipeline keeps up.
    Off by: 6 % on the average of 43 published rows (P100 to H100, five nets), 11 % when one source is left
        out; too fast by 7 % on the P100's software of 2017, too slow by 12 % in fp32 on the V100 with software of 2020.
    Source: traffic counted from the operators; Winograd: Lavin & Gray 2016 (CVPR); roofline: Williams et al. 2009.
    """
    need("batch", batch, 1)
    if precision not in ELEMENT_BYTES:
        raise ModelInputError(
            f"precision must be one of {', '.join(ELEMENT_BYTES)}, got {precision!r}; {near(precision, ELEMENT_BYTES)}"
        )
    size = ELEMENT_BYTES[precision]
    bandwidth = accelerator.memory_bandwidth_bytes_per_s * parameters.bandwidth_frac
    images = magnitude(batch)[..., None]
    product = _products_s(net, accelerator, images, precision, parameters).sum(axis=-1)
    each = sum(_passes(layer, fused) * layer.out_elements for layer in net.layers) + net.moved_elements
    # Momentum: read weight, gradient and momentum, write weight and momentum, in fp32.
    optimiser = 5 * 4 * net.parameters
    kernels = sum(3 + (2 if layer.normed else 0) + (0 if fused else 2) for layer in net.layers)
    passes = (each * size * magnitude(batch) + optimiser) / bandwidth
    zero = 0.0 * product
    return ConvStep(product[()], passes[()], kernels * parameters.kernel_time_s + zero, zero, zero)


def data_parallel_step(
    net: ConvNet,
    cluster: Cluster,
    batch: Number,
    dp_size: Number,
    precision: str = "fp16",
    fused: bool = True,
    parameters: ConvParameters = CONV_PARAMETERS,
) -> ConvStep:
    """Return the time of one step of `dp_size` devices with `batch` images each.

    Args:
        net: The net.
        cluster: The device and the links; beyond per_node devices the all-reduce is one in the node and one between nodes.
        batch: Images per device.
        dp_size: Devices, a whole number from 1.
        precision, fused, parameters: As `training_step`; gradients travel in fp32, or 16 bits under a 16-bit precision.

    Raises:
        ModelInputError: As `training_step`; a dp_size that is not whole.

    Valid when: gradients are reduced while the backward pass (two thirds of the step) goes on.
    Off by: see `training_step`.
    Source: Patarasuk & Yuan 2009 for the ring; the slowest of n for the waiting (`stragglers`).
    """
    need("dp_size", dp_size, 1, whole=True)
    one = training_step(net, cluster.accelerator, batch, precision, fused, parameters)
    own = one.step_time_s
    reduce = hierarchical_allreduce_time_s(net.parameters * ELEMENT_BYTES[precision], dp_size, cluster)
    hidden = np.minimum(reduce, own * 2 / 3)
    wait = own * parameters.jitter_frac * normal_max_factor(dp_size)
    exposed = reduce - hidden + parameters.contention_frac * hidden
    return ConvStep(one.product_time_s, one.pass_time_s, one.overhead_time_s, wait, exposed)


def hierarchical_allreduce_time_s(size_bytes: Number, dp_size: Number, cluster: Cluster) -> Any:
    """Return the time of an all-reduce that sums inside each node first and then, in shards, between nodes.

    Args:
        size_bytes: Payload per rank.
        dp_size: Ranks, filled node by node.
        cluster: The links.

    Raises:
        ModelInputError: A negative size, a dp_size that is not whole.

    Valid when: dp_size is a multiple of the devices of a node, or fits one node. Off by: too high against reductions in switches.
    Source: Patarasuk & Yuan 2009 inside; between nodes that or Rabenseifner's, whichever is faster.
    """
    inside = np.minimum(dp_size, cluster.per_node)
    nodes = np.ceil(np.asarray(dp_size) / cluster.per_node)
    within = ring_allreduce_time_s(
        size_bytes, inside, cluster.node_bandwidth_oneway_bytes_per_s, cluster.node_latency_s
    )
    link = (cluster.fabric_bandwidth_oneway_bytes_per_s, cluster.fabric_latency_s)
    shard = size_bytes / inside
    between = np.minimum(
        ring_allreduce_time_s(shard, nodes, *link), halving_doubling_allreduce_time_s(shard, nodes, *link)
    )
    return within + between


def _passes(layer: Layer, fused: bool) -> float:
    """Reads and writes of a whole output by norm, activation and sum in one training step, forward and backward."""
    if fused and layer.normed:
        # forward: statistics, then read and write, plus the other branch; backward: two reads of two, one write, its gradient
        return 3 + 5 + (1 + 1 + 3 if layer.added else 0)
    norm = 3 + 5 if layer.normed else 0
    activation = 2 + 3 if layer.relu else 0
    return norm + activation + (3 + 3 if layer.added else 0)


def _products_s(
    net: ConvNet, accelerator: Accelerator, images: Array, precision: str, parameters: ConvParameters
) -> Array:
    """Forward, gradient of the input and gradient of the weights of each layer, in seconds, shape (..., layers)."""
    table = np.array(
        [
            (n.macs, n.in_channels, n.out_channels, n.kernel[0] * n.kernel[1], n.in_elements, n.out_elements, n.weights)
            for n in net.layers
        ],
        dtype=float,
    )
    macs, c_in, c_out, taps, inputs, outputs, weights = table.T
    size = ELEMENT_BYTES[precision]
    matrix = precision != "fp32"
    peak = magnitude(accelerator.peak_flops) * (parameters.matrix_frac if matrix else parameters.vector_frac)
    gain = np.ones(len(net.layers))
    if not matrix:
        small = [n.stride == 1 and n.kernel in ((3, 3), (5, 5)) for n in net.layers]
        gain = np.where(small, parameters.winograd_gain, 1.0)
    traffic = (images * (inputs + outputs) + weights) * size
    if matrix and size == 4:
        traffic = traffic + 2 * parameters.layout_passes * images * (inputs + outputs) * size
    memory = traffic / (accelerator.memory_bandwidth_bytes_per_s * parameters.bandwidth_frac)
    flop = 2 * macs * images / gain
    total = np.zeros(np.broadcast_shapes(images.shape, macs.shape))
    deep = images * outputs / c_out  # pixels of the whole batch: the depth of the product that makes weight gradients
    wide = c_in * taps
    shapes = ((c_out, wide), (c_in, c_out * taps), (np.minimum(c_out, wide), deep))
    for number, (width, depth) in enumerate(shapes):
        needed = np.ones(len(net.layers))
        needed[0] = float(number != 1)  # nobody asks for the gradient of the images
        rate = peak * _fill(width, parameters.half_width) * _fill(depth, parameters.half_width)
        total = total + needed * np.maximum(flop / rate, memory)
    return total


def _fill(width: Array, half_width: Number) -> Array:
    """Share of the units that a product of that width keeps busy."""
    filled: Array = width / (width + magnitude(half_width))
    return filled
