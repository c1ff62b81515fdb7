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
from .memory_activations import LayerActivations, layer_activations, micro_batches_in_flight, tokens_per_rank
from .memory_states import ElementBytes, StageParameters, stage_layers, stage_parameters, state_bytes
from .plan import Plan


def _number(default: float, low: float, high: float, meaning: str) -> float:
    return attribute(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class MemoryParameters:
    """What no shape and no plan says: how much the runtime, the allocator and the usual kernels take.

    `bounds()` lists meaning and bounds of each. Context: BigScience measured 1573 MiB on an A100 with `nvidia-smi`
    (tr11-176B prequel). Communicators: NCCL's buffers, some hundred MB each with 8 to 32 channels. Bytes per logit, gathered
    layers and the kept share are counts of what the usual code holds. Two were chosen on the 17 memory rows shipped in
    `data/published.csv`: `fragmentation_frac` and `reduce_copy_frac` (between a bucket or two and DistributedDataParallel's
    full copy).
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
    """Whether plans fit and by how much; each field as the plans broadcast.

    Attributes:
        fits: Every byte of the prediction fits, the allocator's share too.
        spare_bytes: What is left; below zero what is missing.
        prediction: Where the bytes go.
    """

    fits: Any
    spare_bytes: Number
    prediction: MemoryPrediction

    @property
    def binds(self) -> Any:
        """Name of the part that takes most, per plan."""
        return self.prediction.largest_part


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
    optimizer = optimizer_bytes_per_parameter
    if optimizer is not None:
        need("optimizer_bytes_per_parameter", optimizer, hint="Adam with an fp32 master copy takes 12")
    p, element = parameters, ElementBytes.of(plan)
    layer = layer_activations(
        model, plan, element.activation, dropout=dropout, selective_kept_frac=p.selective_kept_frac
    )
    logit = np.where(fused_loss, p.fused_logit_bytes, p.logit_bytes) * element.activation / 2
    logits = logit * tokens_per_rank(model, plan) * model.vocab / plan.tp_size
    in_flight_first, in_flight_last = micro_batches_in_flight(plan)
    alone = np.asarray(plan.pp_size) == 1
    job = _Job(model, plan, p, element, layer)
    first = job.parts(stage_parameters(model, plan, first=True), in_flight_first, np.where(alone, logits, 0), optimizer)
    last = job.parts(stage_parameters(model, plan, first=False), in_flight_last, logits, optimizer)
    last_is_fuller = sum(last.values()) > sum(first.values())
    shape = np.broadcast_shapes(*(np.shape(part) for part in (*first.values(), *last.values())))
    chosen = {name: np.broadcast_to(np.where(last_is_fuller, last[name], first[name]), shape)[()] for name in PARTS}
    return MemoryPrediction(**chosen, on_last_stage=np.broadcast_to(last_is_fuller, shape)[()])


def fits(model: Transformer, plan: Plan, memory_bytes: Number, **how: Any) -> MemoryFit:
    """Return whether plans fit into `memory_bytes` per device, the bytes left (below zero: missing), and what binds.

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
    return MemoryFit(spare >= 0, spare, prediction)


def _check_degrees(model: Transformer, plan: Plan) -> None:
    """Refuse a plan with stages, chunks or expert-parallel ranks that would hold nothing."""
    stages = magnitude(model.layers) / magnitude(plan.pp_size)
    need("layers / pp_size", stages, 1, hint="there are no more stages than layers")
    need("layers / (pp_size * interleave)", stages / magnitude(plan.interleave), 0.5, hint="use fewer chunks")
    ep_size = magnitude(plan.ep_size)
    need("experts / ep_size", magnitude(model.experts) / ep_size, 1, hint="every expert-parallel rank holds an expert")
    replicas = magnitude(plan.dp_size) * magnitude(plan.cp_size)
    need("dp_size * cp_size / ep_size", replicas / ep_size, 1, hint="ep_size subdivides dp_size * cp_size")


@dataclass(frozen=True, slots=True)
class _Job:
    """What both ends of the pipeline share."""

    model: Transformer
    plan: Plan
    p: MemoryParameters
    element: ElementBytes
    layer: LayerActivations

    def parts(self, held: StageParameters, in_flight: Number, logits: Number, optimizer: Number) -> dict[str, Number]:
        """Return all parts of a rank that holds these parameters, and computes these logits or (0) none."""
        layer, piped = self.layer, np.asarray(self.plan.pp_size) > 1
        states = state_bytes(held, self.plan, self.element, optimizer)
        sent = np.where(piped, layer.boundary, 0)  # a stage's output stays until its gradient comes back
        kept = (stage_layers(self.model, self.plan) * layer.kept + sent) * in_flight
        working = layer.everything - layer.kept + layer.gradients
        loss_is_peak = logits > working  # logits are gone when the last layer's backward pass begins: never both
        gathered = self._gathered(held)
        return {
            "weights_bytes": states.weights,
            "gradients_bytes": states.gradients,
            "optimizer_bytes": states.optimizer,
            "gathered_bytes": gathered,
            "activations_bytes": kept,
            "working_bytes": np.where(loss_is_peak, 0, working),
            "logits_bytes": np.where(loss_is_peak, logits, 0),
            "communication_bytes": self._communication(held),
            "fragmentation_bytes": self.p.fragmentation_frac * (gathered + kept + np.maximum(logits, working)),
            "runtime_bytes": self._runtime(),
        }

    def _gathered(self, held: StageParameters) -> Number:
        """Return what ZeRO holds whole for a while: one layer's gradients; in stage 3 layers and embeddings too."""
        stage, replicas = np.asarray(self.plan.zero_stage), np.asarray(self.plan.dp_size * self.plan.cp_size)
        weight, gradient = self.element.weight, self.element.gradient
        on_the_way = held.layer * (weight + np.where(gradient > weight, gradient, 0))
        layers = np.minimum(self.p.gathered_layers, (held.held - held.ends) / held.layer)
        weights = np.where(stage >= 3, (layers * held.layer + held.ends) * weight, 0)
        return np.where((stage >= 2) & (replicas > 1), weights + on_the_way, 0)

    def _communication(self, held: StageParameters) -> Number:
        """Return buffers: of gradient buckets, stage boundaries, sequence gathers, key-value rings, experts' exchange."""
        model, plan, boundary = self.model, self.plan, self.layer.boundary
        many = {k: np.asarray(getattr(plan, f"{k}_size")) > 1 for k in ("tp", "pp", "cp", "ep")}
        bucketed = (np.asarray(plan.dp_size * plan.cp_size) > 1) & (np.asarray(plan.zero_stage) < 2)
        tokens = tokens_per_rank(model, plan) * self.element.activation
        key_values = 2 * tokens * model.kv_heads * model.head_size / plan.tp_size
        buckets = np.where(bucketed, self.p.reduce_copy_frac * held.held * self.element.weight, 0)
        received = np.where(many["pp"], 2 * boundary, 0)  # one activation, one gradient
        whole = np.where(np.asarray(plan.sequence_parallel) & many["tp"], tokens * model.hidden, 0)
        ring = np.where(many["cp"], 2 * key_values, 0)  # one block in use, one on its way
        exchanged = np.where(many["ep"], 2 * boundary * model.active_experts, 0)
        return buckets + received + whole + ring + exchanged

    def _runtime(self) -> Number:
        """Return context and communicators: one per degree above one, and the world where that is none of them."""
        degrees = (self.plan.dp_size, self.plan.tp_size, self.plan.pp_size, self.plan.cp_size, self.plan.ep_size)
        groups = sum(np.where(np.asarray(degree) > 1, 1, 0) for degree in degrees)
        return self.p.context_bytes + self.p.communicator_bytes * (groups + (groups > 1))
