"""Run by four ranks (see test_mpi_zero.py): every stage of ZeRO trains what one process trains, and holds what was predicted.

The reference is torch's own: the whole net, the whole batch, `torch.optim`. Rank 0 alone draws the examples and broadcasts
each. The ranks agree on a verdict before anyone asserts, for a rank that stops alone would leave the others waiting.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from functools import cache

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from torch import nn
from torch.nn import functional as F

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.rank_grid import share
from aiinfra_widgets.models.rank_memory import rank_memory
from aiinfra_widgets.parallel.grid_axes import GridAxes
from aiinfra_widgets.parallel.groups import MpiGroup, split
from aiinfra_widgets.parallel.hooks import Hooks
from aiinfra_widgets.parallel.layout import Layout
from aiinfra_widgets.parallel.ledger import Ledger
from aiinfra_widgets.parallel.optimizer import AdamW, Sgd
from aiinfra_widgets.parallel.units import build
from aiinfra_widgets.parallel.zero import make_store
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import catalog, language
from aiinfra_widgets.workloads.axes import ALONE
from aiinfra_widgets.workloads.facts import perceptron, small_cnn
from aiinfra_widgets.workloads.language_facts import ROWS
from aiinfra_widgets.workloads.nets import row_of_layers

WORLD = MPI.COMM_WORLD
CPU = torch.device("cpu")
TOLERANCE = 1e-9
STAGES = (0, 1, 2, 3)
OPTIMIZERS = {"sgd": (Sgd(0.9), 0.01), "adamw": (AdamW(weight_decay=0.1), 0.01)}
BATCH = 13
NETS = {
    "digits-perceptron": catalog.facts("digits-perceptron").layers(),
    "digits-cnn": catalog.facts("digits-cnn").layers(),
    "synthetic": catalog.facts("synthetic").layers(64, 3),
}
SETTINGS = settings(
    max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(params=range(1, 5))
def comm(request):
    """The first n ranks; None on the others."""
    part = WORLD.Split(0 if WORLD.rank < request.param else MPI.UNDEFINED, WORLD.rank)
    yield part if part != MPI.COMM_NULL else None
    if part != MPI.COMM_NULL:
        part.Free()


def agree(check) -> None:
    """`check()` must hold on every rank; an error on one ends all of them, for the others wait for it."""
    try:
        ok = check()
    except BaseException:
        print(f"rank {WORLD.rank}\n{traceback.format_exc()}", file=sys.__stderr__, flush=True)
        WORLD.Abort(1)
    assert all(WORLD.allgather(bool(ok)))


@dataclass(frozen=True)
class Case:
    """One way to train a row of layers.

    Attributes:
        layers, optimizer: What and by which rule.
        stage: Of ZeRO.
        num_microbatches, recompute: As in the plan.
        ahead: All forward passes of a step come before the first backward pass, as in GPipe.
    """

    layers: tuple
    optimizer: str = "sgd"
    stage: int = 0
    num_microbatches: int = 1
    recompute: bool = False
    ahead: bool = False


@cache
def data(layers: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """The same batch on every rank."""
    source = torch.Generator().manual_seed(5)
    dims = layers[0].dims
    shape = (dims["in"],) if layers[0].kind == "linear" else (dims["in_channels"], dims["height"], dims["width"])
    x = torch.randn(BATCH, *shape, generator=source, dtype=torch.float64)
    return x, torch.randn(BATCH, layers[-1].dims["outputs"], generator=source, dtype=torch.float64)


def reference_step(whole: nn.Module, optimizer: torch.optim.Optimizer, x, y) -> float:
    optimizer.zero_grad()
    loss = F.mse_loss(whole(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def torch_optimizer(name: str, whole: nn.Module) -> torch.optim.Optimizer:
    rule, lr = OPTIMIZERS[name]
    if isinstance(rule, Sgd):
        return torch.optim.SGD(whole.parameters(), lr, rule.momentum)
    betas = rule.beta1, rule.beta2
    return torch.optim.AdamW(whole.parameters(), lr, betas, rule.epsilon, rule.weight_decay)


@cache
def reference(layers: tuple, optimizer: str, steps: int) -> tuple[list[float], torch.Tensor, torch.Tensor]:
    """Losses, parameters after the last step, gradients of the last step: of one process."""
    whole, (x, y) = row_of_layers(layers).whole(3).double(), data(layers)
    rule = torch_optimizer(optimizer, whole)
    losses = [reference_step(whole, rule, x, y) for _ in range(steps)]
    layout = Layout.of(whole)
    gradient = torch.cat([whole.get_parameter(name).grad.flatten() for name in layout.slices])
    return losses, layout.flatten(whole, torch.float64), gradient


class Ranks:
    """One case on the ranks of `comm`, all of them replicas; a loop as small as it can be."""

    def __init__(self, comm: MPI.Intracomm, case: Case, link_latency_s: float = 0.0) -> None:
        self.comm, self.case, (rule, self.lr) = comm, case, OPTIMIZERS[case.optimizer]
        ledger, link = Ledger(), InjectedLink(link_latency_s)
        self.data = MpiGroup("data", comm.Dup(), ledger, link)
        self.tp = MpiGroup("tp", MPI.COMM_SELF.Dup(), ledger, link)
        net = row_of_layers(case.layers)
        self.layout = Layout.of(net.whole(3))
        self.names = rule.state_names
        self.units = build(net.parts, ALONE, CPU, torch.float64)
        self.store = make_store(case.stage, self.units, self.data, self.tp, rule, CPU, torch.float64)
        self.hooks = Hooks(self.store, self.units, recompute=case.recompute)

    def draw(self) -> None:
        """Begin at the drawn parameters."""
        whole = self.layout.empty(self.names, torch.float64)
        whole["parameters"] = self.layout.flatten(row_of_layers(self.case.layers).whole(3), torch.float64)
        self.store.load(self.layout, whole)

    def step(self, number: int) -> float:
        """Take one step; the loss of the whole batch."""
        x, y = data(self.case.layers)
        mine, m = share(BATCH, self.comm.size, self.comm.rank), self.case.num_microbatches
        parts = [share(mine.stop - mine.start, m, i) for i in range(m)]
        self.store.begin()
        waiting, total = [], 0.0
        for i, part in enumerate(parts):
            value = x[mine][part]
            for unit in self.units:
                value = self.hooks.forward(unit, value, i == m - 1)
            waiting.append(F.mse_loss(value, y[mine][part], reduction="sum") / y.numel())
            if not self.case.ahead:
                waiting[-1].backward()
        for loss in waiting:
            total += float(loss.detach())
            if self.case.ahead:
                loss.backward()
        self.store.finish()
        self.gradient = torch.zeros(self.layout.size, dtype=torch.float64)
        for unit in self.units:
            found = self.store.gradients(unit)
            if found is not None:
                unit.put(self.layout, found, self.gradient)
        self.store.update(self.lr, number)
        return self.comm.allreduce(total)

    def whole(self) -> dict[str, torch.Tensor]:
        """Gather the state as an engine does: a sum, for each number is written once."""
        found = self.layout.empty(self.names, torch.float64)
        self.store.put(self.layout, found)
        for vector in found.values():
            self.comm.Allreduce(MPI.IN_PLACE, vector.numpy())
        return found

    def close(self) -> None:
        self.hooks.close()
        self.data.close()
        self.tp.close()


def equals_one_process(comm: MPI.Intracomm, case: Case, steps: int, link_latency_s: float = 0.0) -> bool:
    """Whether losses, last gradients and parameters of some steps are those of one process."""
    ranks = Ranks(comm, case, link_latency_s)
    ranks.draw()
    losses = [ranks.step(i + 1) for i in range(steps)]
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
@pytest.mark.parametrize("how", [("sgd", 1, False, False), ("adamw", 3, True, True)])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("stage", STAGES)
def test_twenty_steps_are_those_of_one_process(comm, stage, net, how):
    optimizer, num_microbatches, recompute, ahead = how
    case = Case(NETS[net], optimizer, stage, num_microbatches, recompute, ahead)
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
    units = build(net.parts, axes, CPU, torch.float64)
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


# --- memory ------------------------------------------------------------------------------------------------------------
def distinct_bytes(tensors) -> int:
    """Bytes of the storages behind some tensors, each once."""
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())


def of_modules(units) -> list[torch.Tensor]:
    """Parameters and gradients as the modules have them."""
    found = [p for unit in units for p in unit.module.parameters()]
    return found + [p.grad for p in found if p.grad is not None]


@pytest.mark.parametrize(("optimizer", "recompute"), [("sgd", False), ("adamw", True)])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("stage", STAGES)
def test_memory_is_what_was_predicted(comm, stage, net, optimizer, recompute):
    """Held bytes and transients, on 1 to 4 ranks, to the byte; and what the modules have, counted independently."""

    def check() -> bool:
        if comm is None:
            return True
        ranks = Ranks(comm, Case(NETS[net], optimizer, stage, 2, recompute))
        ranks.draw()
        sizes = [unit.size for unit in ranks.units]
        want = rank_memory(
            sizes,
            zero_stage=stage,
            data_size=comm.size,
            data_rank=comm.rank,
            element_bytes=8,
            state_tensors=len(ranks.names),
        )
        seen, store = [], ranks.store

        def watched(call):
            def inner(*arguments) -> None:
                seen.append(distinct_bytes(of_modules(ranks.units)))
                call(*arguments)
                seen.append(distinct_bytes(of_modules(ranks.units)))

            return inner

        for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
            setattr(store, name, watched(getattr(store, name)))
        ranks.step(1)
        ranks.step(2)
        idle = distinct_bytes(of_modules(ranks.units))
        ranks.close()
        whole, largest = sum(sizes) * 8, max(sizes) * 8
        return (
            store.state_bytes()
            == {
                "parameters": want.parameters_bytes,
                "gradients": want.gradients_bytes,
                "optimizer": want.optimizer_bytes,
            }
            and store.peak_bytes() == want.transient_bytes
            and idle == {0: 2 * whole, 1: 2 * whole, 2: whole, 3: 0}[stage]
            and max(seen) == {0: 2 * whole, 1: 2 * whole, 2: whole + largest, 3: 2 * largest}[stage]
        )

    agree(check)


def test_what_is_freed_goes_back_to_the_system():
    """A gathered unit of more than 32 MiB is pages of its own: the process shrinks when it is freed."""

    def check() -> bool:
        group = MpiGroup("data", WORLD.Dup(), Ledger(), InjectedLink())
        units = build(row_of_layers(perceptron(2100, 2100, 2)).parts, ALONE, CPU, torch.float64)
        alone = MpiGroup("tp", MPI.COMM_SELF.Dup(), Ledger(), InjectedLink())
        store = make_store(3, units, group, alone, Sgd(0.9), CPU, torch.float64)
        process, size = psutil.Process(os.getpid()), units[0].size * 8
        freed, gathered = [], []
        for _ in range(3):
            freed.append(process.memory_info().rss)
            store.before_forward(units[0])
            gathered.append(process.memory_info().rss)
            store.after_forward(units[0])
        freed.append(process.memory_info().rss)
        alone.close()
        group.close()
        # The first round also touches memory of the library that moves the bytes.
        return min(gathered[1:]) - max(freed[1:]) > 0.8 * size

    agree(check)


def test_evaluation_leaves_nothing_behind(comm):
    def check() -> bool:
        if comm is None:
            return True
        ranks = Ranks(comm, Case(NETS["digits-cnn"], stage=3, recompute=True))
        ranks.draw()
        x, _ = data(ranks.case.layers)
        want, before = row_of_layers(ranks.case.layers).whole(3).double()(x), ranks.store.state_bytes()
        with torch.no_grad():
            value = x
            for unit in ranks.units:
                value = ranks.hooks.forward(unit, value, False)
        ranks.close()
        return torch.allclose(value, want, atol=TOLERANCE) and ranks.store.state_bytes() == before

    agree(check)


# --- hooks, and what cannot be ----------------------------------------------------------------------------------------------------
def test_stages_that_listen_to_backward_alone_register_hooks(comm):
    def check() -> bool:
        if comm is None:
            return True
        hooked = []
        for stage in STAGES:
            ranks = Ranks(comm, Case(NETS["digits-perceptron"], stage=stage))
            hooked.append(any(p.parameter._post_accumulate_grad_hooks for u in ranks.units for p in u.placed))
            ranks.close()
            hooked.append(any(p.parameter._post_accumulate_grad_hooks for u in ranks.units for p in u.placed))
        return hooked == [False, False, False, False, True, False, True, False]

    agree(check)


def test_a_fifth_stage_is_refused():
    with pytest.raises(ModelInputError, match="zero_stage: got 4; there are 0, 1, 2 and 3"):
        make_store(4, [], None, None, Sgd(), CPU, torch.float32)
