"""The process beside the ranks: starts mpiexec and companions, hands out runs, and lets nothing outlive its owner.

It never imports MPI or torch, so it answers whatever the ranks do. One mpiexec is one generation; a run that needs more
nodes than the generation has gets a new one. `python -m aiinfra_widgets.launch.supervisor POOL SIZE CORES`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from ..errors import AdmissionError, LabError, LaunchError
from ..machine.limits import admit_forking
from ..machine.neighbours import starts_refused
from ..runs.alive import BEAT_S, here, lives, me, touch
from ..runs.layout import RunDir, write_json
from ..runs.writer import EventWriter
from . import allocation, local, place, restarts, slurm
from .clock import LIMIT_GRACE_S, Clock
from .companions import Companions, declared
from .notes import Notes
from .place import Placed
from .processes import die_with_parent, gone, kill_group, tail, tree, why_ended

TICK_S = 0.02
OWNER_EVERY_S = 0.2
#: Ladder of an ending: ask, TERM, KILL.
ASK_S = 5.0
TERM_S = 2.0
#: How long ranks that abort may take to say why, each of them, and to be gone.
ABORT_S = 1.0
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
    aborted_s: float = 0.0
    refused: int = field(default_factory=starts_refused)


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
    clock: Clock = field(default_factory=Clock)
    notes: Notes = field(default_factory=Notes)
    asked_to_end: bool = False
    warned: bool = False
    beat_s: float = 0.0
    placed: Placed | None = None
    last: dict[str, Any] = field(default_factory=dict)

    def serve(self) -> None:
        """Run until the pool is closed or its owner is gone for longer than its grace."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked_to_end", True))
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "warned", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        write_json(self.pool / "supervisor.json", me())
        if placed := place.read(self.pool):
            self.placed = replace(placed, job=allocation.inside() if placed.place.name == "slurm" else placed.job)
            before = _read(self.pool / "state.json")
            self.numbers = int(before.get("generation", 0))  # names of an earlier start are never used again
            allocation.go_on(self.pool, before)
        owner_at = 0.0
        with contextlib.suppress(LabError):  # then the first run says why
            self.launch(self.size)
        while True:
            now = time.monotonic()
            if now - owner_at > OWNER_EVERY_S:
                owner_at = now
                self.watch_owner(now)
            if now - self.beat_s > BEAT_S:
                self.beat_s = now
                touch(self.pool / "supervisor.beat")
            if self.warned:
                self.put_back("its time limit was near")
                return
            if (self.pool / "close").exists():
                self.end("closed by its owner")
                return
            if self.asked_to_end:
                self.taken()
                return
            self.watch_ranks(now)
            self.watch_time(now)
            if self.companions:
                self.companions.watch()
            self.notes.again()
            self.next_job()
            time.sleep(TICK_S)

    # --- ranks --------------------------------------------------------------------------------------------------
    def launch(self, size: int) -> None:
        """Start a generation of `size` ranks."""
        launcher = local.mpiexec()
        try:
            if self.placed is None:  # elsewhere are other limits
                admit_forking(size)
        except AdmissionError as error:
            self.say("down", tail=str(error))
            raise
        self.numbers += 1
        for old in (self.pool / "ready").iterdir():
            old.unlink()
        at = self.placed
        if at and size > at.size:
            hint = f"stop the run, and resume it with more room: aiinfra resume RUN --room {size} --on {at.place.name}"
            raise LaunchError(f"{size} ranks asked for; {at.named()} holds {at.size}", [], hint=hint)
        arguments = [str(self.pool), str(self.numbers), str(size)]
        argv = local.command(size, arguments, launcher, there=at.place.mpiexec(size, self.pool) if at else local.HERE)
        env = local.environment(os.environ, self.threads(size), keep=at.place.keeps if at else ())
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

    def threads(self, size: int) -> int:
        """Return how many processors a rank has to itself."""
        asked = getattr(self.placed.place, "cpus_per_task", 1) if self.placed else 0
        return max(1, asked or self.cores // size)

    def watch_ranks(self, now: float) -> None:
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
            self.notes.say(self.events, "launch-failed", message=f"{gen.size} ranks were not up after {limit_s:.0f} s")
            self.stop_ranks(ask_s=0.0)
            self.finish_job()
            self.say("down", tail=tail(self.pool / "logs" / "launcher.log"))
            return
        code = gen.process.poll()
        if code is None and (self.pool / f"aborted-{gen.number}").exists():
            gen.aborted_s = gen.aborted_s or now
            if now - gen.aborted_s > ABORT_S:
                self.stop_ranks(ask_s=0.0)
                code = 1
        if code is not None:
            self.generation = None
            self.ranks_ended(gen, code)

    def ranks_ended(self, gen: Generation, code: int) -> None:
        """Record that mpiexec is gone, and how, in the run that was going on."""
        last = tail(self.pool / "logs" / "launcher.log")
        if self.job and self.placed and self.placed.job and allocation.lost_a_host(last):
            self.notes.say(self.events, "host-lost", message="a host of the job went away", exit_code=code, tail=last)
            self.put_back("a host went away", ask=False)
            raise SystemExit(0)
        if self.job:
            why = why_ended(code, gen.size, last, starts_refused() - gen.refused)
            if code >= 0 and gen.ready:  # below zero somebody killed the launcher itself
                why = restarts.after_loss(self.pool, self.job, why)
            self.notes.say(self.events, "ranks-ended", message=why, exit_code=code, tail=last)
            self.finish_job()
        self.say("down", exit_code=code, tail=last)

    def stop_ranks(self, *, ask_s: float = ASK_S) -> None:
        """End the generation: ask the ranks, then TERM, then KILL the whole tree; nothing is left behind."""
        gen, self.generation = self.generation, None
        if gen is None:
            return
        ended = tree(gen.process.pid)
        with contextlib.suppress(LabError):  # a disk that takes no asking: TERM follows
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
            limited = self.clock.begin(job)
            place = {"job": self.placed.job} if self.placed and self.placed.job else {}
            self.events(
                "launching", **me(), size=job["size"], pool=str(self.pool), detached=job["detached"], **limited, **place
            )
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
                self.notes.say(self.events, "launch-failed", message=str(error))
                self.finish_job()
                return
        assert self.generation is not None
        self.assigned = self.pool / "assign" / f"{self.generation.number}-{self.job_number():06d}.json"
        write_json(self.assigned, job)
        self.say(self.last.get("phase", "launching"))
        self.companions = Companions(run, job["incarnation"], self.events)
        self.companions.start(declared(run, job, self.events))

    def watch_time(self, now: float) -> None:
        """At the administrator's limit let the run checkpoint and stop; one that does not is ended with its ranks."""
        due = self.clock.due(now) if self.job else ""
        if due == "ask":
            self.ask_to_stop(self.clock.why)
        elif due == "end":
            late = f"{self.clock.why}; it wrote no last checkpoint in {LIMIT_GRACE_S:.0f} s"
            self.notes.say(self.events, "owner-gone-end", message=late)
            self.stop_ranks(ask_s=0.0)
            self.finish_job()
            self.say("down")

    def ask_to_stop(self, why: str, *, orphaned: bool = False) -> None:
        """Ask the run to end."""
        self.request({"why": why, "orphaned": orphaned})

    def request(self, arguments: dict[str, Any]) -> None:
        """Ask the run to stop as everybody does, by its inbox."""
        assert self.job is not None
        stamp = f"{time.time_ns():020d}-end"
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
        ranks = [_read(p) for p in (self.pool / "ready").glob(f"{gen.number}-*")] if gen and gen.ready else []
        # A rank on another host is looked after by the daemon there.
        return not all(psutil.pid_exists(int(r["pid"])) for r in ranks if r and r.get("host", here()) == here())

    def finish_job(self) -> None:
        """The run in the pool has ended, one way or another, and its companions end with it."""
        if self.companions:
            self.companions.stop()
        if self.events:
            self.events.close()
        self.job = self.events = self.assigned = self.companions = None
        self.say(self.last.get("phase", "ready"))

    # --- a scheduler's allocation -------------------------------------------------------------------------------
    def put_back(self, why: str, *, ask: bool = True) -> None:
        """Let the run checkpoint, and have the scheduler's job started again, where it goes on; `ask` False: its ranks are gone."""
        assert self.placed is not None
        if job := self.job:
            run = RunDir(Path(job["run"]))
            if ask:
                self.request({"requeue": True, "why": why})
            end = time.monotonic() + (slurm.WARN_S / 2 if ask else 0.0)
            while time.monotonic() < end and not run.outcome(job["incarnation"]).exists():
                time.sleep(TICK_S)
            allocation.again(self.pool, self.placed, job, why=f"{self.placed.named()}: {why}")
        self.stop_ranks(ask_s=1.0)
        if self.companions:
            self.companions.stop()
        self.say("requeued")
        slurm.requeue(self.placed.job)
        time.sleep(slurm.WARN_S)  # Slurm ends this process

    def taken(self) -> None:
        """SIGTERM: the owner's, or the scheduler's, who may start the job again."""
        if self.placed is None or not self.placed.job:
            self.end("closed by its owner")
            return
        job = self.job
        left = {"left": job["run"], "job_size": job["size"], "detached": job["detached"]} if job else {}
        why = f"{self.placed.named()} was cancelled, preempted or out of time, or lost a host"
        self.end(why, orphaned=True, phase="taken", **left)

    # --- owner --------------------------------------------------------------------------------------------------
    def watch_owner(self, now: float) -> None:
        """Count the grace from the moment the owner is gone; a detached run outlives its owner for good."""
        owner = _read(self.pool / "owner.json")
        if lives(owner, self.pool / "owner.beat"):
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

    def end(self, why: str, *, orphaned: bool = False, phase: str = "closed", **more: Any) -> None:
        """Let the run checkpoint and stop, then end every rank; a run that lost its owner is interrupted, not stopped."""
        # Ranks that are not up yet hear nothing and have nothing to save.
        up = self.generation is not None and self.generation.ready
        if self.job and self.generation and self.generation.process.poll() is None:
            run = RunDir(Path(self.job["run"]))
            self.ask_to_stop(why, orphaned=orphaned)
            end = time.monotonic() + (ASK_S if up else 0.0)
            while time.monotonic() < end and not run.outcome(self.job["incarnation"]).exists():
                if self.generation.process.poll() is not None:
                    break
                time.sleep(TICK_S)
            if not run.outcome(self.job["incarnation"]).exists():
                self.notes.say(self.events, "owner-gone-end", message=why)
        self.stop_ranks(ask_s=1.0 if up else 0.0)
        if self.companions:
            self.companions.stop()
        self.say(phase, message=why, **more)

    def say(self, phase: str, **more: Any) -> None:
        """Publish the state for owners."""
        gen = self.generation
        names = ("launch_s", "exit_code", "tail") if phase == self.last.get("phase") else ()
        kept: dict[str, Any] = {name: self.last[name] for name in names if name in self.last}
        self.last = {
            "phase": phase, "generation": self.numbers, "size": gen.size if gen else 0, "command": gen.command if gen else [],
            "run": self.job["run"] if self.job else None, "job_size": self.job["size"] if self.job else None,
            "detached": bool(self.job and self.job["detached"]), "mpiexec_pid": gen.process.pid if gen else None, **kept, **more,
        }  # fmt: skip
        with contextlib.suppress(LabError):
            write_json(self.pool / "state.json", self.last)


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return data


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])).serve()
