"""Really sends bytes, at a stated rate: through a pair of sockets of this machine, so no port is opened."""

from __future__ import annotations

import os
import socket
import threading
import time
import zlib
from functools import cache

import numpy as np

from ..errors import ProbeError
from .claim import Evidence
from .rig import Clock, sleep_until, timed

#: Bytes of one write; a slow link is written to more often, so that no write stands for more than 2 ms.
CHUNK_BYTES, CHUNK_S = 65536, 2e-3
#: A limiter is believed up to this share of what the machine moves without it.
HEADROOM = 0.5


@cache
def _payload() -> bytes:
    return os.urandom(CHUNK_BYTES)


def transfer_s(size_bytes: int, rate_bytes_per_s: float | None = None) -> float:
    """Send so many bytes from one thread to another and return the seconds until the last one is there.

    Args:
        size_bytes: At least 1.
        rate_bytes_per_s: Of the limiter, which lets a chunk go when a link of that rate would have carried it; None is no limit.

    Raises:
        ProbeError: What arrived is not what was sent.
    """
    near, far = socket.socketpair()
    payload = memoryview(_payload())
    chunk = CHUNK_BYTES if rate_bytes_per_s is None else max(1, min(CHUNK_BYTES, int(rate_bytes_per_s * CHUNK_S)))
    sent_crc = 0
    begun = time.perf_counter()

    def send() -> None:
        nonlocal sent_crc
        sent = 0
        while sent < size_bytes:
            part = payload[: min(chunk, size_bytes - sent)]
            sent += len(part)
            if rate_bytes_per_s is not None:
                sleep_until(begun + sent / rate_bytes_per_s)
            near.sendall(part)
            sent_crc = zlib.crc32(part, sent_crc)

    sender = threading.Thread(target=send, daemon=True, name="aiinfra-claims-send")
    with near, far:
        far.settimeout(30.0)
        sender.start()
        got, crc, buffer = 0, 0, bytearray(1 << 20)
        while got < size_bytes and (n := far.recv_into(buffer)):
            got, crc = got + n, zlib.crc32(memoryview(buffer)[:n], crc)
        took = time.perf_counter() - begun
        sender.join(30.0)
    if got != size_bytes or crc != sent_crc:
        raise ProbeError(f"of {size_bytes} bytes {got} arrived, or they differ; measure again")
    return took


def latency_s(tries: int = 40) -> float:
    """Return the median time of one byte."""
    return float(np.median([transfer_s(1) for _ in range(tries)]))


def check_rate(rate_bytes_per_s: float) -> None:
    """Refuse a rate that this machine can hardly move.

    Raises:
        ProbeError: With the rate that was reached.
    """
    size = 16 << 20
    free = size / min(transfer_s(size) for _ in range(2))
    if rate_bytes_per_s > HEADROOM * free:
        raise ProbeError(
            f"a limiter of {rate_bytes_per_s / 1e6:.4g} MB/s means nothing where the machine moves {free / 1e6:.4g} MB/s"
            "; close what else runs and measure again"
        )


def measure_transfer(budget_s: float) -> Evidence:
    """Send 2 to 24 MB at 1 Gbit/s, each size several times, within about `budget_s` seconds."""
    clock, rate, sizes = Clock(), 1.25e8, (2e6, 6e6, 12e6, 24e6)
    check_rate(rate)
    idle = latency_s()
    times = int(np.clip(0.7 * budget_s / (sum(sizes) / rate), 3, 15))
    points = [timed(size, [transfer_s(int(size), rate) for _ in range(times)]) for size in sizes]
    method = (
        f"Bytes sent {times} times from thread to thread through a pair of sockets, let through at 1 Gbit/s, and checked; "
        f"one byte without limit takes {idle * 1e6:.0f} \u00b5s, which is the model's latency."
    )
    return clock.evidence(points, {"size_bytes": sizes[-1], "rate_bytes_per_s": rate, "latency_s": idle}, method)


def measure_at_no_distance(budget_s: float) -> Evidence:
    """Send 100 kB at 10 Mbit/s over no distance at all, within about `budget_s` seconds."""
    clock, rate, size = Clock(), 1.25e6, 1e5
    idle = latency_s()
    times = int(np.clip(0.7 * budget_s / (size / rate), 3, 15))
    points = [timed(0.0, [transfer_s(int(size), rate) for _ in range(times)])]
    method = (
        f"100 kB sent {times} times between two threads of this machine, let through at 10 Mbit/s: the distance is 0 km, and "
        "the formula says 0 s."
    )
    return clock.evidence(points, {"rate_bytes_per_s": rate, "size_bytes": size, "processing_s": idle}, method)
