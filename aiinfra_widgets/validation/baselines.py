"""Two rules that know nothing of a plan: a constant share of the peak for each accelerator, or for each source.

Both are computed from the very rows that they then predict, which flatters them; a model that does not beat them has
learnt nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.transformer.work import step_flop
from .fit import source_family
from .metrics import LAYER_METRICS
from .training_rows import Job

CONSTANT_HFU = 0.45


@dataclass(frozen=True, slots=True)
class Baseline:
    """A rule, and its mean absolute percentage error on iteration time.

    Attributes:
        name: What it holds constant.
        fitted: How many constants it took from the rows.
        rows: Rows that it predicts (whole steps, not single layers).
        mape: In percent.
        held_out_mape: The same when a row's source gives no constant; None where the rule has one constant per source.
    """

    name: str
    fitted: int
    rows: int
    mape: float
    held_out_mape: float | None


def baselines(jobs: Sequence[Job]) -> list[Baseline]:
    """Return the three rules on these jobs."""
    steps = [j for j in jobs if j.row["metric"] not in LAYER_METRICS]
    if not steps:
        return []
    return [
        _constant(steps),
        _rule("constant HFU per accelerator", steps, lambda j: j.row["accelerator"], held_out=True),
        _rule("constant HFU per source", steps, lambda j: source_family(j.row["source"]), held_out=False),
    ]


def ideal_time_s(job: Job) -> float:
    """Return the time of a step at the full peak, with what is computed again, in seconds."""
    _, flop = step_flop(job.model, job.plan)
    return float(flop / (job.plan.world_size * job.cluster.accelerator.peak_flops))


def _constant(jobs: Sequence[Job]) -> Baseline:
    errors = [ideal_time_s(j) / CONSTANT_HFU / j.time_s - 1 for j in jobs]
    return Baseline(f"HFU of {CONSTANT_HFU:.0%} for all", 0, len(jobs), 100 * float(np.abs(errors).mean()), None)


def _rule(name: str, jobs: Sequence[Job], key: Callable[[Job], str], *, held_out: bool) -> Baseline:
    shares: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for j in jobs:
        shares[key(j)].append((source_family(j.row["source"]), ideal_time_s(j) / j.time_s))
    errors = [_error(j, [s for _, s in shares[key(j)]]) for j in jobs]
    left: list[float] = []
    if held_out:
        everything = [(source, s) for found in shares.values() for source, s in found]
        for j in jobs:
            mine = source_family(j.row["source"])
            others = [s for source, s in shares[key(j)] if source != mine]
            left.append(_error(j, others or [s for source, s in everything if source != mine] or [CONSTANT_HFU]))
    return Baseline(
        name, len(shares), len(jobs), 100 * float(np.mean(errors)), 100 * float(np.mean(left)) if left else None
    )


def _error(job: Job, shares: Sequence[float]) -> float:
    """Absolute relative error of the constant that is best for these rows: their median share."""
    return abs(ideal_time_s(job) / float(np.median(shares)) / job.time_s - 1)
