"""A thread of each node that says what the node does while it reaches no boundary, for the watchdog beside the ranks.

A node that waits for others and one that does not come look the same from outside: both take a whole core. From inside they do
not: one is in a collective. A process that was stopped says nothing at all, and that tells as much.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from ..runs.layout import RunDir
from ..runs.watchdog import pulse_of

#: Quiet for this long, a node says what it does, and so on every EVERY_S.
QUIET_S, EVERY_S = 2.0, 1.0
#: Where a node is when it waits for others.
MEETINGS = ("ranks/collectives.py", "ranks/runtime.py", "ranks/membership.py", "ranks/failures.py", "ranks/node.py", "ranks/overlap.py",
            "ranks/nccl.py", "parallel/groups.py", "parallel/nccl_group.py")  # fmt: skip
OURS = "aiinfra_widgets"


class Pulse(threading.Thread):
    """Writes a line when the main thread has been quiet.

    Args:
        run, incarnation, node: Whose.
        tick: Returns the ticks done; as long as it moves, nothing is written.
    """

    def __init__(self, run: RunDir, incarnation: int, node: int, tick: Callable[[], int]) -> None:
        super().__init__(daemon=True, name="aiinfra-pulse")
        self._path, self._tick, self._ended = pulse_of(run, incarnation, node), tick, threading.Event()

    def run(self) -> None:
        """Look once a second; costs some microseconds."""
        last, since = -1, time.monotonic()
        while not self._ended.wait(EVERY_S):
            tick, now = self._tick(), time.monotonic()
            if tick != last:
                last, since = tick, now
            elif now - since > QUIET_S:
                with contextlib.suppress(OSError):
                    self._path.write_text(doing(sys._current_frames().get(threading.main_thread().ident or 0)))

    def stop(self) -> None:
        """End it."""
        self._ended.set()


def doing(frame: FrameType | None) -> str:
    """Return what a thread does: "waits in FILE:LINE" for the other nodes, else "is busy in FILE:LINE (function)"."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if OURS in path.parts:
            inside = "/".join(path.parts[-2:])
            place = f"{inside}:{frame.f_lineno} ({frame.f_code.co_name})"
            return f"waits in {place}" if inside in MEETINGS else f"is busy in {place}"
        frame = frame.f_back
    return "is busy outside of the lab's code"
