"""Arithmetic of one layer on one rank: matrix products by their shape, attention, and all that only moves memory.

# T tokens of a micro-batch on this rank, D hidden, F inner width, t tensor-parallel ranks
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._check import Number
from .architecture import Transformer
from .cluster import Accelerator
from .parameters import Parameters
from .plan import Plan

#: Bytes of an activation, whatever the matrix products read.
ACTIVATION_BYTES = 2
#: Tensors of width D that one layer reads or writes forward besides its products: two norms (2 each), two sums (3 each).
WIDE_PASSES = 10
#: The same for dispatching each token to its experts and back.
DISPATCH_PASSES = 6
#: Backward of fused attention against forward, in arithmetic: five products instead of two (Dao et al. 2022).
FLASH_BACKWARD = 2.5


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Seconds of one layer, one micro-batch, one rank, without communication.

    Attributes:
        forward_s, backward_s: The two passes; backward without anything computed again.
        attention_s: Forward attention (scores, softmax, values), a part of forward_s.
        memory_bound_s: The share of both passes that moves memory outside of products.
        selective_s: What selective recomputation does again: without fused attention, attention (Korthikanti et al.); with
            it, as PyTorch's policy does, every second product and all element-wise work.
    """

    forward_s: Number
    backward_s: Number
    attention_s: Number
    memory_bound_s: Number
    selective_s: Number


def rate_flops(plan: Plan, device: Accelerator, p: Parameters) -> Number:
    """Return the rate of large matrix products in the plan's precision inside a job, flop/s."""
    eight = np.where(np.asarray(plan.precision_bytes) == 1, p.fp8_rate_frac, 1.0)
    return _held(device.peak_flops, device, p) * eight


def _held(peak_flops: Number, device: Accelerator, p: Parameters) -> Number:
    """What a device holds of a peak in large products inside a job."""
    return peak_flops * device.achievable_frac * np.where(np.asarray(device.is_newer), p.newer_rate_frac, 1.0)


def matmul_time_s(
    m: Number,
    n: Number,
    k: Number,
    rate: Number,
    bandwidth_bytes_per_s: Number,
    traffic: Number,
    element_bytes: Number = 2,
) -> Number:
    """Return the time of an (m, k) by (k, n) matrix product, in seconds.

    Args:
        m, n, k: Its shape.
        rate: What large products reach, flop/s.
        bandwidth_bytes_per_s: Of the device's memory.
        traffic: Share of the operands' traffic that adds to the arithmetic.
        element_bytes: Bytes of an element.

    Valid when: the operands lie in the device's memory.
    Off by: up to 15 % where m, n or k is just above a multiple of the kernel's tile.
    Source: roofline (Williams et al. 2009) with a sum in place of the maximum.
    """
    moved = element_bytes * (m * k + k * n + m * n)
    return 2 * m * n * k / rate + traffic * moved / bandwidth_bytes_per_s


def layer_time(model: Transformer, plan: Plan, device: Accelerator, p: Parameters) -> LayerTime:
    """Return the time of one layer for one micro-batch on one rank.

    Valid when: every token meets every active expert evenly; dense causal attention (fused attention skips the masked half).
    Off by: see `aiinfra validate`; products just above a tile, and routers out of balance, take longer.
    Source: operation counts as Korthikanti et al. 2022; FlashAttention's as Dao et al. 2022.
    """
    rate, bandwidth = rate_flops(plan, device, p), device.memory_bandwidth_bytes_per_s
    t, num_tokens, hidden = plan.tp_size, tokens(model, plan), model.hidden
    weights = _projections_s(model, plan, rate, bandwidth, p) + _experts_s(model, plan, rate, bandwidth, p)
    attention, attention_back = _attention_s(model, plan, device, p)
    q, kv = model.heads * model.head_size, model.kv_heads * model.head_size
    dispatch = np.where(np.asarray(model.experts) > 1, DISPATCH_PASSES * model.active_experts, 0)
    wide = (WIDE_PASSES / np.where(plan.sequence_parallel, t, 1) + dispatch) * num_tokens * hidden
    split = (2 * (q + 2 * kv) + model.ffn_matrices * model.ffn * model.active_experts) * num_tokens / t
    moved = _passes(plan, p) * ACTIVATION_BYTES * (wide + split) / (bandwidth * p.memory_frac)
    return LayerTime(
        weights + attention + moved + p.layer_overhead_s,
        2 * weights + attention_back + p.backward_elementwise * moved + p.layer_overhead_s,
        attention,
        (1 + p.backward_elementwise) * moved,
        np.where(plan.flash_attention, weights / 2 + moved, attention),
    )


