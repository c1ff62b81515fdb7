"""What the machine did over time: integrals that cost the same for ten jobs and for a million."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ControlError
from .cluster import Cluster
from .hourly import HourlyTrace


@dataclass(slots=True)
class Meters:
    """Integrals over time, up to `now_s`.

    Attributes:
        now_s: Up to when; None before the first reading.
        slot_s: Accelerator-seconds that were there.
        busy_slot_s: Those that a job held.
        partly_free_slot_s: Those free on nodes with busy ones beside them.
        node_s: Node-seconds that were there.
        waiting_job_s: Jobs that waited, times how long: mean queue length is this over the time.
        decisions: How often the policy was asked.
        traces: Values over time (carbon intensity, price) by name.
        weighted: For each trace, busy and all accelerator-seconds times its value at that time.
    """

    now_s: float | None = None
    slot_s: float = 0.0
    busy_slot_s: float = 0.0
    partly_free_slot_s: float = 0.0
    node_s: float = 0.0
    waiting_job_s: float = 0.0
    decisions: int = 0
    traces: dict[str, HourlyTrace] = field(default_factory=dict)
    weighted: dict[str, tuple[float, float]] = field(default_factory=dict)

    def advance(self, now_s: float, cluster: Cluster, num_waiting: int) -> None:
        """Add the time since the last reading, during which nothing changed.

        Raises:
            ControlError: The clock went backwards.
        """
        if self.now_s is None:
            self.now_s = now_s
            return
        dt = now_s - self.now_s
        if dt > 0:
            for name, trace in self.traces.items():
                value_s = trace.integral(self.now_s, now_s)
                busy, every = self.weighted.get(name, (0.0, 0.0))
                self.weighted[name] = (busy + value_s * cluster.num_busy, every + value_s * cluster.num_slots)
            self.now_s = now_s
            self.slot_s += dt * cluster.num_slots
            self.busy_slot_s += dt * cluster.num_busy
            self.partly_free_slot_s += dt * cluster.num_partly_free
            self.node_s += dt * len(cluster.free)
            self.waiting_job_s += dt * num_waiting
        elif dt < 0:
            raise ControlError(
                f"the scheduler was told that it is {now_s} s, after {self.now_s} s; use one clock that never goes back"
            )

    @property
    def utilization_frac(self) -> float | None:
        """Share of the accelerators' time that a job held; None before any time has passed."""
        return self.busy_slot_s / self.slot_s if self.slot_s else None

    @property
    def fragmentation_frac(self) -> float | None:
        """Share of the free accelerators' time on nodes that were partly busy, out of reach for a gang of whole nodes."""
        free = self.slot_s - self.busy_slot_s
        return self.partly_free_slot_s / free if free > 0 else None
