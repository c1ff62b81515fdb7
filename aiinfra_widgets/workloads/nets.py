"""Load a workload: the net made from the catalog's layers, its data as tensors, its loss and its evaluation.

Legend: B samples in a batch, C classes or regressed outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from . import catalog, datasets
from .axes import ALONE, Axes
from .facts import Layer, WorkloadFacts
from .parts import Cut, Net, Part

#: Samples evaluated at once, so that evaluating needs no more memory than training does.
EVALUATION_BATCH = 2048


@dataclass(frozen=True)
class Workload:
    """A net, its data and its loss, ready to train.

    Attributes:
        facts: From the catalog, at the size asked for.
        net: Its parts, for whoever distributes it.
        module: Float32 on the CPU; the parameters depend on seed and size alone.
        train: (x, y) tensors: x float32 (N, *sample_shape), or int64 (N, T) tokens; y int64 (N,) classes or (N, T) tokens, or
            float32 (N, C).
        test: Likewise, held out.
    """

    facts: WorkloadFacts
    net: Net
    module: nn.Sequential
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def loss_sum(self, outputs: Tensor, targets: Tensor, axes: Axes = ALONE) -> Tensor:
        """Return the loss *summed* over the batch, a scalar.

        A sum, because ranks with shards of different size divide by the global batch: then their gradients add up to
        the gradient of one process. One sample counts its cross-entropy, or its squared error averaged over C.

        Args:
            outputs: (B, C), as the module returns them; (B, t, V) for sequences, of which a context-parallel rank has t tokens.
            targets: (B,) int64, or (B, C) float32; (B, t) int64.
            axes: Ranks that share the outputs.
        """
        if self.facts.task == "language":
            summed = axes.cross_entropy_sum(outputs.flatten(0, 1), targets.flatten(), self.facts.outputs)
            return summed / self.net.context
        if self.facts.task == "binary":
            return F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")
        if self.facts.task == "classification":
            return F.cross_entropy(outputs, targets, reduction="sum")
        return F.mse_loss(outputs, targets, reduction="sum") / outputs.shape[1]

    @torch.no_grad()
    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return held_out_loss (mean per test sample) and the workload's quality, where that is another quantity.

        Args:
            module: Any net of this shape, on any device; its training mode is left as it was.
        """
        device = next(module.parameters()).device
        was_training = module.training
        module.eval()
        loss, right, total = 0.0, 0, len(self.test[0])
        scores: list[Tensor] = []
        for start in range(0, total, EVALUATION_BATCH):
            x, targets = (part[start : start + EVALUATION_BATCH].to(device) for part in self.test)
            outputs = module(x)
            loss += float(self.loss_sum(outputs, targets))
            if self.facts.task == "classification":
                right += int((outputs.argmax(dim=1) == targets).sum())
            elif self.facts.task == "binary":
                scores.append(outputs.flatten())
        module.train(was_training)
        result = {"held_out_loss": loss / total}
        if self.facts.task == "classification":
            result["accuracy_frac"] = right / total
        elif self.facts.task == "binary":
            result["auc_frac"] = auc_frac(torch.cat(scores), self.test[1].flatten().to(device))
        return result


def auc_frac(scores: Tensor, targets: Tensor) -> float:
    """Return the area under the ROC curve: how often a positive sample scores above a negative one, ties counted half.

    Args:
        scores: (N,).
        targets: (N,), 0 or 1, both present.
    """
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts.double() - 1) / 2)[place]
    positive = targets > 0.5
    up, down = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - up * (up + 1) / 2) / (up * down))


def load(
    name: str, *, seed: int, cache: Path, width: int = 0, depth: int = 0, data_dir: Path | None = None
) -> Workload:
    """Return the workload `name`, the same bits on every rank for the same arguments.

    Args:
        name: In the catalog.
        seed: Of the initial parameters and of generated data.
        cache: Folder for data that are made once; several ranks may fill it at the same time.
        width, depth: Size of a workload that has no fixed one; 0 is its own.
        data_dir: Folder with the user's own train.npz and test.npz, for "dense-100-64-1".

    Raises:
        UnknownNameError: No such workload; lists the near matches.
        ModelInputError: A width or depth outside the allowed range.
        DataError: Archives that do not hold what was declared.
        StorageError: A cache that cannot be written.
    """
    facts = catalog.facts(name).sized(width, depth)
    train, test = datasets.load(facts, seed=seed, cache=cache, data_dir=data_dir)
    net = net_of(facts)
    return Workload(facts, net, net.whole(seed), _tensors(train), _tensors(test))


def net_of(facts: WorkloadFacts) -> Net:
    """Return the parts of a workload's net at its size; a family of nets other than rows of layers has a module for it."""
    if facts.family != "layers":
        found: Net = import_module(f"{__package__}.{facts.family}").net(facts)
        return found
    return row_of_layers(facts.layers())


def build(layers: Sequence[Layer], seed: int) -> nn.Sequential:
    """Return the net of `layers` (the loss is left out), drawn from `seed`."""
    return row_of_layers(layers).whole(seed)


