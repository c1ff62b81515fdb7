"""Inside a scheduler's allocation: starting ranks in one that is there already, and what a supervisor does when its job starts again.

A job of Slurm may be started several times: a time limit, a preemption or a failed node puts it back into the queue. The pool's folder
stays, so the next start finds what was under way, and goes on with the same run as its next incarnation.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import AdmissionError, LabError, LaunchError, SpecError
from ..runs.jobs import queue_run, write_job
from ..runs.layout import RunDir
from . import slurm
from .place import Placed, QueueState, check_network, network_flags

#: How often a job is put back for a host that was lost; a failure that comes each time is no host's.
MOST_STARTS = 5
#: What mpiexec prints when the daemon on another host is gone, and what srun does.
_HOST_LOST = ("lost communication with a remote daemon", "Node failure on", "NODE FAIL")


@dataclass(frozen=True, slots=True)
class Allocation:
    """The allocation that this process is in (salloc, or a task of a job array): mpiexec starts the ranks all over it.

    Attributes:
        network: CIDR that ranks of different nodes use; "" lets MPI try all of them.
        number: Of the job, so that a pool in another job's allocation is not taken for one in this.
    """

    network: str = ""
    number: str = ""
    name: ClassVar[str] = "allocation"
    title: ClassVar[str] = "Slurm"
    keeps: ClassVar[tuple[str, ...]] = ("SLURM_",)
    profiles: ClassVar[str] = ""  # of nodes like this one; a cluster of others names its hosts

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Allocation:
        """Return it; only the network may be said.

        Raises:
            SpecError: Something else was asked.
        """
        if rest := ", ".join(sorted(given.keys() - {"network"})):
            raise SpecError(f"{rest}: this is inside Slurm's job {inside()}, which has what it has; leave it out")
        check_network(given.get("network", ""))
        return cls(given.get("network", ""), inside())

    def available(self) -> str | None:
        """Return None inside an allocation, else why not."""
        return (
            None
            if inside()
            else "this is not inside an allocation of Slurm; get one with salloc, or use --on slurm on a login node"
        )

    def admit(self, size: int) -> None:
        """Refuse more ranks than the allocation has tasks.

        Raises:
            AdmissionError, LaunchError: With the most there is; not inside an allocation.
        """
        if reason := self.available():
            raise LaunchError(reason, [], hint="salloc --ntasks=N")
        if size > (most := tasks()):
            raise AdmissionError(
                f"ranks: got {size}; Slurm's job {inside()} has {most} tasks; ask for fewer, or for a larger allocation"
            )

    def command(self, size: int, pool: Path, supervisor: list[str]) -> list[str]:
        """Return the supervisor's own argv: it starts here."""
        return supervisor

    def submit(self, size: int, pool: Path, supervisor: list[str]) -> str:
        """Leave it to the pool to start the supervisor here."""
        return ""

    def mpiexec(self, size: int, pool: Path) -> list[str]:
        """Return the flags of mpiexec, which finds the allocation by itself."""
        return [*slurm.FLAGS, *network_flags(self.network)]

    def state(self, job: str) -> QueueState:
        """Nothing waits."""
        return QueueState()

    def cancel(self, job: str) -> None:
        """Leave the allocation as it is: it belongs to whoever asked for it."""


def inside() -> str:
    """Return the number of the job that this process belongs to, "" where it is in none."""
    return os.environ.get("SLURM_JOB_ID", "")


def tasks() -> int:
    """Return how many tasks this job has."""
    given = os.environ.get("SLURM_NTASKS") or os.environ.get("SLURM_NPROCS") or ""
    return int(given) if given.isdecimal() else 1


def starts() -> int:
    """Return how often this job was started before."""
    given = os.environ.get("SLURM_RESTART_COUNT", "0")
    return int(given) if given.isdecimal() else 0


def go_on(pool: Path, before: Mapping[str, Any]) -> None:
    """Started again by the scheduler: put the run that was under way into the queue, unless it came to its end or is there already.

    Args:
        pool: Its folder.
        before: `state.json` of the start before.
    """
    left = before.get("run") or before.get("left")
    if not left or any((pool / "jobs").glob("*.json")):
        return
    run = RunDir(Path(left))
    newest = run.incarnations() - 1
    # Preempted, it had time to say that it was interrupted; with a host that failed it says nothing.
    ended = _read(run.outcome(newest)).get("state", "interrupted") if newest >= 0 else ""
    if run.path.is_dir() and ended in {"interrupted", "relaunch"}:
        write_job(pool, run, newest + 1, int(before["job_size"]), detached=bool(before["detached"]))


def again(pool: Path, placed: Placed, job: Mapping[str, Any], *, why: str) -> None:
    """Have the scheduler's job started again, with the run as its next incarnation, from its last checkpoint.

    Nothing is queued where the run came to its own end, or put itself into the queue as it should.
    """
    run = RunDir(Path(job["run"]))
    if _read(run.outcome(job["incarnation"])).get("state", "interrupted") != "interrupted":
        return
    with contextlib.suppress(LabError):
        said = {"job": placed.job, "message": why}
        queue_run(pool, run, job["incarnation"] + 1, job["size"], said=said, detached=job["detached"])


def lost_a_host(tail: str) -> bool:
    """Whether mpiexec ended because a host went away, by what it printed last; and the job was not started too often."""
    return any(sign in tail for sign in _HOST_LOST) and starts() < MOST_STARTS


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data
