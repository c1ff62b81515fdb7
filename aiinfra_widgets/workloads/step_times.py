"""A training step's parts as functions of size, from a machine's calibration. Neither torch nor a clock is needed.

# n nodes, b samples of one node, P parameters
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from ..models import MeasuredAllreduce
from ..models.grid import TimeGrid
from .calibrated import Calibrated
from .facts import Layer, perceptron


class StepTimes(Calibrated):
    """What a training step is made of, as functions of size."""

    @cached_property
    def chain(self) -> tuple[float, float]:
        """(seconds that a call into backward costs once per step, seconds of a tiny layer)."""
        one, nine = (self.one("chain", layers=k) for k in (1, 9))
        layer = max((nine - one) / 8, 0.0)
        return max(one - layer, 0.0), layer

    @cached_property
    def _kinds(self) -> dict[str, TimeGrid]:
        return {
            "linear": self.grid("linear", "width", "batch"),
            "conv": self.grid("conv", "inputs", "outputs", "batch"),
            "activation": self.grid("activation", "elements"),
            "pool": self.grid("pool", "elements"),
            "classification": self.grid("cross_entropy", "batch"),
            "regression": self.grid("squared_error", "batch"),
            "gather": self.grid("gather", "row", "batch"),
        }

    def forward_backward_s(self, layers: tuple[Layer, ...], task: str, b: Any) -> Any:
        """Return seconds of forward and backward on one rank by itself, for b samples."""
        startup, tiny = self.chain
        total: Any = startup
        for layer in layers:
            if layer.kind == "flatten":
                total = total + tiny / 2
                continue
            alone = self._layer_s(layer, task, b)
            # Each probe paid for its own call into backward; a step pays once.
            share = np.maximum(alone - startup, 0.2 * alone)
            if layer.kind == "linear" and not layer.needs_input_grad:
                share = share * 2 / 3
            total = total + share
        return total

    def _layer_s(self, layer: Layer, task: str, b: Any) -> Any:
        kinds, d = self._kinds, layer.dims
        match layer.kind:
            case "linear":
                return kinds["linear"].time_s(math.sqrt(d["in"] * d["out"]), b)
            case "conv":
                pixels = self.machine.need("conv")[0].at["pixels"]
                return kinds["conv"].time_s(d["in_channels"], d["out_channels"], b * d["height"] * d["width"] / pixels)
            case "activation":
                return kinds["activation"].time_s(layer.out_elements * b)
            case "pool":
                return kinds["pool"].time_s(layer.in_elements * b)
            case _:
                outputs = max(d["outputs"], 1)
                return kinds[task].time_s(b * (outputs / 10 if task == "classification" else outputs))

    @cached_property
    def glue_s(self) -> float:
        """Seconds of a step that no operation by itself accounts for: a tiny net's whole step, less the sum of its parts."""
        whole = self.machine.need("step")[0]
        layers = perceptron(*whole.at["widths"])
        parts = self.forward_backward_s(layers, "classification", float(whole.at["batch"]))
        parts += self.update_s(sum(layer.params for layer in layers), 1.0) + self.tail_s(1.0)
        return max(float(getattr(whole, self.which) - parts), 0.0)

    def gather_s(self, row: float, b: Any) -> Any:
        """Return seconds to fetch b rows of `row` numbers."""
        return self._kinds["gather"].time_s(row, b)

    def update_s(self, params: int, n: Any) -> Any:
        """Return seconds to clear gradients and update, while n ranks do the same."""
        return self.grid("update", "params", "ranks").time_s(params, n)

    def tail_s(self, n: Any) -> Any:
        """Return seconds of bookkeeping on the buffer's tail."""
        return self.grid("tail", "ranks").time_s(n)

    def runtime_s(self) -> float:
        """Return the lab's own seconds between two steps."""
        return self.one("runtime")

    @cached_property
    def _allreduce(self) -> MeasuredAllreduce:
        rows = self.machine.need("allreduce")
        return MeasuredAllreduce.from_points((p.at["bytes"], p.at["ranks"], getattr(p, self.which)) for p in rows)

    def allreduce_s(self, size_bytes: Any, n: Any) -> Any:
        """Return seconds of one all-reduce among n ranks that arrive together."""
        return np.where(np.asarray(n) > 1, self._allreduce.time_s(size_bytes, np.maximum(n, 2)), 0.0)

    def lockstep(self, n: Any, alone_s: Any, size_bytes: Any) -> tuple[Any, Any, Any]:
        """Return what n ranks that share this machine's cores make of `alone_s` of arithmetic and an all-reduce.

        Returns:
            (arithmetic as a multiple of `alone_s`, seconds of the mean rank's wait, seconds of communication).
        """
        median = StepTimes(self.machine) if self.which != "median" else self
        base_s = median.grid("lockstep", "alone_s", ranks=1, part="compute").time_s(alone_s)
        probed = np.clip(size_bytes, *self._probed_bytes)
        found = {}
        for part in ("compute", "wait", "comm"):
            rows = [p for p in self.machine.need("lockstep", part=part) if p.at["ranks"] > 1]
            points = [(p.at, max(getattr(p, self.which), 1e-7)) for p in rows]
            grid = TimeGrid.from_points(("ranks", "alone_s", "bytes"), points)
            found[part] = grid.time_s(np.maximum(n, 2), alone_s, probed)
        shared = np.asarray(n) > 1
        more_s = self._allreduce.time_s(size_bytes, np.maximum(n, 2)) - self._allreduce.time_s(probed, np.maximum(n, 2))
        return (
            np.where(shared, np.maximum(found["compute"] / base_s, 1.0), 1.0),
            np.where(shared, found["wait"], 0.0),
            np.where(shared, found["comm"] + np.maximum(more_s, 0.0), 0.0),
        )

    @cached_property
    def _probed_bytes(self) -> tuple[float, float]:
        sizes = [p.at["bytes"] for p in self.machine.need("lockstep", part="comm") if p.at["ranks"] > 1]
        return float(min(sizes)), float(max(sizes))
