"""What the ranks of a plan send each other: by tensor, context, expert, pipeline and data parallelism, over node and fabric.

Ranks are numbered so that tensor-parallel ranks are neighbours, then context, then data, then pipeline (Megatron's order):
the groups that talk most lie inside a node. Times are of one rank; bytes are what it sends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._check import Number
from .architecture import Transformer
from .cluster import Cluster
from .compute import ACTIVATION_BYTES, tokens
from .parameters import Parameters
from .plan import Plan

#: Gradients are reduced in fp32, except where the weights are fp16 (loss scaling keeps them in range) or sharded (FSDP).
GRADIENT_BYTES = {"fp32": 4, "tf32": 4, "bf16": 4, "fp16": 2, "fp8": 4}
WEIGHT_BYTES = 2


@dataclass(frozen=True, slots=True)
class Link:
    """What one rank of a group has to send with.

    Attributes:
        bandwidth_bytes_per_s: One direction, as collectives reach it.
        latency_s: Of one hop.
    """

    bandwidth_bytes_per_s: Number
    latency_s: Number


@dataclass(frozen=True, slots=True)
class LayerTraffic:
    """Seconds of communication of one layer for one micro-batch, forward only; backward takes as long again."""

    tensor_s: Number
    context_s: Number
    expert_s: Number


def group_link(cluster: Cluster, plan: Plan, size: Number, stride: Number, p: Parameters) -> Link:
    """Return the link of a ring of `size` ranks whose neighbours are `stride` ranks apart.

    A ring over whole nodes enters and leaves each node once. It may use the network cards of all its ranks there
    (`multi_rail`), so that it has the bandwidth of all of them, or only one.

    Valid when: nodes are filled in order; equal links; nothing else on the fabric.
    Off by: too fast where other groups of the plan use the same cards at the same moment.
    """
    here = np.clip(np.floor(cluster.per_node / np.asarray(stride)), 1, size)
    crosses = np.asarray(size) * stride > cluster.per_node
    node = cluster.node_bandwidth_oneway_bytes_per_s * p.node_link_frac
    cards = np.where(plan.multi_rail, here, 1)
    fabric = np.minimum(cluster.fabric_bandwidth_oneway_bytes_per_s * p.fabric_frac * cards, node)
    bandwidth = np.where(
        crosses, np.where(here > 1, fabric, cluster.fabric_bandwidth_oneway_bytes_per_s * p.fabric_frac), node
    )
    return Link(bandwidth, np.where(crosses, cluster.fabric_latency_s, cluster.node_latency_s))


def ring_time_s(size_bytes: Number, ranks: Number, link: Link, passes: float = 1.0) -> Number:
    """Return the time of a ring all-gather or reduce-scatter (passes 1) or all-reduce (passes 2) of `size_bytes` in all."""
    return passes * (np.asarray(ranks) - 1) * (size_bytes / ranks / link.bandwidth_bytes_per_s + link.latency_s)


def layer_traffic(model: Transformer, plan: Plan, cluster: Cluster, p: Parameters) -> LayerTraffic:
    """Return the communication of one layer, forward, for one micro-batch.

    Tensor parallelism: two all-reduces of the activations, or with sequence parallelism as many bytes in all-gathers and
    reduce-scatters. Context parallelism: keys and values once around the ring. Expert parallelism: two all-to-alls.

    Valid when: one ring per group (no in-network reduction).
    Source: Shoeybi et al. 2019; Korthikanti et al. 2022; Liu et al. 2023 (ring attention); Lepikhin et al. 2020.
    """
    activation = ACTIVATION_BYTES * tokens(model, plan) * model.hidden
    tp = plan.tp_size
    tensor = 2 * ring_time_s(activation, tp, group_link(cluster, plan, tp, 1, p), passes=2)
    kv = ACTIVATION_BYTES * tokens(model, plan) * 2 * model.kv_heads * model.head_size / tp
    cp_link = group_link(cluster, plan, plan.cp_size, tp, p)
    context = (np.asarray(plan.cp_size) - 1) * (kv / cp_link.bandwidth_bytes_per_s + cp_link.latency_s)
    expert = 2 * _alltoall_time_s(activation / tp, model, plan, cluster, p)
    return LayerTraffic(tensor, context, expert)


def _alltoall_time_s(sent_bytes: Number, model: Transformer, plan: Plan, cluster: Cluster, p: Parameters) -> Number:
    """One dispatch: each token to its experts' ranks inside its node, and once to each other node that has some of them."""
    ep, stride = np.asarray(plan.ep_size), np.asarray(plan.tp_size)
    here = np.clip(np.floor(cluster.per_node / stride), 1, ep)
    nodes = ep / here
    node = cluster.node_bandwidth_oneway_bytes_per_s * p.node_link_frac
    fabric = np.minimum(cluster.fabric_bandwidth_oneway_bytes_per_s * p.fabric_frac, node)
    visited = (nodes - 1) * (1 - (1 - 1 / nodes) ** model.active_experts)
    inside = sent_bytes * model.active_experts * (here - 1) / here / node
    latency = np.where(nodes > 1, cluster.fabric_latency_s, cluster.node_latency_s)
    return np.where(ep > 1, inside + sent_bytes * visited / fabric + latency, 0.0)


