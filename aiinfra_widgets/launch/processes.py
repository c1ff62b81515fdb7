"""Processes that the supervisor starts: they die with it, are ended with all that they started, and leave their last output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from ..machine.neighbours import tasks_left

PR_SET_PDEATHSIG = 1
#: What is printed where the system refuses a process or a thread (EAGAIN); the last is the part of mpiexec that forks ranks, which
#: knows no better words for it.
NO_MORE = (
    "Resource temporarily unavailable", "can't start new thread", "pthread_create failed",
    "odls_default_module.c at line",
)  # fmt: skip


def die_with_parent(how: int, then: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Return what a child must do first, so that it is sent signal `how` when this process is gone (Linux); `then` follows."""
    parent = os.getpid()

    def ask() -> None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # it was gone before it could be asked for
            os._exit(1)
        then()

    return ask


def tree(pid: int) -> list[psutil.Process]:
    """Return the process and all its descendants; every rank is in a session of its own, so a group kill misses them."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait at most so long for `process`, and return whether it has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return how a process that leads a group ended, None while it lives. What it left of its group is killed with it."""
    if process.returncode is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
                return None
        kill_group(process, signal.SIGKILL)  # before its exit code is collected: until then the number is its own
    return process.wait()


def kill_group(process: subprocess.Popen[bytes], how: int) -> None:
    """Send a signal to a process that leads a group, and to the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, "" where there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def why_ended(code: int, size: int, last: str, refused: int = 0) -> str:
    """Say what an exit code of mpiexec means, after its `last` output; `refused`: processes that the system did not let it start."""
    if refused or any(words in last for words in NO_MORE):
        _, who = tasks_left() or (0, "ulimit -u")
        lack = f"no more processes or threads may be started ({who}), so {size} ranks could not work"
        return f"{lack}; end other programs, or ask the administrator for more"
    if code in {137, -9, 9} or "signal 9" in last:
        return f"a rank of {size} was killed (signal 9: by somebody, or by the system for lack of memory)"
    return f"mpiexec ended with exit code {code} before the run did"
