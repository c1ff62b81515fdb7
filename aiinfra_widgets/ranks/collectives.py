"""All-reduce of a gradient buffer, in place, by several algorithms. Upper-case MPI buffers only: no pickle, no copy.

`mpi` is the library's own, called in pieces: on shared memory 64 MB took 7 to 10 ms in pieces of 1 to 4 MB and 23 ms in
one call, because a piece stays in the cache between reduction and broadcast. The others are written out so that a learner
can read them, time them, and see each message pass the injected link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from mpi4py import MPI

from .link import InjectedLink
from .members import Members, by_host

Buffer = np.ndarray[Any, np.dtype[Any]]
PIECE_BYTES = 2 * 2**20
_TAG = 71


def allreduce(comm: MPI.Intracomm, buffer: Buffer, link: InjectedLink, algorithm: str = "mpi") -> int:
    """Sum `buffer` over all ranks of `comm`, in place.

    Args:
        comm: The active nodes.
        buffer: Contiguous, one dimension, of a type that MPI sums; the same length on every rank.
        link: Injected delay; where it is active, `mpi` means `ring`.
        algorithm: A key of ALGORITHMS, or "mpi".

    Returns:
        Bytes that this rank handed to the network (for `mpi` those of a ring, which its library may undercut).
    """
    if comm.size == 1:
        return 0
    if algorithm == "mpi" and not link.active:
        step = PIECE_BYTES // buffer.itemsize
        for at in range(0, buffer.size, step):
            comm.Allreduce(MPI.IN_PLACE, buffer[at : at + step])
        return 2 * (comm.size - 1) * buffer.nbytes // comm.size
    return ALGORITHMS["ring" if algorithm == "mpi" else algorithm](comm, buffer, link)


def ring(comm: MPI.Intracomm | Members, buffer: Buffer, link: InjectedLink) -> int:
    """Reduce-scatter, then all-gather, around a ring: 2(n-1) messages of 1/n of the buffer each."""
    chunks = _chunks(
        buffer, [buffer.size * (i + 1) // comm.size - buffer.size * i // comm.size for i in range(comm.size)]
    )
    return _ring_reduce_scatter(comm, chunks, link) + _ring_all_gather(comm, chunks, link)


def reduce_scatter(
    comm: MPI.Intracomm, buffer: Buffer, counts: Sequence[int], link: InjectedLink
) -> tuple[Buffer, int]:
    """Sum `buffer` over all ranks; each keeps its own chunk.

    Args:
        comm: The ranks.
        buffer: Contiguous, one dimension; it is scratch afterwards.
        counts: Elements of each rank's chunk; they add up to the buffer.
        link: Injected delay; where it is active, a ring is written out.

    Returns:
        (this rank's chunk of the sum, bytes that this rank handed to the network).
    """
    chunks, me = _chunks(buffer, counts), comm.rank
    if not link.active:
        mine = np.empty(counts[me], buffer.dtype)
        comm.Reduce_scatter(buffer, mine, list(counts))
        return mine, buffer.nbytes - mine.nbytes
    sent = _ring_reduce_scatter(comm, chunks, link, ends_at=me)
    return chunks[me], sent


def all_gather(comm: MPI.Intracomm, buffer: Buffer, counts: Sequence[int], link: InjectedLink) -> int:
    """Fill `buffer`, in which each rank's own chunk is right, with everybody's chunks; see `reduce_scatter`.

    Returns:
        Bytes that this rank handed to the network.
    """
    chunks = _chunks(buffer, counts)
    if not link.active:
        comm.Allgatherv(MPI.IN_PLACE, [buffer, list(counts)])
        return (comm.size - 1) * chunks[comm.rank].nbytes
    return _ring_all_gather(comm, chunks, link, begins_at=comm.rank)


def _chunks(buffer: Buffer, counts: Sequence[int]) -> list[Buffer]:
    ends = np.cumsum([0, *counts])
    return [buffer[a:b] for a, b in pairwise(ends)]


def _ring_reduce_scatter(
    comm: MPI.Intracomm | Members, chunks: list[Buffer], link: InjectedLink, ends_at: int | None = None
) -> int:
    """After n-1 messages this rank holds the whole sum of one chunk: that of `ends_at`, else the next rank's."""
    n, me = comm.size, comm.rank
    first = me if ends_at is None else me - 1
    incoming = np.empty(max(c.size for c in chunks), chunks[0].dtype)
    to, source, sent = (me + 1) % n, (me - 1) % n, 0
    for step in range(n - 1):
        out, into = chunks[(first - step) % n], chunks[(first - step - 1) % n]
        link.delay(out.nbytes)
        comm.Sendrecv(out, to, _TAG, incoming[: into.size], source, _TAG)
        into += incoming[: into.size]
        sent += out.nbytes
    return sent


def _ring_all_gather(
    comm: MPI.Intracomm | Members, chunks: list[Buffer], link: InjectedLink, begins_at: int | None = None
) -> int:
    """n-1 messages, each of a whole chunk, beginning with the one that this rank holds."""
    n, me = comm.size, comm.rank
    first = me + 1 if begins_at is None else me
    to, source, sent = (me + 1) % n, (me - 1) % n, 0
    for step in range(n - 1):
        out, into = chunks[(first - step) % n], chunks[(first - step - 1) % n]
        link.delay(out.nbytes)
        comm.Sendrecv(out, to, _TAG, into, source, _TAG)
        sent += out.nbytes
    return sent


def recursive_doubling(comm: MPI.Intracomm | Members, buffer: Buffer, link: InjectedLink) -> int:
    """Exchange the whole buffer with partners at distance 1, 2, 4 ...; log2(n) messages, best for small buffers.

    Where n is no power of two, the ranks beyond it first fold into a partner and get the result at the end.
    """
    n, me = comm.size, comm.rank
    core = 1 << (n.bit_length() - 1)
    extra, sent = n - core, 0
    incoming = np.empty_like(buffer)
    if me >= core:
        link.delay(buffer.nbytes)
        comm.Send(buffer, me - core, _TAG)
        comm.Recv(buffer, me - core, _TAG)
        return buffer.nbytes
    if me < extra:
        comm.Recv(incoming, me + core, _TAG)
        buffer += incoming
    distance = 1
    while distance < core:
        link.delay(buffer.nbytes)
        comm.Sendrecv(buffer, me ^ distance, _TAG, incoming, me ^ distance, _TAG)
        buffer += incoming
        sent += buffer.nbytes
        distance *= 2
    if me < extra:
        link.delay(buffer.nbytes)
        comm.Send(buffer, me + core, _TAG)
        sent += buffer.nbytes
    return sent


def tree(comm: MPI.Intracomm | Members, buffer: Buffer, link: InjectedLink) -> int:
    """Reduce to rank 0 along a binomial tree, then broadcast back: 2 log2(n) messages on the longest path."""
    return _sum_up(comm, buffer, link) + _hand_out(comm, buffer, link)


def hierarchical(comm: MPI.Intracomm, buffer: Buffer, link: InjectedLink) -> int:
    """Sum on each host along a tree, sum over the hosts around a ring of one rank each, hand out on each host.

    Between hosts go 2 (h - 1) messages of 1/h of the buffer, however many ranks a host has. On one host it is `tree`.
    """
    hosts = by_host(comm)
    mine = Members(comm, next(ranks for ranks in hosts if comm.rank in ranks))
    sent = _sum_up(mine, buffer, link)
    if mine.rank == 0 and len(hosts) > 1:
        sent += ring(Members(comm, [ranks[0] for ranks in hosts]), buffer, link)
    return sent + _hand_out(mine, buffer, link)


def _sum_up(comm: MPI.Intracomm | Members, buffer: Buffer, link: InjectedLink) -> int:
    """Rank 0 gets the sum along a binomial tree; on the others `buffer` is scratch afterwards."""
    n, me, distance = comm.size, comm.rank, 1
    incoming = np.empty_like(buffer)
    while distance < n:
        if me % (2 * distance):
            link.delay(buffer.nbytes)
            comm.Send(buffer, me - distance, _TAG)
            return buffer.nbytes
        if me + distance < n:
            comm.Recv(incoming, me + distance, _TAG)
            buffer += incoming
        distance *= 2
    return 0


def _hand_out(comm: MPI.Intracomm | Members, buffer: Buffer, link: InjectedLink) -> int:
    """Everybody gets rank 0's buffer, along the same tree."""
    n, me, sent = comm.size, comm.rank, 0
    distance = me & -me if me else 1 << (n - 1).bit_length()
    if me:
        comm.Recv(buffer, me - distance, _TAG)
    while distance := distance // 2:
        if me + distance < n:
            link.delay(buffer.nbytes)
            comm.Send(buffer, me + distance, _TAG)
            sent += buffer.nbytes
    return sent


ALGORITHMS: dict[str, Callable[[MPI.Intracomm, Buffer, InjectedLink], int]] = {
    "ring": ring,
    "tree": tree,
    "recursive-doubling": recursive_doubling,
    "hierarchical": hierarchical,
}
