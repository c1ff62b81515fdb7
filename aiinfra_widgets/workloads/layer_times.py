"""Seconds of a net's layers, forward and backward, from a machine's calibration. Neither torch nor a clock is needed.

# b samples of one rank
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ..errors import ModelInputError
from ..models.grid import TimeGrid
from .calibrated import Calibrated
from .facts import FLOAT_BYTES, Layer, Task

Way = Literal["forward", "backward"]
WAYS: tuple[Way, ...] = ("forward", "backward")
#: A tensor of at least so many bytes gets new pages from the system each time: the C library keeps no larger ones (glibc,
#: M_MMAP_THRESHOLD at most 32 MiB).
FRESH_BYTES = 2**25
#: Channels below which the probed convolutions owe nobody a gradient of their input, as a net's first does.
FIRST_CHANNELS = 8
#: Channels that a convolution has at most, as a mean of its inputs and outputs, for the probes of narrow ones.
MOST_CHANNELS = 32
#: Of a layer that does not say over how many numbers it takes a mean.
NORM_WIDTH = 256


class LayerTimes(Calibrated):
    """Forward and backward of layers by the measured times of their kinds.

    Valid when: one rank on a core of its own, float32, one thread; layers of the kinds that were probed.
    Off by: 5 to 20 % in nets of layers of some 100 us; more for layers far outside the probed sizes, and where a net's tensors
        together are larger than the C library keeps for reuse.
    """

    @cached_property
    def chain(self) -> tuple[float, float]:
        """(seconds that a call into backward costs once per step, seconds of a tiny layer both ways)."""
        (one_f, nine_f), (one_b, nine_b) = ([self.one("chain", layers=k, part=way) for k in (1, 9)] for way in WAYS)
        forward, backward = (max((nine - one) / 8, 0.0) for one, nine in ((one_f, nine_f), (one_b, nine_b)))
        return max(one_b - backward, 0.0), forward + backward

    def forward_s(self, layers: Sequence[Layer], b: Any, task: Task | None = None) -> Any:
        """Return seconds of the forward pass of some layers on one rank by itself.

        Args:
            layers: All of a net, or those of a pipeline's stage.
            b: Samples; may be an array.
            task: Of the workload; needed where the loss is among the layers.

        Raises:
            ModelInputError: The machine is not calibrated for this, or a kind of layer that is not known.
        """
        return sum((self._layer_s(layer, task, b, "forward") for layer in layers), 0.0)

    def backward_s(self, layers: Sequence[Layer], b: Any, task: Task | None = None) -> Any:
        """Return seconds of the backward pass of some layers, which is one call into backward; see `forward_s`."""
        startup, _ = self.chain
        total: Any = startup
        for layer in layers:
            alone = self._layer_s(layer, task, b, "backward")
            # Each probe paid for its own call into backward; a step pays once.
            total = total + np.maximum(alone - startup, 0.2 * alone) * _gradients(layer)
        return total

    def forward_backward_s(self, layers: Sequence[Layer], task: Task | None, b: Any) -> Any:
        """Return seconds of forward and backward on one rank by itself, for b samples."""
        return self.forward_s(layers, b, task) + self.backward_s(layers, b, task)

    def _layer_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        """Return seconds of one layer one way, as if it and what comes before it were trained."""
        try:
            seconds = self._kinds[layer.kind]
        except KeyError:
            known = ", ".join(self._kinds)
            raise ModelInputError(
                f"layer {layer.name!r}: no time is known for the kind {layer.kind!r}; known: {known}; use one of them"
            ) from None
        return seconds(layer, task, b, way) + self._fresh_s(layer, b, way)

    @cached_property
    def _kinds(self) -> dict[str, Callable[[Layer, Task | None, Any, Way], Any]]:
        return {
            "linear": self._linear_s,
            "conv": self._conv_s,
            "attention": self._attention_s,
            "embedding": self._embedding_s,
            "interaction": self._interaction_s,
            "norm": self._norm_s,
            "activation": lambda layer, task, b, way: self._way("activation", way).time_s(layer.out_elements * b),
            "gelu": lambda layer, task, b, way: self._way("gelu", way).time_s(layer.out_elements * b),
            "add": lambda layer, task, b, way: self._way("add", way).time_s(layer.out_elements * b),
            "elementwise": self._elementwise_s,
            "pool": lambda layer, task, b, way: self._way("pool", way).time_s(layer.in_elements * b),
            "flatten": lambda layer, task, b, way: self.chain[1] / 4 + (self.chain[0] if way == "backward" else 0.0),
            "loss": self._loss_s,
        }

    def _way(self, name: str, way: Way) -> TimeGrid:
        """Return a probe's time over its sizes, one way."""
        if (name, way) not in self._grids:
            self._grids[name, way] = self.grid(name, *AXES[name], part=way)
        return self._grids[name, way]

    @cached_property
    def _grids(self) -> dict[tuple[str, Way], TimeGrid]:
        return {}

    def _linear_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        inputs, outputs = layer.dims["in"], layer.dims["out"]
        width, rows = math.sqrt(inputs * outputs), b * layer.dims.get("rows", 1)
        square_s = self._way("linear", way).time_s(width, rows)
        if inputs == outputs:
            return square_s
        shapes = self._shapes[way]
        at = [np.clip(x, p[0], p[-1]) for x, p in zip((width, outputs / inputs, rows), shapes.points, strict=True)]
        return square_s * shapes.time_s(*at)

    @cached_property
    def _shapes(self) -> dict[Way, TimeGrid]:
        """How much longer a layer takes that is not square than a square one of as much arithmetic."""
        found = {}
        for way in WAYS:
            square = self._way("linear", way)
            points: list[tuple[Any, float]] = []
            for p in self.machine.need("linear_shape", part=way):
                ratio = getattr(p, self.which) / square.time_s(p.at["width"], p.at["batch"])
                points += [(p.at, float(ratio)), ({**p.at, "aspect": 1.0}, 1.0)]
            found[way] = TimeGrid.from_points(("width", "aspect", "batch"), points)
        return found

    def _conv_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        d = layer.dims
        name = "conv_wide" if d["in_channels"] * d["out_channels"] > MOST_CHANNELS**2 else "conv"
        probed = self.machine.need(name)[0].at["pixels"]
        # A kernel other than 3 x 3 is taken as one of 3 x 3 with as much arithmetic.
        inputs = d["in_channels"] * (d["kernel"] / 3) ** 2
        return self._way(name, way).time_s(inputs, d["out_channels"], b * d["height"] * d["width"] / probed)

    def _attention_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        heads, width, tokens = (layer.dims[k] for k in ("heads", "width", "tokens"))
        grid = self._way("attention", way)
        # Beyond the longest sequence probed, each token looks at more others in proportion.
        longest = grid.points[1][-1]
        head_tokens = b * heads * tokens * max(tokens / longest, 1.0)
        return grid.time_s(head_tokens, min(tokens, longest), width / heads)

    def _embedding_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        vocab, width, tokens = (layer.dims[k] for k in ("vocab", "width", "tokens"))
        return self._way("embedding", way).time_s(b * tokens, width, vocab * width)

    def _interaction_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        return self._way("interaction", way).time_s(layer.dims["vectors"], layer.dims["width"], b)

    def _norm_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        # A norm has a gain and a shift for each of the numbers that it takes together.
        width = layer.dims.get("width") or (layer.params + layer.fixed_params) // 2 or NORM_WIDTH
        return self._way("norm", way).time_s(width, layer.out_elements * b)

    def _elementwise_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        # Facts may say that the layer is several operations in a row, and over how many numbers each.
        elements = layer.dims.get("elements") or max(layer.in_elements, layer.out_elements)
        return layer.dims.get("operations", 1) * self._way("elementwise", way).time_s(elements * b)

    def _loss_s(self, layer: Layer, task: Task | None, b: Any, way: Way) -> Any:
        outputs, rows = layer.dims["outputs"], b * layer.dims.get("rows", 1)
        match task:
            case "classification" | "language":
                return self._way("cross_entropy", way).time_s(outputs, rows)
            case "regression":
                return self._way("squared_error", way).time_s(rows * max(outputs, 1))
            case "binary":
                return self._way("logistic", way).time_s(rows * max(outputs, 1))
        raise ModelInputError(
            f"layer {layer.name!r}: which loss it is depends on the task, got {task!r}; "
            "allowed: classification, regression, language, binary"
        )

    def _fresh_s(self, layer: Layer, b: Any, way: Way) -> Any:
        """Return seconds for which the system clears the pages of a tensor that is too large to be kept for reuse."""
        elements: Any = max(layer.out_elements, layer.in_elements if layer.kind == "loss" else 0) * b
        if way == "backward":
            elements = np.maximum(layer.in_elements * b, 0 if layer.frozen else layer.params)
        size = elements * FLOAT_BYTES
        if np.all(size < FRESH_BYTES):
            return 0.0
        [fresh] = self.machine.need("fresh")
        return np.where(size >= FRESH_BYTES, size / fresh.at["bytes"] * getattr(fresh, self.which), 0.0)


#: Sizes over which each kind was probed, in the order in which they are asked.
AXES = {
    "linear": ("width", "batch"),
    "conv": ("inputs", "outputs", "batch"),
    "conv_wide": ("inputs", "outputs", "batch"),
    "attention": ("head_tokens", "tokens", "head"),
    "embedding": ("rows", "width", "params"),
    "interaction": ("vectors", "width", "batch"),
    "norm": ("width", "elements"),
    "activation": ("elements",),
    "gelu": ("elements",),
    "add": ("elements",),
    "elementwise": ("elements",),
    "pool": ("elements",),
    "cross_entropy": ("classes", "rows"),
    "squared_error": ("batch",),
    "logistic": ("batch",),
}


def _gradients(layer: Layer) -> float:
    """Return which share of a layer's backward pass is done: gradients of the matrix and of the input, half each."""
    if layer.kind == "embedding":
        return float(not layer.frozen)
    if layer.kind == "conv" and layer.dims["in_channels"] < FIRST_CHANNELS:
        return float(layer.needs_input_grad or not layer.frozen)
    if layer.kind in {"linear", "conv"}:
        return (layer.needs_input_grad + (not layer.frozen)) / 2
    return float(layer.needs_input_grad or layer.params > 0)
