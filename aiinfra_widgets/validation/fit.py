"""Fitting the one parameter set: bounded least squares of relative errors, each parameter held near what the literature expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from ..models.transformer import PARAMETERS, Parameters
from .training_rows import Batch, Job

#: A relative error of this size counts as much as a parameter one spread away from its expectation.
ERROR_SCALE = 0.05
#: How much an expectation weighs against the rows.
PRIOR_WEIGHT = 0.7
#: A source with many rows weighs more than one with few, but not in proportion: (rows of the source) ** -this, per row.
SOURCE_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Held:
    """One source left out: its rows' errors with parameters fitted on all others."""

    source: str
    errors: np.ndarray


def fit(jobs: Sequence[Job], start: Parameters = PARAMETERS) -> Parameters:
    """Return the parameters that fit these jobs best.

    Args:
        jobs: Rows of training steps.
        start: Where to begin; parameters that are not fitted keep their values.
    """
    facts, names = Parameters.facts(), Parameters.fitted()
    expected, spread, low, high = (
        np.array([float(facts[n][what]) for n in names]) for what in ("expected", "spread", "low", "high")
    )
    kept = {n: getattr(start, n) for n in facts if n not in names}
    batch = Batch(jobs)
    counts = Counter(j.row["source"] for j in jobs)
    weight = np.array([counts[j.row["source"]] ** -SOURCE_WEIGHT for j in jobs])

    def residuals(x: np.ndarray) -> np.ndarray:
        trial = Parameters(**kept, **dict(zip(names, np.clip(x, low, high).tolist(), strict=True)))
        error = np.log(batch.predict(trial) / batch.time_s) / ERROR_SCALE
        # grows like the square near 0 and like the error itself far out: one odd row does not rule
        robust = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error**2) - 1))
        return np.concatenate([weight * robust, PRIOR_WEIGHT * (x - expected) / spread])

    begin = np.clip([getattr(start, n) for n in names], low + 1e-9, high - 1e-9)
    found = least_squares(residuals, begin, bounds=(low - 1e-12, high + 1e-12), x_scale=spread)
    return Parameters(**kept, **dict(zip(names, np.clip(found.x, low, high).tolist(), strict=True)))


def leave_one_source_out(jobs: Sequence[Job]) -> list[Held]:
    """Fit as often as there are sources, each time without one, and predict that one.

    Containers of one product (Megatron-Bridge 25.09, 25.11 ...) are one source: the runs are the same.
    """
    names = [source_family(j.row["source"]) for j in jobs]
    held = []
    for source in dict.fromkeys(names):
        rest = [j for j, n in zip(jobs, names, strict=True) if n != source]
        left = [j for j, n in zip(jobs, names, strict=True) if n == source]
        if rest:
            batch = Batch(left)
            held.append(Held(source, batch.predict(fit(rest)) / batch.time_s - 1))
    return held


def source_family(source: str) -> str:
    """Return a source without the version of its container."""
    return source.split(" (")[0] if "Container)" in source else source
