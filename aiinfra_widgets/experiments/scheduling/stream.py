"""The stream of jobs that a run is about: drawn from the Spec and its seed, so that a run and its prediction have the same."""

from __future__ import annotations

import numpy as np

from .jobs import Job
from .spec import SchedulingSpec


def stream(spec: SchedulingSpec) -> list[Job]:
    """Return fresh jobs, numbered from 1 in the order in which they arrive; submission and work in seconds of the run.

    Arrivals are Poisson, run times log-normal with the variability asked for, demands powers of two (a wide job is half as
    frequent as one of half its width), users as 1, 1/2, 1/3 ... The rate makes the work that arrives the offered load.

    Raises:
        DataError: A trace file that cannot be read.
    """
    if spec.trace_file:
        from .traces import read_trace, scaled

        return scaled(read_trace(spec.trace_file), spec)
    rng = np.random.default_rng([spec.seed, 77])
    count = spec.jobs
    widths = 2 ** np.arange(int(np.log2(spec.most_demand)) + 1)
    share = 1.0 / widths
    nodes = rng.choice(widths, size=count, p=share / share.sum())
    spread = np.log1p(spec.work_scv) ** 0.5
    work = spec.mean_work_s * np.exp(spread * rng.standard_normal(count) - spread**2 / 2)
    steps = np.maximum(np.round(work / spec.step_s), 2)
    rate = spec.offered_load * spec.nodes / (spec.mean_work_s * float((widths * share).sum() / share.sum()))
    submit = np.cumsum(rng.exponential(1 / rate, count))
    submit -= submit[0]
    often = 1.0 / np.arange(1, spec.users + 1)
    users = rng.choice(spec.users, size=count, p=often / often.sum())
    priority = rng.integers(0, 10, count)
    elastic = rng.random(count) < spec.elastic_frac
    factor = 1 + (spec.estimate_factor - 1) * rng.random(count)
    jobs = []
    for i in range(count):
        width, work_s = int(nodes[i]), float(steps[i] * spec.step_s)
        due = float(submit[i]) + spec.deadline_factor * work_s if spec.deadline_factor else None
        wide = int(min(2 * width, spec.nodes)) if elastic[i] else width
        jobs.append(
            Job(
                i + 1, float(submit[i]), width, work_s, float(work_s * factor[i]), min_nodes=max(width // 2, 1) if elastic[i] else width,
                max_nodes=max(wide, width), priority=float(priority[i]), user=f"user {users[i] + 1}", deadline_s=due,
            )
        )  # fmt: skip
    return jobs
