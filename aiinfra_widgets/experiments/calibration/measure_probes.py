"""What is probed: single operations, as a training step uses them, over sizes and over ranks that run at the same time.

Each probe times one operation; nothing here knows a workload. Operations of a net are timed forward and backward
together, through autograd, because that is how they are used; the cost of calling backward at all is a probe of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import nn
from torch.nn import functional

from ...ranks.buffers import FlatBuffers
from ...ranks.collectives import allreduce
from ...ranks.node import Node

#: Does the operation once; seconds, one number for each of the probe's parts.
Once = Callable[[], tuple[float, ...]]
Setup = Callable[[MPI.Intracomm], Once]

BATCHES = (16, 64, 256, 1024)
WIDTHS = (1, 8, 64, 256, 1024)
CONV_INPUTS, CONV_OUTPUTS, PIXELS = (1, 8, 32), (8, 32), 8
ELEMENTS = (2**6, 2**11, 2**15, 2**18, 2**21)
UPDATE_SIZES = (2**8, 2**14, 2**18, 2**21, 2**24)
MESSAGES = (8, 2**10, 2**14, 2**17, 2**20, 2**22, 2**24, 2**26)
LOCKSTEP_S = (6e-5, 4e-4, 2e-3, 10e-3)
LOCKSTEP_BYTES = (2**9, 2**16, 2**22)


@dataclass(frozen=True)
class Probe:
    """One point.

    Attributes:
        name, at, unit, how: As in the machine profile.
        setup: Builds the operation on the ranks that take part and returns a function that does it once and says how
            many seconds it took.
        ranks: How many run it at the same time.
        work: Divided by the time where the unit is a rate; 0 where the unit is "s".
        parts: Names of what `setup`'s function times, where that is more than one thing.
    """

    name: str
    at: Mapping[str, Any]
    setup: Setup
    ranks: int = 1
    unit: str = "s"
    work: float = 0.0
    how: str = ""
    parts: tuple[str, ...] = ("",)

    def figure(self, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Turn seconds into the probe's unit."""
        return self.work / times if self.work else times


def all_probes(node: Node, levels: list[int]) -> list[Probe]:
    """Return every probe for these numbers of ranks, the same list on every rank."""
    unit_s = _unit_time_s(node.comm)
    found = [*_matmul(), *_layers(), *_chain(), *_whole_step(), *_gather()]
    for n in levels:
        found += [*_memory(n), *_update(n), *_lockstep(node, n, unit_s)]
        if n > 1:
            found += [*_allreduce(node, n), *_resize(n)]
    return found


def _timed(operation: Callable[[], Any]) -> Once:
    def once() -> tuple[float, ...]:
        begun = time.perf_counter()
        operation()
        return (time.perf_counter() - begun,)

    return once


def _after_work(operation: Callable[[], Any]) -> Once:
    """Time an operation whose code and data are no longer in the cache, because a step's arithmetic came before it."""
    work = unit_of_work()

    def once() -> tuple[float, ...]:
        for _ in range(3):
            work()
        begun = time.perf_counter()
        operation()
        return (time.perf_counter() - begun,)

    return once


# --- one rank ---------------------------------------------------------------------------------------------------------
def _matmul() -> Iterator[Probe]:
    for n in (32, 64, 128, 256, 512, 1024):

        def setup(_: MPI.Intracomm, n: int = n) -> Once:
            a, b = torch.rand(n, n), torch.rand(n, n)
            out = torch.empty(n, n)
            return _timed(lambda: torch.mm(a, b, out=out))

        yield Probe(
            "matmul", {"n": n}, setup, unit="flop/s", work=2.0 * n**3, how="square matrices, float32, one thread"
        )


def _both_ways(module: nn.Module, x: torch.Tensor) -> Once:
    """Forward and backward of one module, with the gradient of its input if `x` wants one."""
    seed = torch.ones_like(module(x).detach())

    def both() -> None:
        x.grad = None
        module(x).backward(seed)

    return _timed(both)


def _layers() -> Iterator[Probe]:
    for width in WIDTHS:
        for batch in BATCHES:
            yield Probe(
                "linear",
                {"width": width, "batch": batch},
                _linear(width, batch),
                how="forward and backward of a square layer",
            )
    for inputs in CONV_INPUTS:
        for outputs in CONV_OUTPUTS:
            for batch in BATCHES:
                at = {"inputs": inputs, "outputs": outputs, "pixels": PIXELS**2, "batch": batch}
                yield Probe(
                    "conv", at, _conv(inputs, outputs, batch), how="forward and backward of a 3 x 3 convolution"
                )
    for elements in ELEMENTS:
        yield Probe(
            "activation", {"elements": elements}, _elementwise(elements), how="forward and backward of a rectifier"
        )
        if elements >= 2**11:
            yield Probe("pool", {"elements": elements}, _pool(elements), how="forward and backward of 2 x 2 maximum")
    for batch in BATCHES:
        yield Probe("cross_entropy", {"batch": batch}, _cross_entropy(batch), how="of 10 classes, forward and backward")
        yield Probe("squared_error", {"batch": batch}, _squared_error(batch), how="of one number, forward and backward")


