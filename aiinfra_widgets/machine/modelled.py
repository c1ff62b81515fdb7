"""Power without a counter: a labelled model with its band, never a number that looks measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from ..errors import ModelInputError, UnknownNameError
from .catalog import cpu_watts, keys
from .power import Clock, EnergyReading

#: Error of such models against a wall meter, over hundreds of runs (arXiv 2509.22092).
RELATIVE_ERROR = 0.4


class ModelledPower:
    """Processor power by the linear model: P = n (idle + utilisation (busy - idle)), for n virtual CPUs.

    The virtual CPUs that this process may use are charged, idle ones too: they are held. Memory beyond the share that
    the catalog's whole servers had, network and conversion losses are not in it.

    Args:
        vcpus: Hardware threads held.
        idle_w, busy_w: Per virtual CPU.
        low, high: The band, as factors of the estimate.
        source: Where the watts come from, for the note.
        busy_s: Cumulative busy seconds of those CPUs.
        clock: Monotonic seconds.

    Source: the linear model of Cloud Carbon Footprint and Fan, Weber, Barroso 2007.
    """

    name = "model"

    def __init__(
        self,
        vcpus: float,
        idle_w: float,
        busy_w: float,
        source: str,
        busy_s: Callable[[], float],
        band: tuple[float, float] = (1 - RELATIVE_ERROR, 1 + RELATIVE_ERROR),
        clock: Clock = time.monotonic,
    ) -> None:
        if not (vcpus > 0 and 0 <= idle_w <= busy_w):
            raise ModelInputError(
                f"vcpus is {vcpus}, idle {idle_w} W, busy {busy_w} W; needed: vcpus > 0, idle <= busy"
            )
        self.vcpus, self.idle_w, self.busy_w = vcpus, idle_w, busy_w
        self._source, self._busy_s, self._band, self._clock = source, busy_s, band, clock
        self._began_s = self._clock()
        self._began_busy_s = 0.0

    @classmethod
    def here(cls, clock: Clock = time.monotonic) -> ModelledPower:
        """Return the model of this host: its processor looked up in the catalog, or the catalog's whole range."""
        from .devices import busy_seconds, cpu_info, usable_cpus

        cpu, (cpus, quota) = cpu_info(), usable_cpus()
        return cls.of(cpu.architecture, min(float(len(cpus)), quota), lambda: busy_seconds(cpus), clock, cpu.model)

    @classmethod
    def of(
        cls,
        architecture: str,
        vcpus: float,
        busy_s: Callable[[], float],
        clock: Clock = time.monotonic,
        model: str = "",
    ) -> ModelledPower:
        """Return the model of an architecture; one without a row gets the catalog's median and its whole range."""
        try:
            watts = cpu_watts(architecture)
        except UnknownNameError:
            rows = [cpu_watts(k) for k in keys("cpu_power")]
            idle_w, busy_w = median(r.idle_w for r in rows), median(r.busy_w for r in rows)
            band = (
                min(min(r.idle_w / idle_w, r.busy_w / busy_w) for r in rows),
                max(max(r.idle_w / idle_w, r.busy_w / busy_w) for r in rows),
            )
            what = architecture or model or "this processor"
            source = f"no catalog row for {what}: median of {len(rows)} architectures, the band is their whole range"
            return cls(vcpus, idle_w, busy_w, source, busy_s, band, clock)
        return cls(vcpus, watts.idle_w, watts.busy_w, f"catalog row {architecture}, +-40 %", busy_s, clock=clock)

    def available(self) -> str | None:
        """Return None: a model is always there."""
        return None

    def power_w(self, utilization_frac: float) -> float:
        """Return the modelled power at a utilisation.

        Raises:
            ModelInputError: Outside 0 to 1.
        """
        if not 0 <= utilization_frac <= 1:
            raise ModelInputError(f"utilization_frac is {utilization_frac}; allowed: 0 to 1")
        return self.vcpus * (self.idle_w + utilization_frac * (self.busy_w - self.idle_w))

    def start(self) -> None:
        """Begin a window."""
        self._began_s, self._began_busy_s = self._clock(), self._busy_s()

    def peek(self) -> EnergyReading:
        """Return the estimate since the start."""
        duration_s = self._clock() - self._began_s
        held_s = self.vcpus * duration_s
        busy_s = min(max(self._busy_s() - self._began_busy_s, 0.0), held_s)
        energy_j = held_s * self.idle_w + busy_s * (self.busy_w - self.idle_w)
        load = f"{busy_s / held_s:.0%} busy" if held_s > 0 else "no time passed"
        note = (
            f"modelled: {self.vcpus:g} vCPU x {self.idle_w:.2f} to {self.busy_w:.2f} W, {load} ({self._source});"
            " without network and conversion losses"
        )
        return EnergyReading(
            duration_s=duration_s,
            gpu_energy_j=None,
            method="estimated",
            resolution_s=0.01,
            note=note,
            cpu_energy_j=energy_j,
            low_j=energy_j * self._band[0],
            high_j=energy_j * self._band[1],
            methods={"cpu": "estimated"},
        )

    stop = peek
