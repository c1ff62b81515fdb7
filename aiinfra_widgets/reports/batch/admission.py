"""Which reports may run beside each other: as many as were asked for, where cores and memory bear it.

A lab measures. Two labs whose ranks share cores measure each other, so a report starts only where its ranks find cores of
their own, unless the batch file says `share_cores: true`. One that needs more than there is runs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

from ...machine.limits import RESERVED_BYTES, limit
from ...machine.profile import Machine
from .plan import Job


@dataclass(frozen=True, slots=True)
class Admission:
    """The rule for one machine.

    Attributes:
        machine: Its cores and memory, as the limits of this process allow.
        at_once: The most reports at a time that were asked for.
        share_cores: Whether ranks of different reports may share cores.
    """

    machine: Machine
    at_once: int
    share_cores: bool

    def next(self, waiting: Sequence[Job], running: Iterable[Job]) -> Job | None:
        """Return the first waiting job that may start now, None where none may."""
        here = list(running)
        if not waiting or len(here) >= self.at_once:
            return None
        if not here:
            return waiting[0]
        return next((job for job in waiting if not self.against(job, here, psutil.virtual_memory().available)), None)

    def against(self, job: Job, running: Sequence[Job], available_bytes: float) -> str:
        """Return why `job` may not start beside `running`, "" where it may.

        Args:
            job: Waiting.
            running: What runs.
            available_bytes: Memory that is free now.
        """
        cores = sum(j.cores for j in running) + job.cores
        if not self.share_cores and cores > self.machine.cores:
            return f"{cores} ranks on {self.machine.cores} cores"
        ranks, (most, why) = sum(j.ranks for j in running) + job.ranks, limit(self.machine)
        if ranks > most:
            return f"{ranks} ranks; {most} are allowed ({why})"
        promised = sum(j.memory_bytes for j in running) + job.memory_bytes
        if promised > self.machine.memory_bytes - RESERVED_BYTES or job.memory_bytes > available_bytes:
            return f"{promised / 2**30:.1f} GiB for all that would run"
        return ""

    def advice(self, jobs: Sequence[Job]) -> str:
        """Return why fewer run at once than were asked for, "" where that is not so."""
        if self.at_once < 2 or self.share_cores or len(jobs) < 2:
            return ""
        alone = [j for j in jobs if all(self.against(j, [o], float("inf")) for o in jobs if o is not j)]
        if not alone:
            return ""
        needs = "report needs" if len(alone) == 1 else "reports need"
        return (
            f"{len(alone)} {needs} all {self.machine.cores} cores, and no other is made meanwhile, so that none disturbs what it "
            "measures; share_cores: true in the batch file lets them share"
        )
