"""Run by four ranks, and by two what trains to a goal (see test_mpi_compression.py). Gradients depend on the rank.

What is expected is computed on each rank. The ranks agree on a verdict before anyone asserts, for a rank that stops alone would
leave the others waiting.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from mpi4py import MPI

from aiinfra_widgets.models.rank_grid import RankGrid, share
from aiinfra_widgets.parallel.compression import Brain16, Half
from aiinfra_widgets.parallel.groups import split
from aiinfra_widgets.parallel.layout import Layout
from aiinfra_widgets.parallel.ledger import Ledger
from aiinfra_widgets.parallel.local_sgd import LocalSgd
from aiinfra_widgets.parallel.optimizer import AdamW, Sgd
from aiinfra_widgets.parallel.powersgd import PowerSgd
from aiinfra_widgets.parallel.store import Replicated
from aiinfra_widgets.parallel.top_k import TopK
from aiinfra_widgets.parallel.units import build
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import nets
from aiinfra_widgets.workloads.axes import Axes
from aiinfra_widgets.workloads.facts import perceptron

WORLD = MPI.COMM_WORLD
CPU = torch.device("cpu")
BATCH, RATE = 250, 0.1
ALL = {
    "fp16": Half,
    "bf16": Brain16,
    "top-k": partial(TopK, frac=0.1),
    "powersgd": partial(PowerSgd, rank=2),
}


def agree(ok: object) -> None:
    assert all(WORLD.allgather(bool(ok)))


class Replica:
    """One rank's store over a net, all ranks being replicas, but for `tp_size` that share its layers."""

    def __init__(self, make, net, *, tp_size=1, dtype=torch.float32, optimizer=None, latency_s=0.0):
        grid, self.ledger, link = RankGrid.of(WORLD.size, tp_size=tp_size), Ledger(), InjectedLink(latency_s)
        self.tp = split(WORLD, "tp", grid.group(WORLD.rank, "tp"), self.ledger, link)
        self.data = split(WORLD, "data", grid.group(WORLD.rank, "dp"), self.ledger, link)
        axes = Axes()
        axes.tp_size, axes.tp_rank = tp_size, self.tp.rank
        whole = net.whole(0)
        self.units = build(net.parts, axes, whole, CPU, dtype)
        self.store = make(self.units, self.data, self.tp, optimizer or Sgd(0.9), CPU, dtype)
        self.layout = Layout.of(whole)
        self.net = torch.nn.Sequential(*(u.module for u in self.units))

    def load(self, module):
        state = self.layout.empty(self.store.optimizer.state_names, self.store.dtype)
        state["parameters"] = self.layout.flatten(module, self.store.dtype)
        self.store.load(self.layout, state)

    def summed(self, gradient):
        """Hand over this rank's gradient and return what the exchange made of it."""
        self.store.begin()
        self.store.gradient.copy_(gradient)
        self.ledger.begin(False)
        self.store.finish()
        return self.store.gradient.clone()

    def train(self, work, steps, first=1):
        """Train on shares of the same batches; return the global loss of every step."""
        (x, y), losses = work.train, []
        x = x.to(self.store.dtype)
        for step in range(first, first + steps):
            generator = torch.Generator().manual_seed(step)
            index = torch.randperm(len(x), generator=generator)[:BATCH][share(BATCH, WORLD.size, WORLD.rank)]
            self.store.begin()
            loss = work.loss_sum(self.net(x[index]), y[index]) / BATCH
            loss.backward()
            self.store.finish()
            self.store.update(RATE, step)
            losses.append(WORLD.allreduce(loss.item()))
        return losses

    def close(self):
        self.tp.close()
        self.data.close()


@pytest.fixture
def replica():
    made = []

    def make(*args, **values):
        made.append(Replica(*args, **values))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def digits():
    with tempfile.TemporaryDirectory() as cache:  # one of its own: pytest's would be the same for all ranks
        return nets.load("digits-perceptron", seed=0, cache=Path(cache))


def small_net():
    return nets.row_of_layers(perceptron(24, 17, 5))


