"""What the tests of axes share: examples that all ranks try, the axes of this rank, and how far two tensors are apart.

Rank 0 alone draws the examples and broadcasts each, so that all ranks try the same ones, also while hypothesis shrinks.
Every rank computes its deviation, and all agree on the greatest, before anyone asserts.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager

import torch
from hypothesis import HealthCheck, given, settings
from mpi4py import MPI

from aiinfra_widgets.models.rank_grid import RankGrid
from aiinfra_widgets.parallel.grid_axes import GridAxes
from aiinfra_widgets.parallel.groups import split
from aiinfra_widgets.parallel.ledger import Ledger
from aiinfra_widgets.ranks.link import InjectedLink

WORLD = MPI.COMM_WORLD
TOLERANCE = 1e-9
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


def batch(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole_numbers(below, shape, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))
