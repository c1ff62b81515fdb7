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

from .._check import Number, magnitude, need
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
        0.08, 0.0, 0.35, "what the allocator reserves beyond tensors that come and go, as a share of them"
    )
    reduce_copy_frac: float = _number(
        0.75,
        0.0,
        1.0,
        "share of the low-precision gradients that their reduction holds a second time, ZeRO stages 0 and 1",
    )
    logit_bytes: float = _number(
        12.0, 2.0, 20.0, "bytes per logit at the loss: half-precision logits and gradient, fp32 logits and softmax"
    )
    fused_logit_bytes: float = _number(
        4.0, 2.0, 8.0, "the same with a fused loss: half-precision logits and their gradient"
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
        gathered_bytes: Under ZeRO-2 and 3, one layer's gradients before they are reduced; under ZeRO-3 also gathered layers.
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
    dropout: Any = False,
    fused_loss: Any = False,
) -> MemoryPrediction:
    """Return the memory of the fullest rank, in bytes.

    Args:
        model: The shape; each field a number or an array.
        plan: The plan; each field a number or an array that broadcasts with the model's.
        parameters: See MemoryParameters.
        optimizer_bytes_per_parameter: Fp32 master copy included. None: Adam (12, or 8 where weights are fp32).
        dropout: The layers keep dropout masks (GPT-2 and GPT-3 do, today's models do not).
        fused_loss: Softmax and loss are one kernel, so that no fp32 logits exist.

    Raises:
        ModelInputError: More stages (times chunks) than layers, more expert-parallel ranks than experts or than dp_size * cp_size.

    Valid when: equal stages, Adam-like optimiser, nothing moved to the host's memory.
    Off by: 4 % in the mean on 17 published rows. Too low (by 10 to 20 %) for trainers that give the first stage more layers
        than the last, to balance the output matrix.
    Source: Korthikanti et al. 2022 (activations), Rajbhandari et al. 2020 (states), Narayanan et al. 2021 (micro-batches in flight).
    """
    _check_degrees(model, plan)
    if optimizer_bytes_per_parameter is not None:
        need(
            "optimizer_bytes_per_parameter",
            optimizer_bytes_per_parameter,
            hint="Adam with an fp32 master copy takes 12",
        )
    layer = layer_activations(model, plan, dropout=dropout, selective_kept_frac=parameters.selective_kept_frac)
    logit_bytes = (
        np.where(fused_loss, parameters.fused_logit_bytes, parameters.logit_bytes) * activation_element_bytes(plan) / 2
    )
    logits = logit_bytes * tokens_per_rank(model, plan) * model.vocab / plan.tp_size
    first, last = (
        _stage(model, plan, layer, logits, parameters, optimizer_bytes_per_parameter, is_first)
        for is_first in (True, False)
    )
    last_is_fuller = sum(last.values()) > sum(first.values())
    shape = np.broadcast_shapes(*(np.shape(part) for part in (*first.values(), *last.values())))
    chosen = {name: np.broadcast_to(np.where(last_is_fuller, last[name], first[name]), shape)[()] for name in PARTS}
    return MemoryPrediction(**chosen, on_last_stage=np.broadcast_to(last_is_fuller, shape)[()])


def fits(model: Transformer, plan: Plan, memory_bytes: Number, **how: Any) -> MemoryFit:
    """Return whether plans fit into `memory_bytes` per device, the bytes left (below zero: missing), and the largest part.

    Args:
        model, plan: As for `memory_per_rank`.
        memory_bytes: Capacity as the device reports it: an "80 GB" A100 reports 81 920 MiB, which is 85.9e9 bytes.
        how: The keywords of `memory_per_rank`.

    Raises:
        ModelInputError: As `memory_per_rank`; a capacity that is not positive.
    """
    need("memory_bytes", memory_bytes, above=True, hint="give the capacity of one device in bytes")
    prediction = memory_per_rank(model, plan, **how)
    spare = memory_bytes - prediction.total_bytes
    return MemoryFit(spare >= 0, spare, prediction.largest_part, prediction)


