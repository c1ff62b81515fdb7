"""The programme of calibration: go through the probes, several rounds, each for its share of the time.

A round visits every probe, so a neighbour that wakes up for ten seconds spoils a few repeats of each instead of all
repeats of a few. Ranks that a probe does not need sleep meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from mpi4py import MPI

from ...experiment import Spec
from ...ranks.node import Arrays, Node, Program
from . import CalibrationSpec
from .measure_forward import forward_probes
from .measure_layers import layer_probes
from .measure_links import link_probes
from .measure_probes import Probe, unit_of_work
from .measure_ranks import rank_probes
from .measure_speed import speed_probes

#: Repeats of one probe in one round, where there is time for so many.
MOST = 200
#: Ticks at the end that do almost nothing, so that what the lab itself needs between two ticks can be read off.
PLAIN_TICKS = 150


class Probes(Program):
    """One tick is one probe of one round."""

    agrees: ClassVar[bool] = True

    def __init__(self, spec: Spec, node: Node) -> None:
        self.spec, self.node, self.tick = spec, node, 0
        self.times: dict[int, list[tuple[float, ...]]] = {}
        self.begun_s = time.perf_counter()
        self.plain_ticks = 0
        self.plain = unit_of_work()
        self.probes: list[Probe] = []
        self.groups: dict[tuple[int, ...], Any] = {}  # Intracomm, or COMM_NULL where this rank is not needed

    def state(self) -> Arrays:
        """Nothing that a newcomer or a resumed run could use: calibration starts again."""
        return {}

    def join(self, spec: Spec) -> None:
        """Make one communicator for each number of ranks that is probed."""
        comm = self.node.comm
        assert isinstance(spec, CalibrationSpec)
        links = link_probes(self.node, self.levels(comm.size) if spec.only == "links" else [])
        if spec.only == "links":
            self.probes = [*links, *speed_probes(self.node)]
        else:
            self.probes = [*layer_probes(), *rank_probes(self.node, self.levels(comm.size)), *forward_probes(), *links]
        for who in dict.fromkeys(probe.who for probe in self.probes):
            members = comm.Get_group().Incl(list(who))
            self.groups[who] = comm.Create_group(members) if comm.rank in who else MPI.COMM_NULL
        if self.node.controller:
            self.node.event("plan", ticks=len(self.probes) * spec.rounds + PLAIN_TICKS)

    def levels(self, most: int) -> list[int]:
        """Rank counts that are probed: one, two, as many as cores, twice that, and all there are."""
        cores = self.node.machine.cores
        return sorted({n for n in (1, 2, cores, 2 * cores, most) if n <= most})

    def advance(self) -> Mapping[str, float] | None:
        """Probe once; after the last round, or when the time is up, report medians and quartiles."""
        assert isinstance(self.spec, CalibrationSpec)
        begun = time.perf_counter()
        if self.plain_ticks:
            return self._plain_tick(begun)
        number, rounds_done = self.tick % len(self.probes), self.tick // len(self.probes)
        share_s = self._share_s(begun)
        if rounds_done == self.spec.rounds or (rounds_done and share_s <= 0):
            return self._plain_tick(begun)
        probe = self.probes[number]
        comm = self.groups[probe.who]
        if comm != MPI.COMM_NULL:
            self.times.setdefault(number, []).extend(self._repeat(probe, comm, share_s))
        sleeping_barrier(self.node.comm)
        self.tick += 1
        return {"step_time_s": time.perf_counter() - begun}

    def _plain_tick(self, begun: float) -> Mapping[str, float] | None:
        """A tick of a millisecond's arithmetic on the first node, asleep on the others; the last of them ends it all."""
        if self.plain_ticks == PLAIN_TICKS:
            self._report()
            return None
        if not self.plain_ticks and self.node.controller:
            self.node.event("plain", tick=self.tick)
        self.plain_ticks += 1
        self.tick += 1
        if self.node.controller:
            for _ in range(20):
                self.plain()
        else:
            time.sleep(0.01)
        return {"step_time_s": time.perf_counter() - begun}

    def _share_s(self, now: float) -> float:
        """Seconds for the next probe, the first node's answer for all: what is left, over what is to do."""
        assert isinstance(self.spec, CalibrationSpec)
        left = len(self.probes) * self.spec.rounds - self.tick
        share = np.array([(self.spec.seconds - (now - self.begun_s)) / max(left, 1), self.node.ballot])
        self.node.comm.Bcast(share, 0)
        self.node.verdict = int(share[1])
        return float(share[0])

    def _repeat(self, probe: Probe, comm: MPI.Intracomm, share_s: float) -> list[tuple[float, ...]]:
        """Repeat a probe for its share of the time, the same number of times on every rank that takes part."""
        once = probe.setup(comm)
        if probe.warm_up:
            once()  # allocate, choose kernels
        comm.Barrier()
        begun = time.perf_counter()
        found = [once()]
        count = np.array([share_s / max(time.perf_counter() - begun, 1e-6)])
        comm.Bcast(count, 0)
        for _ in range(int(np.clip(count[0], probe.least, MOST)) - 1):
            comm.Barrier()
            found.append(once())
        # One figure of all ranks per repeat: their mean, for a slow one shows up as everybody's wait.
        mine = np.array(found)
        comm.Allreduce(MPI.IN_PLACE, mine)
        return [tuple(row) for row in mine / comm.size]

    def _report(self) -> None:
        if not self.node.controller:
            return
        for number, probe in enumerate(self.probes):
            for i, part in enumerate(probe.parts):
                figures = probe.figure(np.array(self.times[number])[:, i])
                q25, median, q75 = (float(q) for q in np.percentile(figures, (25, 50, 75)))
                at = {**probe.at, "part": part} if part else dict(probe.at)
                self.node.event(
                    "probe", name=probe.name, at=at, unit=probe.unit, median=median, q25=q25, q75=q75, n=len(figures), how=probe.how,
                )  # fmt: skip


def sleeping_barrier(comm: MPI.Intracomm) -> None:
    """Wait for all ranks without spinning: the others need the cores."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.001)
