"""How fast each host computes: the same layers on one rank of each, at the same time, against what they take on the machine of the profile.

At the same time, because that is how the ranks of a step compute: hosts that share their processors are as slow as they then are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mpi4py import MPI

from ...ranks.members import hosts_of
from ...ranks.node import Node
from .measure_layers import layer_probes
from .measure_probes import BOTH_WAYS, Once, Probe

SPEED = "speed"
#: Layers of kinds that every workload has, large enough that starting them counts for little.
LAYERS = {
    "linear": {"width": 256, "batch": 256},
    "conv": {"inputs": 8, "outputs": 32, "batch": 64},
    "gelu": {"elements": 2**18},
}
#: Of one layer in one repeat: several periods in which a system takes a processor away and gives it back, by quota or by turns.
LAYER_S = 0.1


def speed_probes(node: Node) -> list[Probe]:
    """Return the one probe, with a part for each host, named by its first rank; none where the profile knows no such layers.

    Its figure is a ratio: seconds that the layers take by the machine profile that the run was started with, over those here.
    """
    first: dict[str, int] = {}
    for rank, host in enumerate(hosts_of(node.comm)):
        first.setdefault(host, rank)
    ranks = tuple(first.values())
    alone: list[tuple[Probe, float]] = []
    for probe in layer_probes():
        if LAYERS.get(probe.name, {}).items() <= probe.at.items() and probe.name in LAYERS:
            known = [p.median for part in BOTH_WAYS for p in node.machine.rows(probe.name, **probe.at, part=part)]
            alone += [(probe, sum(known))] if len(known) == len(BOTH_WAYS) else []
    if not alone:
        return []

    def setup(comm: MPI.Intracomm) -> Once:
        loops: list[tuple[Callable[[], object], int]] = [
            (probe.setup(comm), round(LAYER_S / alone_s)) for probe, alone_s in alone
        ]

        def once() -> tuple[float, ...]:
            begun = time.perf_counter()
            for layer, times in loops:
                for _ in range(times):
                    layer()
            spent_s = time.perf_counter() - begun
            # Calibration takes the mean over the ranks that take part, and each has a part of its own here.
            return tuple(spent_s * comm.size if rank == comm.rank else 0.0 for rank in range(comm.size))

        return once

    total_s = sum(round(LAYER_S / alone_s) * alone_s for _, alone_s in alone)
    how = f"{', '.join(p.name for p, _ in alone)} on one rank of each host at the same time, relative to {node.machine.id}"
    parts = tuple(str(rank) for rank in ranks)
    return [Probe(SPEED, {}, setup, unit="1", work=total_s, how=how, parts=parts, members=ranks, warm_up=False)]