def gradients(size, dtype=torch.float32, scale=1.0, whole_numbers=False, step=0):
    """Return the gradient of every rank."""
    found = []
    for rank in range(WORLD.size):
        generator = torch.Generator().manual_seed(100 * step + rank)
        drawn = torch.randn(size, generator=generator, dtype=torch.float64) * scale
        found.append((drawn.mul(100).round() if whole_numbers else drawn).to(dtype))
    return found


def same_everywhere(tensor):
    return all(bits == tensor.numpy().tobytes() for bits in WORLD.allgather(tensor.numpy().tobytes()))


def test_there_are_four():
    agree(WORLD.size == 4)


def test_to_reach_a_goal_there_are_two():
    agree(WORLD.size == 2)


@pytest.mark.parametrize("latency_s", [0.0, 1e-6])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e30])
@pytest.mark.parametrize(("kind", "precision"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_16_bits_lose_two_roundings_at_any_scale_and_never_overflow(replica, kind, precision, scale, latency_s):
    here = replica(ALL[kind], small_net(), latency_s=latency_s)
    all_of_them = gradients(here.store.size, scale=scale)
    found = here.summed(all_of_them[WORLD.rank])
    exact = torch.stack(all_of_them).double()
    allowed = 2 * precision * exact.abs().sum(0) + 1e-9 * scale
    agree(((found - exact.sum(0)).abs() <= allowed).all() and same_everywhere(found))


def test_a_gradient_that_is_no_number_is_not_hidden(replica):
    for kind in ("fp16", "bf16", "top-k"):
        here = replica(ALL[kind], small_net())
        gradient = gradients(here.store.size)[WORLD.rank]
        if WORLD.rank == 2:
            gradient[7] = float("nan")
        found = here.summed(gradient)
        agree(not torch.isfinite(found).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [partial(TopK, frac=1.0), partial(PowerSgd, rank=1000)], ids=["top-k", "powersgd"])
def test_a_compression_that_leaves_nothing_out_is_the_plain_sum(replica, make, dtype):
    here = replica(make, small_net(), dtype=dtype)
    for step in range(3):
        all_of_them = gradients(here.store.size, dtype, whole_numbers=True, step=step)
        found = here.summed(all_of_them[WORLD.rank])
        agree(torch.equal(found, sum(all_of_them)) and not any(t.count_nonzero() for t in here.store.memory()[:1]))


def test_powersgd_finds_a_sum_of_low_rank_in_one_step(replica):
    """Four gradients u v^T: their sum has rank 4 at most, so two factors of rank 4 hold all of it."""
    net = nets.row_of_layers(perceptron(40, 30, 2))
    here = replica(partial(PowerSgd, rank=4), net, dtype=torch.float64)
    agree(len(here.store.matrices) == 1)
    span = here.store.matrices[0].span
    all_of_them = gradients(here.store.size, torch.float64)
    for rank, gradient in enumerate(all_of_them):
        generator = torch.Generator().manual_seed(50 + rank)
        u, v = (torch.randn(k, generator=generator, dtype=torch.float64) for k in (30, 40))
        gradient[span] = torch.outer(u, v).view(-1)
    found = here.summed(all_of_them[WORLD.rank])
    agree(torch.allclose(found, sum(all_of_them), rtol=0, atol=1e-10))


def test_nothing_is_lost_by_error_feedback(replica):
    """What was sent in all steps, and what every rank still keeps, is the sum of all gradients: top-k to the bit."""
    for kind, dtype, atol in (("top-k", torch.float32, 0.0), ("powersgd", torch.float64, 1e-9)):
        here = replica(ALL[kind], nets.row_of_layers(perceptron(40, 30, 2)), dtype=dtype)
        given, sent = torch.zeros(here.store.size, dtype=dtype), torch.zeros(here.store.size, dtype=dtype)
        for step in range(6):
            all_of_them = gradients(here.store.size, dtype, whole_numbers=True, step=step)
            given += sum(all_of_them)
            sent += here.summed(all_of_them[WORLD.rank])
        rest = sum(WORLD.allgather(here.store.memory()[0]))
        agree(rest.count_nonzero() > 0 and torch.allclose(sent + rest, given, rtol=0, atol=atol))


@pytest.mark.parametrize("kind", list(ALL))
def test_what_is_whole_on_every_tp_rank_stays_alike(replica, kind):
    """Two tp ranks with gradients of very different size in what is cut: what is not cut must not notice."""
    here = replica(ALL[kind], nets.row_of_layers(perceptron(24, 16, 16)), tp_size=2)
    for step in range(3):
        gradient = torch.empty(here.store.size)
        for unit, span in zip(here.units, here.store.spans, strict=True):
            for p in unit.placed:
                seed = hash((step, here.data.rank, p.name.count("bias"), p.span.start))
                generator = torch.Generator().manual_seed(seed if p.cut is None else seed + 1 + here.tp.rank)
                size = 1.0 if p.cut is None else 10.0 ** (6 * here.tp.rank)
                flat = gradient[span][p.span]
                flat.copy_(torch.randn(len(flat), generator=generator) * size)
        found = here.summed(gradient)
        bits = [
            found[span][p.span].numpy().tobytes()
            for unit, span in zip(here.units, here.store.spans, strict=True)
            for p in unit.placed
            if p.cut is None
        ]
        agree(bits and all(b == bits for b in here.tp.comm.allgather(bits)))


def test_bytes_on_the_wire_are_those_that_are_claimed(replica):
    net, sent = nets.row_of_layers(perceptron(100, 64, 10)), {}
    for kind, make in {"none": Replicated, **ALL}.items():
        here = replica(make, net)
        here.summed(gradients(here.store.size)[WORLD.rank])
        sent[kind] = WORLD.allreduce(here.ledger.sent_bytes)
    n, sizes = WORLD.size, (6400, 64, 640, 10)
    ring = 2 * (n - 1)  # times a buffer, over all ranks
    kept = sum(-(-size // 10) for size in sizes)
    factors = 2 * (100 + 64) + 2 * (64 + 10) + 64 + 10
    agree(
        sent["none"] == ring * 4 * sum(sizes)
        and sent["bf16"] == sent["none"] // 2
        and sent["fp16"] == sent["bf16"] + ring * 4  # and one number to agree on a scale
        and sent["top-k"] == n * (n - 1) * 8 * kept
        and sent["powersgd"] == ring * 4 * factors
    )


def test_what_is_kept_is_counted(replica):
    for kind, numbers in (("bf16", 0), ("top-k", 1), ("powersgd", 1)):
        here = replica(ALL[kind], small_net())
        found = here.store.state_bytes()
        more = sum(4 * m.right.numel() for m in getattr(here.store, "matrices", ()))
        agree(found["compression"] == numbers * found["parameters"] + more and found["parameters"] == 4 * 515)


def test_losses_stay_near_those_of_the_plain_sum(replica, digits):
    plain = replica(Replicated, digits.net)
    plain.load(digits.module)
    wanted = plain.train(digits, 20)
    rank4 = partial(PowerSgd, rank=4)
    for make, tolerance in ((Half, 1e-4), (Brain16, 1e-3), (ALL["top-k"], 0.35), (rank4, 0.25)):
        here = replica(make, digits.net)
        here.load(digits.module)
        found = here.train(digits, 20)
        agree(max(abs(a / b - 1) for a, b in zip(found, wanted, strict=True)) <= tolerance and found != wanted)


def test_one_percent_with_feedback_reaches_the_goal_and_without_it_is_worse(replica, digits):
    """Twice the steps of the plain sum. What is lost for good is missed: later losses are three times as high."""
    late, right = {}, {}
    for feedback in (True, False):
        here = replica(partial(TopK, frac=0.01, feedback=feedback), digits.net)
        here.load(digits.module)
        late[feedback] = sum(here.train(digits, 2 * digits.facts.goal_steps)[-50:])
        right[feedback] = digits.evaluate(here.net)["accuracy_frac"]
    agree(right[True] >= digits.facts.goal and late[False] > 3 * late[True])


@pytest.mark.parametrize("make", [Half, Brain16, partial(PowerSgd, rank=2)], ids=["fp16", "bf16", "powersgd"])
def test_the_goal_is_reached(replica, digits, make):
    here = replica(make, digits.net)
    here.load(digits.module)
    here.train(digits, digits.facts.goal_steps)
    agree(digits.evaluate(here.net)["accuracy_frac"] >= digits.facts.goal)


def test_averaging_at_every_step_is_the_plain_sum(replica, digits):
    """With momentum too, and with shares of 62 and 63 samples."""
    here = [replica(m, digits.net, dtype=torch.float64) for m in (Replicated, partial(LocalSgd, average_every=1))]
    for each in here:
        each.load(digits.module)
    found = [each.train(digits, 20) for each in here]
    near = torch.allclose(here[0].store.parameters, here[1].store.parameters, rtol=0, atol=1e-12)
    agree(near and max(abs(a - b) for a, b in zip(*found, strict=True)) < 1e-12)


def test_an_outer_step_without_momentum_and_at_full_rate_is_the_average(replica, digits):
    """1e-300 is momentum enough to go through the outer step, and too little to change a bit."""
    makes = [
        partial(LocalSgd, average_every=4),
        partial(LocalSgd, average_every=4, outer_momentum=1e-300, outer_learning_rate=1.0),
    ]
    here = [replica(m, digits.net, dtype=torch.float64) for m in makes]
    for each in here:
        each.load(digits.module)
        each.train(digits, 8)
    agree(torch.allclose(here[0].store.parameters, here[1].store.parameters, rtol=0, atol=1e-13))


def test_the_outer_step_is_nesterov_on_the_averaged_change(replica):
    """Two outer steps by hand: changes 1 and 1 of every parameter."""
    make = partial(LocalSgd, average_every=1, outer_momentum=0.5, outer_learning_rate=0.8)
    here = replica(make, small_net(), dtype=torch.float64, optimizer=Sgd(0.0))
    seen = []
    for step in (1, 2):
        here.summed(torch.full((here.store.size,), 1 / WORLD.size, dtype=torch.float64) * (1 + WORLD.rank) / 2.5)
        here.store.update(1.0, step)
        seen.append(here.store.parameters.clone())
    first = -0.8 * (1 + 0.5 * 1)
    second = first - 0.8 * (1 + 0.5 * 1.5)
    agree(all(torch.allclose(s, torch.full_like(s, w)) for s, w in zip(seen, (first, second), strict=True)))


@pytest.mark.parametrize("outer", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", [Sgd(0.9), AdamW()], ids=["sgd", "adamw"])
def test_a_checkpoint_is_the_average_and_leaves_the_replicas_alone(replica, digits, outer, optimizer):
    make = partial(LocalSgd, average_every=4, outer_momentum=outer)
    here, other = (replica(make, digits.net, optimizer=optimizer) for _ in range(2))
    for each in (here, other):
        each.load(digits.module)
    first, again = here.train(digits, 6), other.train(digits, 6)
    own = here.store.parameters.clone()
    names = ("parameters", *optimizer.state_names)
    agree(first == again and not same_everywhere(own))
    tensors = [here.store.parameters, *here.store.state.values()]
    wanted = [sum(WORLD.allgather(t)) / WORLD.size for t in tensors]
    whole = here.layout.empty(optimizer.state_names)
    here.store.settle()
    here.store.put(here.layout, whole)
    found = [torch.from_numpy(WORLD.allreduce(whole[name].numpy())) for name in names]
    agree(
        torch.equal(here.store.parameters, own)
        and all(torch.allclose(f, w, atol=1e-6) for f, w in zip(found, wanted, strict=True))
        and here.train(digits, 6, first=7) == other.train(digits, 6, first=7)
    )


@pytest.mark.parametrize("outer", [0.0, 0.5])
def test_drifting_replicas_reach_the_goal_with_a_tenth_of_the_bytes(replica, digits, outer):
    plain, here = (
        replica(m, digits.net) for m in (Replicated, partial(LocalSgd, average_every=10, outer_momentum=outer))
    )
    steps = digits.facts.goal_steps
    for each in (plain, here):
        each.load(digits.module)
        each.ledger.begin(False)
        each.train(digits, steps)
    agree(here.ledger.sent_bytes * 10 == plain.ledger.sent_bytes > 0)
    agree(same_everywhere(here.store.parameters) and digits.evaluate(here.net)["accuracy_frac"] >= digits.facts.goal)
    outer_bytes = here.store.state_bytes().get("outer", 0)
    agree(outer_bytes == (2 * here.store.state_bytes()["parameters"] if outer else 0))
