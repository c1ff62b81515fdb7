"""Clicks that a known teacher draws. Pure numpy.

The teacher: logit = base + sum of weights times standardised logarithms of counts + an effect of every id + products of hidden
vectors for some pairs of ids. A click is drawn with that probability, so no net can rank better than the teacher's own logit.

# N samples, K counts, J tables, H hidden numbers of an id
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import archives
from .clicks_facts import COUNTS, TABLES
from .datasets import FIXED_SEED, Split
from .facts import WorkloadFacts

Floats = NDArray[np.float64]

CACHE_VERSION = 1
#: Popularity falls as 1 / place^ZIPF.
ZIPF = 1.5
#: Standard deviations of what the counts, each table and each pair of tables add to the logit.
COUNTS_STD, ID_STD, PAIR_STD = 1.0, 0.5, 0.4
#: Tables whose ids meet in the teacher, and the hidden numbers by which they do.
MEETING, HIDDEN = ((4, 6), (5, 7), (4, 7)), 2
BASE_LOGIT = -1.5


def load(facts: WorkloadFacts, seed: int, cache: Path) -> Split:
    """Return samples (N, K + J) int64 and clicks (N, 1) float32, train and test; the same for every seed.

    Raises:
        StorageError: The cache cannot be written.
    """

    def make(samples: int, part: int) -> archives.Arrays:
        x, logits = draw(samples, part)
        rng = np.random.default_rng([FIXED_SEED, 3, part])
        clicks = rng.random(samples) < 1 / (1 + np.exp(-logits))
        return x.astype(np.float32), clicks.astype(np.float32)[:, None]  # whole numbers below 2^24: exact

    folder, columns = cache / f"{facts.name}-v{CACHE_VERSION}", COUNTS + len(TABLES)
    train = archives.read_or_make(folder / "train.npz", columns, 1, lambda: make(facts.train_samples, 0))
    test = archives.read_or_make(folder / "test.npz", columns, 1, lambda: make(facts.test_samples, 1))
    return (train[0].astype(np.int64), train[1]), (test[0].astype(np.int64), test[1])


def draw(samples: int, part: int) -> tuple[NDArray[np.int64], Floats]:
    """Return samples (N, K + J) and the teacher's logits (N,).

    Args:
        samples: N.
        part: 0 train, 1 held out: other samples, the same teacher.
    """
    rng, teacher = np.random.default_rng([FIXED_SEED, 2, part]), np.random.default_rng([FIXED_SEED, 1])
    normal = rng.standard_normal((samples, COUNTS))
    counts = np.floor(np.exp(1.5 + normal)).clip(max=1e6)
    weights = teacher.standard_normal(COUNTS)
    logits = BASE_LOGIT + COUNTS_STD * np.einsum(
        "nk,k->n", _standard(np.log1p(counts)), weights / np.sqrt(np.sum(weights**2))
    )
    ids = np.stack([_popular(rng, samples, size) for size in TABLES], 1)
    for j, size in enumerate(TABLES):
        logits += ID_STD * teacher.standard_normal(size)[ids[:, j]]
    for a, b in MEETING:
        left, right = (teacher.standard_normal((TABLES[j], HIDDEN))[ids[:, j]] for j in (a, b))
        logits += PAIR_STD / np.sqrt(HIDDEN) * np.einsum("nh,nh->n", left, right)
    return np.concatenate([counts.astype(np.int64), ids], 1), logits


def _popular(rng: np.random.Generator, samples: int, size: int) -> NDArray[np.int64]:
    """Return ids (N,) from 0, the most popular first."""
    shares = np.cumsum(np.arange(1, size + 1) ** -ZIPF)
    ids: NDArray[np.int64] = np.searchsorted(shares, rng.random(samples) * shares[-1], side="right").clip(max=size - 1)
    return ids


def _standard(x: NDArray[Any]) -> Floats:
    scaled: Floats = (x - x.mean(0)) / x.std(0)
    return scaled
