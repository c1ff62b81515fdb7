"""Following one energy counter or one power sensor over a window, whatever it does meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ProbeError

#: No single package or device draws more; a jump beyond it is a reset, not a wrap-around.
MAX_POWER_W = 3000.0


class CounterTrack:
    """One cumulative counter. Wraps are undone, resets and losses are noted, energy never falls.

    Attributes:
        name: For notes.
        energy_j: Since `start`, or None when the counter could not be read then.
        degraded: Something happened that makes `energy_j` a lower bound.
        first_j: The raw value at the start.
    """

    method = "counter"

    def __init__(self, name: str, read_j: Callable[[], float], wraps_at_j: float | None = None) -> None:
        self.name = name
        self.energy_j: float | None = None
        self.first_j: float | None = None
        self._read_j, self._wraps_at_j = read_j, wraps_at_j
        self._last_j = self._last_s = self._began_s = 0.0
        self._events: list[str] = []
        self._lost = ""

    def start(self, now_s: float) -> None:
        """Begin a window; a counter that cannot be read stays None."""
        self._events, self._lost, self.energy_j, self.first_j = [], "", None, None
        self._began_s = self._last_s = now_s
        try:
            self._last_j = self.first_j = self._read_j()
        except ProbeError as error:
            self._lost = str(error)
            return
        self.energy_j = 0.0

    def sample(self, now_s: float) -> None:
        """Add what was used since the last sample. A wrap between two samples is undone, a second one is not seen."""
        if self.energy_j is None:
            return
        try:
            value = self._read_j()
        except ProbeError as error:
            # Not final: when the counter comes back, the difference covers the gap as well.
            self._lost = f"{error}, {self._last_s - self._began_s:.1f} s into the window"
            return
        self._lost = ""
        self.energy_j += self._gain(value, now_s - self._last_s)
        self._last_j, self._last_s = value, now_s

    def _gain(self, value_j: float, seconds: float) -> float:
        gain, most = value_j - self._last_j, MAX_POWER_W * max(seconds, 1e-3)
        if self._wraps_at_j and most > self._wraps_at_j:
            self._events.append(
                f"{self.name}: {seconds:.0f} s between two reads, a wrap may be unseen; read more often"
            )
        if gain >= 0:
            return gain
        if self._wraps_at_j and 0 <= gain + self._wraps_at_j <= most:
            return gain + self._wraps_at_j
        self._events.append(f"{self.name}: the counter went backwards (reset); what was used before it is missing")
        return value_j if value_j <= most else 0.0

    @property
    def degraded(self) -> bool:
        """Whether `energy_j` is only a lower bound."""
        return bool(self._lost or self._events)

    @property
    def notes(self) -> list[str]:
        """What happened, in sentences."""
        lost = [f"{self.name}: cannot be read ({self._lost}); energy is known only up to then"] if self._lost else []
        return list(dict.fromkeys(self._events)) + lost


class PowerTrack:
    """One power sensor where there is no counter: the trapezoid over the samples that the caller takes."""

    method = "sampled"
    first_j = None

    def __init__(self, name: str, read_w: Callable[[], float]) -> None:
        self.name = name
        self.energy_j: float | None = None
        self.num_samples = 0
        self._read_w = read_w
        self._last_w = self._last_s = self._began_s = 0.0
        self._lost = ""

    def start(self, now_s: float) -> None:
        """Begin a window."""
        self.energy_j, self._lost, self.num_samples, self._began_s = None, "", 0, now_s
        self._take(now_s, first=True)

    def sample(self, now_s: float) -> None:
        """Take one more sample; take them often, for what happens between two is not seen."""
        if self.energy_j is not None:
            self._take(now_s, first=False)

    def _take(self, now_s: float, *, first: bool) -> None:
        try:
            power_w = self._read_w()
        except ProbeError as error:
            self._lost = f"{error}, {self._last_s - self._began_s:.1f} s into the window"
            return
        self._lost = ""
        gain = 0.0 if first else (power_w + self._last_w) / 2 * (now_s - self._last_s)
        self.energy_j = (self.energy_j or 0.0) + gain
        self._last_w, self._last_s = power_w, now_s
        self.num_samples += 1

    @property
    def degraded(self) -> bool:
        """Whether the sensor was lost or looked at too rarely to tell."""
        return bool(self._lost) or self.num_samples < 10

    @property
    def notes(self) -> list[str]:
        """What a reader must know."""
        if self._lost:
            return [f"{self.name}: cannot be read ({self._lost})"]
        few = ["too few to trust"] if self.num_samples < 10 else []
        return [
            f"{self.name}: no energy counter, power sampled {self.num_samples} times" + "".join(", " + f for f in few)
        ]


Track = CounterTrack | PowerTrack
