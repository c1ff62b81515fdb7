"""What may be said of a workload before anything is loaded: layers with their exact arithmetic, data, goal.

Pure: neither torch nor scikit-learn is imported, so that a prediction can be made in the kernel. The modules are built
from the very same layers, and a test holds every number here against torch's own operation counter.

Legend of the formulas: C channels, H x W pixels, K kernel edge. All numbers are *per sample* and for float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from ..errors import ModelInputError

Kind = Literal[
    "linear",
    "conv",
    "activation",
    "pool",
    "flatten",
    "loss",
    "embedding",
    "norm",
    "gelu",
    "attention",
    "add",
    "interaction",
    "elementwise",
]
#: `language`: logits (B, T, V) against tokens (B, T), the mean over T; `binary`: one logit against 0 or 1.
Task = Literal["classification", "regression", "language", "binary"]
Optimizer = Literal["sgd", "adamw"]

FLOAT_BYTES = 4
INDEX_BYTES = 8


@dataclass(frozen=True)
class Layer:
    """One layer of a net, or its loss.

    Attributes:
        name: Unique within the net; also the name of the submodule.
        kind: What it does; `conv` has stride 1 and pads to the same size, `pool` is a maximum over K x K squares,
            `activation` is a rectifier, `interaction` all dot products of some vectors with each other, `elementwise` any other
            pass over the elements (squares, logarithms, means).
        flop_forward_per_sample: Multiplications and additions of the matrix product or convolution; 0 for what only
            moves or compares elements (bias, norm, activation, pooling, loss: bound by memory, see the element counts).
        params: Trainable numbers, weight and bias.
        in_elements: Numbers read per sample.
        out_elements: Numbers written per sample.
        dims: linear: in, out, and rows where a sample has several (tokens). conv: in_channels, out_channels, kernel, height,
            width. pool: kernel, channels, height, width (of its input). attention: heads, width, tokens. embedding: vocab,
            width, tokens. interaction: vectors, width. loss: outputs, and rows. Otherwise empty.
        needs_input_grad: Whether backward computes the gradient of the input; False up to the first trained layer.
        frozen: Whether its matrix is fixed, so that backward computes no gradient of it.
        fixed_params: Numbers that the layer holds but does not train (the base under adapters).
        kept_bytes: Bytes per sample that autograd keeps for backward, each tensor counted at the first layer that keeps it;
            for plain rows of layers it follows from the kinds and is left 0.
    """

    name: str
    kind: Kind
    flop_forward_per_sample: int
    params: int
    in_elements: int
    out_elements: int
    dims: Mapping[str, int] = field(hash=False)
    needs_input_grad: bool
    frozen: bool = False
    fixed_params: int = 0
    kept_bytes: int = 0

    @property
    def flop_backward_per_sample(self) -> int:
        """One product of the forward size for the weight's gradient, and one for the input's, where they are needed."""
        return self.flop_forward_per_sample * (self.needs_input_grad + (not self.frozen))


@dataclass(frozen=True)
class WorkloadFacts:
    """One workload, at one size.

    Attributes:
        name: As in the Spec.
        title, help: For people.
        task: Decides the loss: cross-entropy (averaged over the tokens of a sequence), squared error averaged over the
            outputs, or logistic loss.
        family: Module that builds the net (`FAMILY.net(facts)`) and, beside it, its data (`FAMILY_data.load`); "layers" are
            plain rows of layers, built by `nets`.
        quality: Name of the quantity that says how good the trained net is.
        goal, goal_steps: The quality that `goal_steps` steps of its optimizer (momentum 0.9 for sgd), the default batch and
            learning rate at the default size reach from every seed that was tried (a test trains it).
        train_samples, test_samples: Of the data that is shipped or generated; a user's own archive may hold others.
        default_batch, default_lr: Global batch and learning rate that converge.
        best_held_out_loss: What no net can beat on average: the variance of the noise in the data; None if not known.
        best_auc_frac: The area that the teacher itself reaches on the held-out data; None where there is no such teacher.
        width, depth: The size; means something only if `sizable`.
        sizable: Whether width and depth change the net.
        width_range, depth_range: Allowed sizes.
        optimizer: That trains it best, with default_lr.
        reads_archives: Whether the data are numeric archives that a user may replace.
        sample_shape_of, layers_of: The shape of one input, and the layers, at (width, depth).
    """

    name: str
    title: str
    help: str
    task: Task
    quality: str
    goal: float
    goal_steps: int
    train_samples: int
    test_samples: int
    default_batch: int
    default_lr: float
    sample_shape_of: Callable[[int, int], tuple[int, ...]]
    layers_of: Callable[[int, int], tuple[Layer, ...]]
    best_held_out_loss: float | None = None
    best_auc_frac: float | None = None
    width: int = 256
    depth: int = 4
    sizable: bool = False
    reads_archives: bool = False
    family: str = "layers"
    optimizer: Optimizer = "sgd"
    width_range: tuple[int, int] = (64, 4096)
    depth_range: tuple[int, int] = (1, 16)

    def sized(self, width: int = 0, depth: int = 0) -> WorkloadFacts:
        """Return the same workload at another size, 0 for its own; unchanged where the size is fixed.

        Raises:
            ModelInputError: If the size is outside width_range or depth_range.
        """
        if not self.sizable:
            return self
        width, depth = width or self.width, depth or self.depth
        for label, value, (low, high) in (("width", width, self.width_range), ("depth", depth, self.depth_range)):
            if int(value) != value or not low <= value <= high:
                raise ModelInputError(f"{self.name}: {label} is {value}; allowed: a whole number from {low} to {high}")
        return replace(self, width=int(width), depth=int(depth))

    def layers(self, width: int | None = None, depth: int | None = None) -> tuple[Layer, ...]:
        """Return the layers, the loss last.

        Args:
            width: Instead of this object's own.
            depth: Instead of this object's own.

        Raises:
            ModelInputError: As `sized`.
        """
        at = self.sized(self.width if width is None else width, self.depth if depth is None else depth)
        return at.layers_of(at.width, at.depth)

    def cost_of_parts(self) -> dict[str, float]:
        """Return what to balance stages by: a third of each part's arithmetic, flop per sample, forward and backward.

        That is the forward arithmetic, and less where backward has less to do. Layers name their part before a dot
        ("block1.conv1").
        """
        cost: dict[str, float] = {}
        for layer in self.layers():
            part = layer.name.partition(".")[0]
            cost[part] = cost.get(part, 0.0) + (layer.flop_forward_per_sample + layer.flop_backward_per_sample) / 3
        return cost

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.sample_shape_of(self.width, self.depth)

    @property
    def outputs(self) -> int:
        """Number of classes (of a text: different tokens), or of regressed numbers."""
        return self.layers()[-1].dims["outputs"]

    @property
    def params(self) -> int:
        """Trainable numbers of the net."""
        return sum(layer.params for layer in self.layers())

    @property
    def gradient_bytes(self) -> int:
        """Bytes that one all-reduce of the whole float32 gradient carries."""
        return self.params * FLOAT_BYTES

    @property
    def flop_forward_per_sample(self) -> int:
        """Matrix arithmetic of the forward pass."""
        return sum(layer.flop_forward_per_sample for layer in self.layers())

    @property
    def flop_per_sample(self) -> int:
        """Matrix arithmetic of forward and backward pass, exactly: no input gradient for the first trained layer."""
        return sum(layer.flop_forward_per_sample + layer.flop_backward_per_sample for layer in self.layers())

    @property
    def activation_bytes_per_sample(self) -> int:
        """Bytes kept from the forward to the backward pass: input, activations, pooling indices, loss and target."""
        if stated := sum(layer.kept_bytes for layer in self.layers()):
            return stated
        kept = math.prod(self.sample_shape) * FLOAT_BYTES
        for layer in self.layers():
            if layer.kind in {"activation", "pool"}:
                kept += layer.out_elements * FLOAT_BYTES
            if layer.kind == "pool":
                kept += layer.out_elements * INDEX_BYTES
        # Cross-entropy keeps its log-probabilities and a class index; squared error keeps outputs and targets.
        target = INDEX_BYTES if self.task == "classification" else self.outputs * FLOAT_BYTES
        return kept + self.outputs * FLOAT_BYTES + target


def linear(name: str, inputs: int, outputs: int, *, rows: int = 1, first: bool = False) -> Layer:
    """Return a dense layer with bias, applied to each of a sample's rows: y = x W + b, 2 in out flop."""
    dims = {"in": inputs, "out": outputs} | ({"rows": rows} if rows > 1 else {})
    sizes = (inputs + 1) * outputs, rows * inputs, rows * outputs
    return Layer(name, "linear", 2 * rows * inputs * outputs, *sizes, dims, not first)


