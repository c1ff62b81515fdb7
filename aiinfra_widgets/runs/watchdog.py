"""Looks at a run from beside its ranks and names what is wrong: a node that stands still, a straggler, one killed for lack of
memory, a disk that is slow.

Each finding is an event `alarm` of the supervisor: what, which node, at which tick, a sentence and the next step; `alarm-over` says
that it is past. Only files are read, and times are of this process's own clock, so hosts and their clocks may differ.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from ..errors import LabError
from ..quantities import show
from ..texts import ENGLISH, N_, speaking
from .alive import Ages
from .columns import parse
from .layout import RunDir
from .reader import RunReader

#: Between two looks; a node without a sign of life for QUIET_S stands still, where its process was stopped; one that may just have
#: a long tick does so after MANY times its longest silence so far.
LOOK_S, QUIET_S, MANY = 1.0, 5.0, 3.0
#: A straggler: the others wait for it for this share of a tick, and for this long, in so many looks in a row.
EXCESS_FRAC, EXCESS_S, LOOKS = 0.3, 1e-3, 3
#: A checkpoint takes less on a disk that is fit for it.
SLOW_S = 3.0
#: How much of each node's samples is looked at.
TAIL_BYTES = 16_384


class Watchdog:
    """Watches one incarnation of a run.

    Args:
        run: Its directory.
        incarnation: Which launch.
        event: Of the supervisor.
    """

    def __init__(self, run: RunDir, incarnation: int, event: Callable[..., None]) -> None:
        self.run, self.incarnation, self._event = run, incarnation, event
        self._reader: RunReader | None = None
        self._looked_s = -LOOK_S
        self._beats: dict[int, tuple[int, float]] = {}
        self._longest_s: dict[int, float] = {}
        self._stalled: list[int] = []
        self._ages = Ages()
        self._parts: dict[str, float] = {}
        self._left: set[str] = set()
        self._deaths, self._disk_slow = -1, False
        self._slow: tuple[int, int] = (-1, 0)
        self._slow_said = -1
        self._oom_seen, self._lost_seen = out_of_memory_kills(), 0

    def look(self, *, last: bool = False) -> None:
        """Look once in LOOK_S; `last` looks now, for what ended the run."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_S and not last:
            return
        self._looked_s = now
        with speaking(ENGLISH):  # a record is written in English, whoever runs it
            self._look(now, last=last)

    def _look(self, now: float, *, last: bool) -> None:
        try:
            if self._reader is None:
                self._reader = RunReader(self.run)
            self._reader.poll_events()
            mine = [e for e in self._reader.events if e["incarnation"] == self.incarnation]
            self._memory(mine, ended=last)
            self._disk(mine, now)
            begun = [e for e in mine if e["kind"] == "segment"]
            if not begun or last:
                return
            members = list(begun[-1]["members"])
            held = [e["kind"] for e in mine if e["kind"] in {"paused", "resumed"}]
            self._silence(mine, members, now, paused=held[-1:] == ["paused"])
            self._straggler(members)
        except (LabError, OSError, KeyError, ValueError, TypeError):
            return  # a run that is deleted meanwhile, or edited by hand: it is not the watchdog that says so

    # --- a node that stands still -------------------------------------------------------------------------------
    def _silence(self, mine: list[dict[str, Any]], members: list[int], now: float, *, paused: bool) -> None:
        silent: dict[int, float] = {}
        for node in members:
            beat = self.run.heartbeat(self.incarnation, node).stat().st_mtime_ns
            before, since = self._beats.get(node, (0, now))
            if beat != before:
                self._longest_s[node] = max(self._longest_s.get(node, 0.0), now - since)
                self._beats[node] = beat, now
            elif now - since > QUIET_S and not paused:
                silent[node] = now - since
        if not silent:
            if self._stalled:
                self._say("alarm-over", what="stalled", nodes=self._stalled)
            self._stalled = []
        elif not self._stalled:
            who, why, step, sure = self._culprits(mine, silent)
            if not sure and any(silent[n] < MANY * self._longest_s.get(n, 0.0) for n in who):
                return  # a tick may just be long
            self._stalled = who
            tick = max((int(r["tick"]) for r in map(self._last_rows, who) if "tick" in r), default=None)
            said = N_(f"node {_list(who)} stands still since {max(silent.values()):.0f} s: {why}")
            self._say("alarm", what="stalled", nodes=who, tick=tick, message=said, next_step=step)

    def _culprits(self, mine: list[dict[str, Any]], silent: Mapping[int, float]) -> tuple[list[int], str, str, bool]:
        """Return who holds up the others, why, what to do, and whether that is sure. All are silent then: each is asked what it does."""
        pids = {e["by"]: int(e["pid"]) for e in mine if e["kind"] == "started"}
        here = [
            n for n in silent if _state(pids.get(n), self.run) in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
        ]
        if here:
            numbers = " ".join(str(pids[n]) for n in here)
            why, step = N_(f"its process {numbers} was stopped (SIGSTOP)"), N_(f"kill -CONT {numbers}, or stop the run")
            return here, why, step, True
        pulses = {n: self._pulse(n) for n in silent}
        dumb = [n for n, p in pulses.items() if p is None]
        if dumb and len(dumb) < len(silent):
            return (
                dumb,
                N_("it gives no sign of life, and the others wait for it"),
                N_("look at its host, or stop the run"),
                True,
            )
        busy = [n for n, p in pulses.items() if p is not None and not p.startswith("waits")]
        if busy:
            return busy, f"{pulses[busy[0]]}", N_("wait, or stop the run and look at its log"), False
        return (
            sorted(silent),
            N_("all wait for each other"),
            N_("stop the run and resume it from its checkpoint"),
            False,
        )

    def _pulse(self, node: int) -> str | None:
        """Return what a node's own thread last said that it does (`ranks/pulse.py`), None where that is old."""
        path = pulse_of(self.run, self.incarnation, node)
        try:
            return path.read_text() if self._ages.of(path) < QUIET_S else None
        except OSError:
            return None

    # --- a straggler --------------------------------------------------------------------------------------------
    def _straggler(self, members: list[int]) -> None:
        """The node that never waits while all the others do: its excess is what they wait longer than it does."""
        rows = {n: self._last_rows(n) for n in members}
        if len(rows) < 2 or not all("straggler_wait_time_s" in r for r in rows.values()):
            return
        waits = {n: r["straggler_wait_time_s"] for n, r in rows.items()}
        node = min(waits, key=lambda n: waits[n])
        excess_s = min(w for n, w in waits.items() if n != node) - waits[node]
        tick_s = rows[node]["step_time_s"]
        found = node if excess_s > EXCESS_S and excess_s > EXCESS_FRAC * tick_s else -1
        self._slow = (found, self._slow[1] + 1 if found == self._slow[0] else 1)
        if self._slow[1] < LOOKS or found == self._slow_said:
            return
        if self._slow_said >= 0:
            self._say("alarm-over", what="straggler", nodes=[self._slow_said])
        self._slow_said = found
        if found >= 0:
            excess = show("s", excess_s)
            said = N_(
                f"node {node} is a straggler: the others wait {excess} for it in each step of {show('s', tick_s)}"
            )
            step = N_("see what else its cores do, or go on without it: fewer nodes")
            self._say(
                "alarm",
                what="straggler",
                nodes=[node],
                excess_s=excess_s,
                tick=int(rows[node]["tick"]),
                message=said,
                next_step=step,
            )

    def _last_rows(self, node: int) -> dict[str, float]:
        """Return the medians of a node's newest samples, and its newest tick; {} where there are none."""
        path = self.run.samples(self.incarnation, node)
        try:
            with path.open("rb") as file:
                names = file.readline().decode().strip().split(",")
                start, end = file.tell(), file.seek(0, 2)
                file.seek(max(start, end - TAIL_BYTES))
                data = file.read()
        except OSError:
            return {}
        data = data[: data.rfind(b"\n") + 1]
        if end - TAIL_BYTES > start:
            data = data.partition(b"\n")[2]
        table = parse(data, names, ("tick",)) if data else {}
        if not table or not len(table["tick"]):
            return {}
        found = {n: [x for x in column.tolist() if x == x] for n, column in table.items()}
        return {n: statistics.median(c) for n, c in found.items() if c} | {"tick": table["tick"][-1]}

    # --- a slow disk --------------------------------------------------------------------------------------------
    def _disk(self, mine: list[dict[str, Any]], now: float) -> None:
        """A checkpoint that is not whole after SLOW_S; said once, until one is written in less."""
        parts = {path.name for path in self.run.checkpoints.glob(".*.part")}
        deaths = sum(e["kind"] == "rank-lost" for e in mine)
        if deaths != self._deaths:  # its writer may be dead, as may those of what was there before this launch
            self._deaths, self._left = deaths, parts
        self._parts = {name: self._parts.get(name, now) for name in parts - self._left}
        took_s = now - min(self._parts.values(), default=now)
        written = [float(e["write_time_s"]) for e in mine if e["kind"] == "checkpoint"]
        if not self._disk_slow and max([took_s, *written[-1:]]) > SLOW_S:
            if took_s > SLOW_S:
                said = N_(
                    f"a checkpoint is being written since {took_s:.0f} s: the disk is slow; work goes on meanwhile"
                )
            else:
                said = N_(f"a checkpoint was written in {written[-1]:.0f} s: the disk is slow; work went on meanwhile")
            step = N_("checkpoint less often, or keep runs on a faster disk (AIINFRA_HOME)")
            self._disk_slow = True
            self._say("alarm", what="slow-disk", nodes=[], tick=None, message=said, next_step=step)
        elif self._disk_slow and took_s < SLOW_S and written and written[-1] < SLOW_S:
            self._disk_slow = False
            said = N_(f"a checkpoint was written in {written[-1]:.1f} s: the disk is fast enough again")
            self._say("alarm-over", what="slow-disk", nodes=[], message=said)

    # --- lack of memory -----------------------------------------------------------------------------------------
    def _memory(self, mine: list[dict[str, Any]], *, ended: bool) -> None:
        """A node died, and the system counts one more process that it killed for lack of memory."""
        lost = [n for e in mine if e["kind"] == "rank-lost" for n in e["lost"]]
        kills = out_of_memory_kills()
        if kills <= self._oom_seen or (len(lost) <= self._lost_seen and not ended):
            self._lost_seen = len(lost)
            return
        started = sorted({int(e["by"]) for e in mine if e["kind"] == "started"})
        gone = lost[self._lost_seen :] or [n for n in started if not _state(_pid(mine, n), self.run)]
        self._oom_seen, self._lost_seen = kills, len(lost)
        sizes = {n: r["memory_bytes"] for n in gone if (r := self._last_rows(n)).get("memory_bytes")}
        node = max(sizes, key=lambda n: sizes[n]) if sizes else next(iter(gone), None)
        size = sizes.get(node) if node is not None else None
        who = N_(f"node {node}") if node is not None else N_("a node")
        held = f"; it held {show('B', size)}" if size else ""
        said = N_(f"{who} was killed by the system for lack of memory{held}")
        step = N_("fewer nodes, a smaller batch or net, or a machine with more memory")
        self._say("alarm", what="out-of-memory", nodes=gone, memory_bytes=size, tick=None, message=said, next_step=step)

    def _say(self, kind: str, **more: Any) -> None:
        self._event(kind, **more)


