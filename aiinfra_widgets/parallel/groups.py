"""The ranks along one axis of the grid, and what they send each other. One small interface; MPI on processors, NCCL on GPUs.

Every call is timed in the step's `Ledger`: when a rank enters and leaves a collective, when a message was handed over and
when its receiver began to wait for it. Compared between ranks after the step, that splits waiting from moving bytes without
a barrier.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from ..ranks import collectives
from ..ranks.link import InjectedLink
from .ledger import Ledger


class Group(ABC):
    """Some ranks, in order. All tensors are contiguous; a collective is called by every rank of the group.

    Attributes:
        axis: Name for the ledger: tp, cp, data, pp.
        rank, size: This rank's place among them.
    """

    axis: str
    rank: int
    size: int

    @abstractmethod
    def all_reduce(self, tensor: Tensor, *, maximum: bool = False) -> None:
        """Sum over the ranks, or take the maximum, in place."""

    @abstractmethod
    def reduce_scatter(self, whole: Tensor, counts: Sequence[int]) -> Tensor:
        """Return this rank's chunk of the sum of `whole` (flat, scratch afterwards); `counts` elements for each rank."""

    @abstractmethod
    def all_gather(self, whole: Tensor, counts: Sequence[int]) -> None:
        """Fill `whole` (flat), in which this rank's own chunk is right, with the chunks of all ranks."""

    @abstractmethod
    def all_to_all(self, out: Tensor, out_counts: Sequence[int], into: Tensor, in_counts: Sequence[int]) -> None:
        """Send a chunk of `out` (flat) to each rank and receive one from each into `into`; any type, bit for bit."""

    @abstractmethod
    def send(self, tensor: Tensor, to: int, tag: int) -> None:
        """Hand a tensor to rank `to` of the group and go on; it must not change before `settle`."""

    @abstractmethod
    def receive(self, tensor: Tensor, source: int, tag: int) -> None:
        """Wait for the tensor that `source` sent with this tag."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until everything that was sent is on its way: its memory is free again."""

    @abstractmethod
    def close(self) -> None:
        """Give the group back; called by every rank of it."""

    def abandon(self) -> None:  # noqa: B027 - NCCL's ranks cannot be called back
        """Somebody died: whoever waits here for a rank that has left gets an error instead. Any rank may call it."""


class MpiGroup(Group):
    """Ranks of an MPI communicator. Tensors on a GPU are staged through host memory.

    Args:
        axis: For the ledger.
        comm: Owned by this object from now on.
        ledger: Where calls are noted.
        link: Injected delay.
        algorithm: Of `collectives.allreduce`.
    """

    def __init__(
        self, axis: str, comm: MPI.Intracomm, ledger: Ledger, link: InjectedLink, algorithm: str = "mpi"
    ) -> None:
        self.axis, self.comm, self.ledger, self.link, self.algorithm = axis, comm, ledger, link, algorithm
        self.rank, self.size = comm.rank, comm.size
        self._sent: list[tuple[MPI.Request, Any]] = []

    def all_reduce(self, tensor: Tensor, *, maximum: bool = False) -> None:
        """See `Group`."""
        if self.size == 1:
            return
        with self.ledger.collective(self.axis) as note:
            host = _host(tensor, summed=True)
            if maximum:
                note.sent_bytes = 2 * (self.size - 1) * host.nbytes // self.size  # as a ring would send
                self.link.delay(note.sent_bytes)
                self.comm.Allreduce(MPI.IN_PLACE, host, MPI.MAX)
            else:
                note.sent_bytes = collectives.allreduce(self.comm, host, self.link, self.algorithm)
            _back(tensor, host)

    def reduce_scatter(self, whole: Tensor, counts: Sequence[int]) -> Tensor:
        """See `Group`."""
        if self.size == 1:
            return whole
        with self.ledger.collective(self.axis) as note:
            mine, note.sent_bytes = collectives.reduce_scatter(self.comm, _host(whole, summed=True), counts, self.link)
            return torch.from_numpy(mine).to(device=whole.device, dtype=whole.dtype)

    def all_gather(self, whole: Tensor, counts: Sequence[int]) -> None:
        """See `Group`."""
        if self.size == 1:
            return
        with self.ledger.collective(self.axis) as note:
            host = _host(whole)
            note.sent_bytes = collectives.all_gather(self.comm, host, counts, self.link)
            _back(whole, host)

    def all_to_all(self, out: Tensor, out_counts: Sequence[int], into: Tensor, in_counts: Sequence[int]) -> None:
        """See `Group`."""
        with self.ledger.collective(self.axis) as note:
            give, take = _host(out), _host(into)
            note.sent_bytes = give.nbytes - out_counts[self.rank] * give.itemsize
            self.link.delay(note.sent_bytes)
            self.comm.Alltoallv([give, list(out_counts)], [take, list(in_counts)])
            _back(into, take)

    def send(self, tensor: Tensor, to: int, tag: int) -> None:
        """See `Group`."""
        host = _host(tensor)
        # A message of its own waits for the injected link at its receiver: handing it over must not hold up the sender.
        self.ledger.sent(self.axis, self.rank, to, tag, host.nbytes)
        self._sent.append((self.comm.Isend(host, to, tag), host))

    def receive(self, tensor: Tensor, source: int, tag: int) -> None:
        """See `Group`."""
        with self.ledger.arrival(self.axis, source, self.rank, tag):
            host = _host(tensor)
            self.comm.Recv(host, source, tag)
            self.link.delay(host.nbytes)
            _back(tensor, host)

    def settle(self) -> None:
        """See `Group`."""
        if self._sent:
            MPI.Request.Waitall([request for request, _ in self._sent])
            self._sent.clear()

    def close(self) -> None:
        """See `Group`."""
        self.settle()
        self.comm.Free()

    def abandon(self) -> None:
        """See `Group`."""
        if not self.comm.Is_revoked():
            self.comm.Revoke()


def _host(tensor: Tensor, *, summed: bool = False) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the tensor's numbers in host memory, flat; the same memory where that is possible.

    Neither MPI nor numpy knows bfloat16: it is summed as float32, and moved as 16 bits.
    """
    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.float() if summed else flat.view(torch.int16)
    elif flat.dtype == torch.float16 and summed:
        flat = flat.float()
    return flat.cpu().numpy()  # on a processor this is a view


def _back(tensor: Tensor, host: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Copy into the tensor what `_host` had to copy out of it."""
    found = torch.from_numpy(host)
    if tensor.dtype == torch.bfloat16 and found.dtype == torch.int16:
        found = found.view(torch.bfloat16)
    if found.data_ptr() != tensor.data_ptr():
        tensor.detach().reshape(-1).copy_(found)


def split(
    comm: MPI.Intracomm, axis: str, ranks: Sequence[int], ledger: Ledger, link: InjectedLink, algorithm: str = "mpi"
) -> MpiGroup:
    """Return the group of `ranks` of `comm`; every rank of `comm` calls it at the same time, each with its own group."""
    part = comm.Split(ranks[0], comm.rank)
    assert isinstance(part, MPI.Intracomm)
    return MpiGroup(axis, part, ledger, link, algorithm)
