"""A value for each hour - grams of CO2e or dollars per kilowatt-hour - that repeats when its hours are over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from ...errors import ModelInputError


class HourlyTrace:
    """A piecewise constant, periodic function of time.

    Args:
        values: One for each step, from 0.
        start_s: When the first step begins, on the clock of the jobs.
        step_s: Length of a step; an hour unless the class-room clock runs faster.

    Raises:
        ModelInputError: No value, a negative one or one that is not a number, or a step that is not positive.
    """

    def __init__(self, values: Sequence[float], start_s: float = 0.0, step_s: float = 3600.0) -> None:
        wrong = [f"{v!r} in hour {i}" for i, v in enumerate(values) if not 0 <= v < math.inf]
        if wrong or not values:
            raise ModelInputError(f"an hourly trace needs numbers from 0, got {', '.join(wrong[:3]) or 'no hours'}")
        if not 0 < step_s < math.inf:
            raise ModelInputError(f"step_s must be > 0 and finite, got {step_s}; an hour is 3600")
        self.values, self.start_s, self.step_s = tuple(map(float, values)), start_s, step_s
        self._sums = [0.0, *accumulate(v * step_s for v in self.values)]

    def integral(self, from_s: float, to_s: float) -> float:
        """Return the value times seconds, between two times."""
        return self._until(to_s) - self._until(from_s)

    def mean(self, from_s: float, to_s: float) -> float:
        """Return the mean value between two times, the second later than the first."""
        return self.integral(from_s, to_s) / (to_s - from_s)

    def best_start_s(self, earliest_s: float, latest_s: float, duration_s: float) -> float:
        """Return the start in a window from which the mean over a duration is least; of equals the earliest.

        As a function of the start the mean is piecewise linear, and bends only where the start or the end meets the end of
        a step. So the best is among those times and the window's ends.
        """
        if latest_s <= earliest_s:
            return earliest_s
        latest_s = min(latest_s, earliest_s + self.step_s * len(self.values))
        bends = [
            *self._steps(earliest_s, latest_s),
            *(t - duration_s for t in self._steps(earliest_s + duration_s, latest_s + duration_s)),
        ]
        times = sorted({earliest_s, latest_s, *(t for t in bends if earliest_s < t < latest_s)})
        means = [self.integral(t, t + duration_s) for t in times]
        # A part in 1e9 is rounding: of starts that are equally good the earliest is meant.
        best = min(means) + 1e-9 * abs(min(means))
        return next(t for t, m in zip(times, means, strict=True) if m <= best)

    def _until(self, at_s: float) -> float:
        period, index = divmod((at_s - self.start_s) / self.step_s, len(self.values))
        whole = int(index)
        return (
            period * self._sums[-1]
            + self._sums[whole]
            + (index - whole) * self.step_s * self.values[whole % len(self.values)]
        )

    def _steps(self, from_s: float, to_s: float) -> list[float]:
        """Return the ends of steps between two times."""
        first = math.ceil((from_s - self.start_s) / self.step_s)
        last = math.floor((to_s - self.start_s) / self.step_s)
        return [self.start_s + i * self.step_s for i in range(first, last + 1)]
