"""Processor energy from the kernel's powercap files (RAPL: Intel since Sandy Bridge, AMD since Zen).

Zones overlap: psys holds the packages, a package its cores and graphics, and the memory-mapped interface shows the same
packages a second time. Only packages and memory are counted, each once. Since 2020 the files are for root only
(CVE-2020-8694); the remedy is a group or a daemon of the administrator's, never opening them to everyone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import ProbeError
from .counters import CounterTrack
from .power import Clock, EnergyReading, Method

#: Where the kernel shows energy counters; a container may mount them elsewhere and say so.
POWERCAP = Path(os.environ.get("AIINFRA_POWERCAP", "/sys/class/powercap"))
#: The running average's update period that Intel documents; AMD's is the same in practice.
UPDATE_S = 1e-3
#: Two counters that never differ by more than this are one counter shown twice.
_SAME_J = 0.05


class RaplEnergyProbe:
    """Packages and memory of this host, by counter.

    Args:
        root: Where the zones are, injectable for tests.
        clock: Monotonic seconds.
    """

    name = "rapl"

    def __init__(self, root: Path = POWERCAP, clock: Clock = time.monotonic) -> None:
        self._clock, self._began_s = clock, 0.0
        self._zones = _zones(root)
        self._root = root
        self._tracks: dict[str, CounterTrack] = {}

    def available(self) -> str | None:
        """Return None when at least one package can be read now, else why not and what would help."""
        packages = [zone for name, zone in self._zones.items() if not name.endswith("/dram")]
        if not packages:
            return f"no package zone under {self._root}; virtual machines and most containers have none"
        for zone in packages:
            try:
                _joules(zone)()
            except ProbeError as error:
                why = str(error)
            else:
                return None
        return f"{why}; ask the administrator for a group that may read energy_uj, or for an energy daemon"

    def start(self) -> None:
        """Begin a window."""
        self._began_s = self._clock()
        self._tracks = {name: CounterTrack(name, _joules(z), _range_j(z)) for name, z in self._zones.items()}
        for track in self._tracks.values():
            track.start(self._began_s)

    def peek(self) -> EnergyReading:
        """Return the reading since the start; at most some milliseconds, so it may be called at every step."""
        now_s = self._clock()
        for track in self._tracks.values():
            track.sample(now_s)
        packages = [t for n, t in self._tracks.items() if not n.endswith("/dram")]
        counted, notes = _without_mirrors(packages)
        memory = [t for n, t in self._tracks.items() if n.endswith("/dram")]
        notes += [note for t in (*counted, *memory) for note in t.notes]
        blind = [t for t in counted if t.energy_j is None]
        worse = bool(blind) or any(t.degraded for t in (*counted, *memory))
        if worse:
            notes.append("the energy is a lower bound")
        method: Method = "estimated" if worse else "counter"
        return EnergyReading(
            duration_s=now_s - self._began_s,
            gpu_energy_j=None,
            method=method,
            resolution_s=UPDATE_S,
            note="; ".join(notes),
            cpu_energy_j=_sum(counted),
            dram_energy_j=_sum(memory),
            methods={"cpu": method},
        )

    stop = peek


def _sum(tracks: list[CounterTrack]) -> float | None:
    known = [t.energy_j for t in tracks if t.energy_j is not None]
    return sum(known) if known else None


def _zones(root: Path) -> dict[str, Path]:
    """Return the zones to count by a name that is the same in both interfaces ("package-0", "package-0/dram")."""
    found: dict[str, Path] = {}
    # Sorted so that intel-rapl-mmio comes before intel-rapl: and the latter, which is complete, replaces it.
    for zone in sorted(root.glob("*:*"), key=lambda p: ("mmio" not in p.name, p.name)):
        name = _name(zone)
        if name == "dram":
            found[f"{_name(root / zone.name.rpartition(':')[0])}/dram"] = zone
        elif name.startswith("package"):
            found[name] = zone
    return found


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _joules(zone: Path) -> Callable[[], float]:
    def read() -> float:
        try:
            return int((zone / "energy_uj").read_text()) / 1e6
        except PermissionError as error:
            raise ProbeError(f"no permission to read {zone.name}/energy_uj") from error
        except (OSError, ValueError) as error:
            raise ProbeError(f"{zone.name}/energy_uj cannot be read ({type(error).__name__})") from error

    return read


def _range_j(zone: Path) -> float | None:
    try:
        return int((zone / "max_energy_range_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return None


def _without_mirrors(packages: list[CounterTrack]) -> tuple[list[CounterTrack], list[str]]:
    """Drop a zone that only mirrors another: some parts of several dies show the socket's counter once for each die.

    Counters of two real packages have run apart since boot, so equal at both ends of a window means the same one.
    """
    kept: list[CounterTrack] = []
    notes = []
    for track in packages:
        twin = next((k for k in kept if _same(k, track)), None)
        if twin is None:
            kept.append(track)
        else:
            notes.append(f"{track.name} mirrors {twin.name} and is counted once")
    return kept, notes


def _same(a: CounterTrack, b: CounterTrack) -> bool:
    if a.first_j is None or b.first_j is None or a.energy_j is None or b.energy_j is None or not a.first_j:
        return False
    return abs(a.first_j - b.first_j) < _SAME_J and abs(a.energy_j - b.energy_j) < max(_SAME_J, 1e-3 * a.energy_j)
