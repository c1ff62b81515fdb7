"""A cell that takes long says, in one line that changes, which ranks are done and for whom it waits."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from .ranks import counted, shown

#: Seconds until the line appears, and between two changes of it.
AFTER_S, EVERY_S = 5.0, 1.0


class Waiting:
    """The line of one cell after the other.

    Args:
        show: Called with the kind of a message and its content.
        busy: Returns the ranks that still work.
    """

    def __init__(self, show: Callable[[str, dict[str, Any]], object], busy: Callable[[], set[int]]) -> None:
        self._show, self._busy = show, busy
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, ranks: set[int]) -> None:
        """A cell begins on these ranks."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(ranks, self._stop), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """It has ended on all of them; the last line is then shown before this returns."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(EVERY_S)

    def _watch(self, ranks: set[int], stop: threading.Event) -> None:
        begun, name, kind = time.monotonic(), secrets.token_hex(8), "display_data"
        if stop.wait(AFTER_S):
            return
        while True:
            over = stop.wait(EVERY_S) if kind != "display_data" else stop.is_set()
            text = said(ranks, set() if over else self._busy(), time.monotonic() - begun)
            data = {"text/plain": text, "text/html": f'<small style="opacity:.7">{text}</small>'}
            self._show(kind, {"data": data, "metadata": {}, "transient": {"display_id": name}})
            kind = "update_display_data"
            if over:
                return


def said(ranks: set[int], busy: set[int], seconds: float) -> str:
    """Return the line: how long it takes, who is done, who still works."""
    if not busy:
        return f"{counted(len(ranks))}: done after {seconds:.0f} s"
    done = ranks - busy
    where = f"done: {shown(done)}; " if done else ""
    return f"running for {seconds:.0f} s; {where}still at work: {shown(busy)}"
