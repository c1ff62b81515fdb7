"""A process of the claims lab. Run by its path, with Python's own library alone, so that it is there in milliseconds.

`duty`: computes a share of the time. `chunks`: computes so many pieces. `stage`: holds what comes in, then passes it on.
It says one line when it is ready and ends when its input does.
"""

from __future__ import annotations

import hashlib
import sys
import time

#: Rounds of the hash that make one piece of work: some milliseconds, no memory to speak of.
BLOCK = b"\0" * 65536


def compute(rounds: int) -> None:
    """Hash a block so many times."""
    digest = hashlib.sha256()
    for _ in range(rounds):
        digest.update(BLOCK)


def duty(share: float, seconds: float) -> tuple[float, float]:
    """Compute for `share` of every 10 ms, by processor time; return processor seconds and wall seconds."""
    begun, used, period = time.perf_counter(), time.process_time(), 0.01
    for slot in range(1, max(1, round(seconds / period)) + 1):
        # What a neighbour took away is caught up with, as long as there is time.
        while time.process_time() - used < slot * share * period and time.perf_counter() - begun < seconds:
            compute(1)
        time.sleep(max(0.0, begun + slot * period - time.perf_counter()))
    return time.process_time() - used, time.perf_counter() - begun


def main(role: str, args: list[float]) -> None:
    """Follow orders until there are no more."""
    print(0.0, flush=True)
    for line in sys.stdin:
        order = [float(w) for w in line.split()]
        if role == "duty":
            print(*map(repr, duty(*order)), flush=True)
        elif role == "chunks":
            begun = time.perf_counter()
            for _ in range(int(order[0])):
                compute(int(order[1]))
            print(repr(time.perf_counter() - begun), flush=True)
        elif role == "stage":
            if order[0] > 0:  # 0 is a stage's word that it is ready
                time.sleep(args[0])
            print(line, end="", flush=True)
        else:
            raise SystemExit(f"no role {role!r}")


if __name__ == "__main__":
    main(sys.argv[1], [float(a) for a in sys.argv[2:]])
