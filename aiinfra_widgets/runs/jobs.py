"""The queue of a pool: which run to do next, with how many ranks. Written by owners, and by a controller whose run must grow."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from .layout import RunDir, write_json


def write_job(pool: Path, run: RunDir, incarnation: int, size: int, *, detached: bool = False) -> None:
    """Put a job into a pool's queue; also what a controller does when the run must grow beyond the pool."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(2)}.json"
    write_json(
        pool / "jobs" / name, {"run": str(run.path), "incarnation": incarnation, "size": size, "detached": detached}
    )
