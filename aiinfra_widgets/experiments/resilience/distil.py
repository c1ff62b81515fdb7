"""From the stretches of a segment to its shares, with intervals by bootstrap over the times between failures.

Between two failures lies one *cycle*. Cycles are independent of each other, stretches are not: so cycles are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...experiment import Observed
from ...quantities import Value
from .books import PARTS
from .vocabulary import SHARES

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 4000
#: Below this many cycles an interval would be a guess.
LEAST = 5


def distil(observed: Observed) -> dict[str, Value]:
    """Return the shares of a segment and the mean costs; nothing before the first stretch has ended."""
    rows = observed.records["stretches"]
    spent = cycles(rows)
    if not len(spent) or spent.sum() <= 0:
        return {}
    found = shares(spent)
    failed = rows["failures"].to_numpy()
    whole = rows["checkpoint_s"].to_numpy() > 0
    struck = float(failed.max() - failed.min())
    found["failures"] = Value("failures", struck, method="measured", how="counted")
    if struck:
        exposed_s = spent.sum() - spent[:, PARTS.index("detection_s")].sum()
        how = f"over {struck:g} failures"
        found["job_mtbf_s"] = Value("job_mtbf_s", float(exposed_s / struck), method="measured", how=how, n=int(struck))
    if whole.any():
        found["checkpoint_cost_s"] = _mean("checkpoint_cost_s", rows["checkpoint_s"].to_numpy()[whole])
    again = rows["restart_s"].to_numpy()
    if (again > 0).any():
        found["restart_time_s"] = _mean("restart_time_s", again[again > 0])
    length_s = observed.ended_s - observed.steady_s
    if "cpu_time_s" in observed.ticks and length_s > 0:
        busy = float(np.nansum(observed.ticks["cpu_time_s"])) / length_s
        found["busy_processors"] = Value("busy_processors", busy, method="measured", how="processor time of the ranks")
    return found


def cycles(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the seconds by part of each cycle, (cycles, len(PARTS)), in order."""
    return rows.groupby("failures")[list(PARTS)].sum().sort_index().to_numpy(float)


def shares(spent: np.ndarray[Any, Any]) -> dict[str, Value]:
    """Return each share of the whole time, with its 95 % interval where there are cycles enough."""
    total = spent.sum(axis=0)
    value = total / total.sum()
    how, ends = f"over {len(spent)} times between failures", None
    if len(spent) >= LEAST:
        drawn = spent[draws(len(spent))].sum(axis=1)
        ends = np.percentile(drawn / drawn.sum(axis=1, keepdims=True), (2.5, 97.5), axis=0)
        how = f"95 % interval by bootstrap over {len(spent)} times between failures"
    return {
        name: Value(
            name, float(value[i]), float(ends[0, i]) if ends is not None else None,
            float(ends[1, i]) if ends is not None else None, "measured", how, len(spent), interval=ends is not None,
        )
        for i, name in enumerate(SHARES)
    }  # fmt: skip


def draws(many: int) -> np.ndarray[Any, Any]:
    """Return DRAWS times `many` of `many` cycles, with replacement; the same ones every time."""
    return np.random.default_rng(0).integers(many, size=(DRAWS, many))


def against_best(runs: Mapping[float, pd.DataFrame]) -> dict[float, tuple[float, float, float]]:
    """Return, by interval, the goodput and an interval of how far it lies below the best one; 95 % for all of them together.

    Args:
        runs: The stretches of runs under one trace of failures, by interval. A cycle of one run is compared with the same
            cycle of the others, so that what chance did to all of them cancels.

    Returns:
        Goodput, and the ends of the interval of (best goodput - this goodput); where that holds 0, the data cannot tell
        this interval from the best. With fewer cycles than LEAST nothing is known, so it is the whole range.
    """
    ended = [
        set(rows["failures"]) - {rows["failures"].max()} for rows in runs.values()
    ]  # a run's last cycle is cut short
    common = sorted(set.intersection(*ended))
    spent = {at: cycles(rows[rows["failures"].isin(common)]) for at, rows in runs.items()}
    if len(common) < LEAST:
        return {at: (_goodput(cycles(rows).sum(axis=0)), -1.0, 1.0) for at, rows in runs.items()}
    drawn = draws(len(common))
    goodput = {at: _goodput(s.sum(axis=0)) for at, s in spent.items()}
    best = max(goodput, key=lambda at: goodput[at])
    sampled = {at: _goodput(s[drawn].sum(axis=1)) for at, s in spent.items()}
    found, tail = {}, 2.5 / max(len(runs) - 1, 1)  # Bonferroni: that none of so many comparisons errs
    for at in runs:
        low, high = np.percentile(sampled[best] - sampled[at], (tail, 100 - tail))
        found[at] = (float(goodput[at]), float(low), float(high))
    return found


def _goodput(spent: np.ndarray[Any, Any]) -> Any:
    return spent[..., 0] / spent.sum(axis=-1)


def _mean(name: str, values: np.ndarray[Any, Any]) -> Value:
    low, high = np.percentile(values, (25, 75))
    return Value(name, float(values.mean()), float(low), float(high), "measured", f"mean of {len(values)}", len(values))