def head_time_s(model: Transformer, plan: Plan, device: Accelerator, p: Parameters) -> Number:
    """Return the time of the output projection and the loss, forward and backward, for one micro-batch on one rank.

    Valid when: logits are computed for every token, in 16 bits, over a vocabulary split by tensor parallelism.
    Off by: too high where the loss is fused with the product (the logits are never written).
    Source: three products of T x D x V; five passes over the logits.
    """
    num_tokens, columns = tokens(model, plan), model.vocab / plan.tp_size
    rate = _held(device.peak_16bit_flops, device, p)
    bandwidth = device.memory_bandwidth_bytes_per_s
    products = 3 * matmul_time_s(num_tokens, columns, model.hidden, rate, bandwidth, p.operand_traffic)
    return products + _passes(plan, p) * 4 * 5 * num_tokens * columns / (
        bandwidth * p.memory_frac
    )  # 4 bytes: the loss is computed in fp32


def embedding_time_s(model: Transformer, plan: Plan, device: Accelerator, p: Parameters) -> Number:
    """Return the time of looking tokens up and adding their gradients, for one micro-batch on one rank."""
    moved = ACTIVATION_BYTES * 4 * tokens(model, plan) * model.hidden
    return p.elementwise_traffic * moved / (device.memory_bandwidth_bytes_per_s * p.memory_frac)


def tokens(model: Transformer, plan: Plan) -> Number:
    """Return the tokens of one micro-batch on one rank."""
    return plan.micro_batch_size * model.seq_len / plan.cp_size


def _passes(plan: Plan, p: Parameters) -> Number:
    """Bytes that the plan's software moves in element-wise work, against the least."""
    fused = np.where(plan.compiled, p.compiled_elementwise_traffic, p.elementwise_traffic)
    return np.where(plan.flash_attention, fused, p.unfused_elementwise_traffic)


def _projections_s(model: Transformer, plan: Plan, rate: Number, bandwidth: Number, p: Parameters) -> Number:
    t, num_tokens, hidden, size = plan.tp_size, tokens(model, plan), model.hidden, plan.precision_bytes
    q, kv = model.heads * model.head_size, model.kv_heads * model.head_size
    inwards = matmul_time_s(num_tokens, (q + 2 * kv) / t, hidden, rate, bandwidth, p.operand_traffic, size)
    return inwards + matmul_time_s(num_tokens, hidden, q / t, rate, bandwidth, p.operand_traffic, size)


def _experts_s(model: Transformer, plan: Plan, rate: Number, bandwidth: Number, p: Parameters) -> Number:
    """Feed-forward: as many products as this rank has experts with work, each with its share of the tokens."""
    t, num_tokens, hidden, size = plan.tp_size, tokens(model, plan), model.hidden, plan.precision_bytes
    routed = num_tokens * model.active_experts
    busy = np.minimum(model.experts / plan.ep_size, np.maximum(routed, 1))
    rows, up = routed / busy, model.ffn_matrices - 1
    upwards = matmul_time_s(rows, up * model.ffn / t, hidden, rate, bandwidth, p.operand_traffic, size)
    return busy * (upwards + matmul_time_s(rows, hidden, model.ffn / t, rate, bandwidth, p.operand_traffic, size))


def _attention_s(model: Transformer, plan: Plan, device: Accelerator, p: Parameters) -> tuple[Number, Number]:
    """Forward and backward time of attention; its products stay in 16 bits."""
    scores = tokens(model, plan) * model.seq_len * model.heads / plan.tp_size
    flop = 4 * scores * model.head_size
    rate = _held(device.peak_16bit_flops, device, p)
    aligned = np.asarray(model.head_size) % 8 == 0
    arithmetic = flop / rate * np.where(aligned, 1.0, p.misaligned_head)
    moved = p.score_passes * ACTIVATION_BYTES * scores / (device.memory_bandwidth_bytes_per_s * p.memory_frac)
    kernels = {"flash": p.flash_frac, "flash_ported": p.flash_ported_frac, "flash_native": p.flash_native_frac}
    fused = np.where(model.causal, 0.5, 1.0) * flop / (rate * plan.by_kernel(kernels))
    flash = np.asarray(plan.flash_attention)
    forward = np.where(flash, fused, arithmetic + moved)
    return forward, np.where(flash, FLASH_BACKWARD * fused, 2 * arithmetic + p.score_passes_backward * moved)
