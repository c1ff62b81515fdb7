"""Companions of a run: processes for what cannot be a rank, such as an HTTP front, a load tool or a worker behind TLS.

The experiment declares them for a Spec. The supervisor starts `python -m module RUN INCARNATION` when it hands the run to
the ranks, and ends them with the run; when the supervisor itself is killed they are killed too. A companion is addressed by
its name: it prints to `logs/INC-NAME.log`, writes `events/INC-NAME.jsonl` with an EventWriter of that name, and may touch
`heartbeats/INC-NAME`; who touched it once is watched from then on.

One that ends with exit code 0 is done. One that dies is started once more in an incarnation, and left the second time: the
run goes on without it, and says so either way.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from ..errors import LabError
from ..experiment import Companion, experiment
from ..runs.alive import Ages
from ..runs.layout import RunDir
from ..runs.reader import RunReader
from ..runs.status import STALL_S
from ..runs.watchdog import Watchdog
from ..runs.writer import EventWriter
from . import local
from .processes import die_with_parent, exit_code, gone, kill_group, tail, tree

LOOK_S = 0.1
#: How long a companion may take to end when it is told to.
STOP_S = 2.0
RESTARTS = 1
#: A number would be a node's name, and these two are writers of the run already.
_NAME, _TAKEN = re.compile(r"[a-z][a-z0-9_]{0,31}"), ("launch", "owner")


@dataclass
class _Child:
    companion: Companion
    process: subprocess.Popen[bytes]
    starts: int
    silent: bool = False


class Companions:
    """The companions of one incarnation of a run, as the supervisor sees them. No call waits, but for `stop`."""

    def __init__(self, run: RunDir, incarnation: int, event: EventWriter) -> None:
        self.run, self.incarnation, self._event = run, incarnation, event
        self._children: dict[str, _Child] = {}
        self._looked_s = 0.0
        self._watchdog, self._ages = Watchdog(run, incarnation, event), Ages()

    def start(self, companions: Iterable[Companion]) -> None:
        """Start each of them; one that cannot be started is an event of the run."""
        for companion in companions:
            if problem := _unfit(companion.name, self._children):
                self._say("companion-failed", companion.name, message=problem)
            else:
                self._start(companion, 1)

    def watch(self) -> None:
        """Look every LOOK_S who has ended, and who has become silent; and at the ranks themselves."""
        self._watchdog.look()
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        for name, child in list(self._children.items()):
            code = exit_code(child.process)
            if code is None:
                self._listen(child)
            else:
                del self._children[name]
                self._ended(child, code)

    def stop(self) -> None:
        """End all of them with what they started: TERM, then KILL after STOP_S."""
        self._watchdog.look(last=True)
        children, self._children = [c.process for c in self._children.values()], {}
        started = [process for child in children for process in tree(child.pid)]
        for child in children:
            kill_group(child, signal.SIGTERM)
        end_s = time.monotonic() + STOP_S
        for child in children:
            if not gone(child, max(end_s - time.monotonic(), 0.0)):
                started += tree(child.pid)
                kill_group(child, signal.SIGKILL)
                child.wait()
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _start(self, companion: Companion, starts: int) -> None:
        argv = [sys.executable, "-m", companion.module, str(self.run.path), str(self.incarnation)]
        try:
            with self.run.log(self.incarnation, companion.name).open("ab") as log:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=local.environment(os.environ, 1),
                    start_new_session=True, preexec_fn=die_with_parent(signal.SIGKILL),
                )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            self._say("companion-failed", companion.name, message=f"{' '.join(argv)}: {error}")
            return
        self._children[companion.name] = _Child(companion, process, starts)
        self._say("companion-started", companion.name, pid=process.pid)

    def _ended(self, child: _Child, code: int) -> None:
        name, again = child.companion.name, code != 0 and child.starts <= RESTARTS
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        then = "; it is started once more" if again else "; the run goes on without it" if code else ""
        last = tail(self.run.log(self.incarnation, name))
        more = {"exit_code": code, "tail": last, "restarted": again}
        self._say("companion-ended", name, message=f"companion {name} {how}{then}", **more)
        if again:
            self._start(child.companion, child.starts + 1)

    def _listen(self, child: _Child) -> None:
        """A companion whose heartbeat is old is there and does nothing: said once, and once more when it is back."""
        name = child.companion.name
        try:
            silence_s = self._ages.of(self.run.heartbeat(self.incarnation, name))
        except OSError:
            return
        if child.silent != (silence_s > STALL_S):
            child.silent = not child.silent
            kind, how = (
                ("companion-silent", "has been silent for") if child.silent else ("companion-back", "was silent for")
            )
            self._say(
                kind, name, message=f"companion {name} {how} more than {STALL_S:.0f} s (process {child.process.pid})"
            )

    def _say(self, kind: str, name: str, **more: Any) -> None:
        with contextlib.suppress(LabError):  # a full disk is the ranks' to report; companions go on
            self._event(kind, name=name, **more)


def declared(run: RunDir, job: Mapping[str, Any], event: EventWriter) -> tuple[Companion, ...]:
    """Return the companions that the run's experiment declares for the Spec of a job; none, and an event, where that fails.

    Args:
        run: Its directory.
        job: See `runs.jobs.write_job`.
        event: Of the supervisor.
    """
    try:
        found = experiment(run.read_manifest()["experiment"])
        if job.get("spec"):
            return tuple(found.companions(found.spec.make(job["spec"])))
        reader = RunReader(run)  # a job without a Spec goes on with the last one
        reader.poll_events()
        return tuple(found.companions(reader.spec))
    except Exception as error:  # an experiment may come from anywhere, and the supervisor must outlive its faults
        with contextlib.suppress(LabError):
            event("companion-failed", name=None, message=f"{type(error).__name__}: {error}")
        return ()


def _unfit(name: str, taken: Iterable[str]) -> str:
    """Return why a companion may not be called so, or ""."""
    if not _NAME.fullmatch(name):
        return f"companion {name!r}: its name is part of file names; allowed: a letter, then at most 31 of a-z 0-9 _"
    if name in (*_TAKEN, *taken):
        return f"companion {name!r}: the name is taken in this run; choose another in the experiment's companions()"
    return ""