def elementwise(name: str, inputs: int, outputs: int, *, first: bool = False) -> Layer:
    """Return a pass over the elements without parameters or matrix arithmetic."""
    return Layer(name, "elementwise", 0, 0, inputs, outputs, {}, not first)


def conv(name: str, in_channels: int, out_channels: int, size: int, *, kernel: int = 3, first: bool = False) -> Layer:
    """Return a square convolution with bias, stride 1, same size: 2 C_out C_in K K H W flop."""
    weights, pixels = in_channels * out_channels * kernel**2, size * size
    dims = {"in_channels": in_channels, "out_channels": out_channels, "kernel": kernel, "height": size, "width": size}
    elements = in_channels * pixels, out_channels * pixels
    return Layer(name, "conv", 2 * weights * pixels, weights + out_channels, *elements, dims, not first)


def keeping(layer: Layer, elements: int, indices: int = 0) -> Layer:
    """Return the layer, which keeps so many numbers and whole numbers per sample for backward."""
    return replace(layer, kept_bytes=elements * FLOAT_BYTES + indices * INDEX_BYTES)


def residual_block(name: str, channels: int, size: int) -> tuple[Layer, ...]:
    """Return x + conv(relu(conv(relu(x)))) on pictures of size x size."""
    elements = channels * size**2
    return (
        keeping(relu(f"{name}.relu1", elements), elements),
        conv(f"{name}.conv1", channels, channels, size),
        keeping(relu(f"{name}.relu2", elements), elements),
        conv(f"{name}.conv2", channels, channels, size),
        Layer(f"{name}.add", "add", 0, 0, 2 * elements, elements, {}, True),
    )


