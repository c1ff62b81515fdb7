"""What a run is doing, from evidence: the sentinel, the launcher's record, heartbeats and last ticks - never a flag alone."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..texts import N_
from .reader import Event, RunReader, last_ticks

#: A node that has not reached a boundary for this long is named as stalled.
STALL_S = 10.0
#: A run that nobody supervises and whose heartbeats are older than this is over.
SILENT_S = 3.0

FINAL = frozenset({"done", "stopped", "failed", "interrupted"})


@dataclass(frozen=True, slots=True)
class Status:
    """State and the sentence behind it.

    `state` is one of: new, starting, running, paused, stalled, degraded, done, stopped, failed, interrupted.
    """

    state: str
    message: str
    last_tick: dict[int, int] = field(default_factory=dict)
    next_step: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing more will come by itself."""
        return self.state in FINAL

    @property
    def ok(self) -> bool:
        """Whether it ended as asked."""
        return self.state in {"done", "stopped"}


def status(reader: RunReader) -> Status:
    """Return the status of a run; call `reader.poll()` before.

    Evidence in this order: the controller's outcome of the newest incarnation; an error that a node recorded; the
    launcher's record of how the ranks ended; whether the launcher still lives; heartbeats.
    """
    run = reader.run
    newest = run.incarnations() - 1
    ticks = last_ticks(reader)
    if not run.manifest.exists():
        return Status("interrupted", N_(f"{run.path} was deleted or moved; its ranks end at their next look"), ticks)
    if newest < 0:
        return Status("new", N_("nothing was launched yet"), ticks, N_(f"start it with: aiinfra resume {run.id}"))
    events = [e for e in reader.events if e["incarnation"] == newest]
    outcome = _outcome(reader, newest)
    if outcome is not None and (outcome["state"] != "relaunch" or _supervised(reader.kind("launching", "queued"))):
        return _ended_by_itself(reader, outcome, ticks)
    errors = [e for e in events if e["kind"] == "error"]
    launch = [e for e in events if e["by"] in {"launch", "owner"}]
    ended = [e for e in launch if e["kind"] in {"ranks-ended", "launch-failed", "owner-gone-end"}]
    if errors or ended:
        return _broken(reader, newest, errors, ended, ticks)
    if not _supervised(launch) and _silence_s(reader, newest) > SILENT_S:
        return _interrupted(reader, N_("the launcher is gone, and so are its ranks"), ticks)
    started = [e for e in events if e["kind"] == "segment"]
    if not started:
        return Status("starting", N_("waiting for the ranks"), ticks)
    return _alive(reader, newest, events, ticks)


def _alive(reader: RunReader, newest: int, events: list[Event], ticks: dict[int, int]) -> Status:
    held = [e["kind"] for e in events if e["kind"] in {"paused", "resumed"}]
    active = reader.kind("segment")[-1].get("members", [])
    silent = {n: s for n in active if (s := _silence_of_s(reader.run.heartbeat(newest, n))) > STALL_S}
    if silent:
        return _stalled(reader, silent, events, ticks)
    if held and held[-1] == "paused":
        return Status("paused", N_("every node waits at the boundary"), ticks, "resume")
    lost = [e for e in events if e["kind"] == "rank-lost"]
    if lost:
        names = ", ".join(str(n) for e in lost for n in e["lost"])
        return Status(
            "degraded",
            N_(f"node {names} died; the others went on at {reader.experiment.tick} {lost[-1]['tick']}"),
            ticks,
        )
    nodes = max(len(active) - reader.asked.coordinators, 0)
    return Status("running", N_(f"{nodes} nodes at work") if nodes != 1 else N_("1 node at work"), ticks)


