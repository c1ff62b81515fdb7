"""The process beside the ranks: starts mpiexec and companions, hands out runs, and lets nothing outlive its owner.

It never imports MPI or torch, so it answers whatever the ranks do. One mpiexec is one generation; a run that needs more
nodes than the generation has gets a new one. `python -m aiinfra_widgets.launch.supervisor POOL SIZE CORES`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ..errors import AdmissionError, LabError, LaunchError
from ..machine.limits import admit_forking, minutes, user_limits
from ..runs.layout import RunDir, write_json
from ..runs.writer import EventWriter
from . import local
from .companions import Companions, declared
from .pool import lives, me
from .processes import die_with_parent, gone, kill_group, tail, tree

TICK_S = 0.02
OWNER_EVERY_S = 0.2
#: Ladder of an ending: ask, TERM, KILL.
ASK_S = 5.0
TERM_S = 2.0
#: How long a run that reached its time limit may take to write its checkpoint.
LIMIT_GRACE_S = 30.0
#: How long ranks may take to come up; 64 that import torch took 68 s on two cores.
READY_S = 60.0
READY_S_PER_RANK = 5.0


@dataclass
class Generation:
    """One mpiexec and its ranks."""

    number: int
    size: int
    process: subprocess.Popen[bytes]
    command: list[str]
    started_s: float
    ready: bool = False


@dataclass
class Supervisor:
    """State machine: launching -> ready -> (running) -> down, again for each generation; ends when asked or orphaned."""

    pool: Path
    size: int
    cores: int
    generation: Generation | None = None
    job: dict[str, Any] | None = None
    events: EventWriter | None = None
    assigned: Path | None = None
    companions: Companions | None = None
    numbers: int = 0
    orphan_since: float | None = None
    limit_s: float = math.inf
    until_s: float = math.inf
    told_to_end: bool = False
    asked_to_end: bool = False
    last: dict[str, Any] = field(default_factory=dict)

    def serve(self) -> None:
        """Run until the pool is closed or its owner is gone for longer than its grace."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked_to_end", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        write_json(self.pool / "supervisor.json", me())
        owner_at = 0.0
        with contextlib.suppress(LabError):  # then the first run says why
            self.launch(self.size)
        while True:
            now = time.monotonic()
            if now - owner_at > OWNER_EVERY_S:
                owner_at = now
                self.watch_owner(now)
            if self.asked_to_end or (self.pool / "close").exists():
                self.end("closed by its owner")
                return
            self.watch_ranks()
            self.watch_time(now)
            if self.companions:
                self.companions.watch()
            self.next_job()
            time.sleep(TICK_S)

    # --- ranks --------------------------------------------------------------------------------------------------
    def launch(self, size: int) -> None:
        """Start a generation of `size` ranks."""
        launcher = local.mpiexec()
        try:
            admit_forking(size)
        except AdmissionError as error:
            self.say("down", tail=str(error))
            raise
        self.numbers += 1
        for old in (self.pool / "ready").iterdir():
            old.unlink()
        argv = local.command(size, [str(self.pool), str(self.numbers), str(size)], launcher)
        env = local.environment(os.environ, max(1, self.cores // size))
        with (self.pool / "logs" / "launcher.log").open("ab") as log:
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                    start_new_session=True, preexec_fn=die_with_parent(signal.SIGTERM, local.clear_session),
                )  # fmt: skip
            except OSError as error:
                self.say("down", tail=f"{launcher}: {error.strerror}")
                raise LaunchError(f"{launcher} cannot be run: {error.strerror}", argv, hint="aiinfra doctor") from error
        self.generation = Generation(self.numbers, size, process, argv, time.monotonic())
        self.say("launching")

    def watch_ranks(self) -> None:
        """Notice that ranks are up, that a run has ended, or that mpiexec has."""
        gen = self.generation
        if gen is None:
            return
        if not gen.ready and len(list((self.pool / "ready").glob(f"{gen.number}-*"))) == gen.size:
            gen.ready = True
            self.say("ready", launch_s=time.monotonic() - gen.started_s)
        if self.job and self.assigned:
            outcome = RunDir(Path(self.job["run"])).outcome(self.job["incarnation"])
            if outcome.exists() or not self.assigned.exists():
                self.finish_job()
        limit_s = READY_S + READY_S_PER_RANK * gen.size
        if not gen.ready and time.monotonic() - gen.started_s > limit_s:
            if self.events:
                self.events("launch-failed", message=f"{gen.size} ranks were not up after {limit_s:.0f} s")
            self.stop_ranks(ask_s=0.0)
            self.finish_job()
            self.say("down", tail=tail(self.pool / "logs" / "launcher.log"))
            return
        code = gen.process.poll()
        if code is not None:
            self.generation = None
            self.ranks_ended(gen, code)

    def ranks_ended(self, gen: Generation, code: int) -> None:
        """Record that mpiexec is gone, and how, in the run that was going on."""
        last = tail(self.pool / "logs" / "launcher.log")
        if self.job:
            if self.events:
                self.events("ranks-ended", exit_code=code, message=_why(code, gen.size, last), tail=last)
            self.finish_job()
        self.say("down", exit_code=code, tail=last)

    def stop_ranks(self, *, ask_s: float = ASK_S) -> None:
        """End the generation: ask the ranks, then TERM, then KILL the whole tree; nothing is left behind."""
        gen, self.generation = self.generation, None
        if gen is None:
            return
        ended = tree(gen.process.pid)
        write_json(self.pool / "assign" / f"{gen.number}-end.json", {"end": True})
        if not gone(gen.process, ask_s):
            kill_group(gen.process, signal.SIGTERM)  # mpiexec then ends its ranks
            if not gone(gen.process, TERM_S):
                ended += tree(gen.process.pid)
        for process in {p.pid: p for p in (*ended, *tree(gen.process.pid))}.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        gen.process.wait()

    # --- jobs ---------------------------------------------------------------------------------------------------
    def next_job(self) -> None:
        """Hand the oldest job to the ranks, in a generation that is large enough."""
        if self.job is not None:
            return
        queued = sorted((self.pool / "jobs").glob("*.json"))
        if not queued:
            return
        job = json.loads(queued[0].read_text())
        run = RunDir(Path(job["run"]))
        try:
            self.events = EventWriter(run, job["incarnation"], "launch")
            limited = self.begin_clock(job)
            self.events("launching", **me(), size=job["size"], pool=str(self.pool), detached=job["detached"], **limited)
        except LabError as error:
            # Deleted meanwhile: nothing to do and nothing to lose. Or the disk is full: the reserve is for saying so.
            run.reserve.unlink(missing_ok=True)
            with contextlib.suppress(LabError):
                EventWriter(run, job["incarnation"], "launch")("launch-failed", message=str(error))
            queued[0].unlink()
            self.events = None
            return
        queued[0].unlink()
        self.job = job
        if self.generation is None or self.generation.size < job["size"] or self.degraded():
            self.stop_ranks(ask_s=1.0)
            try:
                self.launch(job["size"])
            except LabError as error:
                self.events("launch-failed", message=str(error))
                self.finish_job()
                return
        assert self.generation is not None
        self.assigned = self.pool / "assign" / f"{self.generation.number}-{self.job_number():06d}.json"
        write_json(self.assigned, job)
        self.say(self.last.get("phase", "launching"))
        self.companions = Companions(run, job["incarnation"], self.events)
        self.companions.start(declared(run, job, self.events))

    def begin_clock(self, job: dict[str, Any]) -> dict[str, float]:
        """Take the administrator's time limit, and return what is recorded of it; a relaunch of the same run keeps its clock.

        Raises:
            AdmissionError: The limits cannot be read.
        """
        self.told_to_end = False
        if "spec" in job or self.until_s == math.inf:  # a relaunch that the run itself asked for carries no Spec
            self.limit_s = user_limits().run_s or math.inf
            self.until_s = time.monotonic() + self.limit_s
        return {} if self.until_s == math.inf else {"until_s": self.until_s}

    def watch_time(self, now: float) -> None:
        """At the administrator's limit let the run checkpoint and stop; one that does not is ended with its ranks."""
        if self.job is None or now < self.until_s:
            return
        why = f"ended at the administrator's limit of {minutes(self.limit_s)}"
        if not self.told_to_end:
            self.told_to_end = True
            self.ask_to_stop(why)
        elif now > self.until_s + LIMIT_GRACE_S:
            if self.events:
                with contextlib.suppress(LabError):
                    self.events(
                        "owner-gone-end", message=f"{why}; it wrote no last checkpoint in {LIMIT_GRACE_S:.0f} s"
                    )
            self.stop_ranks(ask_s=0.0)
            self.finish_job()
            self.say("down")

    def ask_to_stop(self, why: str, *, orphaned: bool = False) -> None:
        """Ask the run as everybody does, by its inbox."""
        assert self.job is not None
        stamp = f"{time.time_ns():020d}-end"
        arguments = {"why": why, "orphaned": orphaned}
        with contextlib.suppress(LabError):
            write_json(
                RunDir(Path(self.job["run"])).inbox / f"{stamp}.json",
                {"id": stamp, "by": "supervisor", "verb": "stop", "arguments": arguments},
            )

    def job_number(self) -> int:
        """Return the number of the next assignment."""
        return len(list((self.pool / "assign").glob("*-*")))

    def degraded(self) -> bool:
        """Whether a rank of this generation has died; such a generation finishes its run and takes no other."""
        gen = self.generation
        if (self.pool / f"degraded-{self.numbers}").exists():
            return True
        pids = [_read(p).get("pid") for p in (self.pool / "ready").glob(f"{gen.number}-*")] if gen and gen.ready else []
        return not all(psutil.pid_exists(int(pid)) for pid in pids if pid is not None)

    def finish_job(self) -> None:
        """The run in the pool has ended, one way or another, and its companions end with it."""
        if self.companions:
            self.companions.stop()
        if self.events:
            self.events.close()
        self.job = self.events = self.assigned = self.companions = None
        self.say(self.last.get("phase", "ready"))

    # --- owner --------------------------------------------------------------------------------------------------
    def watch_owner(self, now: float) -> None:
        """Count the grace from the moment the owner is gone; a detached run outlives its owner for good."""
        owner = _read(self.pool / "owner.json")
        if lives(owner):
            self.orphan_since = None
            return
        if self.orphan_since is None:
            self.orphan_since = now
        if self.job and self.job.get("detached"):
            return
        if self.job is None and any(_read(p).get("detached") for p in (self.pool / "jobs").glob("*.json")):
            return  # it was asked for by an owner who left at once, and is about to start
        if now - self.orphan_since >= float(owner.get("grace_s", 0.0)):
            grace_s = float(owner.get("grace_s", 0.0))
            late = f", and nobody took the run over in {grace_s:.0f} s" if grace_s else ""
            self.end(f"its owner (process {owner.get('pid')}) ended{late}", orphaned=True)
            raise SystemExit(0)

    def end(self, why: str, *, orphaned: bool = False) -> None:
        """Let the run checkpoint and stop, then end every rank; a run that lost its owner is interrupted, not stopped."""
        if self.job and self.generation and self.generation.process.poll() is None:
            run = RunDir(Path(self.job["run"]))
            self.ask_to_stop(why, orphaned=orphaned)
            end = time.monotonic() + ASK_S
            while time.monotonic() < end and not run.outcome(self.job["incarnation"]).exists():
                if self.generation.process.poll() is not None:
                    break
                time.sleep(TICK_S)
            if self.events and not run.outcome(self.job["incarnation"]).exists():
                with contextlib.suppress(LabError):
                    self.events("owner-gone-end", message=why)
        self.stop_ranks(ask_s=1.0)
        if self.companions:
            self.companions.stop()
        self.say("closed", message=why)

    def say(self, phase: str, **more: Any) -> None:
        """Publish the state for owners."""
        gen = self.generation
        kept: dict[str, Any] = {
            k: self.last[k]
            for k in ("launch_s", "exit_code", "tail")
            if k in self.last and phase == self.last.get("phase")
        }
        self.last = {
            "phase": phase, "generation": self.numbers, "size": gen.size if gen else 0, "command": gen.command if gen else [],
            "run": self.job["run"] if self.job else None, "mpiexec_pid": gen.process.pid if gen else None, **kept, **more,
        }  # fmt: skip
        with contextlib.suppress(LabError):
            write_json(self.pool / "state.json", self.last)


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return data


def _why(code: int, size: int, tail: str) -> str:
    """Say what an exit code of mpiexec means."""
    if code in {137, -9, 9} or "signal 9" in tail:
        return f"a rank of {size} was killed (signal 9: by somebody, or by the system for lack of memory)"
    return f"mpiexec ended with exit code {code} before the run did"


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])).serve()
