"""What other users of this machine hold and wait for, read from the processes; and how many processes this user may still start.

Where the system hides other people's processes (hidepid, a container for each), nobody is seen, and cores are the system's to share.
A name of a process is what its owner says, so this keeps peace among people, it defends nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from .ranks_held import KERNEL_RANK, RANK, SUPERVISOR

#: What a process calls itself while it waits for room (`limits.wait_for_room`); every user sees it.
WAITING = "aiinfra-waits"
#: Processes and threads that a rank takes (4 were seen, and one more while it writes a checkpoint), and supervisor and launcher (4).
TASKS_PER_RANK, TASKS_PER_POOL = 6, 6
_PR_SET_NAME = 15


def held_by_others() -> dict[str, int]:
    """Return the ranks that other users have up or are about to, by user."""
    pools: dict[tuple[str, str], int] = {}
    found: dict[str, int] = {}
    ranks: dict[tuple[str, str], int] = {}
    for user, words in _of_others():
        if words[1:3] == SUPERVISOR and len(words) >= 5 and words[4].isdecimal():
            pools[user, words[3]] = int(words[4])
        elif words[1:5] == RANK and len(words) >= 6:
            ranks[user, words[5]] = ranks.get((user, words[5]), 0) + 1
        elif words[1:5] == KERNEL_RANK:
            found[user] = found.get(user, 0) + 1
    for (user, _), count in {**pools, **ranks}.items():  # a pool that is up counts with what is up
        found[user] = found.get(user, 0) + count
    return found


def waiting_longer() -> int:
    """Return how many processes of any user have waited for room longer than this one."""
    this = psutil.Process()
    mine, count = (this.create_time(), this.pid), 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == WAITING and (process.create_time(), process.pid) < mine:
                count += 1
    return count


@contextlib.contextmanager
def shown_as_waiting() -> Iterator[None]:
    """Let every user of the machine see that this process waits (Linux; elsewhere nobody does)."""
    before = psutil.Process().name()
    _call_me(WAITING)
    try:
        yield
    finally:
        _call_me(before)


def tasks_left() -> tuple[int, str] | None:
    """Return how many more processes and threads this user may have, and who says so; None where nobody does."""
    bounds = [b for b in (_of_ulimit(), _of_cgroup()) if b is not None]
    return min(bounds, default=None)


def tasks_of(pid: int) -> int:
    """Return how many processes and threads a process is, with all that it started."""
    tasks = 0
    with contextlib.suppress(psutil.Error, OSError):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                tasks += process.num_threads()
    return tasks


def _of_ulimit() -> tuple[int, str] | None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        if soft == resource.RLIM_INFINITY or not os.getuid():  # the system does not ask root
            return None
        tasks = 0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.uids().real == os.getuid():
                    tasks += process.num_threads()
        return max(soft - tasks, 0), f"ulimit -u is {soft}, and {tasks} are in use"
    return None


def _of_cgroup() -> tuple[int, str] | None:
    return min((one for one in map(_room, _groups()) if one is not None), default=None)


def starts_refused() -> int:
    """Return how often the system refused a process or thread for a limit of a control group of this process, ever."""
    count = 0
    for group in _groups():
        with contextlib.suppress(OSError, ValueError, KeyError):
            words = dict(line.split() for line in (group / "pids.events").read_text().splitlines())
            count += int(words["max"])
    return count


def _groups() -> list[Path]:
    """Return the control groups of this process that may limit processes, and those around them."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, inside = line.split(":", 2)
            if kinds in {"", "pids"}:  # version 2 has one tree, version 1 one for each kind of limit
                mine = Path("/sys/fs/cgroup", kinds, inside.lstrip("/"))
                found += [mine, *mine.parents]
    return found


def _room(group: Path) -> tuple[int, str] | None:
    """Return what a control group leaves, None where it has no limit on processes."""
    with contextlib.suppress(OSError, ValueError):
        most, now = (group / "pids.max").read_text().strip(), int((group / "pids.current").read_text())
        if most != "max":
            return max(int(most) - now, 0), f"pids.max of this container or session is {most}, and {now} are in use"
    return None


def _of_others() -> Iterator[tuple[str, tuple[str, ...]]]:
    mine = os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, KeyError):
            if process.uids().real != mine and process.status() != psutil.STATUS_ZOMBIE:
                yield process.username(), tuple(process.cmdline())


def _call_me(name: str) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())
