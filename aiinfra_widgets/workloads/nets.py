"""Load a workload: the module made from the catalog's layers, its data as tensors, its loss and its evaluation.

Legend: B samples in a batch, C classes or regressed outputs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from . import catalog, datasets
from .catalog import Layer, WorkloadFacts

#: Samples evaluated at once, so that evaluating needs no more memory than training does.
EVALUATION_BATCH = 2048


@dataclass(frozen=True)
class Workload:
    """A net, its data and its loss, ready to train.

    Attributes:
        facts: From the catalog, at the size asked for.
        module: Float32 on the CPU; the parameters depend on seed and size alone.
        train: (x, y) tensors: x float32 (N, *sample_shape); y int64 (N,) classes or float32 (N, C).
        test: Likewise, held out.
    """

    facts: WorkloadFacts
    module: nn.Sequential
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def loss_sum(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss *summed* over the batch, a scalar.

        A sum, because ranks with shards of different size divide by the global batch: then their gradients add up to
        the gradient of one process. One sample counts its cross-entropy, or its squared error averaged over C.

        Args:
            outputs: (B, C), as the module returns them.
            targets: (B,) int64, or (B, C) float32.
        """
        if self.facts.task == "classification":
            return F.cross_entropy(outputs, targets, reduction="sum")
        return F.mse_loss(outputs, targets, reduction="sum") / outputs.shape[1]

    @torch.no_grad()
    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return held_out_loss (mean per test sample) and, for classes, accuracy_frac.

        Args:
            module: Any net of this shape, on any device; its training mode is left as it was.
        """
        device = next(module.parameters()).device
        was_training = module.training
        module.eval()
        loss, right, total = 0.0, 0, len(self.test[0])
        for start in range(0, total, EVALUATION_BATCH):
            x, targets = (part[start : start + EVALUATION_BATCH].to(device) for part in self.test)
            outputs = module(x)
            loss += float(self.loss_sum(outputs, targets))
            if self.facts.task == "classification":
                right += int((outputs.argmax(dim=1) == targets).sum())
        module.train(was_training)
        result = {"held_out_loss": loss / total}
        if self.facts.task == "classification":
            result["accuracy_frac"] = right / total
        return result


def load(
    name: str, *, seed: int, cache: Path, width: int = 256, depth: int = 4, data_dir: Path | None = None
) -> Workload:
    """Return the workload `name`, the same bits on every rank for the same arguments.

    Args:
        name: In the catalog.
        seed: Of the initial parameters and of generated data.
        cache: Folder for data that are made once; several ranks may fill it at the same time.
        width, depth: Size of "synthetic"; the other workloads have theirs.
        data_dir: Folder with the user's own train.npz and test.npz, for "dense-100-64-1".

    Raises:
        UnknownNameError: No such workload; lists the near matches.
        ModelInputError: A width or depth outside the allowed range.
        DataError: Archives that do not hold what was declared.
        StorageError: A cache that cannot be written.
    """
    facts = catalog.facts(name).sized(width, depth)
    train, test = datasets.load(facts, seed=seed, cache=cache, data_dir=data_dir)
    module = build(facts.layers(), seed)
    return Workload(facts, module, _tensors(train), _tensors(test))


def build(layers: Sequence[Layer], seed: int) -> nn.Sequential:
    """Return the net of `layers` (the loss is left out), initialised from `seed` alone.

    Weights are uniform with variance 2 / fan_in (He et al. 2015), which keeps the signal through rectifiers at any
    depth; the last layer, which no rectifier follows, has half of that; biases are 0. Neither torch's global generator
    nor the number of threads has a part in it, and numpy's generator is 8 times as fast as torch's on 64 MB.
    """
    rng = np.random.default_rng([seed, 0])
    trained = [layer for layer in layers if layer.params]
    modules = OrderedDict((layer.name, _module(layer)) for layer in layers if layer.kind != "loss")
    for layer in trained:
        module = modules[layer.name]
        weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
        gain = 1.0 if layer is trained[-1] else 2.0
        bound = math.sqrt(3 * gain / weight[0].numel())
        drawn = rng.random(tuple(weight.shape), dtype=np.float32)
        drawn -= np.float32(0.5)
        drawn *= np.float32(2 * bound)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(drawn))
            bias.zero_()
    return nn.Sequential(modules)


def _module(layer: Layer) -> nn.Module:
    """Return the module of one layer, its parameters allocated but not yet drawn."""
    dims = layer.dims
    match layer.kind:
        case "linear":
            return nn.Linear(dims["in"], dims["out"], device="meta").to_empty(device="cpu")
        case "conv":
            size = dims["in_channels"], dims["out_channels"], dims["kernel"]
            return nn.Conv2d(*size, padding=dims["kernel"] // 2, device="meta").to_empty(device="cpu")
        case "activation":
            return nn.ReLU()
        case "pool":
            return nn.MaxPool2d(dims["kernel"])
        case "flatten":
            return nn.Flatten()
        case _:
            raise AssertionError(f"no module for a layer of kind {layer.kind!r}")


def _tensors(split: tuple[datasets.Array, datasets.Array]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split[0]), torch.from_numpy(split[1])
