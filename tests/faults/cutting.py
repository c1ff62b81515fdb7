"""Cuts off checkpoints that several ranks write, at moments from a seed, and looks at what is there; for the tests and the benchmark."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import killing
import numpy as np

from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import status

COUNTER = Path(__file__).with_name("counter")
WRITERS, ROOM = 3, 8
#: Share of the cuts in which all nodes at work die at once: each costs a start of ROOM ranks.
ALL = 0.1


@dataclass(frozen=True)
class Cut:
    """One cut: how many nodes were killed of how many, was a checkpoint under way, the step of the newest whole one, or None."""

    killed: int
    of: int
    under_way: bool
    tick: int | None


def known() -> None:
    """Let this process and every rank that it starts find the experiment `counter`."""
    if str(COUNTER) not in sys.path:
        sys.path.insert(0, str(COUNTER))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(COUNTER), os.environ.get("PYTHONPATH"))))


def loaded(run: RunDir, numbers: int) -> dict[str, Any] | None:
    """Load the newest checkpoint and compare every number of it with what it is at that step; None where there is none yet."""
    from counter import numbers_at

    kept = checkpoint.load(run)
    if kept is None:
        return None
    meta, arrays = kept
    expected = numbers_at(meta["tick"], numbers)
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        assert np.array_equal(arrays[name], array), (name, meta)
    return meta


def cut_off(folder: Path, chance: random.Random, times: int) -> list[Cut]:
    """Kill one of the writing nodes, or all, `times` times; survivors go on with spare nodes, a run without any is resumed.

    Asserts each time that the newest whole checkpoint loads, is exactly its step, that this step was reached, and that none goes back.
    """
    known()
    session, cuts = Session(found(), runs=folder), []
    try:
        spec = spec_of("counter", {"nodes": WRITERS})
        reader = session.launch("counter", spec, room=ROOM)
        killing.wait(reader, lambda: reader.kind("checkpoint"), "the first checkpoint")
        for _ in range(times):
            lost = len(reader.kind("rank-lost"))
            cuts.append(cut_one(reader, chance, spec.numbers, max((c.tick or 0 for c in cuts), default=0)))
            if cuts[-1].killed < cuts[-1].of:
                killing.wait(reader, partial(_mended, reader, lost), "the survivors' next checkpoint")
            else:
                reader = _again(session, reader)
        session.stop(reader, wait_s=killing.PATIENCE_S)
    finally:
        session.close()
    return cuts


def cut_one(reader: RunReader, chance: random.Random, numbers: int, newest: int) -> Cut:
    """Kill one node or all that are at work, and look at the newest checkpoint at once."""
    time.sleep(chance.uniform(0.0, 0.1))
    reader.poll()
    members = reader.kind("segment")[-1]["members"]
    victims = members if len(members) < 2 or chance.random() < ALL else [chance.choice(members)]
    pids = {e["by"]: e["pid"] for e in reader.kind("started")}  # the newest incarnation comes last
    for node in victims:
        os.kill(pids[node], signal.SIGKILL)
    under_way = any(reader.run.checkpoints.glob(".*.part"))
    kept = loaded(reader.run, numbers)
    reader.poll()
    tick = int(kept["tick"]) if kept else None
    assert tick is not None or not newest, "a checkpoint that was there is gone"
    assert tick is None or newest <= tick <= killing.reached(reader), (newest, tick, killing.reached(reader))
    return Cut(len(victims), len(members), under_way, tick)


def _mended(reader: RunReader, lost: int) -> bool:
    """Whether the survivors went on, and have begun and completed a checkpoint since."""
    those = reader.kind("rank-lost")[lost:]
    return bool(those) and any(e["tick"] > those[0]["tick"] for e in reader.kind("checkpoint"))


def _again(session: Session, reader: RunReader) -> RunReader:
    """Wait until a run without ranks is over, resume it, and wait for its next checkpoint; then ask for as many nodes as at first."""
    end = time.monotonic() + killing.PATIENCE_S
    while not (now := status(reader)).final:
        reader.poll()
        assert time.monotonic() < end, now
        time.sleep(0.02)
    before = len(reader.kind("checkpoint"))
    again = session.resume(reader.run, room=ROOM)
    killing.wait(again, lambda: len(again.kind("checkpoint")) > before, "the resumed run")
    session.ask(again, {"nodes": WRITERS})
    killing.wait(again, lambda: len(again.kind("segment")[-1]["members"]) == WRITERS, "all writers")
    return again
