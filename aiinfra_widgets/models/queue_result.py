"""What a simulated queue did: one row for each request, and the averages that formulas and measurements speak of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelInputError
from ._check import need, need_fraction


class RequestOutcome(IntEnum):
    """How a request ended. UNFINISHED waited for a batch that never got full."""

    OK = 0
    REJECTED = 1
    TIMED_OUT = 2
    UNFINISHED = 3


@dataclass(frozen=True, slots=True, eq=False)
class QueueResult:
    """A simulated queue, request by request; times in seconds, arrays in the order of arrival.

    Attributes:
        arrival_s: Intended arrival; wait and response count from here, whatever was tried in between.
        start_s: Begin of the service that was answered; NaN for the others.
        end_s: When the request got its outcome; NaN if unfinished.
        server: Who answered; -1 for nobody.
        outcome: An `Outcome` each.
        tries: Attempts, with the first.
        busy: One row (server, begin, end) for each batch that occupied a server, also in vain.
        num_servers: Number of servers.
        from_s: Requests that arrived before are kept out of every average (warm-up).
    """

    arrival_s: NDArray[np.float64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    server: NDArray[np.int64]
    outcome: NDArray[np.int64]
    tries: NDArray[np.int64]
    busy: NDArray[np.float64]
    num_servers: int
    from_s: float = 0.0

    def after(self, from_s: float) -> QueueResult:
        """Return the same with averages over the requests that arrived from `from_s` on.

        Raises:
            ModelInputError: A negative time, or one that leaves no request.
        """
        need("from_s", from_s)
        if not np.any(self.arrival_s >= from_s):
            last = f"the last arrives at {self.arrival_s[-1]:g} s" if len(self.arrival_s) else "there are none"
            raise ModelInputError(f"no request arrives from {from_s:g} s on: {last}; simulate more requests")
        return replace(self, from_s=float(from_s))

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which requests the averages are over."""
        return self.arrival_s >= self.from_s

    @property
    def wait_s(self) -> NDArray[np.float64]:
        """Arrival to begin of service, of the counted requests that were answered."""
        answered = self.counted & (self.outcome == RequestOutcome.OK)
        return np.asarray(self.start_s[answered] - self.arrival_s[answered])

    @property
    def response_s(self) -> NDArray[np.float64]:
        """Arrival to answer, of the counted requests that were answered."""
        answered = self.counted & (self.outcome == RequestOutcome.OK)
        return np.asarray(self.end_s[answered] - self.arrival_s[answered])

    @property
    def mean_wait_s(self) -> float:
        """Mean of `wait_s`; NaN where nothing was answered."""
        return _mean(self.wait_s)

    @property
    def mean_response_s(self) -> float:
        """Mean of `response_s`; NaN where nothing was answered."""
        return _mean(self.response_s)

    def wait_percentile_s(self, quantile: Any) -> Any:
        """Return that quantile (0.95: the 95th percentile) of `wait_s`; NaN where nothing was answered."""
        return _quantile(self.wait_s, quantile)

    def response_percentile_s(self, quantile: Any) -> Any:
        """Return that quantile (0.95: the 95th percentile) of `response_s`; NaN where nothing was answered."""
        return _quantile(self.response_s, quantile)

    @property
    def window_s(self) -> tuple[float, float]:
        """From when to when rates, utilisation and queue length are averaged: to the last arrival, not to the last answer."""
        return self.from_s, float(self.arrival_s[-1]) if len(self.arrival_s) else self.from_s

    @property
    def utilization(self) -> float:
        """Share of the servers' time that was occupied, also with work that nobody waited for any more."""
        return self._time_in_window(self.busy[:, 1], self.busy[:, 2]) / self.num_servers

    @property
    def queue_length(self) -> float:
        """Mean number of requests that had arrived and had neither been served, turned away nor given up."""
        left = np.where(self.outcome == RequestOutcome.OK, self.start_s, self.end_s)
        return self._time_in_window(self.arrival_s, np.where(np.isnan(left), np.inf, left))

    @property
    def throughput_per_s(self) -> float:
        """Answers within the window over its length."""
        begin, end = self.window_s
        inside = (self.outcome == RequestOutcome.OK) & (self.end_s >= begin) & (self.end_s <= end)
        return float(np.count_nonzero(inside)) / (end - begin) if end > begin else float("nan")

    def share(self, outcome: RequestOutcome) -> float:
        """Return the share of the counted requests that ended so."""
        return _mean(self.outcome[self.counted] == outcome)

    def within_frac(self, slo_s: float) -> float:
        """Return the share of all counted requests that were answered within `slo_s`: who was turned away was not."""
        need("slo_s", slo_s)
        counted = int(np.count_nonzero(self.counted))
        return float(np.count_nonzero(self.response_s <= slo_s)) / counted if counted else float("nan")

    @property
    def mean_batch_size(self) -> float:
        """Answered requests for each batch that answered any."""
        answered = self.outcome == RequestOutcome.OK
        batches = {*zip(self.server[answered].tolist(), self.end_s[answered].tolist(), strict=True)}
        return float(np.count_nonzero(answered)) / len(batches) if batches else float("nan")

    def _time_in_window(self, begins: Any, ends: Any) -> float:
        """Mean number of intervals that cover an instant of the window."""
        first, last = self.window_s
        inside = np.minimum(ends, last) - np.maximum(begins, first)
        return float(np.maximum(inside, 0.0).sum()) / (last - first) if last > first else float("nan")


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _quantile(values: Any, quantile: Any) -> Any:
    need_fraction("quantile", quantile)
    return np.quantile(values, quantile) if len(values) else np.full(np.shape(quantile), np.nan)[()]
