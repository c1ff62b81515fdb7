"""Points of the heat equation's domain. Pure numpy.

Legend: N points (x, t, flag).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import archives
from .datasets import FIXED_SEED, Split
from .facts import WorkloadFacts
from .physics_facts import DIFFUSIVITY, INPUTS, SINES

CACHE_VERSION = 1
#: Of every 8 training points so many lie at t = 0, and so many at an end; the others lie inside.
BEGINNING, ENDS, OF = 1, 1, 8


def exact(x: NDArray[Any], t: NDArray[Any]) -> NDArray[Any]:
    """Return the solution u(x, t)."""
    waves = ((n * np.pi, amplitude) for n, amplitude in SINES)
    return sum((a * np.sin(k * x) * np.exp(-DIFFUSIVITY * k**2 * t) for k, a in waves), np.zeros_like(x))


def load(facts: WorkloadFacts, seed: int, cache: Path) -> Split:
    """Return points (N, 3) and what the net should answer (N, 1), train and test; the same for every seed.

    Raises:
        StorageError: The cache cannot be written.
    """
    folder = cache / f"{facts.name}-v{CACHE_VERSION}"
    train = archives.read_or_make(folder / "train.npz", INPUTS, 1, lambda: _train(facts.train_samples))
    test = archives.read_or_make(folder / "test.npz", INPUTS, 1, lambda: _test(facts.test_samples))
    return train, test


def _train(samples: int) -> archives.Arrays:
    """Return points inside (answer 0: no residual), at t = 0 and at the ends (answer u), shuffled."""
    rng = np.random.default_rng([FIXED_SEED, 0])
    x, t, inside = rng.uniform(-1, 1, samples), rng.uniform(0, 1, samples), np.ones(samples)
    first, ends = samples * BEGINNING // OF, samples * ENDS // OF
    t[:first] = 0
    x[first : first + ends] = np.sign(x[first : first + ends])
    inside[: first + ends] = 0
    order = rng.permutation(samples)
    return _arrays(x[order], t[order], inside[order])


def _test(samples: int) -> archives.Arrays:
    """Return points anywhere; the answer is u."""
    rng = np.random.default_rng([FIXED_SEED, 1])
    return _arrays(rng.uniform(-1, 1, samples), rng.uniform(0, 1, samples), np.zeros(samples))


def _arrays(x: NDArray[Any], t: NDArray[Any], inside: NDArray[Any]) -> archives.Arrays:
    answers = np.where(inside > 0, 0.0, exact(x, t))
    return np.stack([x, t, inside], 1).astype(np.float32), answers[:, None].astype(np.float32)