def row_of_layers(layers: Sequence[Layer]) -> Net:
    """Return plain layers one after the other as parts. Tensor parallelism cuts them in pairs: one by columns, the next by rows."""
    trained = [layer for layer in layers if layer.params]
    parts, cut_channels = [], 1
    for layer in (layer for layer in layers if layer.kind != "loss"):
        cuts: dict[str, Cut] = {}
        unit = 1
        place = trained.index(layer) if layer.params else -1
        if 0 <= place < len(trained) - len(trained) % 2:
            if place % 2 == 0:
                cuts = {"weight": Cut(0), "bias": Cut(0)}
                cut_channels = layer.dims["out_channels" if layer.kind == "conv" else "out"]
            else:  # behind a flattened picture, the pixels of one channel stay together
                unit = 1 if layer.kind == "conv" else layer.dims["in"] // cut_channels
                cuts = {"weight": Cut(1, unit=unit)}
        cost = float(layer.flop_forward_per_sample or layer.out_elements)
        parts.append(Part(layer.name, partial(_module, layer, bool(cuts), place % 2 == 0, unit), cuts, cost=cost))
    pairs = trained[: len(trained) - len(trained) % 2 : 2]
    most = min((layer.dims["out_channels" if layer.kind == "conv" else "out"] for layer in pairs), default=1)
    why_not = "" if pairs else "a net of one layer has no pair of layers to cut"
    return Net(tuple(parts), partial(_draw, layers), why_not, heads=most)


def _draw(layers: Sequence[Layer], net: nn.Module, seed: int) -> None:
    """Initialise the whole net from `seed` alone.

    Weights are uniform with variance 2 / fan_in (He et al. 2015), which keeps the signal through rectifiers at any
    depth; the last layer, which no rectifier follows, has half of that; biases are 0. Neither torch's global generator
    nor the number of threads has a part in it, and numpy's generator is 8 times as fast as torch's on 64 MB.
    """
    rng = np.random.default_rng([seed, 0])
    trained = [layer for layer in layers if layer.params]
    for layer in trained:
        module = net.get_submodule(layer.name)
        weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
        gain = 1.0 if layer is trained[-1] else 2.0
        bound = math.sqrt(3 * gain / weight[0].numel())
        drawn = rng.random(tuple(weight.shape), dtype=np.float32)
        drawn -= np.float32(0.5)
        drawn *= np.float32(2 * bound)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(drawn))
            bias.zero_()


def _module(layer: Layer, cut: bool, by_columns: bool, unit: int, axes: Axes) -> nn.Module:
    """Return the module of one layer, its parameters allocated but not yet drawn."""
    dims = layer.dims
    match layer.kind:
        case "linear" | "conv":
            module = _product(layer, axes if cut else ALONE, by_columns, unit).to_empty(device="cpu")
            return _Cut(module, axes, by_columns) if cut and axes.tp_size > 1 else module
        case "activation":
            return nn.ReLU()
        case "pool":
            return nn.MaxPool2d(dims["kernel"])
        case "flatten":
            return nn.Flatten()
        case _:
            raise AssertionError(f"no module for a layer of kind {layer.kind!r}")


class _Cut(nn.Module):
    """A dense layer or convolution of which this tp rank holds some columns, or some rows."""

    def __init__(self, inner: nn.Linear | nn.Conv2d, axes: Axes, by_columns: bool) -> None:
        super().__init__()
        self.weight, self.bias = inner.weight, inner.bias
        self.axes, self.by_columns = axes, by_columns
        self.padding = inner.padding if isinstance(inner, nn.Conv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        """Return this rank's columns; or, by rows, the sum over the ranks and then the bias, once."""
        if self.by_columns:
            return self._times(self.axes.enter(x), self.bias)
        summed = self.axes.leave(self._times(x, None))
        bias: Tensor = self.get_parameter("bias")
        return summed + (bias if self.padding is None else bias[:, None, None])

    def _times(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding is None:
            return F.linear(x, self.weight, bias)
        return F.conv2d(x, self.weight, bias, padding=self.padding)


def _product(layer: Layer, axes: Axes, by_columns: bool, unit: int) -> nn.Linear | nn.Conv2d:
    """Return this tp rank's share of a dense layer or convolution, without memory."""
    dims = dict(layer.dims)
    channels = ("in_channels", "out_channels") if layer.kind == "conv" else ("in", "out")
    dim = channels[1 if by_columns else 0]
    mine = axes.mine(dims[dim] // unit)
    dims[dim] = (mine.stop - mine.start) * unit
    if layer.kind == "linear":
        return nn.Linear(dims["in"], dims["out"], device="meta")
    size = dims["in_channels"], dims["out_channels"], dims["kernel"]
    return nn.Conv2d(*size, padding=dims["kernel"] // 2, device="meta")


def _tensors(split: tuple[datasets.Array, datasets.Array]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split[0]), torch.from_numpy(split[1])