def _stalled(reader: RunReader, silent: dict[int, float], events: list[Event], ticks: dict[int, int]) -> Status:
    """Name who stands still: one stopped process holds up all the others, so look at the processes first."""
    pids = {e["by"]: e["pid"] for e in events if e["kind"] == "started"}
    stopped = [n for n in silent if _process_state(pids.get(n)) in {"stopped", "tracing-stop"}]
    who = stopped or sorted(silent)
    names = ", ".join(map(str, who))
    since, tick = max(silent[n] for n in who), max(ticks.get(n, 0) for n in who)
    if len(who) > 1:
        message = N_(f"nodes {names} stand still since {since:.0f} s, after {reader.experiment.tick} {tick}")
    else:
        message = N_(f"node {names} stands still since {since:.0f} s, after {reader.experiment.tick} {tick}")
    if stopped:
        processes = ", ".join(str(pids[n]) for n in stopped)
        message = N_(f"{message} (process {processes} was stopped)")
    hint = f"kill -CONT {' '.join(str(pids[n]) for n in stopped)}" if stopped else "wait"
    return Status("stalled", message, ticks, f"{hint}, or stop the run")


def _process_state(pid: int | None) -> str:
    """What the system says of a process here, "" where there is none."""
    import psutil

    try:
        return str(psutil.Process(pid).status()) if pid is not None else ""
    except psutil.Error:
        return ""


def _silence_of_s(beat: Path) -> float:
    try:
        return time.time() - beat.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _ended_by_itself(reader: RunReader, outcome: dict[str, Any], ticks: dict[int, int]) -> Status:
    state, tick = outcome["state"], outcome.get("tick")
    if state == "relaunch":
        return Status(
            "starting", N_(f"relaunching with {outcome['nodes']} nodes from {reader.experiment.tick} {tick}"), ticks
        )
    again = "" if state == "done" else resume_hint(reader)
    return Status(state, outcome.get("message") or N_(f"ended after {reader.experiment.tick} {tick}"), ticks, again)


def _broken(reader: RunReader, newest: int, errors: list[Event], ended: list[Event], ticks: dict[int, int]) -> Status:
    if errors:
        first = errors[0]
        message = N_(f"node {first['by']}: {first['message']}")
        if first.get("tick") is not None:
            message = N_(f"node {first['by']} at {reader.experiment.tick} {first['tick']}: {first['message']}")
        return Status("failed", message, ticks, resume_hint(reader))
    last = ended[-1]
    if last["kind"] == "owner-gone-end":
        return _interrupted(reader, last["message"], ticks)
    return Status("failed", last["message"], ticks, resume_hint(reader))


def _interrupted(reader: RunReader, why: str, ticks: dict[int, int]) -> Status:
    return Status("interrupted", why, ticks, resume_hint(reader))


def resume_hint(reader: RunReader) -> str:
    """Return how to go on from the last checkpoint, or say that there is none."""
    kept = latest_checkpoint_tick(reader)
    if kept is None:
        return N_("no checkpoint was written; what was measured is kept; start a new run")
    return N_(f"resume at {reader.experiment.tick} {kept} with: aiinfra resume {reader.run.id}")


def latest_checkpoint_tick(reader: RunReader) -> int | None:
    """Return the tick of the checkpoint that LATEST points to, or None."""
    try:
        return int((reader.run.checkpoints / "LATEST").read_text().partition(".")[0])
    except (OSError, ValueError):
        return None


def traceback_of(reader: RunReader) -> str:
    """Return the traceback of the first node that failed in the newest incarnation, or ""."""
    newest = reader.run.incarnations() - 1
    return next((e.get("traceback", "") for e in reader.kind("error") if e["incarnation"] == newest), "")


def _outcome(reader: RunReader, incarnation: int) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(reader.run.outcome(incarnation).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "state" in data else None


def _supervised(launch: list[Event]) -> bool:
    """Whether the launcher process of this incarnation still lives here (its pid, and born when it says)."""
    import psutil

    for event in reversed(launch):
        if event["kind"] in {"launching", "queued"}:
            try:
                process = psutil.Process(event["pid"])
                same = abs(process.create_time() - float(event["born_s"])) < 1.0
                return same and process.status() != psutil.STATUS_ZOMBIE
            except (psutil.NoSuchProcess, KeyError, TypeError):
                return False
    return False


def _silence_s(reader: RunReader, incarnation: int) -> float:
    """Seconds since any file of the run changed."""
    files = (p for sub in ("heartbeats", "events", "samples") for p in (reader.run.path / sub).glob(f"{incarnation}-*"))
    return min((_silence_of_s(p) for p in files), default=time.time())
