"""The energy meter: what every probe promises, and which one to use here.

Three layers, best first: the GPUs' own counters (`NvmlEnergyProbe`), the processor's (`RaplEnergyProbe`), and a
labelled model (`ModelledPower`) where no counter can be read, as in most virtual machines and for most students. A
reading always says which: None is "not measured", 0.0 a measured zero, a model comes with its band.

Energy belongs to a host, not to a rank: exactly one rank of each host measures (`best_probe(leader=True)`), the others
hold a probe that says so; `shares` divides what was measured among them.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..errors import DataError, ModelInputError
from ..quantities import Value

Method = Literal["counter", "sampled", "estimated", "replayed"]
#: Worst first: a sum is only as good as its worst part.
_RANK: tuple[Method, ...] = ("estimated", "sampled", "replayed", "counter")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Energy of one window on one host.

    Attributes:
        duration_s: By a monotonic clock.
        gpu_energy_j: By physical index of the device; None where not measured.
        method: The worst of the parts: counter, sampled (power over time), estimated (a model, or a lower bound after
            a counter was lost), replayed.
        resolution_s: Update period of the slowest counter, or None.
        note: What a reader must see beside the number.
        cpu_energy_j: Processor packages of this host; for a model the share of its virtual CPUs.
        dram_energy_j: Memory, where it has a counter of its own.
        low_j, high_j: Band of the total, where it is a model.
        methods: The method of each part: {"gpu": "counter", "cpu": "estimated"}.
    """

    duration_s: float
    gpu_energy_j: Mapping[int, float] | None
    method: Method
    resolution_s: float | None
    note: str = ""
    cpu_energy_j: float | None = None
    dram_energy_j: float | None = None
    low_j: float | None = None
    high_j: float | None = None
    methods: Mapping[str, Method] = field(default_factory=dict)

    @property
    def energy_j(self) -> float | None:
        """Sum of the parts that are known, or None when none is."""
        parts = [*(self.gpu_energy_j or {}).values(), self.cpu_energy_j, self.dram_energy_j]
        known = [p for p in parts if p is not None]
        return sum(known) if known else None

    @property
    def power_avg_w(self) -> float | None:
        """Mean power over the window, or None."""
        return None if self.energy_j is None or self.duration_s <= 0 else self.energy_j / self.duration_s

    def value(self, quantity: str = "energy_j") -> Value:
        """Return the total as a Value of the vocabulary (`energy_j` or `power_avg_w`), with its provenance."""
        per = {"energy_j": 1.0, "power_avg_w": 1 / self.duration_s if self.duration_s > 0 else None}
        if quantity not in per:
            raise ModelInputError(f"a reading has no {quantity!r}; allowed: {', '.join(per)}")
        factor = per[quantity]

        def scaled(joule: float | None) -> float | None:
            return None if joule is None or factor is None else joule * factor

        how = "; ".join(
            [", ".join(f"{k} {m}" for k, m in self.methods.items()) or self.method, *filter(None, [self.note])]
        )
        return Value(
            quantity,
            scaled(self.energy_j),
            scaled(self.low_j),
            scaled(self.high_j),
            "modelled" if self.method == "estimated" else "measured",
            how,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, the total among them."""
        data = {**asdict(self), "methods": dict(self.methods), "energy_j": self.energy_j}
        if self.gpu_energy_j is not None:
            data["gpu_energy_j"] = {str(k): v for k, v in self.gpu_energy_j.items()}
        return data


class EnergyProbe(Protocol):
    """What measures energy. `peek` may be called at any time between start and stop, and also is the sampling."""

    name: str

    def available(self) -> str | None:
        """Return None when it can measure here, else why not and what would help."""

    def start(self) -> None:
        """Begin a window."""

    def peek(self) -> EnergyReading:
        """Return the reading since the start, and go on. Call it every second or so in a long window."""

    def stop(self) -> EnergyReading:
        """Return the reading since the start."""


class NullEnergyProbe:
    """Measures nothing and says why."""

    name = "none"

    def __init__(self, why: str = "energy is not measured here", clock: Clock = time.monotonic) -> None:
        self._why, self._clock, self._began_s = why, clock, clock()

    def available(self) -> str | None:
        """Return why nothing is measured."""
        return self._why

    def start(self) -> None:
        """Begin a window."""
        self._began_s = self._clock()

    def peek(self) -> EnergyReading:
        """Return a reading that knows its duration only."""
        return EnergyReading(self._clock() - self._began_s, None, "estimated", None, self._why)

    stop = peek


class ReplayEnergyProbe:
    """Plays a recorded trace back against the clock: a test double, and a lesson without hardware.

    Args:
        trace: (time in s, cumulative J by part) in order of time; parts are "cpu", "dram" or "gpu<index>".
        clock: Monotonic seconds.
    """

    name = "replay"

    def __init__(self, trace: Sequence[tuple[float, Mapping[str, float]]], clock: Clock = time.monotonic) -> None:
        times = [t for t, _ in trace]
        if len(trace) < 2 or times != sorted(times) or any(set(e) != set(trace[0][1]) for _, e in trace):
            raise DataError("an energy trace needs two points or more, in order of time, each with the same parts")
        self._trace, self._times, self._clock, self._began_s = trace, times, clock, clock()

    @classmethod
    def from_file(cls, path: Path, clock: Clock = time.monotonic) -> ReplayEnergyProbe:
        """Read a trace of JSON lines: {"t_s": 0.1, "energy_j": {"gpu0": 12.5, "cpu": 3.0}}.

        Raises:
            DataError: With the line that cannot be read.
        """
        trace = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                point = json.loads(line)
                trace.append((float(point["t_s"]), {str(k): float(v) for k, v in point["energy_j"].items()}))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{path.name}:{number}: no point of an energy trace ({error!r})") from error
        return cls(trace, clock)

    def available(self) -> str | None:
        """Return None: a trace is always there."""
        return None

    def start(self) -> None:
        """Begin at the first point of the trace."""
        self._began_s = self._clock()

    def peek(self) -> EnergyReading:
        """Return the energy between the trace's start and now, interpolated."""
        elapsed = self._clock() - self._began_s
        used = {part: self._at(elapsed, part) - self._trace[0][1][part] for part in self._trace[0][1]}
        gpus = {int(p.removeprefix("gpu")): j for p, j in used.items() if p.startswith("gpu")}
        span = self._times[-1] - self._times[0]
        note = f"recorded trace of {span:g} s" + (", which has ended" if elapsed > span else "")
        return EnergyReading(
            duration_s=elapsed,
            gpu_energy_j=gpus or None,
            method="replayed",
            resolution_s=span / (len(self._times) - 1),
            note=note,
            cpu_energy_j=used.get("cpu"),
            dram_energy_j=used.get("dram"),
            methods={part.rstrip("0123456789"): "replayed" for part in used},
        )

    stop = peek

    def _at(self, elapsed_s: float, part: str) -> float:
        when = min(max(self._times[0] + elapsed_s, self._times[0]), self._times[-1])
        i = min(bisect_right(self._times, when), len(self._times) - 1)
        (t0, a), (t1, b) = self._trace[i - 1], self._trace[i]
        return a[part] if t1 == t0 else a[part] + (b[part] - a[part]) * (when - t0) / (t1 - t0)


class NodeEnergyProbe:
    """Several probes of one host as one: GPUs by one, processor by another. Parts must not overlap."""

    def __init__(self, parts: Sequence[EnergyProbe]) -> None:
        if not parts:
            raise ModelInputError("a node's meter needs one probe at least; use NullEnergyProbe to measure nothing")
        self._parts = tuple(parts)
        self.name = "+".join(p.name for p in parts)

    def available(self) -> str | None:
        """Return None when one part is available, else all the reasons."""
        reasons = [p.available() for p in self._parts]
        return None if None in reasons else "; ".join(r for r in reasons if r)

    def start(self) -> None:
        """Begin a window on every part."""
        for part in self._parts:
            part.start()

    def peek(self) -> EnergyReading:
        """Return the joined reading since the start."""
        return _join([p.peek() for p in self._parts])

    def stop(self) -> EnergyReading:
        """Return the joined reading and end the window."""
        return _join([p.stop() for p in self._parts])


def _join(readings: Sequence[EnergyReading]) -> EnergyReading:
    def total(name: str) -> float | None:
        known = [v for r in readings if (v := getattr(r, name)) is not None]
        return sum(known) if known else None

    gpus = {i: j for r in readings if r.gpu_energy_j is not None for i, j in r.gpu_energy_j.items()}
    seen = [r for r in readings if r.energy_j is not None] or list(readings)
    banded = any(r.low_j is not None for r in seen)
    resolutions = [r.resolution_s for r in seen if r.resolution_s is not None]
    return EnergyReading(
        duration_s=max(r.duration_s for r in readings),
        gpu_energy_j=gpus if any(r.gpu_energy_j is not None for r in readings) else None,
        method=min((r.method for r in seen), key=_RANK.index),
        resolution_s=max(resolutions) if resolutions else None,
        note="; ".join(r.note for r in readings if r.note),
        cpu_energy_j=total("cpu_energy_j"),
        dram_energy_j=total("dram_energy_j"),
        low_j=sum(_or(r.low_j, r.energy_j) for r in seen) if banded else None,
        high_j=sum(_or(r.high_j, r.energy_j) for r in seen) if banded else None,
        methods={part: method for r in readings for part, method in r.methods.items()},
    )


def _or(first: float | None, second: float | None) -> float:
    return first if first is not None else second or 0.0


def shares(energy_j: float, weights: Sequence[float]) -> list[float]:
    """Return a host's energy divided among its ranks by weight (processor seconds, device seconds); the sum is kept.

    Raises:
        ModelInputError: No rank, or a negative weight.
    """
    if not weights or min(weights) < 0:
        raise ModelInputError(f"weights are {list(weights)}; give one number of at least 0 for each rank of the host")
    total = sum(weights)
    return [energy_j * w / total if total > 0 else energy_j / len(weights) for w in weights]


def best_probe(
    *,
    leader: bool = True,
    gpus: Sequence[int] | None = None,
    powercap: Path | None = None,
    clock: Clock = time.monotonic,
) -> EnergyProbe:
    """Return the best meter for this host; it always answers, at worst with a labelled model.

    Args:
        leader: Whether this rank measures for its host. All the others get a probe that measures nothing and says so,
            or N ranks would count the same joules N times.
        gpus: Physical indices of the devices that the job uses, () for none, None for all of the host.
        powercap: Another root than /sys/class/powercap.
        clock: Monotonic seconds.
    """
    from .modelled import ModelledPower
    from .nvml_energy import NvmlEnergyProbe
    from .rapl import POWERCAP, RaplEnergyProbe

    if not leader:
        return NullEnergyProbe("counted once per host, by its leader rank", clock)
    parts: list[EnergyProbe] = []
    if gpus is None or len(gpus):
        nvml = NvmlEnergyProbe(gpus, clock=clock)
        parts += [nvml] if nvml.available() is None else []
    rapl = RaplEnergyProbe(powercap or POWERCAP, clock=clock)
    parts.append(rapl if rapl.available() is None else ModelledPower.here(clock=clock))
    return parts[0] if len(parts) == 1 else NodeEnergyProbe(parts)
