"""What is probed on several ranks at the same time: memory, updates, messages, and arithmetic that shares the cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import nn

from ...parallel.optimizer import Optimizer
from ...ranks import collectives
from ...ranks.buffers import FlatBuffers
from ...ranks.collectives import allreduce
from ...ranks.node import Node
from .measure_probes import Once, Probe, Setup, after_work, timed, unit_of_work

#: By optimiser; AdamW passes over memory three times as often.
UPDATE_SIZES = {"sgd": (2**8, 2**14, 2**18, 2**21, 2**24), "adamw": (2**8, 2**14, 2**18, 2**22)}
ALLREDUCE_BYTES = (8, 2**10, 2**14, 2**17, 2**20, 2**22, 2**24, 2**26)
MESSAGE_BYTES = (2**6, 2**12, 2**17, 2**21, 2**25)
LOCKSTEP_S = (6e-5, 4e-4, 2e-3, 10e-3)
LOCKSTEP_BYTES = (2**9, 2**16, 2**22)
#: Arithmetic between two messages of a relay, in seconds, and the bytes that are handed on.
RELAY_S, RELAY_BYTES = (2e-4, 1e-3, 5e-3), 2**16
#: Several time slices of a system's scheduler, so that ranks without a core of their own take turns.
SHARED_S = 10e-3
_TAG = 11

Buffer = np.ndarray[Any, np.dtype[np.float32]]


def rank_probes(node: Node, levels: list[int]) -> Iterator[Probe]:
    """Yield every probe for these numbers of ranks, the same ones on every rank; called on all of them."""
    unit_s = _unit_time_s(node.comm)
    for n in levels:
        yield from (*_memory(n), *_update(n), *_shared_cores(n, unit_s), *_lockstep(node, n, unit_s))
        if n > 1:
            yield from (*_allreduce(node, n), *_messages(node, n), *_resize(n), *_relay(n, unit_s))


def _memory(n: int) -> Iterator[Probe]:
    size = 2**23

    def setup(_: MPI.Intracomm) -> Once:
        a, b = np.ones(size, np.float32), np.ones(size, np.float32)
        return timed(lambda: np.add(a, b, out=b))

    yield Probe("memory", {"ranks": n}, setup, n, "B/s", 12.0 * size, "add of two arrays of 32 MiB, per rank")


def _update(n: int) -> Iterator[Probe]:
    for name, size in ((name, size) for name, sizes in UPDATE_SIZES.items() for size in sizes):

        def setup(_: MPI.Intracomm, name: str = name, size: int = size) -> Once:
            optimizer = Optimizer.make(name, momentum=0.9, weight_decay=0.0)
            parameters, gradients = torch.zeros(size), torch.zeros(size)
            state = {kept: torch.zeros(size) for kept in optimizer.state_names}

            def update() -> None:
                gradients.zero_()
                optimizer.update(parameters, gradients, state, 0.1, 1)

            return timed(update)

        at = {"params": size, "ranks": n, "optimizer": name}
        yield Probe("update", at, setup, n, how="clear gradients, new state, new parameters")

    def setup_tail(_: MPI.Intracomm) -> Once:
        flat = FlatBuffers([nn.Parameter(torch.zeros(64))], tail=2 + 2 * n, device=torch.device("cpu"))

        def tail() -> None:
            flat.put_tail(0, n, 1.0, 0, time.monotonic())
            flat.read_tail(0, n)

        return after_work(tail)

    yield Probe("tail", {"ranks": n}, setup_tail, n, how="bookkeeping that rides on the gradient buffer")


# --- messages ---------------------------------------------------------------------------------------------------------
def _allreduce(node: Node, n: int) -> Iterator[Probe]:
    for size in ALLREDUCE_BYTES:

        def setup(comm: MPI.Intracomm, size: int = size) -> Once:
            buffer = np.zeros(max(size // 4, 2), np.float32)
            return timed(lambda: allreduce(comm, buffer, node.link))

        yield Probe("allreduce", {"ranks": n, "bytes": size}, setup, n, how="in place, as the trainer does it")


def _messages(node: Node, n: int) -> Iterator[Probe]:
    """Other collectives over the bytes of the whole array on one rank, and a message between neighbours."""

    def reduce_scatter(comm: MPI.Intracomm, buffer: Buffer, counts: list[int]) -> Any:
        return collectives.reduce_scatter(comm, buffer, counts, node.link)

    def all_gather(comm: MPI.Intracomm, buffer: Buffer, counts: list[int]) -> Any:
        return collectives.all_gather(comm, buffer, counts, node.link)

    def all_to_all(comm: MPI.Intracomm, buffer: Buffer, counts: list[int]) -> None:
        mine = [counts[comm.rank]] * comm.size  # everybody's chunk for this rank is as long
        comm.Alltoallv([buffer, counts], [np.empty(sum(mine), np.float32), mine])

    operations: dict[str, tuple[Callable[..., Any], str]] = {
        "reduce_scatter": (reduce_scatter, "even chunks of a sum"),
        "all_gather": (all_gather, "even chunks, in place"),
        "all_to_all": (all_to_all, "an even chunk to each rank"),
    }
    for (name, (operation, how)), size in product(operations.items(), MESSAGE_BYTES):

        def setup(comm: MPI.Intracomm, operation: Any = operation, size: int = size) -> Once:
            buffer, even = np.zeros(size // 4, np.float32), size // 4
            counts = [even * (r + 1) // comm.size - even * r // comm.size for r in range(comm.size)]
            return timed(lambda: operation(comm, buffer, counts))

        yield Probe(name, {"ranks": n, "bytes": size}, setup, n, how=how)
    for size in MESSAGE_BYTES:
        yield Probe("send", {"ranks": n, "bytes": size}, _to_and_fro(size), n, how="to a neighbour, all pairs at once")


def _to_and_fro(size: int) -> Setup:
    """Half of a message's way to a neighbour and back, on every pair of ranks at the same time."""

    def setup(comm: MPI.Intracomm) -> Once:
        buffer, partner, paired = np.zeros(size // 4, np.float32), comm.rank ^ 1, comm.size - comm.size % 2

        def once() -> tuple[float, ...]:
            if comm.rank >= paired:  # the last of an odd number has no partner
                return (0.0,)
            begun = time.perf_counter()
            for turn in (0, 1):
                if comm.rank % 2 == turn:
                    comm.Isend(buffer, partner, _TAG).Wait()
                else:
                    comm.Recv(buffer, partner, _TAG)
            # Calibration takes the mean over all ranks, with and without a partner.
            return ((time.perf_counter() - begun) / 2 * comm.size / paired,)

        return once

    return setup


def _resize(n: int) -> Iterator[Probe]:
    """What changing the node count inside the pool costs: a communicator of n ranks, and the state of a small net to all."""

    def setup(comm: MPI.Intracomm) -> Once:
        state = np.zeros(2**20, np.float32)

        def resize() -> None:
            new = comm.Create_group(comm.Get_group())
            new.Bcast(state, 0)
            new.Free()

        return timed(resize)

    yield Probe("resize", {"ranks": n, "bytes": 2**22}, setup, n, how="communicator and broadcast of the state")


# --- cores that are shared --------------------------------------------------------------------------------------------
def _shared_cores(n: int, unit_s: float) -> Iterator[Probe]:
    """The same arithmetic on n ranks at once, without a message: what a core shared with others makes of it."""

    def setup(_: MPI.Intracomm) -> Once:
        work = unit_of_work()

        def several() -> None:
            for _ in range(round(SHARED_S / unit_s)):
                work()

        return timed(several)

    yield Probe("shared_cores", {"ranks": n}, setup, n, how=f"some {SHARED_S * 1e3:g} ms of arithmetic, no messages")


def _lockstep(node: Node, n: int, unit_s: float) -> Iterator[Probe]:
    """Arithmetic that takes `alone_s` on a rank by itself, then an all-reduce, again and again: what sharing cores costs.

    More ranks than cores wait at each message until the partner gets its turn, so the size of the message matters too.
    """
    for alone_s, size in product(LOCKSTEP_S, LOCKSTEP_BYTES if n > 1 else LOCKSTEP_BYTES[:1]):

        def setup(comm: MPI.Intracomm, alone_s: float = alone_s, size: int = size) -> Once:
            return _lockstep_once(node, comm, max(1, round(alone_s / unit_s)), size, alone_s > 5e-3)

        at = {"ranks": n, "alone_s": alone_s, "bytes": size}
        how = "per step, several in a row"
        yield Probe("lockstep", at, setup, n, how=how, parts=("compute", "wait", "comm"), least=2, warm_up=False)


def _relay(n: int, unit_s: float) -> Iterator[Probe]:
    """Two ranks of a pair work in turn, and the other one waits for its message, as the stages of a pipeline do.

    A rank that waits in MPI takes its turns on a core that others want, so a hand-over costs more than its bytes.
    """
    for alone_s in RELAY_S:

        def setup(comm: MPI.Intracomm, alone_s: float = alone_s) -> Once:
            work, units = unit_of_work(), max(1, round(alone_s / unit_s))
            buffer, partner, paired = np.zeros(RELAY_BYTES // 4, np.float32), comm.rank ^ 1, comm.size - comm.size % 2
            turns = 4 if alone_s > 2e-3 else 12

            def once() -> tuple[float, ...]:
                if comm.rank >= paired:  # the last of an odd number has no partner
                    return (0.0,)
                begun = time.perf_counter()
                for turn in range(turns):
                    if comm.rank % 2 == turn % 2:
                        for _ in range(units):
                            work()
                        comm.Send(buffer, partner, _TAG)
                    else:
                        comm.Recv(buffer, partner, _TAG)
                # Calibration takes the mean over all ranks, with and without a partner.
                return ((time.perf_counter() - begun) / turns * comm.size / paired,)

            return once

        at = {"ranks": n, "alone_s": alone_s}
        yield Probe("relay", at, setup, n, how="arithmetic, then a message to the one who waits", least=2)


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
    in_a_row, first = (4, 1) if long else (12, 4)  # the first ones after a barrier begin together, as steps do not
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
