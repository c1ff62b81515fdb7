"""The administrator's limit on the time of a run, as the supervisor counts it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..machine.limits import minutes, user_limits

#: How long a run that reached its time limit may take to write its checkpoint.
LIMIT_GRACE_S = 30.0


@dataclass
class Clock:
    """Counts a run's time across the relaunches that the run itself asks for."""

    limit_s: float = math.inf
    until_s: float = math.inf
    asked: bool = False

    @property
    def why(self) -> str:
        """What the run is told at its end."""
        return f"ended at the administrator's limit of {minutes(self.limit_s)}"

    def begin(self, job: Mapping[str, Any]) -> dict[str, float]:
        """Take the limit for a job, and return what is recorded of it; a relaunch of the same run keeps its clock.

        Raises:
            AdmissionError: The limits cannot be read.
        """
        self.asked = False
        asked = "spec" in job and not job.get("again")  # a relaunch that the run itself asked for carries no Spec
        if asked or self.until_s == math.inf:
            self.limit_s = user_limits().run_s or math.inf
            self.until_s = time.monotonic() + self.limit_s
        return {} if self.until_s == math.inf else {"until_s": self.until_s}

    def due(self, now: float) -> str:
        """Return "ask" once when the time is up, "end" when the grace after it is over too, else ""."""
        if now < self.until_s:
            return ""
        if not self.asked:
            self.asked = True
            return "ask"
        return "end" if now > self.until_s + LIMIT_GRACE_S else ""