def relu(name: str, elements: int) -> Layer:
    """Return a rectifier."""
    return Layer(name, "activation", 0, 0, elements, elements, {}, True)


def pool(name: str, channels: int, size: int, *, kernel: int = 2) -> Layer:
    """Return a maximum over kernel x kernel squares that do not overlap."""
    dims = {"kernel": kernel, "channels": channels, "height": size, "width": size}
    return Layer(name, "pool", 0, 0, channels * size**2, channels * (size // kernel) ** 2, dims, True)


def flatten(elements: int) -> Layer:
    """Return a change of shape; it moves nothing."""
    return Layer("flatten", "flatten", 0, 0, elements, elements, {}, True)


def loss(outputs: int) -> Layer:
    """Return the loss over `outputs` numbers per sample; which one is the workload's task."""
    return Layer("loss", "loss", 0, 0, outputs, 1, {"outputs": outputs}, True)


def perceptron(*sizes: int) -> tuple[Layer, ...]:
    """Return dense layers from size to size with a rectifier between them, and the loss."""
    layers: list[Layer] = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers.append(linear(f"linear{i}", inputs, outputs, first=i == 1))
        if i < len(sizes) - 1:
            layers.append(relu(f"relu{i}", outputs))
    return (*layers, loss(sizes[-1]))


def small_cnn(channels: tuple[int, int, int] = (1, 16, 32), size: int = 8) -> tuple[Layer, ...]:
    """Return two 3 x 3 convolutions, a pooling and a dense layer; no batch norm, which would tie the ranks together."""
    first, second, third = channels
    flat = third * (size // 2) ** 2
    return (
        conv("conv1", first, second, size, first=True),
        relu("relu1", second * size**2),
        conv("conv2", second, third, size),
        relu("relu2", third * size**2),
        pool("pool", third, size),
        flatten(flat),
        linear("linear", flat, 10),
        loss(10),
    )
