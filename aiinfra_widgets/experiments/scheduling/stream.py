"""The stream of jobs that a run is about: drawn from the Spec and its seed, so that a run and its prediction have the same."""

from __future__ import annotations

from itertools import islice

import numpy as np

from ...errors import DataError
from .jobs import Job
from .spec import SchedulingSpec
from .traces import read_trace


def stream(spec: SchedulingSpec) -> list[Job]:
    """Return fresh jobs, numbered from 1 in the order in which they arrive; submission and work in seconds of the run.

    Arrivals are Poisson, run times log-normal with the variability asked for, demands powers of two (a wide job is half as
    frequent as one of half its width), users as 1, 1/2, 1/3 ... The gaps are stretched so that the work drawn is the offered load.

    Raises:
        DataError: A trace file that cannot be read, or has no job.
    """
    if spec.trace_file:
        return _from_trace(spec)
    rng = np.random.default_rng([spec.seed, 77])
    count = spec.jobs
    widths = 2 ** np.arange(int(np.log2(spec.most_demand)) + 1)
    share = 1.0 / widths
    nodes = rng.choice(widths, size=count, p=share / share.sum())
    spread = np.log1p(spec.work_scv) ** 0.5
    work = spec.mean_work_s * np.exp(spread * rng.standard_normal(count) - spread**2 / 2)
    steps = np.maximum(np.round(work / spec.step_s), 2)
    submit = np.cumsum(rng.exponential(1.0, count))
    submit -= submit[0]
    if count > 1:  # chance decides the order and the gaps, not how much work there is
        total_s = float((steps * nodes).sum()) * spec.step_s / (spec.offered_load * spec.nodes)
        submit *= total_s * (count - 1) / count / submit[-1]
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


def _from_trace(spec: SchedulingSpec) -> list[Job]:
    """Return the first jobs of a trace, on a clock that runs faster; jobs without work or a demand are left out."""
    found = list(islice(read_trace(spec.trace_file, unusable="skip"), spec.jobs))
    if not found:
        raise DataError(
            f"{spec.trace_file}: no job in it has work and a demand; give a trace with at least one that has"
        )
    begun, fast = found[0].submit_s, spec.trace_speedup
    jobs, numbers = [], {}
    users: dict[str, int] = {}
    for i, old in enumerate(found, 1):
        numbers[old.id] = i
        user = users.setdefault(old.user, len(users) + 1)
        work_s = max(round(old.work_s / fast / spec.step_s), 1) * spec.step_s
        due_s = None if old.deadline_s is None else (old.deadline_s - begun) / fast
        after = tuple(numbers[other] for other in old.depends_on if other in numbers)
        jobs.append(
            Job(
                i, (old.submit_s - begun) / fast, old.nodes, work_s, max(old.estimate_s / fast, spec.step_s), priority=old.priority,
                user=f"user {user}", deadline_s=due_s, depends_on=after,
            )
        )  # fmt: skip
    return jobs
