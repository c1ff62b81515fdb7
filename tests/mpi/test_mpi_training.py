"""Data-parallel training on real ranks: the same numbers on any number of nodes, and parts that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiinfra_widgets.experiments.training import Training
from aiinfra_widgets.workloads import catalog

#: float32 sums in another order, over a few dozen steps. A wrong shard, weight or seed is off by far more than this.
CLOSE = {"rel": 2e-3, "abs": 2e-6}
WORK = {
    "digits-perceptron": {"global_batch": 64},
    "digits-cnn": {"global_batch": 50, "steps": 15},
    "linear-regression": {"global_batch": 1000},
    "dense-100-64-1": {"global_batch": 101, "learning_rate": 0.02},
    "net-10-5-2": {"global_batch": 63},
    "synthetic": {"global_batch": 32, "width": 64, "depth": 2},
    "digits-resnet": {"global_batch": 20, "steps": 8, "learning_rate": 0.0},
    "gpt-char": {"global_batch": 6, "steps": 8, "learning_rate": 0.0},
    "spoken-digits": {"global_batch": 21, "steps": 8, "learning_rate": 0.0},
    "clicks-dlrm": {"global_batch": 64, "steps": 12, "learning_rate": 0.0},
    "heat-pinn": {"global_batch": 64, "steps": 12, "learning_rate": 0.0},
}
#: Sizes of the same nets that take minutes or a GPU.
LARGER = {"gpt-char-1m", "gpt-char-10m", "gpt-124m", "gpt-350m", "gpt-1.3b", "gpt-char-lora"}


def test_every_workload_is_tried():
    assert set(WORK) | LARGER == set(catalog.names())


@pytest.mark.parametrize(
    "workload", [pytest.param(w, marks=pytest.mark.slow) if w == "spoken-digits" else w for w in WORK]
)
def test_the_loss_curve_does_not_depend_on_the_number_of_nodes(lab, curve, workload):
    sizes = (1, 2, 4) if catalog.facts(workload).family == "layers" else (1, 3)
    curves = {n: curve(lab.done(workload=workload, nodes=n, **WORK[workload])) for n in sizes}
    assert len(set(map(len, curves.values()))) == 1
    for n in sizes[1:]:
        assert curves[n] == pytest.approx(curves[1], **CLOSE)
    assert curves[1][-1] < curves[1][0]


def test_another_seed_is_another_curve(lab, curve):
    assert curve(lab.done(seed=1)) != pytest.approx(curve(lab.done(seed=2)), **CLOSE)


def test_the_state_is_exact_over_live_resizes(lab, curve):
    changes = ["step=15 nodes=2", "step=30 nodes=4", "step=45 nodes=1", "step=60 nodes=3"]
    resized = lab.done(changes, steps=80, global_batch=50)
    assert curve(resized) == pytest.approx(curve(lab.done(steps=80, global_batch=50)), **CLOSE)
    assert [s.spec.nodes for s in resized.segments()] == [1, 2, 4, 1, 3]
    assert [e["nodes"] for e in resized.kind("resized")] == [2, 4, 1, 3]
    assert all(e["tick"] >= want for e, want in zip(resized.kind("resized"), (15, 30, 45, 60), strict=True))
    assert sum(s.ticks for s in resized.segments()) == 80
    members = [e["members"] for e in resized.kind("segment")]
    assert members == [[0], [0, 1], [0, 1, 2, 3], [0], [0, 1, 2]]


def test_a_live_batch_and_learning_rate_act_alike_on_any_number_of_nodes(lab, curve):
    changes = ["step=10 global_batch=200", "step=20 learning_rate=0.2"]
    assert curve(lab.done(changes, nodes=3)) == pytest.approx(curve(lab.done(changes, nodes=1)), **CLOSE)
    assert curve(lab.done(changes)) != pytest.approx(curve(lab.done()), **CLOSE)


@pytest.mark.parametrize("algorithm", ["ring", "tree", "recursive-doubling"])
@pytest.mark.parametrize("nodes", [3, 4])
def test_every_algorithm_trains_alike(lab, curve, algorithm, nodes):
    assert curve(lab.done(nodes=nodes, algorithm=algorithm)) == pytest.approx(curve(lab.done(nodes=1)), **CLOSE)


def test_overlap_trains_alike_and_says_what_it_sent(lab, curve):
    size = {"workload": "synthetic", "width": 128, "depth": 4, "global_batch": 32, "bucket_bytes": 2**16, "nodes": 2}
    blocking, overlapped = lab.done(**size), lab.done(**size, overlap=True)
    assert curve(overlapped) == pytest.approx(curve(blocking), **CLOSE)
    assert overlapped.ticks["sent_bytes"].iloc[0] == pytest.approx(blocking.ticks["sent_bytes"].iloc[0], rel=0.01)


@pytest.mark.parametrize(
    "values",
    [
        {"nodes": 1},
        {"nodes": 2},
        {"nodes": 4, "slow_node": 2, "slow_factor": 3.0},
        {"nodes": 2, "link_latency_s": 0.002, "algorithm": "tree"},
        {"nodes": 2, "overlap": True},
    ],
    ids=str,
)
def test_the_parts_of_a_step_add_up(lab, values):
    nodes = lab.done(**values).nodes
    parts = nodes[list(Training.parts)]
    assert (parts.to_numpy() >= -1e-9).all()
    assert np.allclose(parts.sum(axis=1), nodes["step_time_s"], rtol=1e-4, atol=2e-8)
    assert (nodes["step_time_s"] > 0).all()


def test_one_node_does_not_communicate(lab):
    nodes = lab.done(nodes=1).nodes
    assert (nodes["sent_bytes"] == 0).all()
    assert (nodes["injected_time_s"] == 0).all()


def test_an_injected_latency_is_waited_and_shown_as_injected(lab):
    steps, latency_s = 12, 0.01
    nodes = lab.done(nodes=2, steps=steps, algorithm="ring", link_latency_s=latency_s).nodes
    # A ring of two passes 2 (n - 1) = 2 messages, each after a sleep that never ends early.
    assert (nodes["injected_time_s"] >= 0.5 * 2 * latency_s).mean() > 0.5
    assert (nodes["step_time_s"] >= 2 * latency_s).all()
    assert (lab.done(nodes=2, steps=steps, algorithm="ring").nodes["injected_time_s"] == 0).all()


def test_an_injected_bandwidth_is_waited_by_the_bytes_that_pass(lab):
    rate = 5e6
    nodes = lab.done(nodes=2, steps=12, algorithm="ring", link_bandwidth_bytes_per_s=rate).nodes
    sent = nodes["sent_bytes"].iloc[0]
    assert sent > 4 * catalog.facts("digits-perceptron").params * 0.9
    assert (nodes["step_time_s"] >= sent / rate * 0.999).all()
    assert nodes["injected_time_s"].median() > nodes["exposed_comm_time_s"].median()


def test_a_slow_node_is_injected_there_and_waited_for_elsewhere(lab):
    nodes = lab.done(nodes=2, steps=30, slow_node=1, slow_factor=20.0, global_batch=512).nodes
    injected = nodes.groupby("node")["injected_time_s"].median()
    waited = nodes.groupby("node")["straggler_wait_time_s"].median()
    assert injected[0] == 0
    assert injected[1] > 0
    assert waited[0] > waited[1]
    assert waited[0] > 0.3 * injected[1]


def test_held_out_data_are_judged_alike_on_any_number_of_nodes(lab):
    seen = {}
    for n in (1, 3):
        found = lab.done(nodes=n, evaluate_every=20).kind("evaluated")
        assert [e["tick"] for e in found] == [20, 40]
        seen[n] = [x for e in found for x in (e["held_out_loss"], e["accuracy_frac"])]
    assert seen[3] == pytest.approx(seen[1], rel=5e-3)
    assert 0.3 < seen[1][-1] <= 1


def test_the_users_own_archives_are_trained_on(lab, curve, tmp_path):
    rng = np.random.default_rng(7)
    for name, count in (("train", 200), ("test", 40)):
        x = rng.normal(size=(count, 100))
        np.savez(tmp_path / f"{name}.npz", x=x, y=x[:, :3].sum(axis=1))
    values = {"workload": "dense-100-64-1", "data_dir": str(tmp_path), "global_batch": 40, "learning_rate": 0.01}
    one, two = (curve(lab.done(nodes=n, **values)) for n in (1, 2))
    assert two == pytest.approx(one, **CLOSE)
    assert one != pytest.approx(curve(lab.done(**{**values, "data_dir": ""})), **CLOSE)


def test_a_batch_that_does_not_divide_gives_every_sample_one_weight(lab, curve):
    assert curve(lab.done(nodes=4, global_batch=7)) == pytest.approx(curve(lab.done(nodes=1, global_batch=7)), **CLOSE)


def test_what_is_recorded_is_finite_and_counted(lab):
    reader = lab.done(nodes=2)
    assert len(reader.nodes) == 2 * 40
    assert reader.nodes["memory_bytes"].iloc[-1] > 2**20
    assert all(math.isfinite(x) for x in reader.nodes["cpu_time_s"])
    assert set(Training.parts) <= set(reader.ticks.columns)
