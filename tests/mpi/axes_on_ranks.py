"""Run by four ranks (see test_mpi_axes.py): nets that ranks share compute what one process computes.

Rank 0 alone draws the examples and broadcasts each, so that all ranks try the same ones, also while hypothesis shrinks.
Every rank computes its deviation, and all agree on the greatest, before anyone asserts.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from torch.nn import functional as F

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.rank_grid import RankGrid
from aiinfra_widgets.parallel.context import causal_shares
from aiinfra_widgets.parallel.grid_axes import GridAxes
from aiinfra_widgets.parallel.groups import split
from aiinfra_widgets.parallel.ledger import Ledger
from aiinfra_widgets.parallel.sequence import TokenShares
from aiinfra_widgets.parallel.tensor import cross_entropy_sum, embed_rows, sum_gradients, sum_values
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import catalog, language
from aiinfra_widgets.workloads.facts import perceptron, small_cnn
from aiinfra_widgets.workloads.language_facts import ROWS, decoder
from aiinfra_widgets.workloads.nets import Workload, row_of_layers
from aiinfra_widgets.workloads.parts import Cut, assemble

WORLD = MPI.COMM_WORLD
TOLERANCE = 1e-9
#: tp_size, cp_size, sequence_parallel
GRIDS = [
    *((tp, 1, False) for tp in (1, 2, 3, 4)),
    *((tp, 1, True) for tp in (2, 3, 4)),
    *((1, cp, False) for cp in (2, 3, 4)),
    *((2, 2, False), (2, 2, True)),
]
SETTINGS = settings(
    max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def everywhere(ranks: int, measure, examples) -> None:
    """For all examples, `measure(example, comm)` on each of the first `ranks` ranks must return a deviation near 0."""
    comm = WORLD.Split(0 if WORLD.rank < ranks else MPI.UNDEFINED, WORLD.rank)

    def worst(example) -> float:
        try:
            mine = measure(example, comm) if comm != MPI.COMM_NULL else 0.0
        except BaseException:  # the others wait for this rank: nobody can go on
            print(f"rank {WORLD.rank}: {example}\n{traceback.format_exc()}", file=sys.__stderr__, flush=True)
            WORLD.Abort(1)
        return WORLD.allreduce(mine, MPI.MAX)

    failed = ""
    if WORLD.rank == 0:

        @SETTINGS
        @given(examples)
        def drive(example):
            found = worst(WORLD.bcast(example))
            assert found <= TOLERANCE, (found, example)

        try:
            drive()
        except AssertionError as error:
            failed = str(error) or repr(error)
        WORLD.bcast(None)
    else:
        while (example := WORLD.bcast(None)) is not None:
            worst(example)
    if comm != MPI.COMM_NULL:
        comm.Free()
    failed = WORLD.bcast(failed)
    assert not failed, failed


@contextmanager
def axes_of(comm, tp_size=1, cp_size=1, kind=GridAxes, **more):
    """The axes of this rank on a grid of all ranks of `comm`."""
    grid, ledger = RankGrid.of(comm.size, tp_size=tp_size, cp_size=cp_size), Ledger()
    tp, cp = (split(comm, axis, grid.group(comm.rank, axis), ledger, InjectedLink()) for axis in ("tp", "cp"))
    yield kind(tp, cp, **more)
    tp.close()
    cp.close()


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The greatest difference, relative to the greatest number; differences below 1e-12 are rounding even where all is 0."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.numel():
        return 0.0
    off = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3))
    return off if off == off else float("inf")


def one_process(work: Workload, x, y):
    """Loss, outputs and net, with gradients, of the whole net; no parameter is left at 0, where a fault could hide."""
    module = work.net.whole(3).double()
    chance = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=chance, dtype=torch.float64))
    outputs = module(x)
    loss = work.loss_sum(outputs, y)
    loss.backward()
    return loss.detach(), outputs.detach(), module


def deviation(work: Workload, x, y, axes: GridAxes, cuts=lambda name, cut: cut, sum_partial=True) -> float:
    """How far loss, outputs and gradients on this rank are from those of one process.

    Args:
        work, x, y: A net, a batch and its targets.
        axes: This rank's.
        cuts: For planted faults: returns another cut of a parameter.
        sum_partial: Likewise: False forgets the sum over the tp ranks.
    """
    loss, outputs, whole = one_process(work, x, y)
    named = dict(whole.named_parameters())
    here = assemble(work.net.parts, axes).double()
    rules = {part.name: part for part in work.net.parts}

    def mine(name: str, tensor, change=lambda name, cut: cut):
        part, _, inner = name.partition(".")
        cut = rules[part].cuts.get(inner)
        return tensor if cut is None else change(name, cut).take(tensor, axes.tp_size, axes.tp_rank)

    with torch.no_grad():
        for name, parameter in here.named_parameters():
            parameter.copy_(mine(name, named[name], cuts))
    sequences = work.net.sequence_dim
    outputs_here = here(axes.take(x) if sequences else x)
    loss_here = work.loss_sum(outputs_here, axes.take(y) if sequences else y, axes)
    loss_here.backward()
    total = loss_here.detach().clone()
    axes.cp.all_reduce(total)
    wanted = axes.take(outputs)[..., axes.mine(outputs.shape[-1])] if sequences else outputs
    worst = max(apart(total, loss), apart(outputs_here.detach(), wanted))
    for name, parameter in here.named_parameters():
        if not parameter.requires_grad:
            continue
        axes.cp.all_reduce(parameter.grad)
        part, _, inner = name.partition(".")
        if axes.sequence_parallel and inner in rules[part].partial and sum_partial:
            axes.tp.all_reduce(parameter.grad)
        worst = max(worst, apart(parameter.grad, mine(name, named[name].grad)))
    return worst


def batch(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole_numbers(below, shape, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def workload(facts, net) -> Workload:
    nothing = torch.zeros(0), torch.zeros(0)
    return Workload(facts, net, net.whole(0), nothing, nothing)


# --- rows of layers ---------------------------------------------------------------------------------------------------
def row(name: str, layers) -> Workload:
    facts = replace(catalog.facts(name), sizable=False, layers_of=lambda width, depth: layers)
    return workload(facts, row_of_layers(layers))


def test_there_are_four():
    assert WORLD.size == 4


@pytest.mark.parametrize("tp_size", [1, 2, 3, 4])
def test_rows_of_dense_layers(tp_size):
    def measure(example, comm):
        sizes, samples = example
        work = row("synthetic", perceptron(*sizes))
        with axes_of(comm, tp_size) as axes:
            return deviation(work, batch((samples, sizes[0])), batch((samples, sizes[-1]), 1), axes)

    everywhere(tp_size, measure, st.tuples(st.lists(st.integers(4, 9), min_size=2, max_size=6), st.integers(1, 5)))


@pytest.mark.parametrize("tp_size", [1, 2, 3, 4])
def test_convolutions_and_a_dense_layer_behind_the_picture(tp_size):
    def measure(example, comm):
        (second, third, size), samples = example
        work = row("digits-cnn", small_cnn((1, second, third), 2 * size))
        with axes_of(comm, tp_size) as axes:
            return deviation(work, batch((samples, 1, 2 * size, 2 * size)), whole_numbers(10, (samples,)), axes)

    sizes = st.tuples(st.integers(4, 7), st.integers(1, 6), st.integers(1, 3))
    everywhere(tp_size, measure, st.tuples(sizes, st.integers(1, 4)))


@pytest.mark.parametrize("name", ["digits-perceptron", "digits-cnn", "synthetic"])
def test_the_workloads_as_they_are(name):
    def measure(samples, comm):
        facts = catalog.facts(name)
        work = workload(facts, row_of_layers(facts.layers()))
        x = batch((samples, *facts.sample_shape))
        y = whole_numbers(10, (samples,)) if facts.task == "classification" else batch((samples, facts.outputs), 1)
        with axes_of(comm, comm.size) as axes:
            return deviation(work, x, y, axes)

    everywhere(3, measure, st.just(4))


# --- language models --------------------------------------------------------------------------------------------------
def decoder_of(example) -> tuple[Workload, torch.Tensor, torch.Tensor]:
    """A decoder of any size, and a batch of tokens and targets."""
    width = example["heads"] * example["head_size"]
    sizes = width, example["depth"], example["heads"], example["vocab"], example["tokens"], example["rank"]
    facts = replace(ROWS[0], sizable=False, layers_of=lambda width, depth: decoder(*sizes))
    shape = example["samples"], example["tokens"]
    x, y = (whole_numbers(example["vocab"], shape, seed) for seed in (1, 2))
    return workload(facts, language.net(facts)), x, y


def decoders(tp_size: int, cp_size: int):
    """Any decoder that these ranks can share; often a number of tokens that 2 cp_size divides."""
    return st.fixed_dictionaries(
        {
            "heads": st.integers(tp_size, 5),
            "head_size": st.integers(1, 3),
            "depth": st.integers(1, 2),
            "vocab": st.integers(tp_size, 13),
            "tokens": st.one_of(
                st.integers(tp_size * cp_size, 13), st.integers(1, 3).map(lambda k: 2 * k * tp_size * cp_size)
            ),
            "rank": st.sampled_from([0, 0, 2]),
            "samples": st.integers(1, 3),
        }
    )


@pytest.mark.parametrize(("tp_size", "cp_size", "sequence_parallel"), GRIDS)
def test_language_models(tp_size, cp_size, sequence_parallel):
    def measure(example, comm):
        work, x, y = decoder_of(example)
        more = {"context": example["tokens"], "sequence_parallel": sequence_parallel}
        with axes_of(comm, tp_size, cp_size, **more) as axes:
            return deviation(work, x, y, axes)

    everywhere(tp_size * cp_size, measure, decoders(tp_size, cp_size))


class NoSum(GridAxes):
    """Forgets to sum the gradients before layers cut by columns."""

    def enter(self, x):
        return x


class InARow(GridAxes):
    """Believes that its tokens are neighbours."""

    def positions(self, tokens):
        return torch.arange(tokens) + tokens * self.cp_rank


class OwnLoss(GridAxes):
    """Takes its part of the vocabulary for all of it."""

    def cross_entropy_sum(self, logits_Nv, targets_N, vocab):
        return F.cross_entropy(logits_Nv, targets_N % logits_Nv.shape[1], reduction="sum")


def one_block(name: str, cut: Cut) -> Cut:
    """Cut queries, keys and values as if they were one."""
    return replace(cut, blocks=1)


@pytest.mark.parametrize(
    ("kind", "sequence_parallel", "faults"),
    [
        pytest.param(NoSum, False, {}, id="gradients-not-summed"),
        pytest.param(InARow, False, {}, id="wrong-places"),
        pytest.param(OwnLoss, False, {}, id="loss-of-a-part"),
        pytest.param(GridAxes, False, {"cuts": one_block}, id="wrong-cut"),
        pytest.param(GridAxes, True, {"sum_partial": False}, id="partial-gradients-not-summed"),
    ],
)
def test_a_planted_fault_is_found(kind, sequence_parallel, faults):
    example = {"heads": 4, "head_size": 2, "depth": 1, "vocab": 8, "tokens": 8, "rank": 0, "samples": 2}
    work, x, y = decoder_of(example)
    with axes_of(WORLD, 2, 2, kind, context=8, sequence_parallel=sequence_parallel) as axes:
        found = deviation(work, x, y, axes, **faults)
    with axes_of(WORLD, 2, 2, context=8, sequence_parallel=sequence_parallel) as axes:
        right = deviation(work, x, y, axes)
    assert WORLD.allreduce(found, MPI.MAX) > 1e-3
    assert WORLD.allreduce(right, MPI.MAX) <= TOLERANCE


def test_a_deviation_on_one_rank_fails_on_all():
    with pytest.raises(AssertionError, match=r"0\.5"):
        everywhere(3, lambda example, comm: 0.5 * (comm.rank == 2), st.just("any"))


# --- the pieces -------------------------------------------------------------------------------------------------------
def test_an_axis_of_one_rank_costs_nothing():
    with axes_of(WORLD, context=6, sequence_parallel=True) as axes:
        x, tokens = batch((2, 6, 3)).requires_grad_(), whole_numbers(5, (2, 6))
        untouched = [f(x) is x for f in (axes.enter, axes.leave, axes.scatter_tokens, axes.whole_sequence)]
        untouched += [axes.take(tokens) is tokens, axes.positions(6) is None, not axes.sequence_parallel]
        axes.embed(tokens, batch((5, 3)), 5)
        axes.cross_entropy_sum(x.flatten(0, 1), whole_numbers(3, (12,)), 3).backward()
        calls = axes.tp.ledger.calls + axes.cp.ledger.calls
    assert all(WORLD.allgather(all(untouched) and not calls))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_sums_of_tensors_of_any_layout_and_type(ranks, dtype):
    """Whole numbers up to 256 are exact in all of these types, so are the sums."""

    def measure(shape, comm):
        with axes_of(comm, ranks) as axes:
            numbers = whole_numbers(16, shape).to(dtype)
            x = (numbers * (comm.rank + 1)).transpose(0, -1).requires_grad_()
            weights = (numbers.transpose(0, -1) + comm.rank).expand_as(x)
            total = ranks * (ranks + 1) // 2
            found = sum_values(x, axes.tp)
            (found * weights).sum().backward()
            wrong = [(found - total * numbers.transpose(0, -1)).any(), (x.grad - weights).any(), found.dtype != dtype]
            x.grad = None
            found = sum_gradients(x, axes.tp)
            (found * weights).sum().backward()
            summed = ranks * numbers.transpose(0, -1) + total - ranks
            wrong += [(found - x).any(), (x.grad - summed).any(), found.dtype != dtype]
            plain = x.detach()
            wrong += [sum_gradients(plain, axes.tp) is not plain, (x - plain).any()]
            return float(any(bool(w) for w in wrong))

    everywhere(ranks, measure, st.lists(st.integers(1, 5), min_size=1, max_size=4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_tokens_gathered_scattered_and_summed(ranks, dtype):
    """Each of the three moves, forward and backward, against indexing; tokens lie uneven, or in two runs."""

    def measure(shape, comm):
        samples, tokens, width = shape
        whole = whole_numbers(16, (samples, width, tokens)).to(dtype).transpose(1, 2)  # not contiguous
        total = ranks * (ranks + 1) // 2
        wrong = []
        with axes_of(comm, ranks, context=tokens, sequence_parallel=True) as axes:
            here = TokenShares.contiguous(tokens, ranks).places(comm.rank)
            part = whole[:, here].requires_grad_()
            found = axes.enter(part)
            (found * whole * (comm.rank + 1)).sum().backward()
            wrong += [(found - whole).any(), (part.grad - total * whole[:, here]).any()]
            x = (whole * (comm.rank + 1)).requires_grad_()
            found = axes.leave(x)
            (found * whole[:, here]).sum().backward()
            wrong += [(found - total * whole[:, here]).any(), (x.grad - whole).any()]
            x = whole.clone().requires_grad_()
            found = axes.scatter_tokens(x)
            (found * whole[:, here]).sum().backward()
            wrong += [(found - whole[:, here]).any(), (x.grad - whole).any()]
        with axes_of(comm, 1, ranks, context=tokens) as axes:
            part = axes.take(whole).requires_grad_()
            places = axes.positions(part.shape[1])
            found = axes.whole_sequence(part)
            (found * whole * (comm.rank + 1)).sum().backward()
            wrong += [(found - whole).any(), (part - whole[:, places]).any(), (places.diff() <= 0).any()]
            wrong += [(part.grad - total * whole[:, places]).any(), found.dtype != dtype]
        return float(any(bool(w) for w in wrong))

    everywhere(ranks, measure, st.tuples(st.integers(1, 3), st.integers(ranks, 17), st.integers(1, 4)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_vocabulary_in_parts(ranks, dtype):
    """Narrow types are held against float32 arithmetic on the same numbers; logits of 1e4 must not overflow."""
    near = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]

    def measure(example, comm):
        count, vocab, scale = example
        with axes_of(comm, ranks) as axes:
            mine = axes.mine(vocab)
            logits, targets = (scale * batch((count, vocab))).to(dtype), whole_numbers(vocab, (count,))
            wide = logits.double().clone().requires_grad_()
            F.cross_entropy(wide, targets, reduction="sum").mul(0.5).backward()
            part = logits[:, mine].clone().requires_grad_()
            found = cross_entropy_sum(part, targets, mine, axes.tp)
            (0.5 * found).backward()
            wanted = F.cross_entropy(wide.detach(), targets, reduction="sum")
            table = batch((vocab, 3), 5).to(dtype)
            rows = table[mine].clone().requires_grad_()
            looked = sum_values(embed_rows(targets, rows, mine), axes.tp)
            looked.sum().backward()
            worst = [apart(found.detach().double(), wanted), apart(part.grad.double(), wide.grad[:, mine])]
            worst += [
                apart(looked.detach(), table[targets]),
                apart(rows.grad[:, 0], targets.bincount(minlength=vocab)[mine]),
            ]
            return max(worst) / near * TOLERANCE

    scales = st.sampled_from([1.0, 30.0, 1e4])
    everywhere(ranks, measure, st.tuples(st.integers(1, 9), st.integers(ranks, 19), scales))


def test_the_maximum_over_the_ranks():
    with axes_of(WORLD, 4) as axes:
        x = torch.tensor([-1.0, 2.0, -3.0], dtype=torch.bfloat16) * (1 + WORLD.rank)
        axes.tp.all_reduce(x, maximum=True)
        sent = axes.tp.ledger.calls[-1].sent_bytes
    assert all(WORLD.allgather(x.tolist() == [-1.0, 8.0, -3.0] and sent > 0))


@given(st.integers(1, 64), st.integers(1, 8))
@SETTINGS
def test_every_token_has_one_holder_and_the_causal_work_is_even(tokens, ranks):
    shares = causal_shares(tokens, ranks)
    places = [shares.places(rank) for rank in range(ranks)] if tokens >= ranks else []
    assert shares.total == tokens
    if places:
        assert torch.cat(places).sort().values.tolist() == list(range(tokens))
    if ranks > 1 and tokens % (2 * ranks) == 0:
        assert len({int((mine + 1).sum()) for mine in places}) == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelInputError, match="of 3 tokens cannot be cut into 4"), axes_of(WORLD, 1, 4, context=3):
        pass
    with (
        pytest.raises(ModelInputError, match="of 0 tokens cannot be cut into 4"),
        axes_of(WORLD, 4, sequence_parallel=True),
    ):
        pass
    with axes_of(WORLD, 2, 2, context=8, sequence_parallel=True) as axes:
        for call, got, wanted in (
            (lambda: axes.take(whole_numbers(5, (1, 7))), 7, 8),
            (lambda: axes.positions(8), 8, 4),
            (lambda: axes.whole_sequence(batch((1, 2, 1, 1))), 2, 4),
            (lambda: axes.enter(batch((1, 4, 1))), 4, 2),
            (lambda: axes.leave(batch((1, 2, 1))), 2, 4),
        ):
            with pytest.raises(
                ModelInputError, match=f"got {got} of each sequence, .* holds {wanted} of the context of 8"
            ):
                call()
