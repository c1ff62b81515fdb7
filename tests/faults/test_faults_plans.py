"""A node of a plan that shares its state dies: the run ends, says so, and goes on from its checkpoint."""

from __future__ import annotations

import os
import signal

import pytest

LONG = {"workload": "synthetic", "width": 64, "depth": 4, "checkpoint_every_s": 0.2}


@pytest.mark.parametrize(
    "plan",
    [
        {"tp_size": 2},
        pytest.param({"pp_size": 2, "num_microbatches": 4}, marks=pytest.mark.slow),
        pytest.param({"zero_stage": 3}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_node_that_holds_a_share_dies(owner, plan):
    reader = owner.start(2, nodes=2, **LONG, **plan)
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    os.kill(owner.pid(reader, 1), signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state == "failed"
    assert now.next_step.startswith("resume at step ")
    again = owner.sessions[-1].resume(reader.run, room=2)
    owner.until(again, lambda s: len(again.kind("segment")) == 2)
    owner.ticked(again, again.kind("segment")[-1]["tick"] + 20)
    assert owner.sessions[-1].stop(again, wait_s=30).state == "stopped"
