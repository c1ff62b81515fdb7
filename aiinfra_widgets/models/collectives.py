"""How long collectives take by the Hockney model: every message costs a latency plus its size over the bandwidth.

`size_bytes` is what nccl-tests calls size: the payload per rank for all-reduce and broadcast, the total array for
all-gather and reduce-scatter. One rank costs nothing. Reduction arithmetic is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ModelInputError, near
from ._check import Number, magnitude, need, need_ranks, need_rate

Collective = Literal[
    "allreduce", "allreduce_in_network", "reduce_scatter", "allgather", "alltoall", "broadcast", "reduce"
]


def point_to_point_time_s(size_bytes: Number, link_bandwidth_oneway_bytes_per_s: Number, latency_s: Number) -> Number:
    """Return the time of one message, in seconds.

    Args:
        size_bytes: Payload.
        link_bandwidth_oneway_bytes_per_s: One direction of the link.
        latency_s: Time of an empty message.

    Raises:
        ModelInputError: A negative size or latency, or a bandwidth that is not positive.

    Valid when: one message at a time on the link.
    Off by: too low around the switch from eager to rendezvous protocol (one round trip more).
    Source: Hockney 1994 (Parallel Computing 20-3).
    """
    _need_link(size_bytes, 1, link_bandwidth_oneway_bytes_per_s, latency_s)
    return latency_s + size_bytes / link_bandwidth_oneway_bytes_per_s


def ring_allreduce_time_s(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> Number:
    """Return the time of one ring all-reduce, in seconds.

    Args:
        size_bytes: Payload per rank.
        world_size: Number of ranks n, at least 1.
        link_bandwidth_oneway_bytes_per_s: One direction of one link.
        hop_latency_s: Fixed cost of one of the 2(n-1) steps.

    Raises:
        ModelInputError: If world_size < 1, a size or latency is negative, or the bandwidth is not positive.

    Valid when: equal links, no overlap, no in-network reduction.
    Off by: too low for small messages (no per-call overhead) and where ranks share cores.
    Source: Patarasuk & Yuan 2009; same factor as nccl-tests PERFORMANCE.md.
    """
    _need_link(size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    return _hops(2 * (world_size - 1), size_bytes / world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)


def tree_allreduce_time_s(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> Number:
    """Return the time of an all-reduce by a binomial tree, in seconds: a reduce to the root, then a broadcast.

    Arguments and errors as `ring_allreduce_time_s`; 2 ceil(log2 n) steps, each with the whole payload.

    Valid when: equal links, whole messages (no pipelining of pieces).
    Off by: too high against a pipelined double tree as in GPU libraries, whose bandwidth term does not grow with log n.
    Source: Thakur, Rabenseifner, Gropp 2005 (IJHPCA 19-1).
    """
    _need_link(size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    return _hops(2 * _rounds(world_size), size_bytes, link_bandwidth_oneway_bytes_per_s, hop_latency_s)


def recursive_doubling_allreduce_time_s(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> Number:
    """Return the time of an all-reduce by recursive doubling, in seconds: pairs swap whole payloads, log2 n times.

    Arguments and errors as `ring_allreduce_time_s`. Where n is not a power of two, the surplus ranks fold into
    partners before and get the result after: two steps more.

    Valid when: links carry both directions at once, equal links.
    Off by: too low where partners far apart share a link.
    Source: Thakur, Rabenseifner, Gropp 2005.
    """
    _need_link(size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    steps = _rounds(world_size) + _surplus(world_size)
    return _hops(steps, size_bytes, link_bandwidth_oneway_bytes_per_s, hop_latency_s)


def halving_doubling_allreduce_time_s(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> Number:
    """Return the time of Rabenseifner's all-reduce, in seconds: halving reduce-scatter, then doubling all-gather.

    Arguments and errors as `ring_allreduce_time_s`. As few bytes as the ring in as few steps as the tree; where n is
    not a power of two, two steps with the whole payload come on top.

    Valid when: links carry both directions at once, equal links.
    Off by: too low where partners far apart share a link.
    Source: Thakur, Rabenseifner, Gropp 2005.
    """
    _need_link(size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    odd = _surplus(world_size)  # 1 where n is no power of two
    floor = 2.0 ** (_rounds(world_size) - odd)
    scattered = size_bytes * (2 * (floor - 1) / floor) / link_bandwidth_oneway_bytes_per_s
    fold = _hops(2 * odd, size_bytes, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    return hop_latency_s * (2 * (_rounds(world_size) - odd)) + scattered + fold


def ring_reduce_scatter_time_s(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> Number:
    """Return the time of a ring reduce-scatter of `size_bytes` in all, in seconds: half a ring all-reduce.

    Arguments, errors, domain, bias and source as `ring_allreduce_time_s`.
    """
    _need_link(size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    return _hops(world_size - 1, size_bytes / world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)


def ring_allgather_time_s(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> Number:
    """Return the time of a ring all-gather of `size_bytes` in all, in seconds: the other half of the all-reduce.

    Arguments, errors, domain, bias and source as `ring_allreduce_time_s`.
    """
    return ring_reduce_scatter_time_s(size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)


def binomial_broadcast_time_s(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> Number:
    """Return the time of a broadcast down a binomial tree, in seconds: ceil(log2 n) whole messages.

    Arguments and errors as `ring_allreduce_time_s`.

    Valid when: short messages, equal links.
    Off by: too high for long messages, where libraries scatter and gather or pipeline pieces.
    Source: Thakur, Rabenseifner, Gropp 2005.
    """
    _need_link(size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    return _hops(_rounds(world_size), size_bytes, link_bandwidth_oneway_bytes_per_s, hop_latency_s)


#: Every all-reduce here, by the name that a legend shows.
ALLREDUCE_MODELS = {
    "ring": ring_allreduce_time_s,
    "tree": tree_allreduce_time_s,
    "recursive doubling": recursive_doubling_allreduce_time_s,
    "halving and doubling": halving_doubling_allreduce_time_s,
}


@dataclass(frozen=True, slots=True)
class AllreduceChoice:
    """The fastest algorithm and its time in seconds; both have the broadcast shape of the arguments."""

    time_s: Any
    algorithm: Any


def fastest_allreduce(
    size_bytes: Number, world_size: Number, link_bandwidth_oneway_bytes_per_s: Number, hop_latency_s: Number
) -> AllreduceChoice:
    """Return the all-reduce of `ALLREDUCE_MODELS` that is fastest at each point, the first named on a tie.

    Arguments and errors as `ring_allreduce_time_s`; plain numbers in base units only.

    Valid when: as each model. Off by: a library's own switch points differ from the ideal ones.
    Source: Thakur, Rabenseifner, Gropp 2005.
    """
    link = (size_bytes, world_size, link_bandwidth_oneway_bytes_per_s, hop_latency_s)
    times = np.stack(np.broadcast_arrays(*(np.asarray(model(*link)) for model in ALLREDUCE_MODELS.values())))
    return AllreduceChoice(times.min(axis=0)[()], np.array(list(ALLREDUCE_MODELS))[times.argmin(axis=0)])


def algbw_bytes_per_s(size_bytes: Number, time_s: Number) -> Number:
    """Return the algorithm bandwidth, size over time, in bytes per second.

    Raises:
        ModelInputError: A negative size or a time that is not positive.

    Valid when: the time is one operation's. Off by: exact by definition. Source: nccl-tests PERFORMANCE.md.
    """
    need("size_bytes", size_bytes)
    need("time_s", time_s, above=True)
    return size_bytes / time_s


def busbw_factor(collective: Collective, world_size: Number) -> Number:
    """Return what turns algorithm bandwidth into bus bandwidth: the bytes that each rank's link must carry per byte.

    Raises:
        ModelInputError: An unknown collective, with the near matches, or no rank.

    Valid when: sizes are counted as in the module's first lines. Off by: exact by definition.
    Source: nccl-tests PERFORMANCE.md.
    """
    need_ranks("world_size", world_size)
    n = world_size
    factors: dict[str, Any] = {
        "allreduce": 2 * (n - 1) / n,
        "allreduce_in_network": (n - 1) / (n + 1),
        **dict.fromkeys(("reduce_scatter", "allgather", "alltoall"), (n - 1) / n),
        **dict.fromkeys(("broadcast", "reduce"), n / n),
    }
    if collective not in factors:
        raise ModelInputError(f"no bus bandwidth factor for {collective!r}; {near(collective, factors)}")
    return factors[collective]


def busbw_bytes_per_s(collective: Collective, size_bytes: Number, time_s: Number, world_size: Number) -> Number:
    """Return the bus bandwidth, in bytes per second: comparable with the link's peak whatever the number of ranks.

    Raises:
        ModelInputError: As `algbw_bytes_per_s` and `busbw_factor`.

    Valid when: the collective is bound by bandwidth. Off by: meaningless for messages bound by latency.
    Source: nccl-tests PERFORMANCE.md.
    """
    return algbw_bytes_per_s(size_bytes, time_s) * busbw_factor(collective, world_size)


def _need_link(size_bytes: Number, world_size: Number, bandwidth: Number, latency_s: Number) -> None:
    need("size_bytes", size_bytes)
    need_ranks("world_size", world_size)
    need_rate("link_bandwidth_oneway_bytes_per_s", bandwidth)
    need("latency_s", latency_s)


def _hops(steps: Number, message_bytes: Number, bandwidth: Number, latency_s: Number) -> Number:
    return steps * (latency_s + message_bytes / bandwidth)


def _rounds(world_size: Number) -> Any:
    """ceil(log2 n), exact for every whole number a float holds (frexp, not a rounded logarithm)."""
    return np.frexp(magnitude(world_size) - 1)[1].astype(float)[()]


def _surplus(world_size: Number) -> Any:
    """1 where n is not a power of two, else 0."""
    return (np.frexp(magnitude(world_size))[0] != 0.5).astype(float)[()]
