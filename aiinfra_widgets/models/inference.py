"""How fast a transformer answers: prefill and decode by the roofline, the cache of keys and values, continuous batching.

Two phases. Prefill reads the whole prompt at once and is bound by arithmetic. Decode makes one token per sequence and
step: every step reads all weights once for the whole batch, and each sequence's own cache, so it is bound by memory
until the batch is large. Every argument is a number or an array that broadcasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._check import Number, magnitude, need
from .collectives import recursive_doubling_allreduce_time_s, ring_allreduce_time_s
from .transformer.architecture import Transformer
from .transformer.cluster import Accelerator, Cluster

LOGIT_BYTES = 4  # sampling computes in fp32


@dataclass(frozen=True, slots=True)
class InferenceParameters:
    """What a serving engine reaches and costs; the defaults are fitted on the rows that `Source` names.

    Attributes:
        bandwidth_frac: Share of the memory bandwidth at which weights and cache stream, 0 to 1.
        step_overhead_s: Host time per step that nothing hides: scheduling, launching the step's graph, returning tokens.
        layer_overhead_s: Gaps between the kernels of one layer.
        sequence_overhead_s: Host time per step and sequence: its entry in the batch, its stop check, its new text.
        sampler_passes: How often sampling reads or writes a sequence's row of logits (sorting for top-p takes many).
        weight_bytes: Of one weight.
        cache_bytes: Of one element of the cache.
        reserve_frac: Share of the memory that weights and cache must leave free (runtime, activations).

    Raises:
        ModelInputError: A share outside 0 to 1, a time or size below zero.

    Source: step_overhead_s and sequence_overhead_s are fitted on 19 rows of the ML.ENERGY leaderboard v3 (Qwen3-8B, vLLM,
        H100 and B200): error 9 % on them, 11 % when one accelerator is left out. The others are assumed: nine tenths of the
        data sheet's bandwidth, ten microseconds of gaps in the graph of a layer, twenty passes to sort and sum the logits;
        reserve_frac is the default of vLLM (gpu_memory_utilization 0.9).
    """

    bandwidth_frac: Number = 0.9
    step_overhead_s: Number = 3.3e-3
    layer_overhead_s: Number = 10e-6
    sequence_overhead_s: Number = 44e-6
    sampler_passes: Number = 20.0
    weight_bytes: Number = 2
    cache_bytes: Number = 2
    reserve_frac: Number = 0.1

    def __post_init__(self) -> None:
        need("bandwidth_frac", self.bandwidth_frac, 0, 1, above=True)
        for name in ("step_overhead_s", "layer_overhead_s", "sequence_overhead_s", "sampler_passes"):
            need(name, getattr(self, name))
        for name in ("weight_bytes", "cache_bytes"):
            need(name, getattr(self, name), above=True)
        need("reserve_frac", self.reserve_frac, 0, 1)


INFERENCE_PARAMETERS = InferenceParameters()


@dataclass(frozen=True, slots=True)
class PassTime:
    """One pass through the model, in seconds; the parts add up to `time_s`.

    Attributes:
        linear_time_s: Projections, feed-forward and output head: the larger of arithmetic and reading weights.
        attention_time_s: Scores and values: the larger of arithmetic and reading the cache.
        sampling_time_s: Turning logits into tokens, on the device.
        comm_time_s: All-reduces of tensor parallelism.
        overhead_time_s: Host and gaps between kernels.
    """

    linear_time_s: Any
    attention_time_s: Any
    sampling_time_s: Any
    comm_time_s: Any
    overhead_time_s: Any

    @property
    def time_s(self) -> Any:
        """The sum of the parts."""
        return (
            self.linear_time_s + self.attention_time_s + self.sampling_time_s + self.comm_time_s + self.overhead_time_s
        )


@dataclass(frozen=True, slots=True)
class ServingPrediction:
    """One replica in steady state with every place in the batch taken.

    Attributes:
        ttft_s: Time to first token, queue not counted.
        tpot_s: Time per output token after the first.
        response_s: From start of the prefill to the last token.
        output_tokens_per_s: Of the whole replica (all its tp_size devices).
        requests_per_s: Of the whole replica.
        largest_batch: Sequences whose cache fits at full length.
        fits: Whether the batch asked for is no larger than that.
    """

    ttft_s: Any
    tpot_s: Any
    response_s: Any
    output_tokens_per_s: Any
    requests_per_s: Any
    largest_batch: Any
    fits: Any


def kv_cache_bytes_per_token(model: Transformer, cache_bytes: Number = 2) -> Number:
    """Return the bytes of keys and values that one token leaves in the cache of all layers.

    Args:
        model: With kv_heads below heads for grouped-query attention.
        cache_bytes: Of one element.

    Raises:
        ModelInputError: cache_bytes not positive.

    Valid when: every layer attends to everything. Off by: too high for sliding windows and latent attention.
    Source: Pope et al. 2022 (arXiv:2211.05102), section 3.
    """
    need("cache_bytes", cache_bytes, above=True)
    return 2 * model.layers * model.kv_heads * model.head_size * cache_bytes


def expected_experts(model: Transformer, num_tokens: Number) -> Any:
    """Return how many experts of a layer at least one of `num_tokens` tokens is expected to pass.

    Args:
        model: With experts E of which each token takes k.
        num_tokens: Tokens in one pass, at least 0.

    Raises:
        ModelInputError: num_tokens below zero.

    Valid when: the router spreads tokens evenly and independently. Off by: too high where some experts are favourites.
    Source: E (1 - (1 - k/E)^T), the mean number of non-empty bins.
    """
    need("num_tokens", num_tokens)
    experts = np.asarray(model.experts, dtype=float)
    return (experts * (1 - (1 - model.active_experts / experts) ** num_tokens))[()]


def weight_memory_bytes(model: Transformer, tp_size: Number = 1, weight_bytes: Number = 2) -> Number:
    """Return the bytes of weights that each of `tp_size` devices holds; all experts, both embeddings.

    Raises:
        ModelInputError: tp_size not whole, weight_bytes not positive.

    Valid when: tensor parallelism shards everything. Off by: norms, under 0.1 %.
    Source: count of parameters.
    """
    need("tp_size", tp_size, 1, whole=True)
    need("weight_bytes", weight_bytes, above=True)
    return model.parameters * weight_bytes / tp_size


def largest_batch(
    model: Transformer,
    accelerator: Accelerator,
    context_tokens: Number,
    tp_size: Number = 1,
    parameters: InferenceParameters = INFERENCE_PARAMETERS,
) -> Any:
    """Return how many sequences of `context_tokens` tokens fit beside the weights; 0 where not even the weights do.

    Args:
        model: The transformer.
        accelerator: Each of the tp_size devices.
        context_tokens: Prompt and answer together, at least 1.
        tp_size: Devices that share the model; a head of keys and values is never split, so beyond kv_heads it is copied.
        parameters: Bytes per element and the share kept free.

    Raises:
        ModelInputError: context_tokens below 1, tp_size not whole.

    Valid when: the cache is paged (no memory lost to padding). Off by: up to one page per sequence.
    Source: Kwon et al. 2023 (arXiv:2309.06180), section 3.
    """
    need("context_tokens", context_tokens, 1)
    room = accelerator.memory_bytes * (1 - np.asarray(parameters.reserve_frac))
    room = room - weight_memory_bytes(model, tp_size, parameters.weight_bytes)
    each = _cache_per_token(model, tp_size, parameters) * context_tokens
    return np.floor(np.maximum(room / each, 0.0))[()]


def decode_step(
    model: Transformer,
    cluster: Cluster,
    batch: Number,
    context_tokens: Number,
    tp_size: Number = 1,
    parameters: InferenceParameters = INFERENCE_PARAMETERS,
) -> PassTime:
    """Return the time of one decode step: one new token for each of `batch` sequences.

    Args:
        model: The transformer.
        cluster: Its accelerator, and the links for tensor parallelism.
        batch: Sequences, at least 1; a mean need not be whole.
        context_tokens: Mean length of what is in the cache.
        tp_size: Devices that share the model.
        parameters: What the engine reaches.

    Raises:
        ModelInputError: batch below 1, context_tokens below zero, tp_size that is not whole.

    Valid when: one token per sequence and step (no speculation), weights and cache in device memory.
    Off by: 9 % on the average of the rows of the ML.ENERGY leaderboard (H100 5 %, B200 14 %: a third too fast at batches
        of 32 and 64, where the published throughput itself jumps); sizes of tiles and graphs are not modelled.
    Source: Pope et al. 2022; roofline of Williams et al. 2009.
    """
    need("batch", batch, 1)
    need("context_tokens", context_tokens)
    return _pass(model, cluster, batch, 1.0, context_tokens, tp_size, parameters)


def prefill(
    model: Transformer,
    cluster: Cluster,
    batch: Number,
    prompt_tokens: Number,
    tp_size: Number = 1,
    parameters: InferenceParameters = INFERENCE_PARAMETERS,
) -> PassTime:
    """Return the time in which `batch` prompts of `prompt_tokens` tokens are read, up to the first token of each.

    Arguments and errors as `decode_step`; prompt_tokens at least 1.

    Valid when: no prefix is in the cache already. Off by: too high where prompts share a cached prefix.
    Source: as `decode_step`; causal attention counts half of the square.
    """
    need("batch", batch, 1)
    need("prompt_tokens", prompt_tokens, 1)
    return _pass(model, cluster, batch, prompt_tokens, prompt_tokens / 2, tp_size, parameters)


def predict_serving(
    model: Transformer,
    cluster: Cluster,
    batch: Number,
    prompt_tokens: Number,
    output_tokens: Number,
    tp_size: Number = 1,
    output_cv: Number = 0.0,
    parameters: InferenceParameters = INFERENCE_PARAMETERS,
) -> ServingPrediction:
    """Return latency and throughput of one replica under continuous batching, with `batch` places always taken.

    A sequence that ends is replaced at once. Each place reads one prompt per answer, so a step carries, beside its
    decode, the arithmetic of batch / output_tokens prompts; host and weights of that step are shared.

    Args:
        model: The transformer.
        cluster: Its accelerator and links.
        batch: Sequences at a time, at least 1.
        prompt_tokens, output_tokens: Means, at least 1.
        tp_size: Devices that share the model.
        output_cv: Standard deviation of the answers' length over its mean. Long answers are met more often at a given
            moment, so the mean context is prompt + output (1 + cv^2) / 2.
        parameters: What the engine reaches.

    Raises:
        ModelInputError: An argument outside its domain.

    Valid when: requests wait at the door (saturated), one phase does not starve the other.
    Off by: as `decode_step`; the queue before the first token is not in ttft_s (see the queueing models).
    Source: Yu et al. 2022 (Orca, OSDI 22); inspection paradox for the mean context.
    """
    need("output_tokens", output_tokens, 1)
    need("output_cv", output_cv)
    context = prompt_tokens + output_tokens * (1 + output_cv * output_cv) / 2
    step = decode_step(model, cluster, batch, context, tp_size, parameters).time_s
    alone = prefill(model, cluster, 1, prompt_tokens, tp_size, parameters)
    arithmetic = _prompt_arithmetic_s(model, cluster, prompt_tokens, tp_size) + alone.comm_time_s
    tpot = step + batch / output_tokens * arithmetic
    ttft = alone.time_s + tpot / 2  # on the average a request comes in the middle of a step
    room = largest_batch(model, cluster.accelerator, prompt_tokens + output_tokens, tp_size, parameters)
    return ServingPrediction(
        ttft_s=ttft,
        tpot_s=tpot,
        response_s=ttft + (output_tokens - 1) * tpot,
        output_tokens_per_s=batch / tpot,
        requests_per_s=batch / tpot / output_tokens,
        largest_batch=room,
        fits=np.asarray(batch) <= room,
    )


def _matrix_parameters(model: Transformer, experts: Number) -> Any:
    """Weights of the matrix products of one token's way: attention, `experts` experts, the output head."""
    return model.layers * (model.attention_parameters + experts * model.expert_parameters) + model.embedding_parameters


