"""Memory of the fullest rank of a training job: what is always there, what a step brings and takes, and what the runtime takes.

Three readings of one prediction, because published numbers mean different things: `allocated_bytes` is what tensors take,
`reserved_bytes` adds what the allocator cannot give back (PyTorch's "peak reserved"), `device_bytes` adds context and
communicators (nvidia-smi).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from dataclasses import field as attribute
from typing import Any

import numpy as np

from .._check import Number, need
from .architecture import Transformer
from .memory_activations import (
    LayerActivations,
    activation_element_bytes,
    layer_activations,
    micro_batches_in_flight,
    tokens_per_rank,
)
from .memory_states import StageParameters, gradient_bytes, stage_layers, stage_parameters, state_bytes, weight_bytes
from .plan import Plan


def _number(default: float, low: float, high: float, meaning: str) -> float:
    return attribute(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class MemoryParameters:
    """What no shape and no plan says: how much the runtime, the allocator and the usual kernels take.

    `bounds()` lists meaning and bounds of each. Context: BigScience measured 1573 MiB on an A100 with `nvidia-smi`
    (tr11-176B prequel). Communicators: NCCL's buffers, some hundred MB each with 8 to 32 channels.
    """

    context_bytes: float = _number(1.65e9, 0.3e9, 2.5e9, "device memory of the runtime: context, kernels, libraries")
    communicator_bytes: float = _number(0.4e9, 0.05e9, 1.0e9, "device memory of one communicator")
    fragmentation_frac: float = _number(
        0.1, 0.0, 0.35, "what the allocator reserves beyond tensors that come and go, as a share of them"
    )
    reduce_copy_frac: float = _number(
        0.5, 0.0, 1.0, "share of the low-precision gradients that their reduction holds a second time"
    )
    logit_bytes: float = _number(
        12.0, 2.0, 20.0, "bytes per logit at the loss: half-precision logits and gradient, fp32 logits and softmax"
    )
    gathered_layers: float = _number(
        2.0, 1.0, 4.0, "layers gathered at a time under ZeRO-3: the one at work and those fetched ahead"
    )
    selective_kept_frac: float = _number(
        0.5, 0.2, 1.0, "share of the products' outputs that selective recomputation keeps beside flash attention"
    )

    @classmethod
    def bounds(cls) -> dict[str, tuple[float, float, str]]:
        """Return lowest, highest and meaning of every parameter."""
        return {f.name: (f.metadata["low"], f.metadata["high"], f.metadata["meaning"]) for f in fields(cls)}


MEMORY_PARAMETERS = MemoryParameters()


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """Bytes of the fullest rank at its fullest moment; the parts add up to `total_bytes`.

    Attributes:
        weights_bytes, gradients_bytes, optimizer_bytes: As data parallelism leaves them on this rank.
        gathered_bytes: Under ZeRO-3, layers gathered to be worked on, and their gradients before they are reduced.
        activations_bytes: Kept for the backward pass, all micro-batches in flight.
        working_bytes: One layer at work in the backward pass; 0 where the logits are the greater moment.
        logits_bytes: Logits, softmax and their gradient; 0 where one layer's work is the greater moment.
        communication_bytes: Buckets, receive and exchange buffers.
        fragmentation_bytes: Reserved by the allocator beyond tensors.
        runtime_bytes: Context and communicators.
        on_last_stage: The fullest rank is on the last pipeline stage (with one stage: false).
    """

    weights_bytes: Number
    gradients_bytes: Number
    optimizer_bytes: Number
    gathered_bytes: Number
    activations_bytes: Number
    working_bytes: Number
    logits_bytes: Number
    communication_bytes: Number
    fragmentation_bytes: Number
    runtime_bytes: Number
    on_last_stage: Any

    def parts(self) -> dict[str, Number]:
        """Return every part by its name; they add up to `total_bytes`."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def allocated_bytes(self) -> Number:
        """What tensors take: PyTorch's "peak allocated"."""
        return self.reserved_bytes - self.fragmentation_bytes

    @property
    def reserved_bytes(self) -> Number:
        """What the framework holds: PyTorch's "peak reserved"."""
        return self.device_bytes - self.runtime_bytes

    @property
    def device_bytes(self) -> Number:
        """What the device shows (nvidia-smi): all of it."""
        return sum(self.parts().values())

    @property
    def total_bytes(self) -> Number:
        """The sum of all parts; what must fit."""
        return self.device_bytes

    @property
    def largest_part(self) -> Any:
        """Name of the part that takes most, per plan: what to shrink first."""
        stacked = np.stack(np.broadcast_arrays(*self.parts().values()))
        return np.asarray(PARTS)[np.argmax(stacked, axis=0)]


