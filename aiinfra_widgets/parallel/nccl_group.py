"""The ranks along one axis where each of them has a GPU of its own: NCCL, through torch.distributed.

Not measured on several GPUs yet: none were at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI
from torch import Tensor

from ..ranks import nccl
from .groups import Group
from .ledger import Ledger


class NcclWorld:
    """torch's process group over the active ranks, found through MPI; made anew when they change, which costs seconds.

    Args:
        comm: The active ranks, all on this host.
        device: Of this rank alone.
    """

    def __init__(self, comm: MPI.Intracomm, device: torch.device) -> None:
        nccl.start(comm, device)
        self.comm = comm

    def group(self, axis: str, ranks: Sequence[int], ledger: Ledger) -> NcclGroup:
        """Return this rank's group; every rank calls it at the same time, each with its own ranks."""
        everyone = np.empty((self.comm.size, self.comm.size), np.int64)
        mine = np.full(self.comm.size, -1, np.int64)
        mine[: len(ranks)] = ranks
        self.comm.Allgather(mine, everyone)
        found = None
        for row in sorted({tuple(int(r) for r in line if r >= 0) for line in everyone}):
            made = dist.new_group(list(row))  # torch wants every rank to make every group, in one order
            if self.comm.rank in row:
                found = made
        return NcclGroup(axis, list(ranks), self.comm.rank, found, ledger)

    def close(self) -> None:
        """Give everything back."""
        dist.destroy_process_group()


class NcclGroup(Group):
    """See `Group`. A call is over when the device has done it, so that its time is its own."""

    def __init__(self, axis: str, ranks: list[int], me: int, group: Any, ledger: Ledger) -> None:
        self.axis, self.ranks, self.group, self.ledger = axis, ranks, group, ledger
        self.rank, self.size = ranks.index(me), len(ranks)
        self._sent: list[tuple[Any, Tensor]] = []

    def all_reduce(self, tensor: Tensor, *, maximum: bool = False) -> None:
        """See `Group`."""
        if self.size == 1:
            return
        with self.ledger.collective(self.axis) as note:
            dist.all_reduce(tensor, dist.ReduceOp.MAX if maximum else dist.ReduceOp.SUM, group=self.group)
            note.sent_bytes = 2 * (self.size - 1) * tensor.nbytes // self.size
            torch.cuda.synchronize(tensor.device)

    def reduce_scatter(self, whole: Tensor, counts: Sequence[int]) -> Tensor:
        """See `Group`."""
        if self.size == 1:
            return whole
        with self.ledger.collective(self.axis) as note:
            mine = torch.empty(counts[self.rank], dtype=whole.dtype, device=whole.device)
            dist.reduce_scatter(mine, list(whole.split(list(counts))), group=self.group)
            note.sent_bytes = whole.nbytes - mine.nbytes
            torch.cuda.synchronize(whole.device)
            return mine

    def all_gather(self, whole: Tensor, counts: Sequence[int]) -> None:
        """See `Group`."""
        if self.size == 1:
            return
        with self.ledger.collective(self.axis) as note:
            chunks = list(whole.split(list(counts)))
            dist.all_gather(chunks, chunks[self.rank].clone(), group=self.group)
            note.sent_bytes = (self.size - 1) * chunks[self.rank].nbytes
            torch.cuda.synchronize(whole.device)

    def all_to_all(self, out: Tensor, out_counts: Sequence[int], into: Tensor, in_counts: Sequence[int]) -> None:
        """See `Group`."""
        with self.ledger.collective(self.axis) as note:
            dist.all_to_all_single(into, out, list(in_counts), list(out_counts), group=self.group)
            note.sent_bytes = (out.numel() - out_counts[self.rank]) * out.element_size()
            torch.cuda.synchronize(out.device)

    def send(self, tensor: Tensor, to: int, tag: int) -> None:
        """See `Group`; NCCL has no tags: messages between two ranks arrive in the order in which they were sent."""
        self.ledger.sent(self.axis, self.rank, to, tag, tensor.nbytes)
        torch.cuda.current_stream(tensor.device).synchronize()
        self._sent.append((dist.isend(tensor, self.ranks[to], group=self.group), tensor))

    def receive(self, tensor: Tensor, source: int, tag: int) -> None:
        """See `Group`."""
        with self.ledger.arrival(self.axis, source, self.rank, tag):
            dist.recv(tensor, self.ranks[source], group=self.group)
            torch.cuda.synchronize(tensor.device)

    def settle(self) -> None:
        """See `Group`."""
        for work, _ in self._sent:
            work.wait()
        self._sent.clear()

    def close(self) -> None:
        """See `Group`."""
        self.settle()
        if self.group is not None:
            dist.destroy_process_group(self.group)
