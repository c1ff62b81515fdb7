"""Whether a process still lives, here or on another host: by its number and birth, or by a file that it touches.

A run's supervisor may be on a node of a cluster and its owner on a login node; all they share is a file system. So a record of
a process says which host it is on, and one that others watch from afar touches a file (its *beat*) every BEAT_S seconds.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: How often a beat is touched, and after how long without one a process on another host counts as gone: a network file system
#: shows a change some seconds late, and clocks of a cluster differ by less than one.
BEAT_S, SILENT_AFAR_S = 2.0, 30.0


def here() -> str:
    """Return the name of this host."""
    return socket.gethostname()


def me(pid: int | None = None) -> dict[str, Any]:
    """Return what identifies this process (or process `pid` of this host), also after its number was used again.

    `born_s` is by the wall clock, and moves when that clock is set; `up_s`, seconds after the machine's start, does not (Linux).
    """
    import psutil

    process = psutil.Process(pid)
    record = {"pid": process.pid, "born_s": process.create_time(), "host": here()}
    return record if (up_s := _up_s(process.pid)) is None else {**record, "up_s": up_s}


def lives(record: Mapping[str, Any], beat: Path | None = None) -> bool:
    """Whether the process that `me` described still runs.

    Args:
        record: Of `me`; one without a host is from this one.
        beat: What it touches, for those who look from another host.
    """
    import psutil

    if record.get("host", here()) != here():
        with contextlib.suppress(OSError):
            return beat is not None and _beats.of(beat) < SILENT_AFAR_S
        return False
    try:
        process = psutil.Process(int(record["pid"]))
        if "up_s" in record and (up_s := _up_s(process.pid)) is not None:
            same = abs(up_s - float(record["up_s"])) < 0.5
        else:
            same = abs(process.create_time() - float(record["born_s"])) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, TypeError, psutil.NoSuchProcess):
        return False


def _up_s(pid: int) -> float | None:
    """Return when a process was born, in seconds after the machine's start, None where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        return int(text.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


class Ages:
    """How long ago files were touched, as seen by one process that looks at them again and again.

    What the wall clock says is held within what this process's own clock allows, so that no clock that is set, here or on the
    host that touches, makes a file old or young.
    """

    def __init__(self) -> None:
        self._seen: dict[
            Path, tuple[int, float, float]
        ] = {}  # when touched, by which clock ever; since when; last looked

    def of(self, path: Path) -> float:
        """Return the seconds since `path` was touched; the first look has the wall clock only.

        A time in the future means that the clock was set back by so much, and that nobody touched the file since.

        Raises:
            FileNotFoundError: There is no such file.
        """
        touched, now = path.stat().st_mtime_ns, time.monotonic()
        before, since, looked = self._seen.get(path, (None, 0.0, -math.inf))
        if before != touched:
            since = max(now - abs(time.time() - touched / 1e9), looked)
        self._seen[path] = touched, since, now
        return now - since


#: Of processes on other hosts, as this process has seen them.
_beats = Ages()


def touch(beat: Path) -> None:
    """Show that this process lives; a folder that was deleted is not made again."""
    with contextlib.suppress(OSError):
        beat.touch(mode=0o600)
