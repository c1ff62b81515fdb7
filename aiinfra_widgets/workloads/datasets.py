"""The data that the workloads train on: shipped with scikit-learn, generated, or read from archives on disk.

Every function returns float32 inputs x and targets y (float32 numbers, or int64 classes), train first, then test. The
same arguments give the same bits on every rank and for every number of threads: what is generated uses numpy's own
generator and elementwise sums, no threaded matrix product.

Legend: N samples, D numbers per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import archives
from .facts import WorkloadFacts

Array = NDArray[Any]
Split = tuple[tuple[Array, Array], tuple[Array, Array]]
Floats = NDArray[np.float64]

#: Standard deviation of the noise, relative to that of the clean target.
NOISE = 0.1
#: Seed of what is the same in every run: the split of the digits, and the archives that the lab writes.
FIXED_SEED = 20_240_501
#: Part of the names in the cache; raised whenever the generated numbers change.
CACHE_VERSION = 1


def load(facts: WorkloadFacts, *, seed: int, cache: Path, data_dir: Path | None = None) -> Split:
    """Return ((x, y) of train, (x, y) of test) of one workload at its size.

    Args:
        facts: From the catalog, sized.
        seed: Of generated data. The digits, their split and the archives do not depend on it, so that the quality
            of two runs can be compared.
        cache: Folder for what is made once; made if it is not there.
        data_dir: Folder of the user's own train.npz and test.npz, for a workload that reads archives.

    Raises:
        DataError: Bad archives, or a data_dir for a workload that reads none.
        StorageError: The cache cannot be written.
    """
    if data_dir is not None and not facts.reads_archives:
        raise DataError(
            f"{data_dir}: the workload {facts.name!r} brings its own data and reads no folder; "
            "leave data_dir out, or choose the workload 'dense-100-64-1'"
        )
    if facts.family != "layers":
        made: Split = import_module(f"{__package__}.{facts.family}_data").load(facts, seed, Path(cache))
        return made
    return _MAKERS[facts.name](facts, seed, Path(cache), None if data_dir is None else Path(data_dir))


def _digits(facts: WorkloadFacts, seed: int, cache: Path, data_dir: Path | None) -> Split:
    """Return scikit-learn's digits, pixels scaled to 0..1, classes 0..9.

    They are kept in the cache, because importing scikit-learn takes longer than all the rest of a launch.
    The split is drawn once and for all: the digits come sorted by writer.
    """

    def make() -> archives.Arrays:
        from sklearn.datasets import load_digits  # 1 to 2 s, only the first time

        found = load_digits()
        order = np.random.default_rng(FIXED_SEED).permutation(len(found.target))
        x, y = (found.data / 16)[order], found.target[order][:, None]
        return x.astype(np.float32), y.astype(np.float32)

    x, y = archives.read_or_make(cache / f"digits-v{CACHE_VERSION}.npz", 64, 1, make)
    x = x.reshape(-1, *facts.sample_shape)
    classes = y[:, 0].astype(np.int64)
    n = facts.train_samples
    return (x[:n], classes[:n]), (x[n:], classes[n:])


def _line(facts: WorkloadFacts, seed: int, cache: Path, data_dir: Path | None) -> Split:
    """Return points on y = a x + b with noise of NOISE |a| std(x); x and y are standardised to mean 0, variance 1.

    Unstandardised x on 0..10 would force a learning rate below 0.03 and many times the steps. The best loss is
    the share of noise in the variance of y, NOISE^2 / (1 + NOISE^2), whatever a and b are.
    """
    rng = np.random.default_rng([seed, 1])
    a, b = rng.uniform(1, 5) * rng.choice([-1, 1]), rng.uniform(-5, 5)
    x = rng.uniform(0, 10, facts.train_samples + facts.test_samples)
    y = a * x + b + rng.standard_normal(len(x)) * (NOISE * abs(a) * x.std())
    return _split(facts, _standard(x)[:, None], _standard(y)[:, None])


def _dense(facts: WorkloadFacts, seed: int, cache: Path, data_dir: Path | None) -> Split:
    """Return what the archives hold: the user's, or those of a fixed teacher, written to the cache once.

    Teacher: y = sum_k v_k relu(w_k x + c_k) over 4 hidden units, scaled to variance 1, plus noise of variance NOISE^2,
    which therefore is the best held-out loss.
    """

    def teach() -> Split:
        rng = np.random.default_rng(FIXED_SEED)
        weights, offsets, out = rng.standard_normal((4, 100)) / 10, rng.uniform(0, 1, 4), (1.0, -1.0, 1.0, -1.0)
        x = rng.standard_normal((facts.train_samples + facts.test_samples, 100))
        clean = sum(v * np.maximum(_dot(x, w) + c, 0) for v, w, c in zip(out, weights, offsets, strict=True))
        return _split(facts, x, (_standard(clean) + NOISE * rng.standard_normal(len(x)))[:, None])

    if data_dir is not None:
        train, test = (archives.read(data_dir / f"{part}.npz", 100, 1) for part in ("train", "test"))
        return train, test
    folder = cache / f"{facts.name}-v{CACHE_VERSION}"
    train = archives.read_or_make(folder / "train.npz", 100, 1, lambda: teach()[0])
    test = archives.read_or_make(folder / "test.npz", 100, 1, lambda: teach()[1])
    return train, test


def _two_classes(facts: WorkloadFacts, seed: int, cache: Path, data_dir: Path | None) -> Split:
    """Return points of which half lie inside a bent slab: |u x| plus a slope, above or below its median."""
    rng = np.random.default_rng([seed, 2])
    x = rng.standard_normal((facts.train_samples + facts.test_samples, 10))
    u, w = rng.standard_normal((2, 10)) / np.sqrt(10)
    score = np.abs(_dot(x, u)) + _dot(x, w)
    return _split(facts, x, (score > np.median(score)).astype(np.int64))


def _latent(facts: WorkloadFacts, seed: int, cache: Path, data_dir: Path | None) -> Split:
    """Return x = z P and y = z Q, both of variance 1, from 8 hidden numbers z per sample; there is no noise.

    The hidden numbers are few so that what is learnt from 2 048 samples holds for others at every width.
    """
    rng, hidden = np.random.default_rng([seed, 3]), 8
    z, maps = rng.standard_normal((facts.train_samples + facts.test_samples, hidden), np.float32), []
    for _ in ("x", "y"):
        mixing = rng.standard_normal((hidden, facts.width), np.float32) / np.float32(np.sqrt(hidden))
        maps.append(sum(z[:, k : k + 1] * mixing[k] for k in range(hidden)))
    return _split(facts, *maps)


def _dot(x: Floats, weights: Floats) -> Floats:
    """Return x @ weights (N, D) x (D,) -> (N,), in the same order of additions whatever the number of threads."""
    total: Floats = np.einsum("nd,d->n", x, weights, optimize=False)
    return total


def _standard(x: Floats) -> Floats:
    scaled: Floats = (x - x.mean()) / x.std()
    return scaled


def _split(facts: WorkloadFacts, x: Array, y: Array) -> Split:
    x = np.ascontiguousarray(x, np.float32)
    y = y if y.dtype == np.int64 else np.ascontiguousarray(y, np.float32)
    n = facts.train_samples
    return (x[:n], y[:n]), (x[n:], y[n:])


_MAKERS: dict[str, Callable[[WorkloadFacts, int, Path, Path | None], Split]] = {
    "digits-perceptron": _digits,
    "digits-cnn": _digits,
    "linear-regression": _line,
    "dense-100-64-1": _dense,
    "net-10-5-2": _two_classes,
    "synthetic": _latent,
}
