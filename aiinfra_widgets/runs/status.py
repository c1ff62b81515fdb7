"""What a run is doing, from evidence: the sentinel, the launcher's record, heartbeats and last ticks - never a flag alone."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..texts import N_
from .alive import SILENT_AFAR_S, lives
from .layout import turned_read_only
from .reader import Event, RunReader, last_ticks

#: A node that has not reached a boundary for this long is named as stalled.
STALL_S = 10.0
#: A run that nobody supervises and whose heartbeats are older than this is over.
SILENT_S = 3.0
#: What a scheduler said this long ago of a job that had started says nothing any more.
STALE_S = 120.0

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
    if outcome is not None and not (
        outcome["state"] == "relaunch" and _gone(reader, newest, reader.kind("launching", "queued"))
    ):
        return _ended_by_itself(reader, outcome, ticks)
    errors = [e for e in events if e["kind"] == "error"]
    launch = [e for e in events if e["by"] in {"launch", "owner"}]
    ended = [e for e in launch if e["kind"] in {"ranks-ended", "launch-failed", "owner-gone-end"}]
    if errors or ended:
        return _broken(reader, newest, errors, ended, ticks)
    if _silence_s(reader, newest) > SILENT_S and turned_read_only(run):
        message = N_(f"{run.path} cannot be written: Read-only file system")
        again = N_(f"make its file system writable again (mount -o remount,rw), then {resume_hint(reader)}")
        return Status("failed", message, ticks, again)
    said = _queue(launch)
    if _gone(reader, newest, launch):
        gone = f"; {_in_queue(said)}" if said.get("over") and said.get("state") else ""
        return _interrupted(reader, N_("the launcher is gone, and so are its ranks") + gone, ticks)
    if said.get("waiting") and not _up(launch):
        return Status("starting", _in_queue(said), ticks)
    started = [e for e in events if e["kind"] == "segment"]
    if not started:
        waits = any("job" in e for e in launch) and not any(e["kind"] == "launching" for e in launch)
        why = next((e["message"] for e in reversed(launch) if e["kind"] == "queued" and "restart" in e), "")
        return Status("starting", _in_queue(said) if waits else why or N_("waiting for the ranks"), ticks)
    return _alive(reader, newest, events, ticks)


def _alive(reader: RunReader, newest: int, events: list[Event], ticks: dict[int, int]) -> Status:
    held = [e["kind"] for e in events if e["kind"] in {"paused", "resumed"}]
    active = reader.kind("segment")[-1].get("members", [])
    silent = {n: s for n in active if (s := _silence_of_s(reader, reader.run.heartbeat(newest, n))) > STALL_S}
    if silent:
        return _stalled(reader, silent, events, ticks)
    if held and held[-1] == "paused":
        return Status("paused", N_("every node waits at the boundary"), ticks, "resume")
    lost = [e for e in events if e["kind"] == "rank-lost"]
    if lost:
        names = ", ".join(str(n) for e in lost for n in e["lost"])
        joined = [e for e in events if e["kind"] == "resized" and e.get("spare") and e["t_s"] > lost[-1]["t_s"]]
        if joined:
            spare = ", ".join(str(n) for n in joined[-1]["spare"])
            at = f"{reader.experiment.tick} {joined[-1]['tick']}"
            return Status("running", N_(f"node {names} died; node {spare} took its place at {at}"), ticks)
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


def _silence_of_s(reader: RunReader, beat: Path) -> float:
    try:
        return reader.ages.of(beat)
    except FileNotFoundError:
        return 0.0


def _ended_by_itself(reader: RunReader, outcome: dict[str, Any], ticks: dict[int, int]) -> Status:
    state, tick = outcome["state"], outcome.get("tick")
    if state == "relaunch":
        said = _queue(reader.kind("launching", "queued"))
        queued = f"; {_in_queue(said)}" if said.get("waiting") else ""
        again = N_(f"relaunching with {outcome['nodes']} nodes from {reader.experiment.tick} {tick}")
        return Status("starting", again + queued, ticks)
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
    """Whether the launcher process of this incarnation still lives, or waits in a scheduler's queue."""
    if _up(launch):
        return True
    last = _handed(launch)
    if not last or "job" not in last:
        return False
    said = _queue(launch)
    if last["kind"] == "launching" and abs(time.time() - said.get("wall_s", 0.0)) > STALE_S:
        return False  # nobody has asked the scheduler since; who looks, asks
    return not said.get("over", False)


def _gone(reader: RunReader, incarnation: int, launch: list[Event]) -> bool:
    """Whether nobody launches any more; of a scheduler's job only once it said so, or nobody asked it for long."""
    if _supervised(launch):
        return False
    patience_s = SILENT_AFAR_S if "job" in _handed(launch) else SILENT_S
    return _queue(launch).get("over", False) or _silence_s(reader, incarnation) > patience_s


def _up(launch: list[Event]) -> bool:
    """Whether the process that launches the ranks lives."""
    last = _handed(launch)
    pool = Path(last.get("pool", "")) if last else Path()
    return bool(last) and lives(last, pool / "supervisor.beat" if pool.name else None)


def _handed(launch: list[Event]) -> Event:
    """Return the last word on who launches, {} where there is none."""
    return next((e for e in reversed(launch) if e["kind"] in {"launching", "queued"}), {})


def _queue(launch: list[Event]) -> dict[str, Any]:
    """Return what the scheduler last said of the job that this run belongs to, {} where it belongs to none."""
    last = _handed(launch)
    try:
        found: dict[str, Any] = json.loads((Path(last["pool"]) / "queue.json").read_text()) if "job" in last else {}
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _in_queue(said: dict[str, Any]) -> str:
    """Say how the queue stands."""
    if not said.get("state"):
        return N_("handed to Slurm")
    why = f" ({said['reason']})" if said.get("reason") else ""
    job, state, at = said["job"], said["state"].lower(), said.get("starts_at")
    if at and said["state"] == "PENDING":
        return N_(f"job {job} of Slurm is {state}{why}; expected to start at {at}")
    return N_(f"job {job} of Slurm is {state}{why}")


def _silence_s(reader: RunReader, incarnation: int) -> float:
    """Seconds since any file of the run changed."""
    files = (p for sub in ("heartbeats", "events", "samples") for p in (reader.run.path / sub).glob(f"{incarnation}-*"))
    return min((_silence_of_s(reader, p) for p in files), default=math.inf)
