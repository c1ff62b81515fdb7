"""The thread that looks at a lab's run again and again and draws what it sees."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..errors import LabError
from ..texts import N_

if TYPE_CHECKING:
    from .lab import Lab

#: Seconds between two looks at a run that is watched.
LOOK_S = 0.1


class Follower(threading.Thread):
    """Looks at the run again and again, until it has ended. A thread, because a task would stop while a cell runs."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True, name="aiinfra-follow")
        self._lab = lab
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ask it to end; it does within a look."""
        self._stopped.set()

    def run(self) -> None:
        """Look, draw, rest: three times a look's processor time; the clock says nothing of it where ranks want the same cores."""
        number = -1
        while not self._stopped.is_set():
            begun, spent = time.monotonic(), time.thread_time()
            try:
                look = self._lab.state.look()
                if look.number != number or look.going or self._lab._ended.is_set():
                    number = look.number
                    self._lab._update(look)
            except (LabError, OSError) as error:
                self._give_up(error)
                return
            if not look.going:
                self._lab._ended.set()
                screen = self._lab._screen
                if screen is None or not screen.feed.busy:
                    return
            rest_s = LOOK_S - (time.monotonic() - begun)
            self._stopped.wait(max(rest_s, 3 * (time.thread_time() - spent)))

    def _give_up(self, error: Exception) -> None:
        """The run can no longer be read, most likely because its folder was deleted."""
        screen = self._lab._screen
        if screen is not None:
            screen.problem = N_(f"The run can no longer be followed: {error}")
            screen.draw(self._lab.state._look)
        self._lab._ended.set()