def _rate(cluster: Cluster, tp_size: Number) -> Any:
    device = cluster.accelerator
    return device.peak_flops * device.achievable_frac * tp_size


def _cache_per_token(model: Transformer, tp_size: Number, parameters: InferenceParameters) -> Any:
    """Bytes per token and device; one head of keys and values at least on each device."""
    shards = np.minimum(magnitude(tp_size), magnitude(model.kv_heads))
    return kv_cache_bytes_per_token(model, parameters.cache_bytes) / shards


def _prompt_arithmetic_s(model: Transformer, cluster: Cluster, tokens: Number, tp_size: Number) -> Any:
    """Arithmetic of one prompt in a step whose weights are read anyway; the head runs for its last token only."""
    body = _matrix_parameters(model, model.active_experts) - model.embedding_parameters
    flop = 2 * body * tokens + 2 * model.embedding_parameters
    scores = 4 * model.layers * model.heads * model.head_size * tokens * tokens / 2
    return (flop + scores) / _rate(cluster, tp_size)


def _pass(
    model: Transformer,
    cluster: Cluster,
    batch: Number,
    new_tokens: Number,
    mean_context: Number,
    tp_size: Number,
    parameters: InferenceParameters,
) -> PassTime:
    """One pass of `new_tokens` tokens in each of `batch` sequences, each token looking at `mean_context` others."""
    need("tp_size", tp_size, 1, whole=True)
    tokens = batch * new_tokens
    rate = _rate(cluster, tp_size)
    bandwidth = cluster.accelerator.memory_bandwidth_bytes_per_s * parameters.bandwidth_frac
    body = _matrix_parameters(model, model.active_experts) - model.embedding_parameters
    flop = 2 * body * tokens + 2 * model.embedding_parameters * batch
    read = _matrix_parameters(model, expected_experts(model, tokens)) * parameters.weight_bytes / tp_size
    scores = 4 * model.layers * model.heads * model.head_size * mean_context * tokens
    # Prefill reads what it has just written; decode reads the whole cache of each sequence.
    cache = _cache_per_token(model, tp_size, parameters) * mean_context * batch
    logits = batch * model.vocab * LOGIT_BYTES * parameters.sampler_passes / tp_size
    return PassTime(
        linear_time_s=np.maximum(flop / rate, read / bandwidth),
        attention_time_s=np.maximum(scores / rate, cache / bandwidth),
        sampling_time_s=logits / bandwidth,
        comm_time_s=_allreduces_s(model, cluster, tokens, tp_size, parameters),
        overhead_time_s=parameters.step_overhead_s
        + model.layers * parameters.layer_overhead_s
        + batch * parameters.sequence_overhead_s,
    )


def _allreduces_s(
    model: Transformer, cluster: Cluster, tokens: Number, tp_size: Number, parameters: InferenceParameters
) -> Any:
    """Two all-reduces a layer (after attention, after feed-forward), by ring or by doubling, whichever is faster."""
    size = tokens * model.hidden * parameters.weight_bytes
    inside = np.asarray(tp_size) <= np.asarray(cluster.per_node)
    link = np.where(inside, cluster.node_bandwidth_oneway_bytes_per_s, cluster.fabric_bandwidth_oneway_bytes_per_s)
    latency = np.where(inside, cluster.node_latency_s, cluster.fabric_latency_s)
    ring = ring_allreduce_time_s(size, tp_size, link, latency)
    doubling = recursive_doubling_allreduce_time_s(size, tp_size, link, latency)
    return 2 * model.layers * np.minimum(ring, doubling)
