"""What a schedule was worth: to its users, to its owner and to the grid."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import ModelInputError
from ...models import energy_cost_usd, energy_j, facility_energy_j, operational_gco2e, rented_cost_usd
from .jobs import Job, State
from .meters import Meters

#: Shorter run times count as that long in a slowdown, or a job of a second that waits a minute would rule the mean.
BOUND_S = 10.0


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a node draws and costs. All *assumed*, unless they come from a catalog row or a calibration.

    Attributes:
        idle_w, busy_w: Power of a node with no, and with all accelerators held.
        price_usd_per_node_hour: Rent, paid for every node that is there, held or not.
        energy_usd_per_kwh: Price of electricity where the trace `price` gives none.
        carbon_intensity_gco2e_per_kwh: Of the grid where the trace `carbon` gives none.
        pue: Power usage effectiveness.
    """

    idle_w: float = 0.0
    busy_w: float = 0.0
    price_usd_per_node_hour: float = 0.0
    energy_usd_per_kwh: float = 0.0
    carbon_intensity_gco2e_per_kwh: float = 0.0
    pue: float = 1.0

    def __post_init__(self) -> None:
        wrong = [f"{n} is {getattr(self, n)}" for n in self.__slots__ if not 0 <= getattr(self, n) < math.inf]
        if wrong or self.busy_w < self.idle_w or self.pue < 1:
            raise ModelInputError(
                f"a tariff needs numbers from 0, busy_w >= idle_w and pue >= 1; {', '.join(wrong)} idle_w is "
                f"{self.idle_w}, busy_w {self.busy_w}, pue {self.pue}"
            )


class Tally:
    """Collects ended jobs: give `note` as `on_end`. It keeps numbers, not jobs: about 40 bytes for each."""

    def __init__(self, bound_s: float = BOUND_S) -> None:
        self._bound_s = bound_s
        self.first_submit_s, self.last_end_s = math.inf, -math.inf
        self.wait_s, self.slowdown, self.response_s = array("d"), array("d"), array("d")
        self.num_late = 0
        self.num_by_state: dict[State, int] = {}
        self._of_user: dict[str, tuple[float, int]] = {}

    def note(self, job: Job) -> None:
        """Count one job that has ended; only those that are done have a wait and a slowdown."""
        self.num_by_state[job.state] = self.num_by_state.get(job.state, 0) + 1
        self.first_submit_s = min(self.first_submit_s, job.submit_s)
        if job.end_s is not None and job.start_s is not None:
            self.last_end_s = max(self.last_end_s, job.end_s)
        if job.state is not State.DONE or job.end_s is None:
            return
        response_s = job.end_s - job.submit_s
        # Its node-seconds on the nodes that it demanded: what it would take alone, overheads included.
        slowdown = max(1.0, response_s / max(job.held_node_s / job.nodes, self._bound_s))
        self.wait_s.append(max(0.0, response_s - job.held_s))
        self.response_s.append(response_s)
        self.slowdown.append(slowdown)
        self.num_late += job.deadline_s is not None and job.end_s > job.deadline_s
        total, number = self._of_user.get(job.user, (0.0, 0))
        self._of_user[job.user] = (total + slowdown, number + 1)

    @property
    def slowdown_of_user(self) -> dict[str, float]:
        """Mean bounded slowdown of each user's jobs."""
        return {user: total / number for user, (total, number) in self._of_user.items()}


def tally(jobs: Iterable[Job], bound_s: float = BOUND_S) -> Tally:
    """Return the tally of jobs that have ended; see BOUND_S."""
    found = Tally(bound_s)
    for job in jobs:
        found.note(job)
    return found


def metrics(found: Tally, meters: Meters, tariff: Tariff | None = None) -> dict[str, float | None]:
    """Return the figures of a schedule by the names of the vocabulary; None is "not known".

    Args:
        found: The jobs that ended.
        meters: Of the scheduler.
        tariff: For energy, cost and carbon, which are not known without one.

    Waits and slowdowns are those of jobs that are done. A wait is all the time in which a job held no node, also after a
    preemption. Slowdown is bounded: response over run time, both of at least 10 s. Fairness is Jain's index of the users'
    mean slowdowns: 1 when all are slowed down alike, 1/n when one user has it all.
    """
    ended = found.last_end_s > -math.inf
    figures: dict[str, float | None] = {
        "makespan_s": found.last_end_s - found.first_submit_s if ended else None,
        "mean_wait_s": mean(found.wait_s),
        "p95_wait_s": quantile(found.wait_s, 0.95),
        "mean_response_s": mean(found.response_s),
        "mean_slowdown": mean(found.slowdown),
        "p95_slowdown": quantile(found.slowdown, 0.95),
        "utilization_frac": meters.utilization_frac,
        "fairness_frac": jain(list(found.slowdown_of_user.values())),
        "fragmentation_frac": meters.fragmentation_frac,
        "num_ended": float(sum(found.num_by_state.values())),
        "num_done": float(found.num_by_state.get(State.DONE, 0)),
        "num_late": float(found.num_late),
        "energy_j": None,
        "cost_usd": None,
        "operational_gco2e": None,
    }
    return figures if tariff is None or not meters.node_s else figures | bill(meters, tariff)


def bill(meters: Meters, tariff: Tariff) -> dict[str, float | None]:
    """Return energy of the nodes, cost and emissions: of all nodes, for as long as the meters ran."""
    held_s = min(meters.busy_slot_s / meters.slot_s, 1.0) * meters.node_s  # of whole nodes
    it_j = energy_j(tariff.busy_w, held_s) + energy_j(tariff.idle_w, meters.node_s - held_s)
    intensity = _mean_rate(meters, "carbon", tariff) or tariff.carbon_intensity_gco2e_per_kwh
    per_kwh = _mean_rate(meters, "price", tariff) or tariff.energy_usd_per_kwh
    priced = per_kwh > 0 or tariff.price_usd_per_node_hour > 0
    cost_usd = rented_cost_usd(1, meters.node_s, tariff.price_usd_per_node_hour)
    return {
        "energy_j": it_j if tariff.busy_w else None,
        "cost_usd": float(cost_usd + energy_cost_usd(it_j, per_kwh, tariff.pue)) if priced else None,
        "operational_gco2e": operational_gco2e(facility_energy_j(it_j, tariff.pue), intensity) if intensity else None,
    }


def _mean_rate(meters: Meters, trace: str, tariff: Tariff) -> float:
    """Return the mean of a trace over the machine's time, each moment weighted with its power; 0 without a trace."""
    if trace not in meters.weighted:
        return 0.0
    busy, every = meters.weighted[trace]
    weight = meters.busy_slot_s * tariff.busy_w + (meters.slot_s - meters.busy_slot_s) * tariff.idle_w
    return (busy * tariff.busy_w + (every - busy) * tariff.idle_w) / weight if weight else 0.0


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None of nothing."""
    return math.fsum(values) / len(values) if len(values) else None


def quantile(values: Sequence[float], part_frac: float) -> float | None:
    """Return a quantile, between two values by straight line, or None of nothing."""
    if not len(values):
        return None
    ordered = sorted(values)
    low, share = divmod(part_frac * (len(ordered) - 1), 1)
    above = ordered[min(int(low) + 1, len(ordered) - 1)]
    return ordered[int(low)] + share * (above - ordered[int(low)])


def jain(values: Sequence[float]) -> float | None:
    """Return Jain's fairness index, 1/n to 1, or None of nothing. Source: Jain, Chiu, Hawe 1984."""
    squares = math.fsum(v * v for v in values)
    total = math.fsum(values)
    return total * total / (len(values) * squares) if squares else None
