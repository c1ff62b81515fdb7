"""Run by two ranks (see test_mpi_reference.py): torch's own engines compute what one process computes.

The ranks agree on a verdict before anyone asserts, for a rank that stops alone would leave the other waiting.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from mpi4py import MPI

from aiinfra_widgets.errors import LabError, ModelInputError
from aiinfra_widgets.models.rank_grid import RankGrid
from aiinfra_widgets.parallel.engine import Ask, Job, floats
from aiinfra_widgets.parallel.layout import Layout
from aiinfra_widgets.parallel.optimizer import AdamW, Sgd
from aiinfra_widgets.parallel.plan import Plan
from aiinfra_widgets.parallel.reference import check, reference_engine
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import nets

WORLD = MPI.COMM_WORLD
STEPS, BATCH, RATE = 20, 48, 0.05
DATA, TENSOR, PIPE = (RankGrid(**{f"{axis}_size": WORLD.size}) for axis in ("dp", "tp", "pp"))
PLANS = {
    "ddp": Plan(DATA, engine="torch-ddp"),
    "ddp, accumulating": Plan(DATA, engine="torch-ddp", num_microbatches=3),
    "fsdp2, zero 3": Plan(DATA, engine="torch-fsdp2", zero_stage=3),
    "fsdp2, zero 2": Plan(DATA, engine="torch-fsdp2", zero_stage=2, num_microbatches=2),
    "tensor": Plan(TENSOR, engine="torch-tensor", num_microbatches=2),
    "gpipe": Plan(PIPE, engine="torch-pipelining", schedule="gpipe", num_microbatches=4),
    "1f1b": Plan(PIPE, engine="torch-pipelining", schedule="1f1b", num_microbatches=4),
    "interleaved": Plan(PIPE, engine="torch-pipelining", schedule="interleaved", chunks=2, num_microbatches=4),
}
OPTIMIZERS = {"sgd": Sgd(0.9), "adamw": AdamW(weight_decay=0.1)}


def agree(ok: object) -> None:
    assert all(WORLD.allgather(bool(ok)))


def job_of(name="synthetic", optimizer="sgd", dtype=torch.float64, link=None, **size):
    with tempfile.TemporaryDirectory() as cache:
        work = nets.load(name, seed=3, cache=Path(cache), **size)
    x, y = work.train
    train = floats(x, dtype), floats(y, dtype)
    return Job(
        work, Layout.of(work.module), OPTIMIZERS[optimizer], torch.device("cpu"), dtype, link or InjectedLink(), train
    )


@pytest.fixture(scope="module")
def jobs():
    """Dense layers of 64; each with either optimiser."""
    return {name: job_of(optimizer=name, width=64, depth=3) for name in OPTIMIZERS}


def beginning(job):
    state = job.layout.empty(job.optimizer.state_names, job.dtype)
    state["parameters"] = job.layout.flatten(job.work.module, job.dtype)
    return state


def ask(job, step, batch=BATCH, **more):
    generator = torch.Generator().manual_seed(step)
    return Ask(torch.randperm(len(job.train[0]), generator=generator)[:batch], step, RATE, **more)


def by_one_process(job, steps=STEPS, batch=BATCH):
    """Return losses and whole state of the same steps without any engine: flat vectors, autograd, the lab's optimiser."""
    state, losses = beginning(job), []
    for step in range(1, steps + 1):
        named = {n: v.clone().requires_grad_() for n, v in job.layout.views(state["parameters"])}
        index = ask(job, step, batch).index
        x, y = (part[index] for part in job.train)
        loss = job.work.loss_sum(torch.func.functional_call(job.work.module, named, x), y) / batch
        loss.backward()
        gradient = torch.empty_like(state["parameters"])
        for name, view in job.layout.views(gradient):
            view.copy_(named[name].grad)
        rest = {k: v for k, v in state.items() if k != "parameters"}
        job.optimizer.update(state["parameters"], gradient, rest, RATE, step)
        losses.append(loss.item())
    return losses, state


def by_engine(job, plan, steps=STEPS, batch=BATCH):
    engine = reference_engine(job, plan, WORLD)
    try:
        engine.load(beginning(job))
        done = [engine.step(ask(job, step, batch, ballot=step)) for step in range(1, steps + 1)]
        return done, engine.whole()
    finally:
        engine.close()


