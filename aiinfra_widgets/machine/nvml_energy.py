"""GPU energy from the device's own counter, or from its power sensor where it has none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from ..errors import ProbeError
from .counters import CounterTrack, PowerTrack, Track
from .nvml import Nvml, nvml
from .power import Clock, EnergyReading, Method

#: How often the counter is refreshed, as measured by the ML.ENERGY project; `update_period_s` measures it here.
UPDATE_S = 0.1
#: A window of fewer refreshes than this is mostly quantisation.
MIN_UPDATES = 10


class NvmlEnergyProbe:
    """Devices of this host, by counter (Volta and later) or by sampled power.

    Args:
        indices: Physical indices, None for all.
        library: The driver's library, injectable for tests; the real one is loaded on first use.
        clock: Monotonic seconds.
        update_s: Refresh period of the counter; give what `update_period_s` measured.
    """

    name = "nvml"

    def __init__(
        self,
        indices: Sequence[int] | None = None,
        library: Nvml | None = None,
        clock: Clock = time.monotonic,
        update_s: float = UPDATE_S,
    ) -> None:
        self._indices, self._given, self._clock, self._update_s = indices, library, clock, update_s
        self._began_s = 0.0
        self._tracks: dict[int, Track] = {}
        self._notes: list[str] = []

    def _library(self) -> Nvml:
        return self._given or nvml()

    def _devices(self) -> list[int]:
        count = self._library().count()
        wanted = range(count) if self._indices is None else self._indices
        absent = [i for i in wanted if not 0 <= i < count]
        if absent:
            raise ProbeError(f"no GPU {absent[0]} here; there are {count}, from 0")
        return list(wanted)

    def available(self) -> str | None:
        """Return None when a device here tells its energy or its power, else why not."""
        try:
            devices = self._devices()
            if not devices:
                return "the NVIDIA driver shows no device"
            for index in devices:
                self._track(index)
        except ProbeError as error:
            return str(error)
        return None

    def _track(self, index: int) -> Track:
        library = self._library()
        try:
            library.energy_j(index)
        except ProbeError:
            library.power_w(index)
            return PowerTrack(f"GPU {index}", lambda: library.power_w(index))
        return CounterTrack(f"GPU {index}", lambda: library.energy_j(index))

    def start(self) -> None:
        """Begin a window.

        Raises:
            ProbeError: Nothing to measure here; ask `available` first.
        """
        self._tracks = {index: self._track(index) for index in self._devices()}
        self._notes = [
            f"GPU {i} is cut into instances, its counter covers all of them"
            for i in self._tracks
            if self._library().mig(i)
        ]
        self._began_s = self._clock()
        for track in self._tracks.values():
            track.start(self._began_s)

    def peek(self) -> EnergyReading:
        """Return the reading since the start; where power is sampled, each call is one sample."""
        now_s = self._clock()
        for track in self._tracks.values():
            track.sample(now_s)
        known = {i: t.energy_j for i, t in self._tracks.items() if t.energy_j is not None}
        tracks = list(self._tracks.values())
        notes = [*self._notes, *(note for t in tracks for note in t.notes)]
        duration_s = now_s - self._began_s
        if duration_s < MIN_UPDATES * self._update_s:
            notes.append(
                f"too short: {duration_s:.2g} s is less than {MIN_UPDATES} refreshes of {self._update_s:.2g} s;"
                " repeat the work"
            )
        method: Method = "sampled" if any(isinstance(t, PowerTrack) for t in tracks) else "counter"
        if any(t.degraded for t in tracks):
            method = "estimated"
        return EnergyReading(
            duration_s, known or None, method, self._update_s, "; ".join(notes), methods={"gpu": method}
        )

    stop = peek


def update_period_s(
    read: Callable[[], float],
    limit_s: float = 2.0,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float | None:
    """Return the median time between two changes of a counter, in seconds, instead of assuming it.

    Args:
        read: The counter.
        limit_s: When to give up.
        clock, sleep: Injectable for tests; it looks about every millisecond.

    Returns:
        None when it changed fewer than 4 times.
    """
    began_s, value = clock(), read()
    changes: list[float] = []
    while clock() - began_s < limit_s and len(changes) < 12:
        sleep(1e-3)
        now = read()
        if now != value:
            value = now
            changes.append(clock())
    gaps = sorted(b - a for a, b in pairwise(changes))
    return gaps[len(gaps) // 2] if len(gaps) >= 3 else None
