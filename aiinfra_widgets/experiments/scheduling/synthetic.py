"""A seeded stream of jobs with the shape of published traces, scaled to a load that the machine is offered."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from ...errors import ModelInputError
from .jobs import Job


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Poisson arrivals, log-normal run times, demands that are powers of two.

    Each doubling of the demand is `wider_ratio` times as frequent: with 0.5 most jobs want one accelerator, and every
    size of job asks for the same share of the machine's time.

    Args:
        num_jobs: How many.
        num_slots: Accelerators of the machine.
        load: Work offered per second over what the machine can do per second; above 1 the queue grows for ever.
        slots_per_node: Accelerators of a node; a wider job takes whole nodes.
        max_demand: Accelerators of the widest job; rounded down to a power of two.
        wider_ratio: See above.
        median_s, sigma, max_s: Of the run times; longer ones are cut at `max_s`.
        overestimate: Users estimate between 1 and that many times the run time; 1 for exact.
        num_users: They submit equally often.
        seed: The same gives the same jobs.

    Valid when: a stationary stream is wanted: no day and night, no bursts, no failures.
    Source: log-normal run times and power-of-two demands: Lublin and Feitelson 2003; many narrow jobs, while wide ones use
        most of the time: Jeon et al. 2019 (Philly), Hu et al. 2021 (Helios).
    """

    num_jobs: int
    num_slots: int
    load: float = 0.8
    slots_per_node: int = 8
    max_demand: int = 1024
    wider_ratio: float = 0.5
    median_s: float = 300.0
    sigma: float = 1.5
    max_s: float = 86400.0
    overestimate: float = 1.0
    num_users: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "num_jobs": 1,
            "num_slots": 1,
            "slots_per_node": 1,
            "max_demand": 1,
            "num_users": 1,
            "overestimate": 1,
        }
        wrong = [f"{n} must be >= {low}, got {getattr(self, n)}" for n, low in ranges.items() if getattr(self, n) < low]
        positive = ("load", "wider_ratio", "median_s", "sigma", "max_s")
        wrong += [
            f"{n} must be > 0 and finite, got {getattr(self, n)}"
            for n in positive
            if not 0 < getattr(self, n) < math.inf
        ]
        if self.max_demand > self.num_slots:
            wrong.append(f"max_demand is {self.max_demand}, the machine has {self.num_slots} slots; ask for fewer")
        if wrong:
            raise ModelInputError("; ".join(wrong))

    @property
    def demands(self) -> list[int]:
        """Accelerators that a job may want."""
        return [2**k for k in range(int(math.log2(self.max_demand)) + 1)]

    @property
    def mean_demand(self) -> float:
        """Mean accelerators of a job."""
        weights = [self.wider_ratio**k for k in range(len(self.demands))]
        return sum(w * d for w, d in zip(weights, self.demands, strict=True)) / sum(weights)

    @property
    def mean_run_s(self) -> float:
        """Mean run time, of the log-normal as it is cut."""
        mu, sigma = math.log(self.median_s), self.sigma
        z = (math.log(self.max_s) - mu) / sigma
        return math.exp(mu + sigma**2 / 2) * _normal(z - sigma) + self.max_s * (1 - _normal(z))

    @property
    def arrival_rate_per_s(self) -> float:
        """Jobs per second that make the load."""
        return self.load * self.num_slots / (self.mean_demand * self.mean_run_s)

    def __iter__(self) -> Iterator[Job]:
        """Yield the jobs, by submission."""
        chance = random.Random(self.seed)  # noqa: S311 - a simulation, not a secret
        rate_per_s, mu, sigma = self.arrival_rate_per_s, math.log(self.median_s), self.sigma
        shapes = [node_shape(demand, self.slots_per_node) for demand in self.demands]
        weights = list(accumulate(self.wider_ratio**k for k in range(len(shapes))))
        users = [f"user{i}" for i in range(self.num_users)]
        at_s = 0.0
        for number in range(self.num_jobs):
            at_s += chance.expovariate(rate_per_s)
            nodes, slots = chance.choices(shapes, cum_weights=weights)[0]
            work_s = min(self.max_s, math.exp(chance.gauss(mu, sigma)))
            estimate_s = work_s if self.overestimate == 1 else work_s * chance.uniform(1.0, self.overestimate)
            yield Job(number, at_s, nodes, work_s, estimate_s, slots, user=users[int(chance.random() * self.num_users)])


def node_shape(demand: int, slots_per_node: int) -> tuple[int, int]:
    """Return (nodes, slots on each) for a number of accelerators: as few nodes as can hold them, evenly; rounded up."""
    nodes = -(-demand // slots_per_node)
    return nodes, -(-demand // nodes)


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))
