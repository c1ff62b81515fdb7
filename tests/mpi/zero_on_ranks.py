"""Run by four ranks (see test_mpi_zero.py): every stage of ZeRO trains what one process trains.

The reference is torch's own: the whole net, the whole batch, `torch.optim`. Rank 0 alone draws the examples and broadcasts each.
"""

from __future__ import annotations

import sys
import traceback

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from torch.nn import functional as F

from aiinfra_widgets.models.rank_grid import share
from aiinfra_widgets.parallel.grid_axes import GridAxes
from aiinfra_widgets.parallel.groups import MpiGroup, split
from aiinfra_widgets.parallel.hooks import Hooks
from aiinfra_widgets.parallel.layout import Layout
from aiinfra_widgets.parallel.ledger import Ledger
from aiinfra_widgets.parallel.units import build
from aiinfra_widgets.parallel.zero import make_store
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import language
from aiinfra_widgets.workloads.facts import perceptron, small_cnn
from aiinfra_widgets.workloads.language_facts import ROWS
from tests.mpi.zero_rig import (
    CPU,
    NETS,
    OPTIMIZERS,
    STAGES,
    TOLERANCE,
    WORLD,
    Case,
    Ranks,
    agree,
    reference,
    torch_optimizer,
)

SETTINGS = settings(
    max_examples=10, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(params=range(1, 5))
def comm(request):
    """The first n ranks; None on the others."""
    part = WORLD.Split(0 if WORLD.rank < request.param else MPI.UNDEFINED, WORLD.rank)
    yield part if part != MPI.COMM_NULL else None
    if part != MPI.COMM_NULL:
        part.Free()


def equals_one_process(comm: MPI.Intracomm, case: Case, steps: int, link_latency_s: float = 0.0) -> bool:
    """Whether losses, last gradients and parameters of some steps are those of one process."""
    ranks = Ranks(comm, case, link_latency_s)
    ranks.draw()
    losses = [ranks.step(i, i == steps) for i in range(1, steps + 1)]
    want_losses, want_parameters, want_gradient = reference(case.layers, case.optimizer, steps)
    parameters = ranks.whole()["parameters"]
    ranks.close()
    close = {"rtol": TOLERANCE, "atol": TOLERANCE}
    return (
        torch.allclose(torch.tensor(losses), torch.tensor(want_losses), **close)
        and torch.allclose(parameters, want_parameters, **close)
        and torch.allclose(ranks.gradient, want_gradient, **close)
    )


def test_there_are_four():
    agree(lambda: WORLD.size == 4)


# --- the same training -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("net", "how"),
    [
        ("digits-perceptron", ("sgd", 1, 1, False, False)),
        ("digits-perceptron", ("adamw", 3, 1, False, False)),
        ("digits-cnn", ("adamw", 1, 3, True, True)),
        ("digits-cnn", ("sgd", 2, 3, True, True)),
        ("synthetic", ("sgd", 3, 2, True, False)),
        ("synthetic", ("adamw", 2, 2, False, True)),
    ],
)
def test_twenty_steps_are_those_of_one_process(comm, net, how):
    case = Case(NETS[net], *how)
    agree(lambda: comm is None or equals_one_process(comm, case, 20))


def test_any_sizes_any_ranks():
    """Layers smaller than the ranks, empty slices, empty micro-batches: all of it is drawn."""
    sizes = st.lists(st.integers(1, 9), min_size=2, max_size=5)
    rows = st.one_of(sizes.map(lambda s: perceptron(*s)), st.integers(1, 5).map(lambda c: small_cnn((1, c, 3), 4)))
    cases = st.builds(
        Case, rows, st.sampled_from(list(OPTIMIZERS)), st.sampled_from(STAGES), st.integers(1, 3), st.booleans(), st.booleans()
    )  # fmt: skip

    def tried(example) -> bool:
        n, case, latency_s = example
        part = WORLD.Split(0 if WORLD.rank < n else MPI.UNDEFINED, WORLD.rank)
        ok = True
        try:
            if part != MPI.COMM_NULL:
                ok = equals_one_process(part, case, 4, latency_s)
                part.Free()
        except BaseException:  # the others wait for this rank
            print(f"rank {WORLD.rank}: {case}\n{traceback.format_exc()}", file=sys.__stderr__, flush=True)
            WORLD.Abort(1)
        return WORLD.allreduce(ok, MPI.LAND)

    problem = ""
    if WORLD.rank == 0:

        @SETTINGS
        @given(st.tuples(st.integers(1, 4), cases, st.sampled_from([0.0, 1e-6])))
        def drive(example):
            assert tried(WORLD.bcast(example)), example

        try:
            drive()
        except AssertionError as error:
            problem = str(error) or repr(error)
        WORLD.bcast(None)
    else:
        while (example := WORLD.bcast(None)) is not None:
            tried(example)
    problem = WORLD.bcast(problem)
    assert not problem, problem


