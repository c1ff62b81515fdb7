"""The offered load: when requests are meant to arrive and how much work each is, in seconds of the run's own clock."""

from __future__ import annotations

import csv
import math
from collections import deque
from pathlib import Path

from ...errors import DataError
from ...models import ArrivalKind, Arrivals, ServiceTimes, service_kind
from .spec import ServingSpec

#: Share of the time that bursty arrivals are in a burst.
BURST_FRAC = 0.1
#: Draws of sizes have a seed of their own, so that another load brings the same requests.
SIZES = 1_000_003


def arrival_options(spec: ServingSpec) -> tuple[ArrivalKind, dict[str, float]]:
    """Return the process of arrival and what it takes besides a rate; of http, what it is predicted as."""
    if spec.arrivals != "bursty":
        return ("poisson" if spec.arrivals == "http" else spec.arrivals), {}  # type: ignore[return-value]
    return "mmpp", {"burst_ratio": spec.burst_ratio, "burst_frac": BURST_FRAC, "burst_length_s": spec.burst_s}


class Load:
    """Requests to come, fetched a little ahead.

    Args:
        spec: What is offered.
        clock_s: Seconds of load that are over already: a run that goes on does not offer them again.

    Raises:
        DataError: A trace that is no trace; with its line.
    """

    def __init__(self, spec: ServingSpec, clock_s: float) -> None:
        self._ahead: deque[tuple[float, float]] = deque()
        self._arrivals: Arrivals | None = None
        if spec.arrivals != "http":
            times = read_trace(spec.trace_file) if spec.arrivals == "trace" else None
            rate = None if spec.arrivals == "trace" else spec.arrival_rate_per_s
            kind, options = arrival_options(spec)
            self._arrivals = Arrivals(kind, rate, seed=spec.seed, times_s=times, **options)
            self._arrivals.next_until(clock_s)
        self._sizes = _sizes(spec)
        self._spec = spec

    def change(self, spec: ServingSpec) -> None:
        """Take up a changed rate or size, for what was not fetched yet."""
        if self._arrivals and spec.arrivals != "trace" and spec.arrival_rate_per_s != self._spec.arrival_rate_per_s:
            self._arrivals.change_rate(spec.arrival_rate_per_s)
        if service_kind(spec.service_scv) != service_kind(self._spec.service_scv):
            self._sizes = _sizes(spec)
        else:
            self._sizes.change(mean_size(spec), spec.service_scv)
        self._spec = spec

    def fetch(self, until_s: float) -> None:
        """Draw what arrives until then."""
        if self._arrivals and until_s > self._arrivals.now_s:
            times = self._arrivals.next_until(until_s)
            self._ahead.extend(zip(times.tolist(), self._sizes.take(len(times)).tolist(), strict=True))

    def size(self) -> float:
        """Draw the work of a request that came from outside."""
        return float(self._sizes.take(1)[0])

    def due(self, clock_s: float) -> list[tuple[float, float]]:
        """Take what was meant to have arrived by now: (time, size)."""
        found = []
        while self._ahead and self._ahead[0][0] <= clock_s:
            found.append(self._ahead.popleft())
        return found

    @property
    def next_s(self) -> float:
        """When the next one that was fetched arrives; inf where there is none."""
        return self._ahead[0][0] if self._ahead else math.inf


def mean_size(spec: ServingSpec) -> float:
    """Return the mean work of a request: seconds where the service is synthetic, else new tokens."""
    return spec.mean_service_s if spec.service == "synthetic" else float(spec.new_tokens)


def _sizes(spec: ServingSpec) -> ServiceTimes:
    return ServiceTimes(service_kind(spec.service_scv), mean_size(spec), scv=spec.service_scv, seed=spec.seed + SIZES)


def read_trace(name: str) -> list[float]:
    """Return the arrival times of a CSV file with a column `arrival_s`.

    Raises:
        DataError: No such file or column, or a time that is missing, negative or before the one above it; with file:line.
    """
    path = Path(name).expanduser()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "arrival_s" not in (reader.fieldnames or ()):
                raise DataError(
                    f"{path}:1: no column arrival_s (found: {', '.join(reader.fieldnames or ()) or 'nothing'})"
                )
            times: list[float] = []
            for row in reader:
                where = f"{path}:{reader.line_num}"
                text = (row["arrival_s"] or "").strip()
                try:
                    at = float(text)
                except ValueError:
                    raise DataError(
                        f"{where}: arrival_s is {text!r}; allowed: seconds from 0 on; fill it in or drop the line"
                    ) from None
                if not 0 <= at < math.inf:
                    raise DataError(f"{where}: arrival_s is {text}; allowed: seconds from 0 on")
                if times and at < times[-1]:
                    raise DataError(
                        f"{where}: arrival_s is {at:g}, before the {times[-1]:g} above it; sort the file by arrival_s"
                    )
                times.append(at)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"trace_file: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not times:
        raise DataError(f"{path}: holds no arrivals; add lines below the heading arrival_s")
    if not times[-1]:
        raise DataError(f"{path}: all of the {len(times)} arrivals are at 0; a trace needs a length, in seconds")
    return times
