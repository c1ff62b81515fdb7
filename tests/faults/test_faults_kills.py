"""Random kills in data parallel: the run goes on, spare nodes take the places, and what is learned is what an unkilled run learns."""

from __future__ import annotations

import os
import random
import signal

import killing
import numpy as np
import pytest

from aiinfra_widgets.ranks import checkpoint

SEED = 20_261_121
#: Nodes at work, ranks in the pool, kills: 20 in all, each size down to one node.
CAMPAIGNS = ((2, 8, 7), (4, 8, 7), (8, 8, 6))


@pytest.mark.parametrize(("size", "room", "kills"), CAMPAIGNS)
def test_random_kills_leave_the_run_and_its_result_as_they_were(owner, size, room, kills):
    chance, session = random.Random(SEED + size), owner.session()
    reader = killing.start(session, size, room)
    found = [killing.kill_one(reader, chance, size) for _ in range(kills)]
    assert len(found) == kills
    assert max(kill.back for kill in found) <= 1
    left = [n for n in range(room) if n not in {kill.victim for kill in found}]
    assert reader.kind("segment")[-1]["members"] == left[:size]
    assert reader.run.incarnations() == 1  # nothing was started anew
    ticks, state = killing.stopped(session, reader)
    rows = reader.nodes
    taken_over = {e["tick"] for e in reader.kind("rank-lost")}  # by who was one behind, from who was ahead
    for node in left[:size]:  # nobody does a tick twice, nor skips any other
        mine = rows[rows["node"] == node]["tick"].tolist()
        assert mine == sorted(set(mine))
        assert set(range(int(mine[0]), ticks + 1)) - set(mine) <= taken_over
    last = rows[rows["tick"] == ticks]
    assert sorted(last["node"].tolist()) == left[:size]
    assert last["loss"].nunique() == 1
    other, expected = killing.unkilled(session, ticks)
    assert np.allclose(state["parameters"], expected["parameters"], rtol=1e-2, atol=1e-3)
    theirs, ours = (r.ticks.set_index("tick")["loss"] for r in (other, reader))
    assert abs(ours[ticks] - theirs[ticks]) <= 0.02 * abs(theirs[ticks]) + 1e-3


def test_the_survivor_holds_bit_for_bit_what_the_dead_one_held(owner):
    reader = owner.start(2, nodes=2, checkpoint_every_s=0.0)
    session = owner.sessions[-1]
    for verb in ("pause", "checkpoint"):
        asked = session.ask(reader, verb=verb)
        owner.until(reader, lambda s, a=asked: reader.answer(a.id))
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    first = checkpoint.load(reader.run)
    os.kill(owner.pid(reader, 0), signal.SIGKILL)
    owner.until(reader, lambda s: reader.kind("rank-lost"))
    assert session.stop(reader, wait_s=30).state == "stopped"
    second = checkpoint.load(reader.run)
    assert second[0]["tick"] == first[0]["tick"]
    assert all(np.array_equal(first[1][name], second[1][name]) for name in first[1])