def distance(one, other):
    return max(float((one[k] - other[k]).abs().max()) for k in one)


def test_there_are_two():
    agree(WORLD.size == 2)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("name", list(PLANS))
def test_losses_and_state_are_those_of_one_process(jobs, name, optimizer):
    job = jobs[optimizer]
    wanted, state = by_one_process(job)
    done, whole = by_engine(job, PLANS[name])
    losses = [d.loss for d in done]
    agree(wanted[-1] < 0.9 * wanted[0])
    agree(max(abs(a - b) for a, b in zip(losses, wanted, strict=True)) < 1e-9 and distance(whole, state) < 1e-9)
    agree([d.verdict for d in done] == [WORLD.size * step for step in range(1, STEPS + 1)])


@pytest.mark.parametrize("name", ["ddp", "fsdp2, zero 3", "tensor", "1f1b"])
def test_float32_stays_within_its_rounding(name):
    job = job_of(dtype=torch.float32, width=64, depth=3)
    wanted, _ = by_one_process(job)
    done, _ = by_engine(job, PLANS[name])
    agree(max(abs(d.loss / w - 1) for d, w in zip(done, wanted, strict=True)) < 1e-5)


@pytest.mark.parametrize("name", ["ddp", "fsdp2, zero 3"])
def test_shares_may_be_uneven(jobs, name):
    wanted, _ = by_one_process(jobs["sgd"], batch=33)
    done, _ = by_engine(jobs["sgd"], PLANS[name], batch=33)
    agree(max(abs(d.loss - w) for d, w in zip(done, wanted, strict=True)) < 1e-9)


def test_a_state_moves_from_engine_to_engine(jobs):
    """Five steps on each, twice round; as far as one process goes in that many."""
    for job in jobs.values():
        names = ["ddp", "interleaved", "fsdp2, zero 2", "tensor"]
        wanted, state = by_one_process(job)
        whole, losses = beginning(job), []
        for turn, name in enumerate(names):
            engine = reference_engine(job, PLANS[name], WORLD)
            engine.load(whole)
            losses += [engine.step(ask(job, step)).loss for step in range(5 * turn + 1, 5 * turn + 6)]
            whole = engine.whole()
            engine.close()
        agree(max(abs(a - b) for a, b in zip(losses, wanted, strict=True)) < 1e-9 and distance(whole, state) < 1e-9)


@pytest.mark.parametrize("name", list(PLANS))
def test_an_evaluation_counts_every_held_out_sample_once_and_changes_nothing(name):
    job = job_of("digits-cnn" if name == "ddp" else "digits-perceptron")
    x, y = (floats(part, job.dtype) for part in job.work.test)
    engine = reference_engine(job, PLANS[name], WORLD) if name != "interleaved" else None
    if engine is None:  # a perceptron of three parts has no four chunks
        with pytest.raises(ModelInputError, match="has 3"):
            check(PLANS[name], job.work)
        return
    engine.load(beginning(job))
    engine.step(ask(job, 1))
    found = engine.evaluate(x, y)
    again = engine.step(ask(job, 2)).loss
    engine.close()
    sums = WORLD.allreduce(np.array([found.loss_sum, found.right, found.count]))
    _, state = by_one_process(job, steps=1)
    named = dict(job.layout.views(state["parameters"]))
    outputs = torch.func.functional_call(job.work.module, named, x)
    right = int((outputs.argmax(1) == y).sum())
    agree(abs(sums[0] - float(job.work.loss_sum(outputs, y))) < 1e-6 and sums[1] == right and sums[2] == len(x))
    agree(abs(again - by_one_process(job, steps=2)[0][1]) < 1e-9)


def test_what_is_sharded_is_counted(jobs):
    """Dense layers of even size, on two ranks: FSDP2 halves all of it, DDP nothing, a pipeline's stages add up."""
    job, found = jobs["adamw"], {}
    for name in ("ddp", "fsdp2, zero 3", "1f1b"):
        engine = reference_engine(job, PLANS[name], WORLD)
        engine.load(beginning(job))
        engine.step(ask(job, 1))
        found[name] = engine.state_bytes()
        engine.close()
    whole = 8 * job.layout.size
    agree(found["ddp"] == {"parameters": whole, "gradients": whole, "optimizer": 2 * whole})
    agree(all(abs(v * 2 / found["ddp"][k] - 1) < 0.02 for k, v in found["fsdp2, zero 3"].items()))
    agree(all(WORLD.allreduce(v) == found["ddp"][k] for k, v in found["1f1b"].items()))


