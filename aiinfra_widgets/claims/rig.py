"""What measurements share: medians with their spread, a deadline to sleep to, the moment, and worker processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ProbeError
from ..texts import N_
from .claim import Curve, Evidence, Measurement

WORKER = Path(__file__).with_name("worker.py")
#: Two-sided 95 % of Student's t for ten batches.
T_TEN = 2.262


def sleep_until(deadline_s: float) -> None:
    """Sleep until `time.perf_counter()` is `deadline_s`; late sleeps do not add up where deadlines are absolute."""
    rest = deadline_s - time.perf_counter()
    if rest > 0:
        time.sleep(rest)


def timed(at: float, samples: Sequence[float], **more: Any) -> Measurement:
    """Return the median of `samples` with its quartiles.

    Args:
        at: Value of the swept input.
        samples: At least one.
        more: Further fields of the measurement.
    """
    low, middle, high = np.quantile(np.asarray(samples, dtype=float), [0.25, 0.5, 0.75])
    return Measurement(at, float(middle), float(low), float(high), len(samples), **more)


def mean_of(at: float, samples: Sequence[float], **more: Any) -> Measurement:
    """Return the mean of `samples`, in their order, with a 95 % interval from ten batch means: neighbours resemble each other."""
    means = [float(np.mean(b)) for b in np.array_split(np.asarray(samples, dtype=float), 10) if len(b)]
    middle = float(np.mean(samples))
    half = T_TEN * float(np.std(means, ddof=1)) / len(means) ** 0.5 if len(means) > 1 else float("inf")
    return Measurement(at, middle, middle - half, middle + half, len(samples), N_("95 % interval"), **more)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Clock:
    """Begins with the measurement, and makes the evidence of it."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._when = datetime.now(UTC).isoformat(timespec="seconds")
        self._load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0

    def evidence(
        self, points: Sequence[Measurement], rig: Mapping[str, float], method: str, curve: Curve | None = None
    ) -> Evidence:
        """Return what was measured, with the moment and how long it took; a busy machine is said."""
        busy = self._load > cores()
        if busy:
            method += f" The machine had other work (load {self._load:.1f} on {cores()} cores): what computes was slowed down."
        return Evidence(tuple(points), dict(rig), method, self._when, time.perf_counter() - self._begun, curve, busy)


class Worker:
    """A process of this lab that does what the line it is sent says, and answers with a line; see `worker.py`.

    Args:
        role: What it does.
        stdin: Where its orders come from; a pipe of ours by default, another worker's output in a pipeline.
    """

    def __init__(self, role: str, *args: float, stdin: Any = subprocess.PIPE) -> None:
        argv = [sys.executable, "-I", "-S", str(WORKER), role, *map(repr, args)]
        self.process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, text=True, bufsize=1)

    def tell(self, *words: float) -> None:
        """Send an order."""
        assert self.process.stdin is not None
        try:
            print(*map(repr, words), file=self.process.stdin, flush=True)
        except OSError as error:
            raise ProbeError(f"a worker process ended too early ({error}); measure again") from error

    def hear(self) -> list[float]:
        """Wait for an answer.

        Raises:
            ProbeError: The process has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ProbeError(
                f"a worker process ended with code {self.process.wait()} instead of an answer; measure again"
            )
        return [float(w) for w in line.split()]

    def close(self) -> None:
        """End the process, kill it where it does not listen."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def workers(role: str, count: int, *args: float) -> Iterator[list[Worker]]:
    """Start `count` workers that wait for orders, and end them afterwards, whatever happens."""
    found: list[Worker] = []
    try:
        found.extend(Worker(role, *args) for _ in range(count))
        for worker in found:
            worker.hear()  # ready
        yield found
    finally:
        for worker in found:
            worker.close()


@contextlib.contextmanager
def pipeline(stages: int, hold_s: float) -> Iterator[tuple[Worker, Worker]]:
    """Start a chain of processes, each passing on what comes in after `hold_s`; yield the first and the last of them."""
    found: list[Worker] = []
    try:
        for i in range(stages):
            found.append(Worker("stage", hold_s, stdin=found[-1].process.stdout if i else subprocess.PIPE))
        for _ in found:
            found[-1].hear()  # every stage says once that it is ready, and passes on what those before it say
        yield found[0], found[-1]
    finally:
        for worker in found:
            worker.close()