def pulse_of(run: RunDir, incarnation: int, node: int) -> Path:
    """Return the file in which a node's own thread says what it does while it reaches no boundary."""
    return run.path / "heartbeats" / f"pulse-{incarnation}-{node}"


def out_of_memory_kills() -> int:
    """Return how many processes the system has killed for lack of memory: of this control group where it says, else of the machine."""
    found = 0
    for path, key in ((Path("/proc/vmstat"), "oom_kill"), *((p, "oom_kill") for p in _group_files())):
        try:
            words = dict(line.split()[:2] for line in path.read_text().splitlines() if len(line.split()) >= 2)
            found = max(found, int(words.get(key, 0)))
        except (OSError, ValueError):
            continue
    return found


def _group_files() -> list[Path]:
    """Return where the control group of this process counts its kills, version 2 and 1."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    root, found = Path("/sys/fs/cgroup"), []
    for _, kinds, path in (line for line in lines if len(line) == 3):
        if not kinds:
            found += [root / path.lstrip("/") / "memory.events", root / "unified" / path.lstrip("/") / "memory.events"]
        elif "memory" in kinds.split(","):
            found.append(root / "memory" / path.lstrip("/") / "memory.oom_control")
    return found


def _pid(mine: list[dict[str, Any]], node: int) -> int | None:
    return next((int(e["pid"]) for e in reversed(mine) if e["kind"] == "started" and e["by"] == node), None)


def _state(pid: int | None, run: RunDir) -> str:
    """Return what the system says of a node's process, "" where it has none of that number that works on this run's ranks."""
    try:
        process = psutil.Process(pid) if pid is not None else None
        return str(process.status()) if process and "aiinfra_widgets.ranks" in process.cmdline() else ""
    except psutil.Error:
        return ""


def _list(nodes: list[int]) -> str:
    return ", ".join(map(str, nodes))
