"""Run by four ranks (see test_mpi_mirror.py): what some of them keep is the whole state, bit for bit, and costs what was predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mpi4py import MPI

from aiinfra_widgets.experiments.training.predict_calls import mirrored_bytes
from aiinfra_widgets.experiments.training.predict_memory import memory
from aiinfra_widgets.experiments.training.spec import TrainingSpec
from aiinfra_widgets.parallel.engine import Ask, Job
from aiinfra_widgets.parallel.grid_engine import GridEngine
from aiinfra_widgets.parallel.layout import Layout
from aiinfra_widgets.parallel.mirror import Mirror
from aiinfra_widgets.parallel.optimizer import Optimizer
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import nets
from tests.mpi.zero_rig import agree

WORLD, BATCH = MPI.COMM_WORLD, 16
PIPELINE = {"pp_size": 2, "num_microbatches": 2}
#: With the ranks whose deaths together take the state along.
PLANS = {
    "zero1": ({"zero_stage": 1}, {1, 2}),
    "zero2": ({"zero_stage": 2}, {3, 0}),
    "zero3": ({"zero_stage": 3, "recompute": True}, {2, 3}),
    "tp": ({"tp_size": 4}, {0, 1}),
    "pp": ({"pp_size": 4, "num_microbatches": 4}, {1, 2}),
    "tp-pp": ({"tp_size": 2, **PIPELINE}, {3, 0}),
    "interleaved-zero1": ({**PIPELINE, "zero_stage": 1, "schedule": "interleaved", "chunks": 2}, {0, 1}),
    "tp-zero3": ({"tp_size": 2, "zero_stage": 3}, {2, 3}),
    "tp-replicas": ({"tp_size": 2}, {1, 3}),  # replicas hold the same: they send nothing
    "pp-replicas": (PIPELINE, {0, 1}),
    "cp": ({"cp_size": 4}, {0, 1, 2, 3}),
}
SENDS_NOTHING = {"tp-replicas", "pp-replicas", "cp"}
#: Biases behind a row cut are counted once more; see `predict_memory`.
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The same on every rank."""
    cache = WORLD.bcast(str(tmp_path_factory.mktemp("cache")) if WORLD.rank == 0 else None)
    work = nets.load("gpt-char", seed=1, cache=Path(cache))
    train = work.train[0][:64], work.train[1][:64]
    optimizer = Optimizer.make(work.facts.optimizer, 0.9, 0.0)
    return Job(work, Layout.of(work.module), optimizer, torch.device("cpu"), torch.float32, InjectedLink(), train)


def spec_of(name):
    values = {"workload": "gpt-char", "nodes": 4, "global_batch": BATCH, "redundancy": "neighbour", "mirror_every": 2}
    return TrainingSpec.make({**values, **PLANS[name][0]})


def trained(job, spec):
    """Return (mirror after five steps, whole state by step, bytes sent by step, bytes of copies held)."""
    engine, mirror = GridEngine(job, spec.plan(4), WORLD), Mirror()
    whole = job.layout.empty(job.optimizer.state_names)
    whole["parameters"].copy_(job.layout.flatten(job.work.net.whole(1)))
    engine.load(whole)
    engine.begin_mirror(mirror, 0)
    states, sent = {0: whole}, {}
    for step in range(1, 6):
        done = engine.step(Ask(torch.arange(BATCH), step, 1e-3))
        assert abs(sum(done.sample[p] for p in PARTS) - done.sample["step_time_s"]) < 1e-6
        states[step], sent[step] = engine.whole(), done.sample["sent_bytes"]
    held = engine.state_bytes()["mirror"]
    engine.close()
    return mirror, states, sent, held


PARTS = (
    "data_time_s", "compute_time_s", "exposed_comm_time_s", "straggler_wait_time_s", "bubble_time_s", "injected_time_s",
)  # fmt: skip


def rebuilt(job, mirror, dead):
    """Return (step, whole state) that those who are not dead put together; None where they cannot, or here lies a dead one."""
    comm = WORLD.Split(MPI.UNDEFINED if WORLD.rank in dead else 0, WORLD.rank)
    if comm == MPI.COMM_NULL:
        return None
    mine = Mirror(list(mirror.kept), mirror.count)
    number, whole = mine.newest(comm), job.layout.empty(job.optimizer.state_names)
    found = (mine.rebuild(comm, number, whole), whole) if number else None
    comm.Free()
    return found


@pytest.mark.parametrize("name", PLANS)
def test_what_is_left_is_the_whole_state_and_costs_what_was_predicted(job, name):
    spec, fatal = spec_of(name), PLANS[name][1]

    def same(found, states, step):
        return found[0] == step and all(torch.equal(found[1][k], states[step][k]) for k in states[step])

    def check() -> bool:
        mirror, states, sent, held = trained(job, spec)
        for victim in range(4):
            found = rebuilt(job, mirror, {victim})
            assert WORLD.rank == victim or same(found, states, 4), (name, victim)
        if len(fatal) < 4:
            assert rebuilt(job, mirror, fatal) is None
        if WORLD.rank == 2:  # it was copying when somebody died: the generation before is whole
            mirror.kept.pop()
        found = rebuilt(job, mirror, {1})
        if name in SENDS_NOTHING:  # rank 2's part is its replica's, too, unless that one died
            alike = found is None or same(found, states, found[0])
            assert alike
        else:
            assert WORLD.rank == 1 or same(found, states, 2)
        plan, facts = spec.plan(4), job.work.facts
        copied = WORLD.allreduce(sent[4] - sent[3])
        assert copied == mirrored_bytes(spec, facts, plan) * plan.mirror_every
        assert sent[5] == sent[3]
        assert (copied == 0) == (name in SENDS_NOTHING)
        most = max(WORLD.allgather(held))
        want = max(m.mirror_bytes for m in memory(spec, facts, plan))
        assert np.isclose(most, want, rtol=TOLERANCE if plan.grid.tp_size > 1 else 0), (name, most, want)
        return True

    agree(check)
