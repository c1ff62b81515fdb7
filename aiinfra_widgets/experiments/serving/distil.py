"""From the record of every request to the figures of a segment.

Requests count by their intended arrival, after the warm-up; a mean carries its 95 % confidence interval by batch means, a
percentile that of its order statistics, as much wider as the mean's is than it would be if waits were independent: where the
queue is long they resemble each other. Who still waited when the run ended has no response time: it is said how many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...experiment import Observed
from ...quantities import Value
from .desk import Outcome
from .spec import ServingSpec

if TYPE_CHECKING:
    import pandas as pd

BATCHES = 20
#: Student's t for 19 degrees of freedom, two-sided 95 %.
STUDENT_95 = 2.093
#: Time is cut into stretches of this length to say how long the promise was broken.
STRETCH_S = 0.5
#: The promise is broken in a stretch where more than this share of its requests are late.
LATE_FRAC = 0.05
#: Who still waited at the end is worth a word from this share on.
LEFT_OUT_FRAC = 0.01


def distil(spec: ServingSpec, observed: Observed) -> dict[str, Value]:
    """Return what the requests of a segment tell; nothing where none was answered."""
    rows = observed.records["requests"]
    rows = rows[rows["arrived_s"].to_numpy() >= observed.steady_s].sort_values("arrived_s")
    length_s = observed.ended_s - observed.steady_s
    if rows.empty or length_s <= 0:
        return {}
    outcome = rows["outcome"].to_numpy()
    ok = rows[outcome == Outcome.OK]
    found = _means_of_ticks(observed)
    failed = np.isin(outcome, (Outcome.REJECTED, Outcome.TIMED_OUT))
    ended = int((outcome != Outcome.UNFINISHED).sum())
    found["failed_frac"] = _measured("failed_frac", float(failed.sum() / max(ended, 1)), ended, "rejected or given up")
    found["above_slo_s"] = _above(spec, rows, observed)
    if ok.empty:
        return found
    response = (ok["received_s"] - ok["arrived_s"]).to_numpy()
    left = len(rows) - ended
    more = f"; {left} who still waited at the end are left out" if left > LEFT_OUT_FRAC * len(rows) else ""
    for name, start, end in (
        ("mean_response_s", "arrived_s", "received_s"), ("mean_wait_s", "arrived_s", "started_s"),
        ("mean_service_s", "started_s", "ended_s"), ("dispatch_time_s", "ended_s", "received_s"),
    ):  # fmt: skip
        found[name] = mean_value(name, (ok[end] - ok[start]).to_numpy(), more)
    for share in (50, 95, 99):
        found[f"p{share}_response_s"] = percentile_value(f"p{share}_response_s", response, share, more)
    good = int((response <= spec.slo_s).sum())
    found["slo_goodput_per_s"] = _measured(
        "slo_goodput_per_s", good / length_s, good, f"answered within {spec.slo_s:g} s"
    )
    found.update(_tokens(ok))
    return found


def mean_value(
    name: str, values: np.ndarray[Any, Any], more: str = "", weights: np.ndarray[Any, Any] | None = None
) -> Value:
    """Return the mean with its confidence interval, from the means of 20 stretches in order."""
    n, mean = len(values), float(np.average(values, weights=weights))
    if n < 2 * BATCHES:
        return _measured(name, mean, n, f"mean of {n}{more}")
    half = STUDENT_95 * float(_means(values, weights).std(ddof=1)) / BATCHES**0.5
    how = f"mean of {n}, 95 % interval by batch means{more}"
    return Value(name, mean, max(mean - half, 0.0), mean + half, "measured", how, n, interval=True)


def percentile_value(name: str, values: np.ndarray[Any, Any], share: float, more: str = "") -> Value:
    """Return a percentile with its 95 % interval by order statistics, for as many values as they are worth if independent."""
    n, p = len(values), share / 100
    half = 1.96 * (n * p * (1 - p) * _alike(values)) ** 0.5
    ordered = np.sort(values)
    low, high = (ordered[int(np.clip(n * p + side * half, 0, n - 1))] for side in (-1, 1))
    value = float(np.percentile(values, share))
    ends = min(float(low), value), max(float(high), value)
    return Value(name, value, *ends, "measured", f"of {n} answers{more}", n, interval=True)


def _means(values: np.ndarray[Any, Any], weights: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
    weights = np.ones(len(values)) if weights is None else weights
    pieces = zip(np.array_split(values, BATCHES), np.array_split(weights, BATCHES), strict=True)
    return np.array([np.average(part, weights=w) for part, w in pieces])


def _alike(values: np.ndarray[Any, Any]) -> float:
    """How many values in order tell as much as one that is independent, by the spread of their means; at least 1."""
    spread = float(values.var(ddof=1)) if len(values) >= 2 * BATCHES else 0.0
    return max(float(_means(values).var(ddof=1)) * len(values) / BATCHES / spread, 1.0) if spread > 0 else 1.0


def _measured(name: str, value: float, n: int, how: str) -> Value:
    return Value(name, value, method="measured", how=how, n=n)


def _means_of_ticks(observed: Observed) -> dict[str, Value]:
    """Averages over time, for what is a number at every moment: its median would not obey Little's law.

    A window counts for as long as it was: one that a change cuts short may hold one answer, and no time.
    """
    found = {}
    ticks = observed.ticks
    length_s = np.maximum(np.diff(ticks["t_s"].to_numpy(float), prepend=observed.steady_s), 1e-6)
    for name in ("utilization_frac", "queue_length", "arrived_per_s", "completed_per_s", "failed_per_s"):
        if name in ticks:
            values = ticks[name].to_numpy(float)
            known = np.isfinite(values)
            if known.any():
                found[name] = mean_value(name, values[known], weights=length_s[known])
    late = ticks["lateness_s"].to_numpy(float) if "lateness_s" in ticks else np.empty(0)
    late = late[np.isfinite(late)]
    if late.size:
        how = "99th percentile of the windows' worst"
        found["lateness_s"] = _measured("lateness_s", float(np.percentile(late, 99)), late.size, how)
    return found


def _above(spec: ServingSpec, rows: pd.DataFrame, observed: Observed) -> Value:
    """Return how long the promise was broken; also by who was rejected, gave up, or waited for longer when it ended."""
    at_s = rows["arrived_s"].to_numpy() - observed.steady_s
    outcome = rows["outcome"].to_numpy()
    took_s = np.where(outcome == Outcome.OK, (rows["received_s"] - rows["arrived_s"]).to_numpy(), np.inf)
    took_s[outcome == Outcome.UNFINISHED] = observed.ended_s - observed.steady_s - at_s[outcome == Outcome.UNFINISHED]
    stretch = np.floor(at_s / STRETCH_S).astype(int)
    late, every = (np.bincount(stretch, weights) for weights in ((took_s > spec.slo_s).astype(float), None))
    bad = int((late > LATE_FRAC * every).sum())
    how = f"stretches of {STRETCH_S:g} s in which more than one of twenty took longer than {spec.slo_s:g} s, or failed"
    return _measured("above_slo_s", bad * STRETCH_S, len(rows), how)


def _tokens(ok: pd.DataFrame) -> dict[str, Value]:
    """Time to the first token, and between two tokens after it, where a service has tokens."""
    spoken = ok[np.isfinite(ok["first_token_s"].to_numpy())]
    if spoken.empty:
        return {}
    first = (spoken["first_token_s"] - spoken["arrived_s"]).to_numpy()
    tokens = np.maximum(np.round(spoken["size"].to_numpy()), 1)
    more = tokens > 1
    found = {"p95_ttft_s": percentile_value("p95_ttft_s", first, 95)}
    if more.any():
        gaps = (spoken["ended_s"] - spoken["first_token_s"]).to_numpy()[more] / (tokens[more] - 1)
        found["mean_tpot_s"] = mean_value("mean_tpot_s", gaps)
    return found
