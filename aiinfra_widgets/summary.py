"""A run as one JSON object: what `aiinfra run --json` prints, `Lab.results()` returns and a report keeps."""

from __future__ import annotations

from typing import Any

from .comparison import compare
from .runs.reader import RunReader
from .runs.status import status, traceback_of

FORMAT = 2


def summary(reader: RunReader) -> dict[str, Any]:
    """Return the run, its status, its segments with predicted and measured quantities, and its events.

    Args:
        reader: Of the run; it is polled here.

    Returns:
        Plain JSON types. Each segment has `nodes`, `first_tick`, `ticks`, and by quantity `predicted`, `measured`,
        `relative_error`, `method`; None is "not known". Times are in seconds of the monotonic clock of the machine.
    """
    reader.poll()
    now = status(reader)
    found: dict[str, Any] = {
        "format": FORMAT,
        "run": str(reader.run.path),
        "experiment": reader.experiment.name,
        "status": now.state,
        "message": now.message,
        "next": now.next_step or None,
        "last_tick": {str(node): tick for node, tick in sorted(now.last_tick.items())},
        "machine": reader.machine.id,
        "calibrated": reader.machine.calibrated,
        "segments": [compare(reader.experiment, s).to_json() for s in reader.segments()],
        "events": [{k: v for k, v in e.items() if k != "traceback"} for e in reader.events],
    }
    if now.state == "failed":
        found["traceback"] = traceback_of(reader) or None
    return found