def stage_transfer_s(model: Transformer, plan: Plan, cluster: Cluster, p: Parameters) -> Number:
    """Return the time of the exposed transfers between stages for one micro-batch, both passes.

    Each chunk boundary costs `p2p_exposed` transfers each way. With `split_p2p` (and always with sequence parallelism)
    every tensor-parallel rank sends its share by its own card, else the whole.

    Valid when: stages lie in different nodes, or share the slower link.
    Source: Narayanan et al. 2021, section 4.1.
    """
    share = np.where(np.asarray(plan.split_p2p) | np.asarray(plan.sequence_parallel), plan.tp_size, 1)
    size = ACTIVATION_BYTES * tokens(model, plan) * model.hidden / share
    inside = np.asarray(plan.world_size) <= cluster.per_node
    bandwidth = np.where(
        inside,
        cluster.node_bandwidth_oneway_bytes_per_s * p.node_link_frac,
        cluster.fabric_bandwidth_oneway_bytes_per_s * p.fabric_frac,
    )
    latency = np.where(inside, cluster.node_latency_s, cluster.fabric_latency_s)
    one = size / bandwidth + latency
    return np.where(np.asarray(plan.pp_size) > 1, 2 * p.p2p_exposed * plan.interleave * one, 0.0)


def local_parameters(model: Transformer, plan: Plan) -> Number:
    """Return the weights of one rank before data parallelism shards them: the fullest stage, with one embedding."""
    spread = (model.layer_parameters - model.experts * model.expert_parameters) / plan.tp_size
    experts = model.experts * model.expert_parameters / plan.tp_size / plan.ep_size
    return (
        np.ceil(np.asarray(model.layers) / plan.pp_size) * (spread + experts)
        + model.embedding_parameters / plan.tp_size
    )


def gather_time_s(model: Transformer, plan: Plan, cluster: Cluster, p: Parameters) -> Number:
    """Return what ZeRO-3 (FSDP) gathers and scatters for one micro-batch: weights forward and backward, gradients once.

    Valid when: weights are freed after use in both passes.
    Off by: too high where the last layers stay gathered between the passes.
    Source: Rajbhandari et al. 2020 (three times the weights).
    """
    ranks = plan.weight_shards
    link = group_link(cluster, plan, ranks, plan.tp_size, p)
    one = ring_time_s(WEIGHT_BYTES * local_parameters(model, plan), ranks, Link(link.bandwidth_bytes_per_s, 0.0))
    return np.where(np.asarray(plan.zero_stage) == 3, 3 * one, 0.0)


def gradient_time_s(model: Transformer, plan: Plan, cluster: Cluster, p: Parameters) -> Number:
    """Return the reduction of gradients at the end of a step; for ZeRO 1 and 2 a scatter, then a gather of weights.

    With zero_stage 3 the gathers have reduced them inside a sharding group; what is left is between such groups.

    Valid when: gradients are reduced once per step, in few large pieces.
    """
    sharded = np.asarray(plan.zero_stage) == 3
    shards = np.where(sharded, plan.weight_shards, 1)
    ranks = plan.dp_size * plan.cp_size / shards
    link = group_link(cluster, plan, ranks, plan.tp_size * shards, p)
    size = local_parameters(model, plan) * plan.by_precision(GRADIENT_BYTES) / shards
    return ring_time_s(size, ranks, link, passes=2)
