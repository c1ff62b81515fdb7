"""What a rank holds from the first step to the last: weights, gradients, the optimiser's state, and how data parallelism shards them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._check import Number
from .architecture import Transformer
from .plan import Plan

#: Bytes of an fp32 number.
FP32_BYTES = 4
#: Adam with an fp32 master copy of the weights: master, momentum and variance, 4 bytes each (ZeRO's K = 12).
ADAM_MIXED_BYTES = 12
#: Adam where the weights themselves are fp32: momentum and variance.
ADAM_FP32_BYTES = 8


@dataclass(frozen=True, slots=True)
class StageParameters:
    """Parameters that one rank of one pipeline stage holds, before data parallelism shards anything.

    Attributes:
        dense: Of attention, norms, routers, dense feed-forward blocks, and the embeddings of this stage.
        expert: Of its experts; 0 in a dense model.
        layer: Of one layer alone, its experts of this rank included.
        ends: Of the embeddings of this stage alone.
    """

    dense: Number
    expert: Number
    layer: Number
    ends: Number

    @property
    def held(self) -> Number:
        """All of them."""
        return self.dense + self.expert


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes of one rank that do not come and go within a step."""

    weights: Number
    gradients: Number
    optimizer: Number


def stage_layers(model: Transformer, plan: Plan) -> Number:
    """Return the layers of the fullest stage: equal chunks, rounded up where the stages do not divide the layers."""
    chunks = plan.pp_size * plan.interleave
    return np.ceil(model.layers / chunks) * plan.interleave


def stage_parameters(model: Transformer, plan: Plan, *, first: bool) -> StageParameters:
    """Return the parameters of a rank of the first or the last pipeline stage.

    Args:
        model: The shape.
        plan: The degrees; experts are spread over ep_size, matrices over tp_size.
        first: The first stage (input embedding) or the last one (output matrix); with pp_size 1 they are one.

    Valid when: stages have equal layers; norms count as split over tp_size (under 0.1 % of a layer).
    """
    is_moe = np.asarray(model.experts) > 1
    expert = np.where(is_moe, model.experts / plan.ep_size * model.expert_parameters, 0) / plan.tp_size
    dense = (model.layer_parameters - np.where(is_moe, model.experts * model.expert_parameters, 0)) / plan.tp_size
    both = np.where(model.tied, 1, 2)
    matrices = np.where(np.asarray(plan.pp_size) == 1, both, 1)
    table = model.positions * model.hidden * np.where(np.asarray(plan.pp_size) == 1, 1, int(first))
    ends = (matrices * model.embedding_parameters + table) / plan.tp_size
    layers = stage_layers(model, plan)
    return StageParameters(layers * dense + ends, layers * expert, dense + expert, ends)


@dataclass(frozen=True, slots=True)
class ElementBytes:
    """Bytes of one element of each kind, read off the plan's precision once for all plans.

    Attributes:
        activation: 2 for half precisions and for fp8, which casts when it multiplies; else 4.
        weight: The same.
        gradient: Of an accumulated gradient. fp16 adds up in fp16 behind its loss scale; bf16 and fp8 add up in fp32,
            because bf16 has too few digits for a sum.
    """

    activation: Number
    weight: Number
    gradient: Number

    @classmethod
    def of(cls, plan: Plan) -> ElementBytes:
        """Return them for a plan, or for many."""
        half = np.maximum(2, plan.precision_bytes)
        return cls(half, half, np.where(np.asarray(plan.precision) == "fp16", 2, FP32_BYTES))


def state_bytes(
    parameters: StageParameters, plan: Plan, element: ElementBytes, optimizer_bytes_per_parameter: Number = None
) -> StateBytes:
    """Return weights, gradients and optimiser state of a rank.

    Args:
        parameters: What the rank holds before sharding.
        plan: zero_stage shards over dp_size * cp_size (stage 3 over `weight_shards`), experts over what ep_size leaves of it.
        element: `ElementBytes.of(plan)`.
        optimizer_bytes_per_parameter: Fp32 master copy included. None: Adam, 12 (8 where the weights are fp32).

    Valid when: Adam or an optimiser whose bytes are given. Under stage 3 with bf16 the fp32 master shard *is* the weight:
        what products read is gathered from it, so weights add nothing here.
    Source: Rajbhandari et al. 2020 (ZeRO), section 3.1 and figure 1: 2 + 2 + 12 bytes per parameter in fp16.
    """
    weight, gradient = element.weight, element.gradient
    fp32 = weight == FP32_BYTES
    optimizer = optimizer_bytes_per_parameter
    if optimizer is None:
        optimizer = np.where(fp32, ADAM_FP32_BYTES, ADAM_MIXED_BYTES)
    stage = np.asarray(plan.zero_stage)
    replicas = np.where(stage >= 3, plan.weight_shards, plan.dp_size * plan.cp_size)
    expert_replicas = np.maximum(1, replicas / plan.ep_size)

    def shard(from_stage: int) -> Number:
        sharded = stage >= from_stage
        dense = parameters.dense / np.where(sharded, replicas, 1)
        return dense + parameters.expert / np.where(sharded, expert_replicas, 1)

    master_is_weight = (stage >= 3) & (gradient == FP32_BYTES) & ~fp32
    return StateBytes(np.where(master_is_weight, 0, weight) * shard(3), gradient * shard(2), optimizer * shard(1))
