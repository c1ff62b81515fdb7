"""A pool of warm ranks, as its owner sees it: start one, find it again, hand it a run.

A pool is a folder and a supervisor process. The owner (a kernel, a command) only writes files there and never talks to
MPI, so it may die at any time. Files of a pool, each with one writer:

    owner.json      who holds it now: pid, when that process was born, host, seconds of grace (the owner)
    owner.beat      touched by an owner whose pool is elsewhere, supervisor.beat likewise    (each of them)
    place.json      where it was handed to, if not to this machine: the job of a scheduler   (the first owner)
    queue.json      what that scheduler says of it                                           (the owner)
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
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import AdmissionError, LabError, LaunchError, RunFormatError
from ..experiment import Spec
from ..machine.limits import admit
from ..machine.profile import Machine
from ..runs.alive import BEAT_S, here, lives, me, touch
from ..runs.home import make_private, pools_folder
from ..runs.jobs import queue_run
from ..runs.layout import RunDir, write_json
from ..runs.reader import RunReader
from . import local
from . import place as place_
from .place import Place, Placed, QueueState

#: Seconds a run goes on after its kernel died, in which a new kernel may take it over.
NOTEBOOK_GRACE_S = 60.0
#: How often a scheduler is asked about a job that waits.
QUEUE_EVERY_S = 4.0


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

    def holds(self, run: RunDir) -> bool:
        """Whether a run waits in its queue."""
        return any(_read(p).get("run") == str(run.path) for p in (self.path / "jobs").glob("*.json"))

    @property
    def alive(self) -> bool:
        """Whether its supervisor lives, or waits in a scheduler's queue."""
        if lives(_read(self.path / "supervisor.json"), self.path / "supervisor.beat"):
            return True
        if not self.job or self.state.get("phase") == "closed" or _read(self.path / "queue.json").get("over"):
            return False
        return not self.queue().over

    @property
    def placed(self) -> Placed | None:
        """Where it was handed to, None where it was started on this machine (or another release did that)."""
        with contextlib.suppress(RunFormatError):
            return place_.read(self.path)
        return None

    @property
    def job(self) -> str:
        """The scheduler's number of it, "" where no scheduler has it."""
        return placed.job if (placed := self.placed) else ""

    def _settled(self, found: QueueState) -> QueueState:
        """A job that is put back looks as if it were over for a moment: only what stays so for OVER_S is."""
        if not found.over:
            _over_since.pop(self.path, None)
            return found
        over_s = time.monotonic() - _over_since.setdefault(self.path, time.monotonic())
        return replace(found, over=False) if self.state.get("phase") == "requeued" and over_s < OVER_S else found

    def queue(self, within_s: float = 1.0) -> QueueState:
        """Ask the scheduler, at most once in `within_s`, and leave its answer for whoever reads the run."""
        asked_s, found = _asked.get(self.path, (-1e9, QueueState()))
        if time.monotonic() - asked_s > within_s and (placed := self.placed):
            found = self._settled(placed.place.state(placed.job))
            _asked[self.path] = time.monotonic(), found
            with contextlib.suppress(OSError):
                write_json(self.path / "queue.json", {**asdict(found), "job": placed.job, "wall_s": time.time()})
        return found

    def admit(self, ranks: int) -> None:
        """Refuse more ranks than the place holds, which was asked for once and does not grow.

        Raises:
            AdmissionError: With the next step.
        """
        placed = self.placed
        if placed and not 1 <= ranks <= placed.size:
            raise AdmissionError(
                f"ranks: got {ranks}; {placed.named()} holds 1 to {placed.size}; "
                f"stop the run and resume it with more room: aiinfra resume RUN --room {ranks} --on {placed.place.name}"
            )

    def adopt(self, grace_s: float) -> None:
        """Make this process the owner: the pool ends `grace_s` after it, unless another adopts it first."""
        write_json(self.path / "owner.json", {**me(), "grace_s": grace_s})
        if self.path not in _beating:  # also a pool of this machine: its folder may be seen from other hosts
            _beating.add(self.path)
            threading.Thread(target=_beat, args=(self,), daemon=True, name="aiinfra-beat").start()

    def submit(self, run: RunDir, spec: Spec, *, room: int | None = None, detached: bool = False) -> None:
        """Hand over a run; it starts as soon as the ranks are free.

        Args:
            run: The run directory.
            spec: What to run with.
            room: Ranks to hold at least, so that the node count can grow without a relaunch.
            detached: Go on when the owner is gone.
        """
        said = {**_read(self.path / "supervisor.json"), **({"job": self.job} if self.job else {})}
        queue_run(
            self.path, run, run.incarnations(), max(spec.ranks, room or 0),
            said=said, detached=detached, spec=spec.model_dump(),
        )  # fmt: skip

    def close(self, wait_s: float = 8.0) -> None:
        """End the pool: the run in it checkpoints and stops, then every rank ends."""
        try:
            (self.path / "close").touch()
        except OSError:  # its disk takes nothing any more, or somebody deleted it
            self._terminate()
        placed = self.placed
        if placed and placed.job and self.queue().waiting:
            placed.place.cancel(placed.job)
        end = time.monotonic() + wait_s
        while self.alive and time.monotonic() < end:
            time.sleep(0.02)
        if placed and placed.job and self.alive:
            placed.place.cancel(placed.job)

    def _terminate(self) -> None:
        """Ask the supervisor by a signal, where it is on this host."""
        supervisor = _read(self.path / "supervisor.json")
        if supervisor.get("host") == here() and lives(supervisor):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(supervisor["pid"]), signal.SIGTERM)

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


