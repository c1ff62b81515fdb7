"""A pool of warm ranks, as its owner sees it: start one, find it again, hand it a run.

A pool is a folder and a supervisor process. The owner (a kernel, a command) only writes files there and never talks to
MPI, so it may die at any time. Files of a pool, each with one writer:

    owner.json      who holds it now: pid, when that process was born, seconds of grace      (the owner)
    jobs/*.json     runs to be done, taken in order                                          (owners and controllers)
    state.json      phase, generation, size, the last failure                                (the supervisor)
    assign/*.json   the job for the ranks of this generation                                 (the supervisor)
    ...json.done    renamed when its run has ended                                           (rank 0)
    ready/GEN-RANK  a rank is up                                                             (that rank)
    logs/           launcher.log, supervisor.log, and what ranks print between runs
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ..errors import LaunchError
from ..experiment import Spec
from ..machine.limits import admit
from ..machine.profile import Machine
from ..runs.home import make_private, pools_folder
from ..runs.jobs import write_job
from ..runs.layout import RunDir, write_json
from ..runs.writer import EventWriter
from . import local

#: Seconds a run goes on after its kernel died, in which a new kernel may take it over.
NOTEBOOK_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class Pool:
    """A handle: data only, so that it can be found again by a process that never saw the first owner."""

    path: Path

    @property
    def state(self) -> dict[str, Any]:
        """The supervisor's last word, {} before the first."""
        return _read(self.path / "state.json")

    @property
    def idle(self) -> bool:
        """Whether it carries no run and none is queued."""
        return not self.state.get("run") and not any((self.path / "jobs").glob("*.json"))

    @property
    def alive(self) -> bool:
        """Whether its supervisor lives."""
        return lives(_read(self.path / "supervisor.json"))

    def adopt(self, grace_s: float) -> None:
        """Make this process the owner: the pool ends `grace_s` after it, unless another adopts it first."""
        write_json(self.path / "owner.json", {**me(), "grace_s": grace_s})

    def submit(self, run: RunDir, spec: Spec, *, room: int | None = None, detached: bool = False) -> None:
        """Hand over a run; it starts as soon as the ranks are free.

        Args:
            run: The run directory.
            spec: What to run with.
            room: Ranks to hold at least, so that the node count can grow without a relaunch.
            detached: Go on when the owner is gone.
        """
        incarnation = run.incarnations()
        # Said by the owner, so that the run is "starting" from now on, whatever its last incarnation ended as.
        event = EventWriter(run, incarnation, "owner")
        try:
            event("queued", **_read(self.path / "supervisor.json"), pool=str(self.path))
        finally:
            event.close()
        size = max(spec.ranks, room or 0)
        write_job(self.path, run, incarnation, size, detached=detached, spec=spec.model_dump())

    def close(self, wait_s: float = 8.0) -> None:
        """End the pool: the run in it checkpoints and stops, then every rank ends."""
        with contextlib.suppress(OSError):
            (self.path / "close").touch()
        end = time.monotonic() + wait_s
        while self.alive and time.monotonic() < end:
            time.sleep(0.02)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the ranks of the current generation are up.

        Raises:
            LaunchError: They did not come; with the launcher's last output.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            state = self.state
            if state.get("phase") == "ready":
                return
            if state.get("phase") == "down" or not self.alive:
                raise self.failure("the ranks did not start")
            time.sleep(0.02)
        raise self.failure(f"the ranks were not up after {timeout_s:.0f} s")

    def failure(self, what: str) -> LaunchError:
        """Return the error that explains why the pool is not up."""
        state = self.state
        log = self.path / "logs" / "launcher.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
        return LaunchError(what, state.get("command", []), state.get("exit_code"), tail, "aiinfra doctor")


def start(size: int, machine: Machine, *, grace_s: float, folder: Path | None = None) -> Pool:
    """Start a pool of `size` ranks owned by this process, and return at once.

    Raises:
        AdmissionError: More ranks than this machine takes.
        LaunchError: No mpiexec.
        StorageError: The pools folder cannot be written.
    """
    admit(size, machine)
    local.mpiexec()
    root = make_private(folder or pools_folder())
    sweep(root)
    pool = Pool(root / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}")
    for sub in ("jobs", "assign", "ready", "logs"):
        make_private(pool.path / sub)
    pool.adopt(grace_s)
    log = (pool.path / "logs" / "supervisor.log").open("ab")
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aiinfra_widgets.launch.supervisor", str(pool.path), str(size), str(machine.cores)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=local.environment(os.environ, 1),
        )  # fmt: skip
    # Written by the parent too, so that `alive` is true before the supervisor has had its first breath.
    write_json(pool.path / "supervisor.json", {"pid": process.pid, "born_s": psutil.Process(process.pid).create_time()})
    _reap_later(process)
    return pool


def ours(folder: Path | None = None) -> list[Pool]:
    """Return the live pools of this user that this process owns or may adopt (their owner is gone), newest first."""
    found = []
    for path in sorted((folder or pools_folder()).glob("*/supervisor.json"), reverse=True):
        pool = Pool(path.parent)
        owner = _read(pool.path / "owner.json")
        if pool.alive and (owner.get("pid") == os.getpid() or not lives(owner)):
            found.append(pool)
    return found


def pool_of(run: RunDir, folder: Path | None = None) -> Pool | None:
    """Return the live pool that holds `run`, or None."""
    for path in sorted((folder or pools_folder()).glob("*/supervisor.json"), reverse=True):
        pool = Pool(path.parent)
        if pool.alive and pool.state.get("run") == str(run.path):
            return pool
    return None


def sweep(root: Path, keep_s: float = 86400.0) -> None:
    """Remove folders of pools that ended more than a day ago."""
    import shutil

    for path in root.glob("*/supervisor.json"):
        if not lives(_read(path)) and time.time() - path.stat().st_mtime > keep_s:
            shutil.rmtree(path.parent, ignore_errors=True)


def me() -> dict[str, Any]:
    """Return what identifies this process, also after its pid was reused."""
    return {"pid": os.getpid(), "born_s": psutil.Process().create_time()}


def lives(record: dict[str, Any]) -> bool:
    """Whether the process that `me` described still runs."""
    try:
        process = psutil.Process(int(record["pid"]))
        return abs(process.create_time() - float(record["born_s"])) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, psutil.NoSuchProcess):
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return data


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    """Collect the supervisor's exit code when it ends, so that no zombie stays in a long-lived kernel."""
    import threading

    threading.Thread(target=process.wait, daemon=True, name="aiinfra-reaper").start()