@pytest.mark.parametrize("name", ["ddp", "1f1b"])
def test_the_parts_add_up_and_what_is_not_measured_says_so(jobs, name):
    engine = reference_engine(jobs["sgd"], PLANS[name], WORLD)
    engine.load(beginning(jobs["sgd"]))
    slow = 1.0 + 2.0 * (WORLD.rank == 1)
    found = [engine.step(ask(jobs["sgd"], step, slow_factor=slow)).sample for step in range(1, 4)][-1]
    engine.close()
    parts = ("data_time_s", "engine_time_s", "straggler_wait_time_s", "injected_time_s")
    agree(abs(sum(found[p] for p in parts) - found["step_time_s"]) < 1e-9 and min(found[p] for p in parts) >= 0)
    agree((found["injected_time_s"] > 0) == (WORLD.rank == 1))
    agree(all(np.isnan(found[p]) for p in ("compute_time_s", "exposed_comm_time_s", "bubble_time_s", "sent_bytes")))


@pytest.mark.parametrize("name", ["ddp", "fsdp2, zero 3", "tensor", "interleaved"])
def test_nothing_is_unpickled_and_nobody_listens_beyond_this_machine(jobs, name, monkeypatch):
    unpickled = []
    read = dist.distributed_c10d._tensor_to_object
    monkeypatch.setattr(
        dist.distributed_c10d, "_tensor_to_object", lambda *a, **k: unpickled.append(a) or read(*a, **k)
    )
    before = {c.laddr.port for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    engine = reference_engine(jobs["sgd"], PLANS[name], WORLD)
    engine.load(beginning(jobs["sgd"]))
    engine.step(ask(jobs["sgd"], 1))
    listening = [c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    ours = [a for a in listening if a.port not in before]
    engine.whole()
    engine.close()
    agree(not unpickled and all(a.ip in {"127.0.0.1", "::1"} for a in ours))
    agree(not dist.is_initialized())


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan(DATA, engine="torch-fsdp2"), "zero_stage: got 0; torch-fsdp2 has 2 and 3"),
        (Plan(DATA, engine="torch-ddp", zero_stage=1), "zero_stage: got 1; torch-ddp has 0"),
        (Plan(DATA, engine="torch-tensor"), "torch-tensor distributes over tp alone, and the plan is DP2"),
        (Plan(RankGrid(), engine="torch-pipelining"), "pp_size: got 1; torch-pipelining needs 2 or more"),
        (Plan(DATA, engine="torch-ddp", recompute=True), "recompute: torch-ddp is run without it"),
        (Plan(DATA, engine="torch-ddp", compression="fp16"), "compression: torch-ddp is run without it"),
        (Plan(DATA), "engine: got 'lab'; torch's are torch-ddp"),
        (Plan(RankGrid(tp_size=3), engine="torch-tensor"), "has 64 columns or rows for 3 ranks"),
        (Plan(RankGrid(pp_size=9), engine="torch-pipelining"), "9 stages"),
    ],
)
def test_what_torch_cannot_is_refused_with_the_reason(jobs, plan, says):
    with pytest.raises(ModelInputError, match=says) as refused:
        check(plan, jobs["sgd"].work)
    agree("engine=lab" in str(refused.value))


def test_what_these_ranks_and_this_batch_cannot_is_refused_too(jobs):
    with pytest.raises(ModelInputError, match="got 33; torch-pipelining needs a multiple of num_microbatches 4"):
        check(PLANS["1f1b"], jobs["sgd"].work, 33)
    with pytest.raises(LabError, match="cannot be delayed"):
        reference_engine(job_of(width=64, link=InjectedLink(latency_s=0.001)), PLANS["ddp"], WORLD)
    with pytest.raises(ModelInputError, match=r"torch's styles cut nn.Linear, and .* is a Conv2d"):
        check(PLANS["tensor"], job_of("digits-cnn").work)
    engine = reference_engine(jobs["sgd"], PLANS["ddp"], WORLD)
    with pytest.raises(LabError, match="process group already"):
        reference_engine(jobs["sgd"], PLANS["ddp"], WORLD)
    engine.close()
    engine.close()
    agree(True)
