"""From the record of every request to the figures of a segment.

Requests count by their intended arrival, after the warm-up; a mean carries its 95 % confidence interval by batch means, a
percentile the interval of its order statistics. Both are wide where the queue is long: its waits resemble each other.
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


def distil(spec: ServingSpec, observed: Observed) -> dict[str, Value]:
    """Return what the requests of a segment tell; nothing where none was answered."""
    rows = observed.records["requests"]
    rows = rows[rows["arrived_s"].to_numpy() >= observed.steady_s].sort_values("arrived_s")
    length_s = observed.ended_s - observed.steady_s
    if rows.empty or length_s <= 0:
        return {}
    outcome = rows["outcome"].to_numpy()
    ok = rows[outcome == Outcome.OK]
    found = _means_of_ticks(observed.ticks)
    failed = np.isin(outcome, (Outcome.REJECTED, Outcome.TIMED_OUT))
    ended = int((outcome != Outcome.UNFINISHED).sum())
    found["failed_frac"] = _measured("failed_frac", float(failed.sum() / max(ended, 1)), ended, "rejected or given up")
    if ok.empty:
        return found
    response = (ok["received_s"] - ok["arrived_s"]).to_numpy()
    for name, start, end in (
        ("mean_response_s", "arrived_s", "received_s"), ("mean_wait_s", "arrived_s", "started_s"),
        ("mean_service_s", "started_s", "ended_s"), ("dispatch_time_s", "ended_s", "received_s"),
    ):  # fmt: skip
        found[name] = mean_value(name, (ok[end] - ok[start]).to_numpy())
    for share in (50, 95, 99):
        found[f"p{share}_response_s"] = percentile_value(f"p{share}_response_s", response, share)
    good = int((response <= spec.slo_s).sum())
    found["slo_goodput_per_s"] = _measured(
        "slo_goodput_per_s", good / length_s, good, f"answered within {spec.slo_s:g} s"
    )
    found["above_slo_s"] = _above(spec, ok["arrived_s"].to_numpy() - observed.steady_s, response)
    found.update(_tokens(ok))
    return found


def mean_value(name: str, values: np.ndarray[Any, Any]) -> Value:
    """Return the mean with its confidence interval, from the means of 20 stretches in order."""
    n, mean = len(values), float(values.mean())
    if n < 2 * BATCHES:
        return _measured(name, mean, n, f"mean of {n}")
    means = np.array([part.mean() for part in np.array_split(values, BATCHES)])
    half = STUDENT_95 * float(means.std(ddof=1)) / BATCHES**0.5
    how = f"mean of {n}, 95 % interval by batch means"
    return Value(name, mean, max(mean - half, 0.0), mean + half, "measured", how, n, interval=True)


def percentile_value(name: str, values: np.ndarray[Any, Any], share: float) -> Value:
    """Return a percentile with the interval that its order statistics give (95 %, as if values were independent)."""
    n, p = len(values), share / 100
    half = 1.96 * (n * p * (1 - p)) ** 0.5
    ordered = np.sort(values)
    low, high = (ordered[int(np.clip(n * p + side * half, 0, n - 1))] for side in (-1, 1))
    value = float(np.percentile(values, share))
    return Value(name, value, float(low), float(high), "measured", f"of {n} answers", n, interval=True)


def _measured(name: str, value: float, n: int, how: str) -> Value:
    return Value(name, value, method="measured", how=how, n=n)


def _means_of_ticks(ticks: pd.DataFrame) -> dict[str, Value]:
    """Averages over time, for what is a number at every moment: its median would not obey Little's law."""
    found = {}
    for name in ("utilization_frac", "queue_length", "arrived_per_s", "completed_per_s", "failed_per_s"):
        if name in ticks:
            values = ticks[name].to_numpy(float)
            values = values[np.isfinite(values)]
            if values.size:
                found[name] = mean_value(name, values)
    late = ticks["lateness_s"].to_numpy(float) if "lateness_s" in ticks else np.empty(0)
    late = late[np.isfinite(late)]
    if late.size:
        how = "99th percentile of the windows' worst"
        found["lateness_s"] = _measured("lateness_s", float(np.percentile(late, 99)), late.size, how)
    return found


def _above(spec: ServingSpec, at_s: np.ndarray[Any, Any], response: np.ndarray[Any, Any]) -> Value:
    stretch = np.floor(at_s / STRETCH_S).astype(int)
    bad = sum(float(np.percentile(response[stretch == s], 95)) > spec.slo_s for s in np.unique(stretch))
    how = f"stretches of {STRETCH_S:g} s whose 95th percentile is above {spec.slo_s:g} s"
    return _measured("above_slo_s", bad * STRETCH_S, len(response), how)


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