def _linear(width: int, batch: int) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        return _both_ways(nn.Linear(width, width), torch.rand(batch, width, requires_grad=True))

    return setup


def _conv(inputs: int, outputs: int, batch: int) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        # A net's first convolution sees an image of few channels and owes nobody a gradient.
        x = torch.rand(batch, inputs, PIXELS, PIXELS, requires_grad=inputs > 1)
        return _both_ways(nn.Conv2d(inputs, outputs, 3, padding=1), x)

    return setup


def _elementwise(elements: int) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        return _both_ways(nn.ReLU(), torch.randn(elements, requires_grad=True))

    return setup


def _pool(elements: int) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        return _both_ways(nn.MaxPool2d(2), torch.randn(elements // 64, 1, 8, 8, requires_grad=True))

    return setup


def _cross_entropy(batch: int) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        outputs, y = torch.randn(batch, 10, requires_grad=True), torch.randint(0, 10, (batch,))

        def both() -> None:
            outputs.grad = None
            (functional.cross_entropy(outputs, y, reduction="sum") / batch).backward()

        return _timed(both)

    return setup


def _squared_error(batch: int) -> Setup:
    def setup(_: MPI.Intracomm) -> Once:
        outputs, y = torch.randn(batch, 1, requires_grad=True), torch.randn(batch, 1)

        def both() -> None:
            outputs.grad = None
            (functional.mse_loss(outputs, y, reduction="sum") / batch).backward()

        return _timed(both)

    return setup


def _chain() -> Iterator[Probe]:
    """Calls into backward cost once per step, layers once each: one layer and nine layers tell them apart."""
    for layers in (1, 9):

        def setup(_: MPI.Intracomm, layers: int = layers) -> Once:
            net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)))
            return _both_ways(net, torch.rand(16, 8))

        yield Probe("chain", {"layers": layers}, setup, how="tiny layers in a row, forward and backward")


def _whole_step() -> Iterator[Probe]:
    """Operations one after another are slower than each in a loop of its own: a whole step of a tiny net tells by how much."""
    widths, batch = (16, 16, 16, 10), 64

    def setup(_: MPI.Intracomm) -> Once:
        linears = [nn.Linear(a, b) for a, b in pairwise(widths)]
        net = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2])
        flat = FlatBuffers(list(net.parameters()), tail=4, device=torch.device("cpu"))
        x, y = torch.rand(batch, widths[0]), torch.randint(0, 10, (batch,))

        def step() -> None:
            flat.gradients.zero_()
            loss = functional.cross_entropy(net(x), y, reduction="sum") / batch
            loss.backward()
            flat.put_tail(0, 1, float(loss.detach()), 0, time.monotonic())
            flat.momentum.mul_(0.9).add_(flat.gradients)
            flat.parameters.add_(flat.momentum, alpha=-0.01)

        return _timed(step)

    yield Probe(
        "step", {"widths": list(widths), "batch": batch}, setup, how="a tiny perceptron, everything but the data"
    )


def _gather() -> Iterator[Probe]:
    for row in (1, 64, 1024):
        for batch in BATCHES:

            def setup(_: MPI.Intracomm, row: int = row, batch: int = batch) -> Once:
                count = 65536 if row < 1024 else 8192
                x, y, order = torch.rand(count, row), torch.rand(count, 1), torch.randperm(count)
                at = [0]

                def fetch() -> None:
                    at[0] = (at[0] + batch) % (count - batch)  # other rows each time, as in training
                    index = order[at[0] : at[0] + batch][slice(0, batch)]
                    x[index], y[index]

                return _after_work(fetch)

            yield Probe("gather", {"row": row, "batch": batch}, setup, how="rows of a data set by random index")


# --- several ranks at the same time -----------------------------------------------------------------------------------
def _memory(n: int) -> Iterator[Probe]:
    size = 2**23

    def setup(_: MPI.Intracomm) -> Once:
        a, b = np.ones(size, np.float32), np.ones(size, np.float32)
        return _timed(lambda: np.add(a, b, out=b))

    yield Probe("memory", {"ranks": n}, setup, n, "B/s", 12.0 * size, "add of two arrays of 32 MiB, per rank")


