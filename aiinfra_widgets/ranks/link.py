"""The link between nodes, and the delay that a learner may put on it. Every delayed message really waits; nothing is predicted.

MPI's own collectives cannot be delayed message by message, so as soon as a link is injected the collectives of
`collectives.py` are used, and their messages pass through here.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass


@dataclass(slots=True)
class InjectedLink:
    """Extra cost of one message: a latency, and a bandwidth cap. Zero means "nothing injected".

    Attributes:
        latency_s: Added to every message.
        bandwidth_bytes_per_s: A message takes at least its size over this; 0 is no cap.
        spent_s: Seconds injected since the last `take`.
        written_out: A fault is on some node's link, so every node takes the collectives whose messages pass here.
        fault_latency_s: Added to every message of this node, by a fault.
        cut_until_s: Monotonic time before which no message of this node leaves, by a fault.
    """

    latency_s: float = 0.0
    bandwidth_bytes_per_s: float = 0.0
    spent_s: float = 0.0
    written_out: bool = False
    fault_latency_s: float = 0.0
    cut_until_s: float = 0.0

    @property
    def active(self) -> bool:
        """Whether anything is injected."""
        return self.latency_s > 0 or self.bandwidth_bytes_per_s > 0 or self.written_out

    def delay(self, size_bytes: int) -> None:
        """Wait as long as the injected link would make a message of `size_bytes` wait."""
        if not self.active:
            return
        seconds = self.latency_s + self.fault_latency_s + max(self.cut_until_s - time.monotonic(), 0.0)
        if self.bandwidth_bytes_per_s > 0:
            seconds += size_bytes / self.bandwidth_bytes_per_s
        if seconds <= 0:
            return
        begun = time.perf_counter()
        time.sleep(seconds)
        self.spent_s += time.perf_counter() - begun

    def take(self) -> float:
        """Return the seconds injected since the last call, and forget them."""
        spent, self.spent_s = self.spent_s, 0.0
        return spent


def sharpen_sleep() -> None:
    """Ask Linux to wake this thread within a microsecond instead of 50, so that short injected delays are what they say."""
    try:
        ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)  # PR_SET_TIMERSLACK, nanoseconds
    except (OSError, AttributeError):
        return
