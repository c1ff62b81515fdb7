"""Run under mpiexec: every probe of several ranks is gone through once, on two ranks and on all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from mpi4py import MPI

from aiinfra_widgets.experiments.calibration.measure_ranks import rank_probes
from aiinfra_widgets.machine.profile import Machine, Probe
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.ranks.node import Node
from aiinfra_widgets.workloads.step_times import StepTimes


def test_every_probe_of_several_ranks_gives_times_that_predictions_read():
    world = MPI.COMM_WORLD
    node = cast(Node, SimpleNamespace(comm=world, link=InjectedLink()))
    levels = sorted({1, 2, world.size})
    groups = {n: world.Split(0 if world.rank < n else MPI.UNDEFINED, world.rank) for n in levels}
    found = []
    for probe in rank_probes(node, levels):
        if groups[probe.ranks] != MPI.COMM_NULL:
            once = np.array(probe.setup(cast(Any, groups[probe.ranks]))())
            assert once.shape == (len(probe.parts),)
            assert np.all(np.isfinite(once) & (once >= 0))
            for part, seconds in zip(probe.parts, np.maximum(once, 1e-9).tolist(), strict=True):
                at = {**probe.at, "part": part} if part else dict(probe.at)
                found.append(Probe(probe.name, at, "s", seconds, seconds, seconds, 1))
        world.Barrier()
    if world.rank == 0:
        times, sizes = StepTimes(Machine("here", "now", 2, 2**33, probes=tuple(found))), np.array([8.0, 2**16, 2**26])
        for message in (
            times.reduce_scatter_s,
            times.all_gather_s,
            times.all_to_all_s,
            times.send_s,
            times.allreduce_s,
        ):
            assert np.all(message(sizes, world.size) > 0)
        for optimizer in ("sgd", "adamw"):
            assert times.update_s(2**16, world.size, optimizer) > 0
        assert times.shared_core_factor(world.size) >= 1.0
        assert np.all(times.hand_over_s(1e-3, sizes, world.size) > 0)
        assert all(np.all(part >= 0) for part in times.lockstep(world.size, 1e-3, sizes))
