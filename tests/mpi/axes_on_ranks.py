"""Run by four ranks (see test_mpi_axes.py): nets that ranks share compute what one process computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st
from mpi4py import MPI
from torch.nn import functional as F

from aiinfra_widgets.parallel.grid_axes import GridAxes
from aiinfra_widgets.workloads import catalog, language
from aiinfra_widgets.workloads.facts import perceptron, small_cnn
from aiinfra_widgets.workloads.language_facts import ROWS, decoder
from aiinfra_widgets.workloads.nets import Workload, row_of_layers
from aiinfra_widgets.workloads.parts import Cut, assemble
from tests.mpi.axes_rig import TOLERANCE, WORLD, apart, axes_of, batch, everywhere, whole_numbers

#: tp_size, cp_size, sequence_parallel
GRIDS = [
    *((tp, 1, False) for tp in (1, 2, 3, 4)),
    *((tp, 1, True) for tp in (2, 3, 4)),
    *((1, cp, False) for cp in (2, 3, 4)),
    *((2, 2, False), (2, 2, True)),
]


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
