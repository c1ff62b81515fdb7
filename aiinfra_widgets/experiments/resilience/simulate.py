"""The same job on paper: where its time goes under one trace of failures. Pure, and fast: one look for each failure."""

from __future__ import annotations

import math

from .books import PARTS
from .spec import ResilienceSpec
from .trace import FailureTrace


def simulate(spec: ResilienceSpec, seed: int) -> dict[str, float]:
    """Return the seconds by part of a run of `spec.duration_s` under the failures of `seed`.

    What it leaves out: that work is done in whole steps, and that writing may take longer than was assumed.
    """
    trace, mean_s = FailureTrace(seed), spec.job_mtbf_s
    spent = dict.fromkeys(PARTS, 0.0)
    stretch_s = spec.interval_s + spec.checkpoint_cost_s
    index, done_s = 0, 0.0
    left_s = trace.gap(0) * mean_s
    while sum(spent.values()) + left_s < spec.duration_s:
        done_s = _work(spent, spec, left_s, done_s)
        if not spec.hands_over:
            spent["lost_s"] += done_s
            spent["useful_s"] -= min(done_s, spec.interval_s)
            spent["checkpoint_s"] -= max(done_s - spec.interval_s, 0.0)
            done_s = 0.0
        index, left_s = _mend(spent, spec, trace, index)
    _work(spent, spec, max(spec.duration_s - sum(spent.values()), 0.0), done_s)
    assert stretch_s > 0
    return spent


def _work(spent: dict[str, float], spec: ResilienceSpec, time_s: float, done_s: float) -> float:
    """Work and write checkpoints for `time_s`, `done_s` into a stretch; return how far into one it ends."""
    stretch_s = spec.interval_s + spec.checkpoint_cost_s
    whole = math.floor((done_s + time_s) / stretch_s)
    end_s = done_s + time_s - whole * stretch_s
    spent["useful_s"] += whole * spec.interval_s + min(end_s, spec.interval_s) - min(done_s, spec.interval_s)
    writing_s = max(end_s - spec.interval_s, 0.0) - max(done_s - spec.interval_s, 0.0)
    spent["checkpoint_s"] += whole * spec.checkpoint_cost_s + writing_s
    return end_s


def _mend(spent: dict[str, float], spec: ResilienceSpec, trace: FailureTrace, index: int) -> tuple[int, float]:
    """Notice failure `index` and recover; return the next failure and the time until it strikes."""
    while True:
        index += 1
        spent["detection_s"] += spec.detection_time_s
        gap_s = trace.gap(index) * spec.job_mtbf_s
        spent["restart_s"] += min(gap_s, spec.recovery_time_s)
        if gap_s > spec.recovery_time_s:
            return index, gap_s - spec.recovery_time_s
        if sum(spent.values()) > spec.duration_s:
            return index, math.inf