def _update(n: int) -> Iterator[Probe]:
    for size in UPDATE_SIZES:

        def setup(_: MPI.Intracomm, size: int = size) -> Once:
            flat = FlatBuffers([nn.Parameter(torch.zeros(size))], tail=8, device=torch.device("cpu"))

            def update() -> None:
                flat.gradients.zero_()
                flat.momentum.mul_(0.9).add_(flat.gradients)
                flat.parameters.add_(flat.momentum, alpha=-0.1)

            return _timed(update)

        yield Probe("update", {"params": size, "ranks": n}, setup, n, how="clear gradients, momentum, new parameters")

    def setup_tail(_: MPI.Intracomm) -> Once:
        flat = FlatBuffers([nn.Parameter(torch.zeros(64))], tail=2 + 2 * n, device=torch.device("cpu"))

        def tail() -> None:
            flat.put_tail(0, n, 1.0, 0, time.monotonic())
            flat.read_tail(0, n)

        return _after_work(tail)

    yield Probe("tail", {"ranks": n}, setup_tail, n, how="bookkeeping that rides on the gradient buffer")


def _allreduce(node: Node, n: int) -> Iterator[Probe]:
    for size in MESSAGES:

        def setup(comm: MPI.Intracomm, size: int = size) -> Once:
            buffer = np.zeros(max(size // 4, 2), np.float32)
            return _timed(lambda: allreduce(comm, buffer, node.link))

        yield Probe("allreduce", {"ranks": n, "bytes": size}, setup, n, how="in place, as the trainer does it")


def _resize(n: int) -> Iterator[Probe]:
    """What changing the node count inside the pool costs: a communicator of n ranks, and the state of a small net to all."""

    def setup(comm: MPI.Intracomm) -> Once:
        state = np.zeros(2**20, np.float32)

        def resize() -> None:
            new = comm.Create_group(comm.Get_group())
            new.Bcast(state, 0)
            new.Free()

        return _timed(resize)

    yield Probe("resize", {"ranks": n, "bytes": 2**22}, setup, n, how="communicator and broadcast of the state")


def _lockstep(node: Node, n: int, unit_s: float) -> Iterator[Probe]:
    """Arithmetic that takes `alone_s` on a rank by itself, then an all-reduce, again and again: what sharing cores costs.

    More ranks than cores wait at each message until the partner gets its turn, so the size of the message matters too.
    """
    for alone_s in LOCKSTEP_S:
        for size in LOCKSTEP_BYTES if n > 1 else LOCKSTEP_BYTES[:1]:

            def setup(comm: MPI.Intracomm, alone_s: float = alone_s, size: int = size) -> Once:
                return _lockstep_once(node, comm, max(1, round(alone_s / unit_s)), size, alone_s > 5e-3)

            at = {"ranks": n, "alone_s": alone_s, "bytes": size}
            yield Probe("lockstep", at, setup, n, how="per step, several in a row", parts=("compute", "wait", "comm"))


def unit_of_work() -> Callable[[], None]:
    """Return some 50 us of a net's arithmetic, forward and backward."""
    net, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), torch.rand(16, 64)
    return lambda: net(x).sum().backward()


def _unit_time_s(comm: MPI.Intracomm) -> float:
    """Time of one unit on rank 0 while the others wait, asleep; the same number on every rank."""
    found = np.zeros(1)
    if comm.rank == 0:
        work, times = unit_of_work(), []
        for _ in range(200):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        found[0] = float(np.median(times))
    request = comm.Ibcast(found, 0)
    while not request.Test():
        time.sleep(0.001)
    return float(found[0])


def _lockstep_once(node: Node, comm: MPI.Intracomm, units: int, size: int, long: bool) -> Once:
    n, work = comm.size, unit_of_work()
    in_a_row, first = (5, 1) if long else (12, 4)  # the first ones after a barrier begin together, as steps do not
    flat = FlatBuffers([nn.Parameter(torch.zeros(size // 4))], tail=2 + 2 * n, device=torch.device("cpu"))

    def once() -> tuple[float, ...]:
        spent = np.zeros(3)
        for step in range(in_a_row):
            begun = time.perf_counter()
            for _ in range(units):
                work()
            arrived = time.perf_counter()
            flat.put_tail(comm.rank, n, 0.0, 0, time.monotonic())
            allreduce(comm, flat.reduced(n), node.link)
            during = time.perf_counter() - arrived
            wait = min(max(flat.read_tail(comm.rank, n)[2], 0.0), during)
            if step >= first:
                spent += (arrived - begun, wait, during - wait)
        return tuple(spent / (in_a_row - first))

    return once
