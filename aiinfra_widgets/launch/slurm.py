"""Ranks in an allocation of Slurm: `sbatch` starts the supervisor there, and everything else goes by files as it does here.

The supervisor is the job's batch script. It starts the ranks with the embedded mpiexec, which finds the allocation by itself and
starts one daemon a node through `srun`; so no plugin of Slurm has to match the MPI. Who asked for the run sees the queue's word
(state, reason, expected start) in the lab, and asks for changes as always: a file in the run's inbox.

Slurm sends SIGUSR1 to the supervisor a minute before the time limit: the run writes a checkpoint, the job is put back into the
queue, and its next start goes on with the same run. A node that fails is Slurm's affair: it requeues the job.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from ..errors import AdmissionError, LaunchError, SpecError, near
from .place import QueueState, check_network, network_flags

#: How long before the time limit Slurm warns; it may come up to a minute early.
WARN_S = 60
#: What a job needs of the caller's environment; the rest stays behind.
KEPT = ("HOME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "SLURM_CONF")
#: A word that Slurm gets from a person: an account, a partition, a feature expression.
_WORD = re.compile(r"[A-Za-z0-9_.,&|*()\[\]:-]{1,128}")
_QUEUE = "%T|%r|%S|%N|%L"
#: The batch script: whatever follows it is a list of arguments, never text for a shell.
SCRIPT = '#!/bin/sh\nexec "$@"\n'
#: Of mpiexec in an allocation: ranks of one node share memory, others speak TCP.
FLAGS = ("--mca", "btl", "self,sm,tcp")
#: States of Slurm in which the job may still run, or run again.
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "CONFIGURING"})
GOING = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING"})


@dataclass(frozen=True, slots=True)
class SlurmRequest:
    """What is asked of Slurm beside the number of ranks.

    Attributes:
        partition, account, qos, constraint, reservation: As sbatch takes them; "" is the cluster's default.
        time_limit_s: Wall time of one start; the run goes on after it in another (requeue).
        hosts: Nodes of the cluster at least; 0 lets Slurm choose.
        cpus_per_task, gpus_per_task: Of each rank.
        network: CIDR that ranks of different nodes use, where the nodes have several; "" lets MPI try all of them.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    time_limit_s: float = 3600.0
    hosts: int = 0
    cpus_per_task: int = 1
    gpus_per_task: int = 0
    network: str = ""
    name: ClassVar[str] = "slurm"
    title: ClassVar[str] = "Slurm"
    keeps: ClassVar[tuple[str, ...]] = ("SLURM_",)
    profiles: ClassVar[str] = ""  # of nodes like this one; a cluster of others names its hosts

    def __post_init__(self) -> None:
        check_network(self.network)
        for name in ("partition", "account", "qos", "constraint", "reservation"):
            value = getattr(self, name)
            if value and not _WORD.fullmatch(value):
                raise SpecError(f"{name}: got {value!r}; allowed: letters, digits and _ . , & | * ( ) [ ] : -")
        if not 60 <= self.time_limit_s <= 365 * 86400:
            raise SpecError(f"time_limit_s: got {self.time_limit_s:g}; allowed: 60 s to a year")
        for name, least in (("hosts", 0), ("cpus_per_task", 1), ("gpus_per_task", 0)):
            if getattr(self, name) < least:
                raise SpecError(f"{name}: got {getattr(self, name)}; allowed: {least} and more")

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> SlurmRequest:
        """Read what a person typed: {"partition": "gpu", "time": "2h", "gpus_per_task": "1"}.

        Raises:
            SpecError: No such word, or a value that is not allowed.
        """
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, text in given.items():
            name = "time_limit_s" if key in {"time", "time_limit"} else key
            if name not in known:
                raise SpecError(f"{key}: Slurm is not asked for that; {near(key, [*known, 'time'])}")
            values[name] = _number(name, text) if known[name].type in {"int", "float"} else text
        return cls(**values)

    def available(self) -> str | None:
        """Return None where jobs can be submitted, else why not and what would help."""
        return available()

    def admit(self, size: int) -> None:
        """Ask Slurm whether it could ever start this: many clusters take a job that they cannot, and let it wait for ever.

        Raises:
            AdmissionError: More than any partition has.
            LaunchError: Slurm refuses it, with its own words.
        """
        if reason := self.available():
            raise LaunchError(reason, [], hint="aiinfra doctor")
        run(["sbatch", "--test-only", *self.options(size), "--wrap=true"], size)

    def options(self, size: int) -> list[str]:
        """Return what sbatch is asked for beside the place of files; pure."""
        minutes, seconds = divmod(round(self.time_limit_s), 60)
        options = [f"--ntasks={size}", f"--cpus-per-task={self.cpus_per_task}", f"--time={minutes}:{seconds:02d}"]
        words = ("partition", "account", "qos", "constraint", "reservation")
        options += [f"--{name}={getattr(self, name)}" for name in words if getattr(self, name)]
        if self.hosts:
            options.append(f"--nodes={self.hosts}")
        if self.gpus_per_task:
            options.append(f"--gpus-per-task={self.gpus_per_task}")
        return options

    def command(self, size: int, pool: Path, supervisor: list[str]) -> list[str]:
        """Return the argv of sbatch; pure. The pool's folder must be on a file system that the cluster's nodes share."""
        return [
            "sbatch", "--parsable", f"--job-name=aiinfra-{pool.name}", *self.options(size), f"--signal=B:USR1@{WARN_S}", "--requeue",
            "--open-mode=append", f"--output={pool / 'logs' / 'slurm.log'}", f"--chdir={pool}", f"--export={','.join(kept())}",
            str(pool / "batch.sh"), *supervisor,
        ]  # fmt: skip

    def submit(self, size: int, pool: Path, supervisor: list[str]) -> str:
        """Hand the pool's supervisor to Slurm and return the job's number.

        Raises:
            LaunchError: Slurm refused; with its own words.
            AdmissionError: More than any partition has.
        """
        write_script(pool)
        return run(self.command(size, pool, supervisor), size).partition(";")[0]

    def mpiexec(self, size: int, pool: Path) -> list[str]:
        """Return the flags of mpiexec: it finds the allocation by itself, and ranks of different nodes speak TCP."""
        return [*FLAGS, *network_flags(self.network)]

    def state(self, job: str) -> QueueState:
        """Return what Slurm says of a job."""
        return queue(job)

    def cancel(self, job: str) -> None:
        """Take a job out of the queue, or end it (SIGTERM, and SIGKILL after the cluster's KillWait)."""
        _call("scancel", job)