def start(
    size: int,
    machine: Machine,
    *,
    grace_s: float,
    folder: Path | None = None,
    place: Place | None = None,
) -> Pool:
    """Start a pool of `size` ranks owned by this process, and return at once.

    Args:
        size: Ranks.
        machine: What they run on.
        grace_s: How long it outlives its owner.
        folder: Of all pools; None is the user's own.
        place: Where they are to be; None is this machine.

    Raises:
        AdmissionError: More ranks than this machine, or the place, takes.
        LaunchError: No mpiexec, or the place refused.
        StorageError: The pools folder cannot be written.
    """
    if place is None:
        admit(size, machine)
    local.mpiexec()
    root = make_private(folder or pools_folder())
    sweep(root)
    pool = Pool(root / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}")
    for sub in ("jobs", "assign", "ready", "logs"):
        make_private(pool.path / sub)
    argv = [sys.executable, "-m", "aiinfra_widgets.launch.supervisor", str(pool.path), str(size), str(machine.cores)]
    pool.adopt(grace_s)
    if place is not None:
        if _hand_over(pool, place, size, argv):
            pool.adopt(grace_s)
            return pool
        argv = place.command(size, pool.path, argv)
    log = (pool.path / "logs" / "supervisor.log").open("ab")
    with log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=local.environment(os.environ, 1, keep=place.keeps if place else ()),
        )  # fmt: skip
    # Written by the parent too, so that `alive` is true before the supervisor has had its first breath.
    write_json(pool.path / "supervisor.json", me(process.pid))
    _reap_later(process)
    return pool


def _hand_over(pool: Pool, place: Place, size: int, supervisor: list[str]) -> bool:
    """Give a pool to its place; whether the place starts the supervisor. One that is refused leaves no folder behind."""
    try:
        if reason := place.available():
            raise LaunchError(reason, [], hint="aiinfra doctor")
        place_.keep(pool.path, Placed(place, size))  # before: the job may start at once
        job = place.submit(size, pool.path, supervisor)
    except LabError:
        shutil.rmtree(pool.path, ignore_errors=True)
        raise
    place_.keep(pool.path, Placed(place, size, job))
    return bool(job)


def ours(folder: Path | None = None) -> list[Pool]:
    """Return the live pools of this user that this process owns or may adopt (their owner is gone), newest first."""
    found = []
    for pool in _all(folder or pools_folder()):
        owner = _read(pool.path / "owner.json")
        if pool.alive and (_is_me(owner) or not lives(owner, pool.path / "owner.beat")):
            found.append(pool)
    return found


def pool_of(run: RunDir, folder: Path | None = None) -> Pool | None:
    """Return the live pool that holds `run`, or None."""
    for pool in _all(folder or pools_folder()):
        if pool.alive and (pool.state.get("run") == str(run.path) or pool.holds(run)):
            return pool
    return None


def sweep(root: Path, keep_s: float = 86400.0) -> None:
    """Remove folders of pools that ended more than a day ago."""
    for pool in _all(root):
        newest_s = max(path.stat().st_mtime for path in pool.path.glob("*.json"))
        if time.time() - newest_s > keep_s and not pool.alive:
            shutil.rmtree(pool.path, ignore_errors=True)


def _all(root: Path) -> list[Pool]:
    """Return the pools of a folder, newest first: started here, or handed to a scheduler."""
    known = {path.parent for name in ("supervisor", "place") for path in root.glob(f"*/{name}.json")}
    return [Pool(path) for path in sorted(known, reverse=True)]


def _is_me(record: dict[str, Any]) -> bool:
    return all(record.get(k) == v for k, v in me().items() if k != "born_s")


#: Pools elsewhere that this process shows itself to; when their scheduler was asked, and what it said.
_beating: set[Path] = set()
_asked: dict[Path, tuple[float, QueueState]] = {}
#: Since when a scheduler has said that a job is over, and for how long that is not believed of one that was put back.
_over_since: dict[Path, float] = {}
OVER_S = 20.0


def look(pool: Pool) -> None:
    """Ask the scheduler how its job stands while no supervisor shows itself: schedulers do not like to be asked all the time."""
    if pool.job and not lives(_read(pool.path / "supervisor.json"), pool.path / "supervisor.beat"):
        pool.queue(QUEUE_EVERY_S)


def look_at(reader: RunReader) -> None:
    """The same for the pool that a run was handed to, by whoever watches it."""
    last = next((e for e in reversed(reader.kind("queued", "launching")) if "job" in e), None)
    if last and Path(last["pool"]).is_dir():
        look(Pool(Path(last["pool"])))


def _beat(pool: Pool) -> None:
    """Show the supervisor on another host that its owner lives, and the run's readers how the queue stands."""
    while pool.path.is_dir() and not (pool.path / "close").exists():
        touch(pool.path / "owner.beat")
        look(pool)
        time.sleep(BEAT_S)
    _beating.discard(pool.path)


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
