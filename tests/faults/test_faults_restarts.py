"""A run whose state died with a node starts again by itself, from its last checkpoint, so many times in a row and no more."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.ranks import checkpoint

PLANS = [
    {"zero_stage": 3},
    pytest.param({"tp_size": 2}, marks=pytest.mark.slow),
    pytest.param({"pp_size": 2, "num_microbatches": 4}, marks=pytest.mark.slow),
]
NET = {"workload": "synthetic", "width": 64, "depth": 4}


def never_over(owner, reader, wanted):
    """Follow a run until `wanted`; whoever looks meanwhile never sees a run that is over."""
    return owner.until(reader, lambda now: wanted() or (now.final and pytest.fail(str(now))))


def segments(reader, incarnation):
    return [e for e in reader.kind("segment") if e["incarnation"] == incarnation]


def kill(owner, reader, node):
    """Kill a node of the newest incarnation."""
    pid = [e["pid"] for e in reader.kind("started") if e["by"] == node][-1]
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_it_goes_on_from_its_last_checkpoint(owner, plan):
    reader = owner.start(2, nodes=2, restarts=1, **NET, **plan)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    reached = max(int(row["tick"]) for row in reader.latest().values())
    kill(owner, reader, 1)
    never_over(owner, reader, lambda: segments(reader, 1))
    kept = [e["tick"] for e in reader.kind("checkpoint") if e["incarnation"] == 0]
    assert segments(reader, 1)[0]["tick"] in kept
    assert kept[0] <= segments(reader, 1)[0]["tick"]
    queued = reader.kind("queued")[-1]
    assert queued["restart"] == 1
    assert queued["message"].startswith(f"restart 1 of 1 from step {segments(reader, 1)[0]['tick']}: node 1 died")
    never_over(owner, reader, lambda: max(r["tick"] for r in reader.latest().values()) > reached + 20)
    kill(owner, reader, 0)  # the next one in a row is one too many
    now = owner.ended(reader)
    assert now.state == "failed"
    assert "node 0 died, and its share of the state with it; it was restarted 1 times before" in now.message
    assert now.next_step.startswith("resume at step ")


def test_the_weights_are_those_of_a_run_without_deaths_bit_for_bit(owner):
    session = owner.session()
    values = {**NET, "global_batch": 64, "nodes": 2, "steps": 150, "zero_stage": 2, "checkpoint_every_s": 0.1}
    reader = session.launch("training", spec_of("training", values))
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    kill(owner, reader, 1)
    assert owner.ended(reader).state == "done"
    assert reader.run.incarnations() == 2
    whole = session.launch("training", spec_of("training", values))
    assert owner.ended(whole).state == "done"
    killed, unkilled = (checkpoint.load(r.run)[1] for r in (reader, whole))
    assert killed.keys() == unkilled.keys()
    for name in killed:
        assert np.array_equal(killed[name], unkilled[name]), name


def test_the_last_node_at_work_starts_again_too_and_what_was_changed_stays_changed(owner):
    reader = owner.start(2, nodes=1, restarts=3)
    session = owner.sessions[-1]
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    session.ask(reader, {"global_batch": 32})
    owner.until(reader, lambda s: len(segments(reader, 0)) == 2)
    kill(owner, reader, 0)
    never_over(owner, reader, lambda: segments(reader, 1))
    assert segments(reader, 1)[0]["spec"]["global_batch"] == 32
    assert "every node at work died (0)" in reader.kind("queued")[-1]["message"]
    assert session.stop(reader, wait_s=30).state == "stopped"


def test_what_would_happen_again_is_not_started_again(owner):
    reader = owner.start(2, nodes=2, restarts=3, **NET, zero_stage=1)
    owner.sessions[-1].ask(reader, verb="fault", arguments={"kind": "nan", "node": 0})
    now = owner.ended(reader)
    assert (now.state, reader.run.incarnations()) == ("failed", 1)
    assert "the loss is nan" in now.message


def test_idle_nodes_do_not_hold_up_the_end_when_everybody_at_work_died(owner):
    """Where ranks have died before, `MPI_Abort` of one leaves others alive: the supervisor ends them."""
    reader = owner.start(5, nodes=1, restarts=1)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    kill(owner, reader, 4)  # idle
    kill(owner, reader, 0)
    never_over(owner, reader, lambda: segments(reader, 1))
    assert "every node at work died (0, 4)" in reader.kind("queued")[-1]["message"]
    assert owner.sessions[-1].stop(reader, wait_s=30).state == "stopped"
