"""A run whose state died with its nodes is started again by itself, as its next incarnation, from its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LabError
from ..runs.alive import me
from ..runs.jobs import queue_run
from ..runs.layout import RunDir
from ..runs.reader import RunReader
from ..runs.status import latest_checkpoint_tick
from ..texts import N_


def after_loss(pool: Path, job: Mapping[str, Any], why: str) -> str:
    """Queue the run of a job once more where its Spec allows it, and return why its ranks ended, with what comes of it.

    Not where a node recorded an error: the same steps would end the same way. Nor where the run came to its own end.

    Args:
        pool: The pool's folder.
        job: What the ranks carried.
        why: What the launcher's end alone says.
    """
    run = RunDir(Path(job["run"]))
    try:
        reader = RunReader(run)
        reader.poll_events()
        mine = [e for e in reader.events if e["incarnation"] == job["incarnation"]]
        lost = [str(e["message"]) for e in mine if e["kind"] == "state-lost"]
        why = lost[0] if lost else why
        most = int(getattr(reader.spec, "restarts", 0))
        if (
            not most
            or any(e["kind"] in {"error", "end"} for e in mine)
            or not any(e["kind"] == "segment" for e in mine)
        ):
            return why
        number = _in_a_row(reader) + 1
        if number > most:
            return N_(f"{why}; it was restarted {most} times before, and no more are allowed (restarts)")
        tick = latest_checkpoint_tick(reader)
        origin = N_("the start") if tick is None else f"{reader.experiment.tick} {tick}"
        again = N_(f"restart {number} of {most} from {origin}: {why}")
        said = {**me(), "message": again, "restart": number, "from_tick": tick or 0}
        # What was changed since the checkpoint stays changed; only the work is done again.
        spec = reader.spec.model_dump()
        queue_run(
            pool, run, job["incarnation"] + 1, int(job["size"]),
            said=said, detached=bool(job["detached"]), spec=spec, again=True,
        )  # fmt: skip
    except LabError:  # a disk that is full: it ends as it would without
        return why
    return why


def _in_a_row(reader: RunReader) -> int:
    """Return how many restarts led to this incarnation since somebody last asked for the run."""
    asked = [e for e in reader.kind("queued") if e["by"] == "owner"]
    return int(asked[-1].get("restart", 0)) if asked else 0
