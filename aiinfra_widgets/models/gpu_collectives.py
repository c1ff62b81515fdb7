"""How long collectives take between GPUs: a start, a wire, and the filling of the pipeline between them.

A large array moves in pieces. The first piece must pass all hops before the last rank has anything, and the pieces' size
is a compromise, so that between "all latency" and "all bandwidth" lies a term that grows like the root of the size.
`size_bytes` is as in nccl-tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._check import Number, need, need_ranks, need_rate
from .collectives import Collective, busbw_factor


@dataclass(frozen=True, slots=True)
class CollectiveParameters:
    """What libraries reach; fitted on published sweeps, see `aiinfra validate`.

    Attributes:
        start_s: A collective of no bytes: launch on every rank and the first synchronisation, 5 to 100 us.
        hop_s: One step between neighbours inside a node, 0.2 to 5 us.
        fill_hops: How many hops' latency the pieces' compromise costs, 0.5 to 10.
        ring_frac: Share of a link that a ring reaches with large arrays, 0.6 to 1.
        switch_frac: The same where the switch itself reduces (NVLink 4 and newer behind NVSwitch), 0.8 to 1.1.
        copy_frac: Share of a link that one copy from device to device, or host to device, reaches, 0.7 to 1.
    """

    start_s: float = 32e-6
    hop_s: float = 1e-6
    fill_hops: float = 2.8
    ring_frac: float = 0.79
    switch_frac: float = 0.97
    copy_frac: float = 0.88


COLLECTIVE_PARAMETERS = CollectiveParameters()


def gpu_collective_time_s(
    size_bytes: Number,
    world_size: Number,
    link_bandwidth_oneway_bytes_per_s: Number,
    *,
    collective: Collective = "allreduce",
    in_switch: bool = False,
    fabric_latency_s: Number = 0.0,
    nodes: Number = 1,
    parameters: CollectiveParameters = COLLECTIVE_PARAMETERS,
) -> Number:
    """Return the time of one collective between GPUs, in seconds.

    Args:
        size_bytes: As nccl-tests defines it.
        world_size: Number of ranks n.
        link_bandwidth_oneway_bytes_per_s: Of the slowest link on the ring, one direction, per device.
        collective: Which one.
        in_switch: The switch reduces.
        fabric_latency_s: Of one hop between nodes.
        nodes: How many nodes the ring passes.
        parameters: What libraries reach.

    Raises:
        ModelInputError: Less than one rank or node, a negative size, a bandwidth that is not positive.

    Valid when: one collective at a time, NCCL-like protocols chosen by size.
    Off by: up to 25 % around 2 to 8 MiB, where libraries change their protocol.
    Source: pipelined ring (Patarasuk & Yuan 2009) with pieces of the best size (time a + b x + 2 sqrt(a b x)).
    """
    need_ranks("world_size", world_size)
    need_ranks("nodes", nodes)
    need("size_bytes", size_bytes)
    need_rate("link_bandwidth_oneway_bytes_per_s", link_bandwidth_oneway_bytes_per_s)
    need("fabric_latency_s", fabric_latency_s)
    p, n = parameters, np.asarray(world_size, float)
    share = p.switch_frac if in_switch else p.ring_frac
    wire = size_bytes * busbw_factor(collective, world_size) / (link_bandwidth_oneway_bytes_per_s * share)
    hops = 2 * (n - 1)
    latency = hops * p.hop_s + 2 * (np.asarray(nodes) - 1) * fabric_latency_s
    fill = np.sqrt(p.fill_hops * latency * wire)
    return np.where(n > 1, p.start_s + latency + wire + fill, 0.0)


def gpu_copy_time_s(
    size_bytes: Number,
    link_bandwidth_oneway_bytes_per_s: Number,
    parameters: CollectiveParameters = COLLECTIVE_PARAMETERS,
) -> Number:
    """Return the time of one large copy over a link, in seconds; small ones wait longer for their start than they move."""
    need("size_bytes", size_bytes)
    need_rate("link_bandwidth_oneway_bytes_per_s", link_bandwidth_oneway_bytes_per_s)
    return size_bytes / (link_bandwidth_oneway_bytes_per_s * parameters.copy_frac)
