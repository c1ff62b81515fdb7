"""Ends a fault that its node cannot end: wakes a stopped process, or removes the file that fills a disk.

Started as a script by `ranks/chaos.py`: WHAT TARGET SECONDS PID. It ends early when the node, process PID, is gone: then there is
nobody to wake, and the disk is to be free again.
"""

import contextlib
import os
import signal
import sys
import time

LOOK_S = 0.05


def alive(pid: int) -> bool:
    """Whether a process is there, and more than what its parent has not yet collected."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main(what: str, target: str, seconds: float, pid: int) -> None:
    """Wait, then undo."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(LOOK_S)
    if what == "wake":
        if alive(pid):
            os.kill(int(target), signal.SIGCONT)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
