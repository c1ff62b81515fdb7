"""When requests arrive: the same processes for theory, simulation and the real load generator.

A seed gives one and the same sequence, whatever the pieces in which it is fetched, so that a run can be replayed.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ModelInputError, near
from ._check import need

Array = NDArray[np.float64]
ArrivalKind = Literal["constant", "poisson", "mmpp", "trace"]
ARRIVAL_KINDS: tuple[str, ...] = ("constant", "poisson", "mmpp", "trace")
_BLOCK = 1024  # marks drawn at a time


class Arrivals:
    """The times at which requests are meant to arrive, fetched piece by piece, with a rate that may change on the way.

    Args:
        kind: "constant" (clockwork), "poisson", "mmpp" (Poisson in two states, calm and burst), or "trace".
        rate_per_s: Mean rate; 0 is a pause. A trace goes at its own pace without it, and is stretched or squeezed to
            this mean rate with it.
        seed: Of the draws.
        burst_ratio: mmpp: rate in a burst over rate in the calm, above 1.
        burst_frac: mmpp: share of time in bursts, between 0 and 1.
        burst_length_s: mmpp: mean length of a burst.
        times_s: trace: arrival times from 0 on, sorted.

    Raises:
        ModelInputError: An unknown kind, a negative rate, a trace that is missing, empty, unsorted or not finite, times
            for another kind, or a burst that is none.

    The first arrival comes one interval after 0. All randomness lies in marks of unit rate; the rate only stretches
    time, so that a changed rate changes nothing else. A burst keeps its length in seconds when the rate changes.
    """

    def __init__(
        self,
        kind: ArrivalKind,
        rate_per_s: float | None = None,
        *,
        seed: int = 0,
        burst_ratio: float = 10.0,
        burst_frac: float = 0.1,
        burst_length_s: float = 1.0,
        times_s: ArrayLike | None = None,
    ) -> None:
        if kind not in ARRIVAL_KINDS:
            raise ModelInputError(f"no arrivals {kind!r}; {near(kind, ARRIVAL_KINDS)}")
        need("seed", seed, whole=True)
        self.kind = kind
        draws = np.random.SeedSequence([seed, 1]).spawn(2)  # not the draws of services with the same seed
        self._marks_draw, self._switch_draw = (np.random.default_rng(s) for s in draws)
        self._block: Array = np.empty(0)
        self._next = 0
        self._count = 0.0  # marks before this block
        self._own_rate_per_s = 1.0  # marks per second at slope 1; only a trace has another
        if kind == "trace":
            self._block = read_trace("arrival times", times_s)
            self._own_rate_per_s = _mean_rate(self._block)
            rate_per_s = self._own_rate_per_s if rate_per_s is None else rate_per_s
        elif times_s is not None:
            raise ModelInputError(f"{kind} arrivals take no times_s; use kind 'trace', or leave the times out")
        elif rate_per_s is None:
            raise ModelInputError(f"{kind} arrivals need rate_per_s >= 0, got none; set the offered load")
        self._bursts(burst_ratio, burst_frac, burst_length_s)
        self._now_s = self._from_s = self._from_mark = 0.0
        self._set_rate(rate_per_s)

    @property
    def rate_per_s(self) -> float:
        """Mean rate from now on."""
        return self._rate_per_s

    @property
    def now_s(self) -> float:
        """Up to when arrivals were fetched."""
        return self._now_s

    @property
    def scv(self) -> float:
        """Variability for the formulas: 0 constant, 1 Poisson; for bursts the index of dispersion over a long time.

        That limit is what a long queue sees (Fischer & Meier-Hellstern 1993); it grows with rate and burst length. Of
        a trace it is the squared coefficient of variation of its intervals, which knows nothing of their order.
        """
        if self.kind == "trace":
            gaps = np.diff(self._block)
            return float(np.var(gaps) / np.mean(gaps) ** 2) if len(gaps) and self._block[-1] > self._block[0] else 0.0
        if self.kind != "mmpp":
            return float(self.kind == "poisson")
        calm, burst = self._state_factor
        share = self._stay_s[1] / sum(self._stay_s)
        switching_per_s = 1 / self._stay_s[0] + 1 / self._stay_s[1]
        return 1 + 2 * share * (1 - share) * (burst - calm) ** 2 * self._rate_per_s / switching_per_s

    def next_until(self, t_s: float) -> Array:
        """Return the arrivals after those fetched so far and not after `t_s`; afterwards it is `t_s` now.

        Raises:
            ModelInputError: `t_s` lies before what was fetched already.
        """
        need("t_s", t_s, self._now_s, hint="arrivals are fetched forwards; make a new Arrivals to start again")
        found = self._fetch(float(t_s), None)
        self._now_s = float(t_s)
        return found

    def take(self, count: int) -> Array:
        """Return the next `count` arrivals, fewer only where a trace ends; afterwards it is the last one's time.

        Raises:
            ModelInputError: A negative count, or arrivals that never come because the rate is 0.
        """
        need("count", count, whole=True)
        if not self._rate_per_s:
            raise ModelInputError("no arrivals to take: rate_per_s is 0; set a rate, or ask next_until(t_s)")
        found = self._fetch(math.inf, int(count))
        self._now_s = float(found[-1]) if len(found) else self._now_s
        return found

    def change_rate(self, rate_per_s: float) -> None:
        """Set the mean rate from `now_s` on; 0 pauses, and the next arrival keeps the part of its interval that passed.

        Raises:
            ModelInputError: A negative rate.
        """
        self._move(self._now_s)
        self._set_rate(rate_per_s)

    def _bursts(self, ratio: float, share: float, length_s: float) -> None:
        self._burst, self._switch_s = False, math.inf
        self._state_factor, self._stay_s = (1.0, 1.0), (math.inf, math.inf)
        if self.kind != "mmpp":
            return
        need("burst_ratio", ratio, 1, above=True, hint="rate in a burst over rate in the calm; without bursts: poisson")
        need("burst_frac", share, 0, 1, above=True)
        need("1 - burst_frac", 1 - share, above=True, hint="bursts all the time are poisson")
        need("burst_length_s", length_s, above=True)
        calm = 1 / (1 - share + share * ratio)  # so that the mean over both states is 1
        self._state_factor, self._stay_s = (calm, calm * ratio), (length_s * (1 - share) / share, length_s)
        self._burst = bool(self._switch_draw.random() < share)  # stationary from the start
        self._switch_s = self._switch_draw.exponential(self._stay_s[self._burst])

    def _set_rate(self, rate_per_s: float) -> None:
        need("rate_per_s", rate_per_s, hint="0 is a pause")
        self._rate_per_s = float(rate_per_s)
        self._slope = self._rate_per_s / self._own_rate_per_s * self._state_factor[self._burst]

    def _move(self, t_s: float) -> None:
        """Make `t_s` the origin of the present slope."""
        self._from_mark += self._slope * (t_s - self._from_s)
        self._from_s = t_s

    def _fetch(self, until_s: float, most: int | None) -> Array:
        pieces: list[Array] = []
        missing = math.inf if most is None else most
        while missing and (self._next < len(self._block) or self._draw()):
            marks = self._block[self._next :]
            times = self._from_s + (marks - self._from_mark) / self._slope if self._slope else np.empty(0)
            stop_s = min(until_s, self._switch_s)
            found = int(min(np.searchsorted(times, stop_s, side="right"), missing))
            pieces.append(times[:found])
            self._next += found
            missing -= found
            if not missing or found == len(marks):
                continue
            if self._switch_s > until_s:
                break
            self._switch()
        return np.concatenate(pieces) if pieces else np.empty(0)

    def _switch(self) -> None:
        self._move(self._switch_s)
        self._burst = not self._burst
        self._switch_s += self._switch_draw.exponential(self._stay_s[self._burst])
        self._set_rate(self._rate_per_s)

    def _draw(self) -> bool:
        """Draw the next block of marks; False where a trace has ended."""
        if self.kind == "trace":
            return False
        steps = np.ones(_BLOCK) if self.kind == "constant" else self._marks_draw.standard_exponential(_BLOCK)
        self._block = self._count + np.cumsum(steps)
        self._next, self._count = 0, float(self._block[-1])
        return True


def arrival_times(count: int, kind: ArrivalKind, rate_per_s: float | None = None, **options: Any) -> Array:
    """Return the first `count` arrival times, in seconds; options, errors and kinds as `Arrivals`.

    Raises:
        ModelInputError: As `Arrivals`, or a rate of 0.

    Valid when: stationary. Off by: exact draws. Source: as `Arrivals`; Fischer & Meier-Hellstern 1993 for MMPP.
    """
    return Arrivals(kind, rate_per_s, **options).take(count)


def read_trace(name: str, times_s: ArrayLike | None, *, ordered: bool = True) -> Array:
    """Return the times of a trace as floats; refuses none, a missing one, a negative one, and unsorted where it matters."""
    if times_s is None or np.size(np.asarray(times_s)) == 0:
        raise ModelInputError(f"a trace needs {name}, got none; give times_s in seconds")
    need(name, times_s, hint="a missing time must be filled in or its row left out")
    times = np.array(times_s, dtype=float).ravel()
    back = np.flatnonzero(np.diff(times) < 0)
    if ordered and len(back):
        i = int(back[0])
        raise ModelInputError(
            f"{name} must be sorted, got {times[i + 1]:g} after {times[i]:g} at position {i + 1}; sort the trace"
        )
    return times


def _mean_rate(times: Array) -> float:
    need("last arrival time of the trace", float(times[-1]), above=True, hint="a trace needs a length")
    return len(times) / float(times[-1])