PARTS = tuple(f.name for f in fields(MemoryPrediction) if f.name.endswith("_bytes"))


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """Whether plans fit, by how much, and what takes most; each field as the plans broadcast."""

    fits: Any
    spare_bytes: Number
    binds: Any
    prediction: MemoryPrediction


def memory_per_rank(
    model: Transformer,
    plan: Plan,
    *,
    parameters: MemoryParameters = MEMORY_PARAMETERS,
    optimizer_bytes_per_parameter: Number = None,
    dropout: bool = False,
) -> MemoryPrediction:
    """Return the memory of the fullest rank, in bytes.

    Args:
        model: The shape; each field a number or an array.
        plan: The plan; each field a number or an array that broadcasts with the model's.
        parameters: See MemoryParameters.
        optimizer_bytes_per_parameter: Fp32 master copy included. None: Adam (12, or 8 where weights are fp32).
        dropout: The layers keep dropout masks.

    Raises:
        ModelInputError: More stages (times chunks) than layers, more expert-parallel ranks than experts or than dp_size * cp_size.

    Valid when: equal stages, Adam-like optimiser, nothing moved to the host's memory.
    Off by: 5 to 10 % on published runs. Too high where the loss is fused with the last product (set logit_bytes to 4),
        too low for allocators that fragment at the edge of the device's memory.
    Source: Korthikanti et al. 2022 (activations), Rajbhandari et al. 2020 (states), Narayanan et al. 2021 (micro-batches in flight).
    """
    need(
        "layers / (pp_size * interleave)",
        model.layers / (plan.pp_size * plan.interleave),
        1,
        hint="every chunk has at least one layer",
    )
    need(
        "experts / ep_size",
        model.experts / plan.ep_size,
        1,
        hint="every expert-parallel rank holds at least one expert",
    )
    need(
        "dp_size * cp_size / ep_size",
        plan.dp_size * plan.cp_size / plan.ep_size,
        1,
        hint="ep_size subdivides dp_size * cp_size",
    )
    layer = layer_activations(model, plan, dropout=dropout, selective_kept_frac=parameters.selective_kept_frac)
    first, last = (
        _stage(model, plan, layer, parameters, optimizer_bytes_per_parameter, is_first) for is_first in (True, False)
    )
    last_is_fuller = sum(last.values()) > sum(first.values())
    chosen = {name: np.where(last_is_fuller, last[name], first[name])[()] for name in PARTS}
    return MemoryPrediction(**chosen, on_last_stage=last_is_fuller)


def fits(
    model: Transformer, plan: Plan, memory_bytes: Number, *, parameters: MemoryParameters = MEMORY_PARAMETERS
) -> MemoryFit:
    """Return whether plans fit into `memory_bytes` per device, the bytes left (below zero: missing), and the largest part.

    Args:
        model, plan: As for `memory_per_rank`.
        memory_bytes: Capacity as the device reports it: an "80 GB" A100 reports 81 920 MiB, which is 85.9e9 bytes.
        parameters: See MemoryParameters.

    Raises:
        ModelInputError: As `memory_per_rank`; a capacity that is not positive.
    """
    need("memory_bytes", memory_bytes, above=True, hint="give the capacity of one device in bytes")
    prediction = memory_per_rank(model, plan, parameters=parameters)
    spare = memory_bytes - prediction.total_bytes
    return MemoryFit(spare >= 0, spare, prediction.largest_part, prediction)


