"""What the supervisor says in a run's record, kept until it can be written: a disk that is full or read-only need not stay so."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ..errors import StorageError
from ..runs.layout import RunDir
from ..runs.writer import EventWriter

#: How often what could not be written is tried again.
AGAIN_S = 1.0


class Notes:
    """Says how a run ended, whatever its disk does: no call raises for that."""

    def __init__(self) -> None:
        self._unsaid: list[tuple[RunDir, int, str, dict[str, Any]]] = []
        self._tried_s = 0.0

    def say(self, events: EventWriter | None, kind: str, *, message: str, **more: Any) -> None:
        """Append an event with a message; where that fails, the message gets the reason, and `again` tries to."""
        if events is None:
            return
        try:
            events(kind, message=message, **more)
        except StorageError as error:
            said = {"message": f"{message}; {error}", **more}
            self._unsaid.append((events.run, events.incarnation, kind, said))

    def again(self) -> None:
        """Try to write what could not be written, at most every AGAIN_S, by a file opened anew: the disk may have been mounted anew."""
        now = time.monotonic()
        if not self._unsaid or now - self._tried_s < AGAIN_S:
            return
        self._tried_s = now
        # Of a run that was deleted, or resumed meanwhile, nobody asks any more.
        unsaid, self._unsaid = [n for n in self._unsaid if n[0].incarnations() == n[1] + 1], []
        for run, incarnation, kind, said in unsaid:
            try:
                with contextlib.closing(EventWriter(run, incarnation, "launch")) as events:
                    events(kind, **said)
            except StorageError:
                self._unsaid.append((run, incarnation, kind, said))
