"""The queue of a pool: which run to do next, with how many ranks. Written by owners, and by a controller whose run must grow."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .layout import RunDir, write_json
from .writer import EventWriter


def write_job(
    pool: Path,
    run: RunDir,
    incarnation: int,
    size: int,
    *,
    detached: bool = False,
    spec: Mapping[str, Any] | None = None,
    again: bool = False,
) -> None:
    """Put a job into a pool's queue; also what a controller does when the run must grow beyond the pool.

    Args:
        pool: The pool's folder.
        run: What to carry.
        incarnation: Of the run, for its file names.
        size: Ranks it needs.
        detached: Whether it goes on without its owner.
        spec: What to run with; None takes the checkpoint's, else the run's own.
        again: Nobody asked for it: the time it may take goes on counting.
    """
    name = f"{time.time_ns():020d}-{secrets.token_hex(2)}.json"
    job = {"run": str(run.path), "incarnation": incarnation, "size": size, "detached": detached, "again": again}
    write_json(pool / "jobs" / name, {**job, "spec": dict(spec)} if spec is not None else job)


def queue_run(
    pool: Path,
    run: RunDir,
    incarnation: int,
    size: int,
    *,
    said: Mapping[str, Any],
    detached: bool = False,
    spec: Mapping[str, Any] | None = None,
    again: bool = False,
) -> None:
    """Say in the run's events that it waits, and put it into a pool's queue; as `write_job`.

    In this order, and in the owner's name: whoever watches a run that is started again never sees one that is over.

    Args:
        pool, run, incarnation, size, detached, spec, again: Of `write_job`.
        said: More of the event "queued", such as its message.

    Raises:
        StorageError: The disk takes neither.
    """
    event = EventWriter(run, incarnation, "owner")
    try:
        event("queued", **said, pool=str(pool))
    finally:
        event.close()
    write_job(pool, run, incarnation, size, detached=detached, spec=spec, again=again)
