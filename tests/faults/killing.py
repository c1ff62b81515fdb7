"""Kills nodes of a training run at moments from a seed, and tells what became of each kill; for the tests and for the benchmark."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import status

#: Small, so that a tick takes about a millisecond and what is measured is the recovery.
WORK = {
    "workload": "net-10-5-2",
    "global_batch": 64,
    "evaluate_every": 0,
    "checkpoint_every_s": 0.0,
    "trace_every": 0,
    "restarts": 0,
}
PATIENCE_S = 150.0


@dataclass(frozen=True)
class Kill:
    """One kill: of which node, how many were at work, how long until a survivor had done a tick again, how far the counter went back."""

    victim: int
    size: int
    gap_s: float
    back: int


def wait(reader: RunReader, true: Any, what: str) -> Any:
    """Follow a run until `true` returns something that is true; it must not end before."""
    end = time.monotonic() + PATIENCE_S
    while True:
        reader.poll()
        if value := true():
            return value
        now = status(reader)
        assert not now.final, f"while waiting for {what}: {now}"
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s in vain for {what}: {now}"
        time.sleep(0.005)


def reached(reader: RunReader) -> int:
    """The newest tick that any node has done."""
    return max((int(row["tick"]) for row in reader.latest().values()), default=0)


def start(session: Session, size: int, room: int, **values: Any) -> RunReader:
    """Start a run that goes on until it is stopped, and wait for its first ticks."""
    spec = spec_of("training", {**WORK, "nodes": size, "steps": 10_000_000, **values})
    reader = session.launch("training", spec, room=room)
    wait(reader, lambda: reached(reader) >= 10, "the first ticks")
    return reader


def kill_one(reader: RunReader, chance: random.Random, size: int) -> Kill:
    """Kill a node at work, at a tick by chance, and wait until the others are at work again, as many as there can be."""
    then = reached(reader) + chance.randrange(1, 40)
    wait(reader, lambda: reached(reader) >= then, f"tick {then}")
    members = reader.kind("segment")[-1]["members"]
    victim = chance.choice(members)
    pids = {e["by"]: e["pid"] for e in reader.kind("started")}
    before = len(reader.kind("rank-lost"))
    os.kill(pids[victim], signal.SIGKILL)
    killed_s = time.monotonic()
    wait(reader, lambda: len(reader.kind("rank-lost")) > before, "the survivors")
    lost = reader.kind("rank-lost")[before]
    assert lost["lost"] == [victim]
    living = len(pids) - sum(len(e["lost"]) for e in reader.kind("rank-lost"))
    wait(reader, lambda: len(reader.kind("segment")[-1]["members"]) == min(size, living), "spare nodes")
    wait(reader, lambda: reached(reader) > lost["tick"] + 5, "the ticks after that")
    rows = reader.nodes
    after = rows[(rows["tick"] > lost["tick"]) & (rows["t_s"] > killed_s)]
    done = rows[rows["t_s"] <= lost["t_s"]]
    return Kill(
        victim, len(members), float(after["t_s"].min()) - killed_s, max(int(done["tick"].max()) - lost["tick"], 0)
    )


def stopped(session: Session, reader: RunReader) -> tuple[int, dict[str, np.ndarray[Any, Any]]]:
    """Stop a run; return the tick and the arrays of its last checkpoint."""
    ended = session.stop(reader, wait_s=PATIENCE_S)
    assert ended.state == "stopped", ended
    kept = checkpoint.load(reader.run)
    assert kept is not None
    return int(kept[0]["tick"]), kept[1]


def unkilled(session: Session, ticks: int) -> tuple[RunReader, dict[str, np.ndarray[Any, Any]]]:
    """Do the same work on one node that nobody kills."""
    reader = session.launch("training", spec_of("training", {**WORK, "nodes": 1, "steps": ticks}), room=1)
    end = time.monotonic() + PATIENCE_S
    while not status(reader).final:
        reader.poll()
        assert time.monotonic() < end, status(reader)
        time.sleep(0.02)
    reader.poll()  # the rows of the last ticks
    kept = checkpoint.load(reader.run)
    assert kept is not None
    assert kept[0]["tick"] == ticks
    return reader, kept[1]


def cut_off_writers(run: RunDir, chance: random.Random, times: int) -> list[int]:
    """Kill a writer of checkpoints at moments by chance; return the tick of the newest whole one after each kill.

    What is loaded must be exactly a step that was reached: every number of it is its tick, and no tick ever goes back.
    """
    writer, seen, tick = Path(__file__).with_name("checkpoint_writer.py"), [], 0
    for _ in range(times):
        argv = [sys.executable, str(writer), str(run.path), str(tick)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.08))
            process.send_signal(signal.SIGKILL)
        kept = checkpoint.load(run)
        if kept is None:
            assert not seen, "a checkpoint that was there is gone"
            continue
        meta, arrays = kept
        assert (arrays["state"] == meta["tick"]).all()
        assert meta["tick"] >= (seen[-1] if seen else 0)
        seen.append(int(meta["tick"]))
        tick = meta["tick"] + 1
    return seen
