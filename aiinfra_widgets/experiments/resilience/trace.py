"""When which node fails: drawn once from the seed, so that every setup of that seed meets the same failures.

The draw is in units of the mean: gap k is an exponential number with mean 1. The clock of failures runs `nodes / mtbf_s` of
these units per second, so that both may change while the run goes on and the trace stays what it is. It stands still while a
failure goes unnoticed and while the run is held.
"""

from __future__ import annotations

import numpy as np

_CHUNK = 256


class FailureTrace:
    """Failures in order; the same seed gives the same ones.

    Args:
        seed: Of the draw.
    """

    def __init__(self, seed: int) -> None:
        self._gaps = np.random.default_rng([seed, 1])
        self._places = np.random.default_rng([seed, 2])
        self._at = np.empty(0)
        self._place = np.empty(0)

    def at(self, index: int) -> float:
        """Return when failure `index` (0 first) strikes, in units of the mean time between failures."""
        self._draw(index)
        return float(self._at[index])

    def gap(self, index: int) -> float:
        """Return the units between failure `index` and the one before it."""
        return self.at(index) - (self.at(index - 1) if index else 0.0)

    def node(self, index: int, nodes: int) -> int:
        """Return which of `nodes` nodes failure `index` strikes."""
        self._draw(index)
        return int(self._place[index] * nodes)

    def next_after(self, position: float) -> int:
        """Return the first failure that strikes later than `position`."""
        while not self._at.size or self._at[-1] <= position:
            self._draw(self._at.size)
        return int(np.searchsorted(self._at, position, side="right"))

    def _draw(self, index: int) -> None:
        while index >= self._at.size:
            last = self._at[-1] if self._at.size else 0.0
            self._at = np.append(self._at, last + np.cumsum(self._gaps.exponential(size=_CHUNK)))
            self._place = np.append(self._place, self._places.random(_CHUNK))
