"""Reading this host's energy counter while a run goes on: by one rank of the host, now and then, as events."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from ..machine.power import EnergyProbe, best_probe
from ..runs.writer import EventWriter

#: Counters refresh about ten times a second; reading more often than this only costs.
EVERY_S = 1.0


class ResidentMemory:
    """Bytes of this process that lie in memory, as the system last said; 0 where it does not say."""

    bytes: int = 0

    def read(self) -> None:
        """Ask the system (Linux)."""
        try:
            self.bytes = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        except OSError:
            return


class Meter:
    """Writes the joules counted since the start; silent where there is no counter, for then energy is modelled.

    Args:
        event: Where readings go, as events of kind "energy".
        leader: Whether this rank measures for its host; the same joules must not be counted by each rank.
    """

    def __init__(self, event: EventWriter, *, leader: bool) -> None:
        self._event = event
        self._probe: EnergyProbe | None = None
        self._read_at_s = 0.0
        probe = best_probe(leader=leader)
        if leader and probe.available() is None:
            probe.start()
            if probe.peek().method in {"counter", "sampled"}:
                self._probe = probe

    def read(self, now_s: float | None = None, *, force: bool = False) -> None:
        """Record a reading if it is time for one.

        Args:
            now_s: Monotonic time, where the caller has it.
            force: At the boundary of a segment, so that its energy is known exactly.
        """
        if self._probe is None:
            return
        now = time.monotonic() if now_s is None else now_s
        if force or now - self._read_at_s >= EVERY_S:
            self._read_at_s = now
            reading = self._probe.peek()
            self._event("energy", energy_j=reading.energy_j, method=reading.method, how=reading.note)
