"""A resize, and a death, while a checkpoint is on its way to a slow disk: the newest whole one loads, and nothing hangs."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial

import cutting
import killing
import pytest

from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.runs.reader import RunReader

SIZE, ROOM, MOST, NUMBERS = 3, 5, 8, 30_001
#: Every fsync takes so much longer: with six or more of them to a checkpoint, one is nearly always under way.
FSYNC_S = "0.1"
#: What strikes; a resize beyond ROOM starts other ranks from the checkpoint.
WAYS = ("both", "resize", "death")


def whole(reader: RunReader, newest: int) -> int:
    """Look at the checkpoint that LATEST names, with others under way: complete, exactly its step, and not older than before."""
    assert not (reader.run.checkpoints / "LATEST").read_text().startswith("."), "one under way"
    meta = cutting.loaded(reader.run, NUMBERS)
    assert meta is not None
    reader.poll()
    assert newest <= meta["tick"] <= killing.reached(reader)
    return int(meta["tick"])


def under_way(reader: RunReader) -> bool:
    return any(reader.run.checkpoints.glob(".*.part"))


def strike(session: Session, reader: RunReader, chance: random.Random, way: str, nodes: int) -> None:
    """While a checkpoint is being written ask for `nodes` nodes, kill one at work - the leader every third time - or both."""
    killing.wait(reader, partial(under_way, reader), "a checkpoint under way")
    time.sleep(chance.uniform(0.0, 0.1))
    reader.poll()
    members = reader.kind("segment")[-1]["members"]
    pids = {e["by"]: e["pid"] for e in reader.kind("started") if e["incarnation"] == reader.run.incarnations() - 1}
    if way != "death":
        session.ask(reader, {"nodes": nodes})
    if way == "both":
        time.sleep(chance.uniform(0.0, 0.2))
    if way != "resize":
        os.kill(pids[members[0] if chance.random() < 1 / 3 else chance.choice(members)], signal.SIGKILL)


def go_on(reader: RunReader, nodes: int | None) -> None:
    """Wait until a checkpoint that was begun from now on is whole, with as many nodes as were asked for."""
    since = killing.reached(reader)
    killing.wait(reader, lambda: any(e["tick"] > since for e in reader.kind("checkpoint")), "the next checkpoint")
    if nodes is not None:
        killing.wait(reader, lambda: len(reader.kind("segment")[-1]["members"]) == nodes, f"{nodes} nodes")


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [(1, 1), *(pytest.param(n, 15, marks=[pytest.mark.slow, pytest.mark.timeout(900)]) for n in (2, 3, 4))],
)
def test_what_comes_while_a_slow_disk_is_written_leaves_a_whole_checkpoint(owner, loaded, seed, rounds):
    loaded("slow_fsync", AIINFRA_TEST_FSYNC_S=FSYNC_S)
    cutting.known()
    chance, session, newest, hits, resized = random.Random(seed), owner.session(), 0, 0, set()
    spec = spec_of("counter", {"nodes": SIZE, "numbers": NUMBERS, "checkpoint_every_s": 0.05, "checkpoints_kept": 2})
    reader = session.launch("counter", spec, room=ROOM)
    killing.wait(reader, lambda: reader.kind("checkpoint"), "the first checkpoint")
    for round_ in range(rounds):
        way = WAYS[round_ % len(WAYS)]
        reader.poll()
        now, incarnation = len(reader.kind("segment")[-1]["members"]), reader.run.incarnations()
        most = ROOM if round_ % 5 else MOST  # now and then more than the pool has
        nodes = chance.choice([n for n in range(2, most + 1) if n != now])
        strike(session, reader, chance, way, nodes)
        hits += under_way(reader)
        newest = whole(reader, newest)
        # A death may take the request's carrying-out along, or leave fewer; then whatever goes on is well.
        go_on(reader, nodes if way == "resize" else None)
        newest = whole(reader, newest)
        resized.add((way, nodes, reader.run.incarnations() - incarnation))
    assert hits * 2 > rounds, "the disk was too fast for this test"
    print(f"{hits} of {rounds} struck while a checkpoint was under way; {sorted(resized)}")
    told = reader.kind("checkpoint-given-up")
    assert all(e["reason"] for e in told)
    assert session.stop(reader, wait_s=60).state == "stopped"
    assert cutting.loaded(reader.run, NUMBERS)["tick"] == killing.reached(reader)
    assert not under_way(reader)
