"""Run by eight ranks (see test_mpi_plans.py): every plan computes what one process computes.

Loss and gradients of 20 steps in float64, against a plain loop over the whole net. The ranks agree on a verdict before anyone
asserts, for a rank that stops alone would leave the others waiting.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI

from aiinfra_widgets.errors import LabError
from aiinfra_widgets.models.rank_grid import RankGrid
from aiinfra_widgets.parallel.engine import Ask, Job
from aiinfra_widgets.parallel.grid_engine import GridEngine
from aiinfra_widgets.parallel.layout import Layout
from aiinfra_widgets.parallel.optimizer import Optimizer
from aiinfra_widgets.parallel.plan import Plan
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import nets
from aiinfra_widgets.workloads.facts import perceptron, small_cnn
from aiinfra_widgets.workloads.language_facts import decoder
from aiinfra_widgets.workloads.nets import Workload

WORLD = MPI.COMM_WORLD
STEPS, BATCH, RATE = 20, 24, 0.05
#: Of sums in another order, in float64, after 20 steps; relative to the largest number.
CLOSE = 1e-9

torch.set_num_threads(1)


def agree(problem: str) -> None:
    """Fail on every rank with the first rank's words. Ranks that have nothing to do sleep: those at work need the cores."""
    request = WORLD.Ibarrier()
    while not request.Test():
        time.sleep(0.002)
    problems = [p for p in WORLD.allgather(problem) if p]
    assert not problems, problems[0]


@cache
def job_of(kind: str, optimizer: str) -> Job:
    """A small task: rows of layers (one cut as a picture net), or a language model of four blocks."""
    rng = np.random.default_rng(7)
    if kind == "language":
        work = language()
    else:
        layers = small_cnn((1, 6, 5)) if kind == "picture" else perceptron(12, 20, 14, 18, 16, 5)
        shape = (1, 8, 8) if kind == "picture" else (12,)
        facts = replace(
            nets.catalog.facts("digits-cnn"), layers_of=lambda w, d: layers, sample_shape_of=lambda w, d: shape
        )
        x = torch.from_numpy(rng.standard_normal((96, *shape)))
        y = torch.from_numpy(rng.integers(0, layers[-1].in_elements, 96))
        net = nets.row_of_layers(layers)
        work = Workload(facts, net, net.whole(3), (x, y), (x[:10], y[:10]))
    work.module.double()
    rule = Optimizer.make(optimizer, 0.9, 0.01)
    return Job(work, Layout.of(work.module), rule, torch.device("cpu"), torch.float64, InjectedLink(), work.train)


def language() -> Workload:
    """Four blocks of four heads over sequences of 16 tokens of 29 kinds."""
    facts = replace(
        nets.catalog.facts("gpt-char-1m"),
        layers_of=lambda w, d: decoder(24, 4, 4, 29, 16),
        sample_shape_of=lambda w, d: (16,),
    )
    rng = np.random.default_rng(8)
    tokens = torch.from_numpy(rng.integers(0, 29, (96, 17)))
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    net = nets.net_of(facts)
    return Workload(facts, net, net.whole(3), (x, y), (x[:10], y[:10]))


def index(step: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(step).permutation(96)[:BATCH])


