"""The live figures of one window, from the requests that ended in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .desk import Outcome, Request

#: Every column of a sample, whatever the rank's role is: a rank may change its role, a file's columns may not.
SAMPLE = dict.fromkeys(
    (
        "mean_response_s", "mean_wait_s", "mean_service_s", "dispatch_time_s", "p50_response_s", "p95_response_s", "p99_response_s",
        "queue_length", "arrived_per_s", "completed_per_s", "failed_per_s", "utilization_frac", "lateness_s", "batch_size",
    ),
    float("nan"),
)  # fmt: skip

PERCENTILES = (("p50_response_s", 0.5), ("p95_response_s", 0.95), ("p99_response_s", 0.99))


class Window:
    """Counts what happens in one window at the desk."""

    def __init__(self, begun_s: float) -> None:
        self.begun_s = self._seen_s = begun_s
        self.arrived = 0
        self.lateness_s: list[float] = []
        self._waiting_s = 0.0

    def look(self, now: float, waiting: int) -> None:
        """Count the queue as it stood since the last look."""
        self._waiting_s += waiting * (now - self._seen_s)
        self._seen_s = now

    def sample(self, ended: Sequence[Request], now: float) -> dict[str, float]:
        """Return the window's figures.

        Args:
            ended: Requests that got their outcome in it.
            now: Its end.
        """
        length_s = max(now - self.begun_s, 1e-9)
        good = [r for r in ended if r.outcome is Outcome.OK]
        found = {
            **SAMPLE, "queue_length": self._waiting_s / length_s, "arrived_per_s": self.arrived / length_s,
            "completed_per_s": len(good) / length_s, "failed_per_s": (len(ended) - len(good)) / length_s,
        }  # fmt: skip
        if self.lateness_s:
            found["lateness_s"] = max(self.lateness_s)
        if good:
            times = np.array([(r.arrived_s, r.started_s, r.ended_s, r.received_s, r.batch) for r in good])
            arrived, started, ended, received, batch = times.mean(axis=0).tolist()
            found["mean_response_s"] = received - arrived
            found["mean_wait_s"] = started - arrived
            found["mean_service_s"] = ended - started
            found["dispatch_time_s"] = received - ended
            found["batch_size"] = batch
            response = np.sort(times[:, 3] - times[:, 0])
            for name, share in PERCENTILES:  # as np.percentile does, which takes as long as all the rest
                found[name] = float(np.interp(share * (len(good) - 1), np.arange(len(good)), response))
        return found