def _stage(
    model: Transformer, plan: Plan, layer: LayerActivations, p: MemoryParameters, optimizer: Number, first: bool
) -> dict[str, Number]:
    """Return all parts of a rank of the first or the last stage; with one stage both are the same."""
    held = stage_parameters(model, plan, first=first)
    states = state_bytes(held, plan, optimizer)
    single, piped = np.asarray(plan.pp_size) == 1, np.asarray(plan.pp_size) > 1
    outputs = np.where(piped, layer.boundary, 0)  # what a stage has sent stays until its gradient comes back
    kept = (stage_layers(model, plan) * layer.kept + outputs) * micro_batches_in_flight(plan, first=first)
    working = layer.everything - layer.kept + layer.gradients
    logit = p.logit_bytes * activation_element_bytes(plan) / 2
    logits = np.where(single | (not first), logit * tokens_per_rank(model, plan) * model.vocab / plan.tp_size, 0)
    loss_is_peak = logits > working
    gathered = _gathered(held, plan, p)
    communication = _communication(model, plan, held, layer, p)
    moment = np.where(loss_is_peak, logits, working)
    return {
        "weights_bytes": states.weights,
        "gradients_bytes": states.gradients,
        "optimizer_bytes": states.optimizer,
        "gathered_bytes": gathered,
        "activations_bytes": kept,
        "working_bytes": np.where(loss_is_peak, 0, working),
        "logits_bytes": np.where(loss_is_peak, logits, 0),
        "communication_bytes": communication,
        "fragmentation_bytes": p.fragmentation_frac * (gathered + kept + moment),
        "runtime_bytes": _runtime(plan, p),
    }


def _gathered(held: StageParameters, plan: Plan, p: MemoryParameters) -> Number:
    """Return what ZeRO-3 holds whole for a while: some layers and the embeddings, and one layer's gradients on their way."""
    layers = np.minimum(p.gathered_layers, (held.held - held.ends) / held.layer)
    weights = (layers * held.layer + held.ends) * weight_bytes(plan)
    way = np.maximum(weight_bytes(plan), gradient_bytes(plan)) + np.where(
        gradient_bytes(plan) > weight_bytes(plan), weight_bytes(plan), 0
    )
    sharded = (np.asarray(plan.zero_stage) >= 3) & (np.asarray(plan.dp_size * plan.cp_size) > 1)
    return np.where(sharded, weights + held.layer * way, 0)


def _communication(
    model: Transformer, plan: Plan, held: StageParameters, layer: LayerActivations, p: MemoryParameters
) -> Number:
    """Return the buffers of gradient reduction, stage boundaries, sequence gathers, key-value rings and experts' exchange."""
    e, T = activation_element_bytes(plan), tokens_per_rank(model, plan)
    replicas = np.asarray(plan.dp_size * plan.cp_size) > 1
    buckets = np.where(
        replicas & (np.asarray(plan.zero_stage) < 3), p.reduce_copy_frac * held.held * weight_bytes(plan), 0
    )
    pipe = np.where(np.asarray(plan.pp_size) > 1, 2 * layer.boundary, 0)
    whole = np.where(np.asarray(plan.sequence_parallel) & (np.asarray(plan.tp_size) > 1), T * model.hidden * e, 0)
    ring = np.where(np.asarray(plan.cp_size) > 1, 4 * T * model.kv_heads * model.head_size / plan.tp_size * e, 0)
    exchange = np.where(np.asarray(plan.ep_size) > 1, 2 * layer.boundary * model.active_experts, 0)
    return buckets + pipe + whole + ring + exchange


def _runtime(plan: Plan, p: MemoryParameters) -> Number:
    """Return context and communicators: one for the world, one for each degree above one."""
    degrees = (plan.world_size, plan.dp_size, plan.tp_size, plan.pp_size, plan.cp_size, plan.ep_size)
    groups = sum(np.where(np.asarray(degree) > 1, 1, 0) for degree in degrees)
    return p.context_bytes + p.communicator_bytes * groups