@cache
def alone(kind: str, optimizer: str, steps: int = STEPS) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses, and the final parameters and optimiser state (whole vectors), of a plain loop in one process."""
    job = job_of(kind, optimizer)
    parameters = job.layout.flatten(job.work.module, torch.float64)
    state = {name: torch.zeros_like(parameters) for name in job.optimizer.state_names}
    module = job.work.net.whole(3).double()
    losses: list[float] = []
    gradient = torch.zeros_like(parameters)
    for step in range(1, steps + 1):
        with torch.no_grad():
            for name, view in job.layout.views(parameters):
                module.get_parameter(name).copy_(view)
        module.zero_grad()
        at = index(step)
        loss = job.work.loss_sum(module(job.train[0][at]), job.train[1][at]) / BATCH
        loss.backward()
        for name, view in job.layout.views(gradient):
            view.copy_(module.get_parameter(name).grad)
        losses.append(float(loss.detach()))
        job.optimizer.update(parameters, gradient.clone(), state, RATE, step)
    return losses, {"parameters": parameters, **state}


def trained(plan: Plan, kind: str, optimizer: str, steps: int = STEPS) -> str:
    """Train under a plan on the first ranks of the world; return what is wrong, "" if nothing."""
    size = plan.grid.world_size
    part = WORLD.Split(0 if WORLD.rank < size else MPI.UNDEFINED, WORLD.rank)
    if part == MPI.COMM_NULL:
        return ""
    try:
        return _trained(plan, kind, optimizer, part, steps)
    finally:
        part.Free()


def _trained(plan: Plan, kind: str, optimizer: str, comm: Any, steps: int) -> str:
    job = job_of(kind, optimizer)
    engine = GridEngine(job, plan, comm)
    whole = job.layout.empty(job.optimizer.state_names, torch.float64)
    whole["parameters"].copy_(job.layout.flatten(job.work.net.whole(3), torch.float64))
    engine.load(whole)
    losses = [engine.step(Ask(index(s), s, RATE, ballot=comm.rank == 0)) for s in range(1, steps + 1)]
    found = engine.whole()
    judged = engine.evaluate(*job.work.test)
    engine.close()
    want_losses, want = alone(kind, optimizer, steps)
    if any(done.verdict != 1 for done in losses):
        return f"{plan}: ballots"
    for done in losses:
        parts = sum(v for k, v in done.sample.items() if k.endswith("_time_s") and k != "step_time_s")
        if (
            abs(parts - done.sample["step_time_s"]) > 1e-9
            or min(v for k, v in done.sample.items() if k.endswith("_time_s") and k != "compute_time_s") < -1e-9
        ):
            return f"{plan}: parts {done.sample}"
    off = max(abs(done.loss - w) for done, w in zip(losses, want_losses, strict=True))
    if off > CLOSE:
        return f"{plan}: loss is off by {off:.2e}: {[d.loss for d in losses][:3]} {want_losses[:3]}"
    for name, vector in found.items():  # momentum is a sum of gradients: every number of theirs is compared
        off = float((vector - want[name]).abs().max() / want[name].abs().max())
        if off > CLOSE:
            return f"{plan}: {name} is off by {off:.2e}"
    counts = comm.allreduce(judged.count)
    if abs(counts - 10) > 1e-9:
        return f"{plan}: {counts} held-out samples counted"
    return ""


def grid(dp: int = 1, tp: int = 1, pp: int = 1, cp: int = 1, **more: Any) -> Plan:
    return Plan(RankGrid(dp, tp, pp, cp), **more)


SINGLE = {
    "alone": grid(),
    "dp": grid(dp=4),
    "dp-uneven": grid(dp=5),
    "accumulate": grid(dp=2, num_microbatches=3),
    "recompute": grid(recompute=True, num_microbatches=2),
    "zero1": grid(dp=3, zero_stage=1),
    "zero2": grid(dp=3, zero_stage=2, num_microbatches=2),
    "zero3": grid(dp=3, zero_stage=3, num_microbatches=2),
    "tp2": grid(tp=2),
    "tp4": grid(tp=4),
    "gpipe": grid(pp=2, num_microbatches=4, schedule="gpipe"),
    "1f1b": grid(pp=4, num_microbatches=5),
    "interleaved": grid(pp=2, num_microbatches=4, schedule="interleaved", chunks=2),
}
LANGUAGE = {
    "cp2": grid(cp=2),
    "cp4": grid(cp=4),
    "tp3-sequence": grid(tp=3, sequence_parallel=True),
    "tp2-cp2": grid(tp=2, cp=2, sequence_parallel=True),
}
AXES = {"dp": {"dp": 2}, "tp": {"tp": 2}, "pp": {"pp": 2, "num_microbatches": 3}, "cp": {"cp": 2}}
SHARDED = {"zero1": {"zero_stage": 1}, "zero2": {"zero_stage": 2}, "zero3": {"zero_stage": 3}}
DEGREES = [(d, t, p, c) for d in (1, 2, 3) for t in (1, 2, 3) for p in (1, 2, 3) for c in (1, 2)]
PAIRS = {f"{a}-{b}": {**AXES[a], **AXES[b]} for a, b in combinations(AXES, 2)} | {
    f"{z}-{a}": {"dp": 2, **SHARDED[z], **AXES[a]} for z in SHARDED for a in ("tp", "pp", "cp")
}


@pytest.mark.parametrize(("kind", "optimizer"), [("layers", "sgd"), ("picture", "adamw"), ("language", "adamw")])
@pytest.mark.parametrize("name", SINGLE)
def test_a_strategy_by_itself(name, kind, optimizer):
    plan = SINGLE[name]
    if kind == "picture" and plan.grid.pp_size * plan.chunks > 4:
        pytest.skip("the picture net has fewer parts")
    agree(trained(plan, kind, optimizer))


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_strategy_for_sequences(name):
    agree(trained(LANGUAGE[name], "language", "adamw"))


@pytest.mark.parametrize("name", PAIRS)
def test_each_pair(name):
    agree(trained(grid(**PAIRS[name]), "language", "adamw"))


@pytest.mark.parametrize(
    "plan",
    [
        grid(
            dp=2,
            tp=2,
            pp=2,
            num_microbatches=4,
            schedule="interleaved",
            chunks=2,
            sequence_parallel=True,
            recompute=True,
        ),
        grid(dp=2, tp=2, cp=2, zero_stage=3, sequence_parallel=True),
        grid(tp=2, pp=2, cp=2, num_microbatches=2, schedule="gpipe"),
    ],
    ids=str,
)
def test_three_at_once_on_eight_ranks(plan):
    agree(trained(plan, "language", "sgd", steps=4))


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_plans(data):
    """Any degrees on one to four ranks, any batch cut, any stage: where `check` lets it pass it must be right."""
    degrees = data.draw(st.sampled_from([d for d in DEGREES if np.prod(d) <= WORLD.size]))
    dp, tp, pp, cp = degrees
    kind = data.draw(st.sampled_from(["layers", "language"]))
    chunks = data.draw(st.sampled_from([1, 2])) if pp == 2 else 1
    m = data.draw(st.integers(1, 6 // max(dp - 1, 1)))
    plan = Plan(
        RankGrid(dp, tp, pp, cp if kind == "language" else 1), zero_stage=data.draw(st.integers(0, 3)),
        sequence_parallel=kind == "language" and data.draw(st.booleans()), num_microbatches=m - m % pp if chunks > 1 else m,
        schedule="interleaved" if chunks > 1 else data.draw(st.sampled_from(["gpipe", "1f1b"])), chunks=chunks,
        recompute=data.draw(st.booleans()),
    )  # fmt: skip
    try:
        plan.check()
    except LabError:
        return
    if plan.num_microbatches:
        agree(trained(plan, kind, data.draw(st.sampled_from(["sgd", "adamw"])), steps=3))