@pytest.mark.parametrize("before", STAGES)
@pytest.mark.parametrize("after", STAGES)
def test_a_job_goes_on_under_another_stage(before, after):
    """Parameters and optimiser state move over: 3 steps and 3 steps are 6 steps."""

    def check() -> bool:
        layers = NETS["digits-perceptron"]
        first, then = (Ranks(WORLD, Case(layers, "adamw", stage, 2)) for stage in (before, after))
        first.draw()
        for i in range(3):
            first.step(i + 1)
        moved = first.whole()
        then.store.load(then.layout, moved)
        again = then.whole()
        same = all(torch.equal(moved[name], again[name]) for name in ("parameters", "momentum", "variance"))
        losses = [then.step(i + 1) for i in range(3, 6)]
        want, parameters, _ = reference(layers, "adamw", 6)
        same = same and torch.allclose(torch.tensor(losses), torch.tensor(want[3:]), rtol=TOLERANCE, atol=TOLERANCE)
        same = same and torch.allclose(then.whole()["parameters"], parameters, rtol=TOLERANCE, atol=TOLERANCE)
        first.close()
        then.close()
        return same and float(moved["variance"].sum()) > 0

    agree(check)


def test_replicas_of_ranks_that_share_layers_and_tokens():
    """DP2 x TP2 with sequence parallel: norms see half of the tokens on each rank, so their gradients are partial."""
    facts = next(row for row in ROWS if row.name == "gpt-char").sized(32, 2)

    def check() -> bool:
        net = language.net(facts)
        whole = net.whole(1).double()
        layout, vocab, tokens = Layout.of(whole), facts.outputs, net.context
        x = torch.randint(0, vocab, (4, tokens), generator=torch.Generator().manual_seed(1))
        y = x.roll(-1, 1)
        start = layout.flatten(whole, torch.float64)
        rule = torch_optimizer("adamw", whole)
        for _ in range(3):
            rule.zero_grad()
            F.cross_entropy(whole(x).flatten(0, 1), y.flatten()).backward()
            rule.step()
        want = layout.flatten(whole, torch.float64)
        ok = True
        for stage in STAGES:
            ok = ok and _shared_layers(net, layout, start, (x, y), stage).sub_(want).abs().max().item() < TOLERANCE
        return ok

    agree(check)


def _shared_layers(net, layout, start, batch, stage) -> torch.Tensor:
    """Parameters after three steps of two replicas of two ranks each."""
    ledger, link, me = Ledger(), InjectedLink(), WORLD.rank
    tp = split(WORLD, "tp", (me - me % 2, me - me % 2 + 1), ledger, link)
    replicas = split(WORLD, "data", (me % 2, me % 2 + 2), ledger, link)
    alone = MpiGroup("cp", MPI.COMM_SELF.Dup(), ledger, link)
    axes = GridAxes(tp, alone, context=net.context, sequence_parallel=True)
    rule, lr = OPTIMIZERS["adamw"]
    units = build(net.parts, axes, net.whole(seed=0), CPU, torch.float64)
    store = make_store(stage, units, replicas, tp, rule, CPU, torch.float64)
    hooks = Hooks(store, units, recompute=stage == 2)
    state = layout.empty(rule.state_names, torch.float64)
    state["parameters"] = start.clone()
    store.load(layout, state)
    x, y = (part[share(len(part), replicas.size, replicas.rank)] for part in batch)
    for i in range(3):
        store.begin()
        value = x
        for unit in units:
            value = hooks.forward(unit, value, True)
        vocab = layout.shapes["embed.tokens.weight"][0]
        loss = axes.cross_entropy_sum(value.flatten(0, 1), y.flatten(), vocab) / batch[1].numel()
        loss.backward()
        store.finish()
        store.update(lr, i + 1)
    found = layout.empty(rule.state_names, torch.float64)
    store.put(layout, found)
    WORLD.Allreduce(MPI.IN_PLACE, found["parameters"].numpy())
    hooks.close()
    for group in (tp, replicas, alone):
        group.close()
    return found["parameters"]
