"""The machine that a model computes for: one accelerator, its node, and the fabric between nodes; plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._check import Number, need


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device, as the data sheet has it; each field a number or an array that broadcasts with the plans.

    Attributes:
        peak_flops: Dense matrix rate in the plan's precision, flop/s.
        achievable_frac: Share of that peak which the best large matrix product reaches, 0 to 1.
        memory_bytes: Capacity.
        memory_bandwidth_bytes_per_s: Of its own memory.
        peak_16bit_flops: Dense rate in bf16 or fp16, flop/s: attention and output projection stay there. None: peak_flops.
        is_newer: Hopper and after: peak grew faster than power, so a job runs further below it than one product alone.

    Raises:
        ModelInputError: A number that is not positive.
    """

    peak_flops: Number
    achievable_frac: Number
    memory_bytes: Number
    memory_bandwidth_bytes_per_s: Number
    peak_16bit_flops: Number = None
    is_newer: Any = False

    def __post_init__(self) -> None:
        for name in ("peak_flops", "memory_bytes", "memory_bandwidth_bytes_per_s"):
            need(name, getattr(self, name), above=True, hint="check the catalog row")
        if self.peak_16bit_flops is None:
            object.__setattr__(self, "peak_16bit_flops", self.peak_flops)
        need("peak_16bit_flops", self.peak_16bit_flops, above=True)
        need("achievable_frac", self.achievable_frac, 0, 1, above=True)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal nodes of equal accelerators on one fabric; each field a number or an array.

    Attributes:
        accelerator: The device.
        per_node: Devices in one node (in one NVLink domain, one TPU slice).
        node_bandwidth_oneway_bytes_per_s: Per device, inside the node, one direction.
        node_latency_s: Of one message inside the node.
        fabric_bandwidth_oneway_bytes_per_s: Per device, between nodes, one direction: the node's injection / per_node.
        fabric_latency_s: Of one message between nodes.

    Raises:
        ModelInputError: A bandwidth that is not positive, a latency below zero.
    """

    accelerator: Accelerator
    per_node: Number
    node_bandwidth_oneway_bytes_per_s: Number
    node_latency_s: Number
    fabric_bandwidth_oneway_bytes_per_s: Number
    fabric_latency_s: Number

    def __post_init__(self) -> None:
        need("per_node", self.per_node, 1, whole=True)
        for name in ("node_bandwidth_oneway_bytes_per_s", "fabric_bandwidth_oneway_bytes_per_s"):
            need(name, getattr(self, name), above=True, infinite=True, hint="check the catalog row")
        for name in ("node_latency_s", "fabric_latency_s"):
            need(name, getattr(self, name))
