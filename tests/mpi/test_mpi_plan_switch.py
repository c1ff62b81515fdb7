"""Plans that change while a run goes on: the loss curve does not notice, and what cannot be done is refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest

from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.experiments.training import Training

#: float64, so that another order of additions shows in the tenth digit only.
WORK = {"workload": "gpt-char", "precision": "float64", "global_batch": 8, "steps": 40, "learning_rate": 0.002}
CLOSE = {"rel": 1e-8, "abs": 1e-9}


@pytest.fixture(scope="module")
def plain(warm, curve):
    """The loss curve of one node."""
    found = curve(warm.done(**WORK))
    warm.tidy()
    return found


@pytest.mark.parametrize(
    ("start", "changes", "plans"),
    [
        ({"nodes": 4}, ["step=8 tp_size=2", "step=16 tp_size=1 pp_size=2 num_microbatches=2", "step=24 pp_size=1 zero_stage=3"],
         ["DP4", "DP2 x TP2", "DP2 x PP2", "DP4"]),
        ({"nodes": 2, "pp_size": 2, "num_microbatches": 4}, ["step=8 schedule=gpipe", "step=16 num_microbatches=2",
         "step=24 schedule=interleaved chunks=2"], ["PP2"] * 4),
        ({"nodes": 2, "tp_size": 2, "sequence_parallel": True}, ["step=10 nodes=4",
         "step=20 nodes=2 tp_size=1 sequence_parallel=false cp_size=2"],
         ["TP2", "DP2 x TP2", "CP2"]),
        ({"nodes": 2, "zero_stage": 1}, ["step=8 redundancy=neighbour", "step=16 nodes=4 mirror_every=3", "step=24 redundancy=checkpoint"],
         ["DP2", "DP2", "DP4", "DP4"]),
    ],
    ids=["degrees", "schedules", "nodes-and-plan", "redundancy"],
)  # fmt: skip
def test_the_loss_curve_goes_on_over_changes_of_plan(lab, curve, plain, start, changes, plans):
    run = lab.done(changes, **WORK, **start)
    assert curve(run) == pytest.approx(plain, **CLOSE)
    segments = run.segments()
    assert [str(s.spec.plan(s.spec.nodes).grid) for s in segments] == plans
    moved = run.kind("re-sharded")
    assert len(moved) == len(changes)
    assert all(e["cost_s"] > 0 for e in moved)
    nodes = run.nodes
    parts = nodes[list(Training.parts)]
    assert np.allclose(parts.sum(axis=1), nodes["step_time_s"], rtol=1e-4, atol=2e-8)


def test_from_the_flat_engine_to_a_grid_and_back(lab, curve):
    work = {"workload": "synthetic", "width": 64, "depth": 4, "global_batch": 32, "steps": 60, "nodes": 2}
    changes = ["step=15 tp_size=2", "step=30 tp_size=1", "step=45 compression=bf16"]
    found = curve(lab.done(changes, **work))
    alone = curve(lab.done(**work))
    assert found[:45] == pytest.approx(alone[:45], rel=2e-3, abs=2e-6)  # float32 sums in another order
    assert found == pytest.approx(alone, rel=5e-2)  # 16 bits on their way


def test_a_run_goes_on_from_a_checkpoint_under_another_plan(lab, curve, plain):
    first = lab.start(**{**WORK, "nodes": 2, "zero_stage": 2})
    lab.ticked(first, 12)
    assert lab.session.stop(first, wait_s=60).state == "stopped"
    again = lab.session.resume(first.run, room=4)
    lab.end(again)
    assert curve(again) == pytest.approx(plain, **CLOSE)


def test_what_does_not_fit_is_refused_with_a_reason(lab):
    with pytest.raises(SpecError, match="3 nodes cannot be cut into tp_size 2"):
        lab.start(**{**WORK, "nodes": 3, "tp_size": 2})
    run = lab.start(**{**WORK, "steps": 4000, "nodes": 2, "tp_size": 2})
    lab.ticked(run, 3)
    with pytest.raises(SpecError, match="cannot be cut into"):
        lab.session.ask(run, {"nodes": 1})
    with pytest.raises(SpecError, match="a replica has 8 samples"):
        lab.session.ask(run, {"num_microbatches": 9})
    assert lab.session.stop(run, wait_s=60).state == "stopped"
