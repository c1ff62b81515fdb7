"""Lines of several ranks become one where they are equal: `[ranks 0-3] loss 0.31`. Order within a rank is kept."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .ranks import label

#: Seconds that a line waits for the same line of other ranks, and lines that may wait.
HOLD_S, MOST = 0.25, 2000


class Fold:
    """Gathers the lines of all ranks for a moment.

    Args:
        say: Called with the stream's name and text, in order.
    """

    def __init__(self, say: Callable[[str, str], object]) -> None:
        self._say = say
        self._lines: dict[int, deque[tuple[str, str]]] = {}
        self._count = 0
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    def add(self, rank: int, name: str, text: str) -> None:
        """Take whole lines of a rank."""
        with self._lock:
            lines = text.replace("\r", "\r\0").replace("\n", "\n\0").split("\0")[:-1]
            self._lines.setdefault(rank, deque()).extend((name, line) for line in lines)
            self._count += len(lines)
            if self._count > MOST:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(HOLD_S, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Say everything that waits."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            gathered: list[tuple[str, str]] = []
            while queues := {r: q for r, q in sorted(self._lines.items()) if q}:
                heads: dict[tuple[str, str], list[int]] = {}
                for rank, lines in queues.items():
                    heads.setdefault(lines.popleft(), []).append(rank)
                gathered += [(name, label(ranks) + line) for (name, line), ranks in heads.items()]
            self._lines, self._count = {}, 0
            for name, text in _joined(gathered):
                self._say(name, text)


def _joined(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return runs of lines for the same stream as one text."""
    found: list[tuple[str, str]] = []
    for name, line in lines:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + line)
        else:
            found.append((name, line))
    return found