def _check_degrees(model: Transformer, plan: Plan) -> None:
    """Refuse a plan with stages, chunks or expert-parallel ranks that would hold nothing."""
    stages = magnitude(model.layers) / magnitude(plan.pp_size)
    need("layers / pp_size", stages, 1, hint="there are no more stages than layers")
    need("layers / (pp_size * interleave)", stages / magnitude(plan.interleave), 0.5, hint="use fewer chunks")
    ep_size = magnitude(plan.ep_size)
    need("experts / ep_size", magnitude(model.experts) / ep_size, 1, hint="every expert-parallel rank holds an expert")
    replicas = magnitude(plan.dp_size) * magnitude(plan.cp_size)
    need("dp_size * cp_size / ep_size", replicas / ep_size, 1, hint="ep_size subdivides dp_size * cp_size")


def _stage(
    model: Transformer,
    plan: Plan,
    layer: LayerActivations,
    logits: Number,
    p: MemoryParameters,
    optimizer: Number,
    first: bool,
) -> dict[str, Number]:
    """Return all parts of a rank of the first or the last stage; with one stage both are the same."""
    held = stage_parameters(model, plan, first=first)
    states = state_bytes(held, plan, optimizer)
    piped = np.asarray(plan.pp_size) > 1
    outputs = np.where(piped, layer.boundary, 0)  # what a stage has sent stays until its gradient comes back
    kept = (stage_layers(model, plan) * layer.kept + outputs) * micro_batches_in_flight(plan, first=first)
    working = layer.everything - layer.kept + layer.gradients
    at_loss = np.where(piped & first, 0, logits)
    loss_is_peak = at_loss > working  # logits are gone when the last layer's backward pass begins: never both
    gathered = _gathered(held, plan, p)
    return {
        "weights_bytes": states.weights,
        "gradients_bytes": states.gradients,
        "optimizer_bytes": states.optimizer,
        "gathered_bytes": gathered,
        "activations_bytes": kept,
        "working_bytes": np.where(loss_is_peak, 0, working),
        "logits_bytes": np.where(loss_is_peak, at_loss, 0),
        "communication_bytes": _communication(model, plan, held, layer, p),
        "fragmentation_bytes": p.fragmentation_frac * (gathered + kept + np.maximum(at_loss, working)),
        "runtime_bytes": _runtime(plan, p),
    }


def _gathered(held: StageParameters, plan: Plan, p: MemoryParameters) -> Number:
    """Return what ZeRO 2 and 3 hold whole for a while: one layer's gradients; in stage 3 some layers and the embeddings too."""
    stage, replicas = np.asarray(plan.zero_stage), np.asarray(plan.dp_size * plan.cp_size)
    weight, gradient = weight_bytes(plan), gradient_bytes(plan)
    on_the_way = held.layer * (weight + np.where(gradient > weight, gradient, 0))
    layers = np.minimum(p.gathered_layers, (held.held - held.ends) / held.layer)
    weights = np.where(stage >= 3, (layers * held.layer + held.ends) * weight, 0)
    return np.where((stage >= 2) & (replicas > 1), weights + on_the_way, 0)


def _communication(
    model: Transformer, plan: Plan, held: StageParameters, layer: LayerActivations, p: MemoryParameters
) -> Number:
    """Return the buffers of gradient reduction, stage boundaries, sequence gathers, key-value rings and experts' exchange."""
    e, tokens = activation_element_bytes(plan), tokens_per_rank(model, plan)
    replicas = np.asarray(plan.dp_size * plan.cp_size) > 1
    buckets = np.where(
        replicas & (np.asarray(plan.zero_stage) < 2), p.reduce_copy_frac * held.held * weight_bytes(plan), 0
    )
    pipe = np.where(np.asarray(plan.pp_size) > 1, 2 * layer.boundary, 0)
    whole = np.where(np.asarray(plan.sequence_parallel) & (np.asarray(plan.tp_size) > 1), tokens * model.hidden * e, 0)
    ring = np.where(np.asarray(plan.cp_size) > 1, 4 * tokens * model.kv_heads * model.head_size / plan.tp_size * e, 0)
    exchange = np.where(np.asarray(plan.ep_size) > 1, 2 * layer.boundary * model.active_experts, 0)
    return buckets + pipe + whole + ring + exchange


def _runtime(plan: Plan, p: MemoryParameters) -> Number:
    """Return context and communicators: one for each degree above one, and one for the world where that is none of them."""
    degrees = (plan.dp_size, plan.tp_size, plan.pp_size, plan.cp_size, plan.ep_size)
    groups = sum(np.where(np.asarray(degree) > 1, 1, 0) for degree in degrees)
    return p.context_bytes + p.communicator_bytes * (groups + (groups > 1))
