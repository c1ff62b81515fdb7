"""What is probed of links: a message to and fro between two ranks of one host, and between two hosts, each by itself.

Which rank is on which host is asked of the ranks. The line through the times is the link's latency and bandwidth (Hockney's alpha and
beta); inside one host it is memory, between hosts the network. The library's all-reduce over several hosts is probed beside them, since
rings and trees of it use both kinds of link.
"""

from __future__ import annotations

import time

import numpy as np
from mpi4py import MPI

from ...ranks.collectives import allreduce
from ...ranks.members import hosts_of
from ...ranks.node import Node
from .measure_probes import Once, Probe, Setup, timed

#: From a word to what no longer fits a cache; 8 MiB take 0.7 s at 100 Mbit/s.
LINK_BYTES = (8, 2**10, 2**14, 2**16, 2**18, 2**20, 2**21, 2**22, 2**23)
#: Sizes from which on a first repeat costs more than a cold start distorts.
LARGE_BYTES = 2**20
ALLREDUCE_BYTES = (8, 2**10, 2**14, 2**17, 2**20, 2**22)
WITHIN, BETWEEN = "within", "between"
_TAG = 12


def link_probes(node: Node, levels: list[int]) -> list[Probe]:
    """Return the probes of both kinds of link, as far as there are two such ranks; the same list on every rank.

    Args:
        node: Of this rank; its communicator holds all that may take part.
        levels: Rank counts at which the all-reduce is probed as well.
    """
    hosts = hosts_of(node.comm)
    found = []
    for where, pair in pairs(hosts).items():
        how = f"half a message's way to and fro, {where} {hosts[pair[0]]} and {hosts[pair[1]]}"
        for size in LINK_BYTES:
            at = {"where": where, "bytes": size}
            large = size >= LARGE_BYTES
            found.append(
                Probe(
                    "link", at, _to_and_fro(size), 2, how=how, members=pair, warm_up=not large, least=2 if large else 3
                )
            )
    several = len(set(hosts)) > 1
    for n in (n for n in levels if n > 1 and several):
        for size in ALLREDUCE_BYTES:
            at = {"ranks": n, "bytes": size}
            found.append(
                Probe(
                    "allreduce", at, _allreduce(node, size), n, how="in place, over the hosts of these ranks", least=2
                )
            )
    return found


def pairs(hosts: list[str]) -> dict[str, tuple[int, int]]:
    """Return the first two ranks that share a host, and the first two that do not; without those that there are not."""
    found: dict[str, tuple[int, int]] = {}
    for a, name in enumerate(hosts):
        for b in range(a + 1, len(hosts)):
            found.setdefault(WITHIN if hosts[b] == name else BETWEEN, (a, b))
    return found


def _to_and_fro(size: int) -> Setup:
    """Half of a message's way to the other one and back."""

    def setup(comm: MPI.Intracomm) -> Once:
        buffer, partner = np.zeros(size, np.uint8), 1 - comm.rank

        rounds = 1 if size >= LARGE_BYTES else 5

        def once() -> tuple[float, ...]:
            spent_s = 0.0
            for number in range(rounds):
                begun = time.perf_counter()
                for turn in (0, 1):
                    if comm.rank == turn:
                        comm.Send(buffer, partner, _TAG)
                    else:
                        comm.Recv(buffer, partner, _TAG)
                if number or rounds == 1:  # the first of several begins when the slower one comes from the barrier
                    spent_s += time.perf_counter() - begun
            # Only who sends first sees the whole way to and fro, and calibration takes the mean over both.
            return (spent_s / max(rounds - 1, 1) if comm.rank == 0 else 0.0,)

        return once

    return setup


def _allreduce(node: Node, size: int) -> Setup:
    def setup(comm: MPI.Intracomm) -> Once:
        buffer = np.zeros(max(size // 4, 2), np.float32)
        return timed(lambda: allreduce(comm, buffer, node.link))

    return setup
