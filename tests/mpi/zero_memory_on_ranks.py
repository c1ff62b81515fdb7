"""Run by four ranks (see test_mpi_zero.py): what each stage of ZeRO holds is what was predicted, and what it frees is free."""

from __future__ import annotations

import os

import psutil
import pytest
import torch
from mpi4py import MPI

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.rank_memory import rank_memory
from aiinfra_widgets.parallel.groups import MpiGroup
from aiinfra_widgets.parallel.ledger import Ledger
from aiinfra_widgets.parallel.optimizer import Sgd
from aiinfra_widgets.parallel.units import build
from aiinfra_widgets.parallel.zero import make_store
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads.axes import ALONE
from aiinfra_widgets.workloads.facts import perceptron
from aiinfra_widgets.workloads.nets import row_of_layers
from tests.mpi.zero_rig import CPU, NETS, STAGES, TOLERANCE, WORLD, Case, Ranks, agree, data


@pytest.fixture(params=range(1, 5))
def comm(request):
    """The first n ranks; None on the others."""
    part = WORLD.Split(0 if WORLD.rank < request.param else MPI.UNDEFINED, WORLD.rank)
    yield part if part != MPI.COMM_NULL else None
    if part != MPI.COMM_NULL:
        part.Free()


def distinct_bytes(tensors) -> int:
    """Bytes of the storages behind some tensors, each once."""
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())


def of_modules(units) -> list[torch.Tensor]:
    """Parameters and gradients as the modules have them."""
    found = [p for unit in units for p in unit.module.parameters()]
    return found + [p.grad for p in found if p.grad is not None]


@pytest.mark.parametrize(
    ("net", "optimizer", "recompute"),
    [("digits-perceptron", "sgd", True), ("digits-cnn", "adamw", False), ("synthetic", "adamw", True)],
)
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
        net = row_of_layers(perceptron(2100, 2100, 2))
        units = build(net.parts, ALONE, net.whole(seed=0), CPU, torch.float64)
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
