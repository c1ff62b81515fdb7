"""The data of the image workload: the digits that ship with scikit-learn."""

from __future__ import annotations

from pathlib import Path

from . import datasets
from .facts import WorkloadFacts


def load(facts: WorkloadFacts, seed: int, cache: Path) -> datasets.Split:
    """Return pictures (N, 1, 8, 8) and classes (N,), train and test; the same for every seed, as `datasets.load`."""
    return datasets._digits(facts, seed, cache, None)