def available() -> str | None:
    """Return None where jobs can be submitted, else why not and what would help."""
    lacking = [name for name in ("sbatch", "squeue", "scancel", "scontrol") if not shutil.which(name)]
    if lacking:
        return f"no {', '.join(lacking)} on the PATH: this is no login node of a Slurm cluster; log in to one, or leave --on slurm out"
    done = _call("sinfo", "-h", "-o", "%P")
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["sinfo failed"]
        return f"Slurm does not answer ({said[0]}); ask its administrator"
    return None


def write_script(folder: Path) -> Path:
    """Write the batch script into a folder and return its path."""
    script = folder / "batch.sh"
    script.write_text(SCRIPT)
    script.chmod(0o700)
    return script


def queue(job: str) -> QueueState:
    """Return what Slurm says of a job; over where it does not know it, and not where it does not answer.

    Of an array the first task counts that is not over.
    """
    done = _call("squeue", "-h", "-t", "all", "-j", job, "-o", _QUEUE)
    if done.returncode and "Invalid job id" not in done.stderr:
        return QueueState(reason="Slurm does not answer", over=False)
    found = [_state(line) for line in done.stdout.strip().splitlines()] or [QueueState()]
    return next((state for state in found if not state.over), found[0])


def _state(line: str) -> QueueState:
    """Read a line of squeue."""
    state, reason, starts_at, hosts, left = (line.split("|") + [""] * 5)[:5]
    over = state not in WAITING | GOING
    starts_at = "" if starts_at == "N/A" else starts_at
    return QueueState(state, "" if reason == "None" else reason, starts_at, hosts, left, state in WAITING, over)


def requeue(job: str) -> None:
    """Put the job that this process belongs to back into the queue; Slurm ends it and starts it again when there is room."""
    _call("scontrol", "requeue", job)


def kept() -> list[str]:
    """Return the names of the caller's environment variables that a job gets."""
    mine = [name for name in os.environ if name.startswith(("AIINFRA_", "OMPI_ALLOW"))]
    return [name for name in (*KEPT, *mine) if name in os.environ]


def run(argv: list[str], size: int) -> str:
    """Run sbatch and return what it printed.

    Raises:
        AdmissionError: More than any partition has.
        LaunchError: Refused for another reason.
    """
    done = _call(*argv)
    said = done.stderr.strip()
    if done.returncode and ("not available" in said or "configuration" in said or "More processors" in said):
        raise AdmissionError(
            f"Slurm refuses {size} ranks: {said}; ask for fewer, or for another partition (sinfo lists them)"
        )
    if done.returncode:
        hint = "sinfo lists the partitions, sacctmgr show assoc the accounts"
        raise LaunchError("Slurm refused the job", argv, done.returncode, said, hint)
    return done.stdout.strip()


def _number(name: str, text: str) -> Any:
    if name != "time_limit_s":
        try:
            return int(text)
        except ValueError:
            raise SpecError(f"{name}: got {text!r}; allowed: a whole number") from None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?", text.strip())
    if not found:
        raise SpecError(f"time: got {text!r}; allowed: such as 90s, 30min, 2h, 1d")
    return float(found[1]) * {"s": 1, None: 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[found[2]]


def _call(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm's; what it prints is read in English and in its plain form."""
    env = {**os.environ, "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))
