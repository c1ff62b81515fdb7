"""Run by five ranks (see test_mpi_collectives.py). Inputs depend on the rank, expectations are written in rank and size.

Whole numbers below 2**24 are exact in float32, so sums are compared exactly. The ranks agree on a verdict before anyone
asserts, for a rank that stops alone would leave the others waiting.
"""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

from aiinfra_widgets.ranks import members
from aiinfra_widgets.ranks.collectives import ALGORITHMS, PIECE_BYTES, all_gather, allreduce, reduce_scatter
from aiinfra_widgets.ranks.link import InjectedLink

WORLD = MPI.COMM_WORLD
SIZES = (1, 2, 3, 7, 1000, 4099, PIECE_BYTES // 4 + 3)


@pytest.fixture(params=range(1, 6))
def comm(request):
    """The first n ranks; None on the others."""
    part = WORLD.Split(0 if WORLD.rank < request.param else MPI.UNDEFINED, WORLD.rank)
    yield part if part != MPI.COMM_NULL else None
    if part != MPI.COMM_NULL:
        part.Free()


@pytest.fixture(params=["a", "ab", "aab", "abbab", "abcde"])
def hosts(request, monkeypatch):
    """Where each rank says that it is; repeated for the ranks beyond."""
    names = request.param * 5
    monkeypatch.setattr(members, "here", lambda: names[WORLD.rank])
    return names


def agree(ok: bool) -> None:
    assert all(WORLD.allgather(bool(ok)))


def inputs(rank: int, size: int) -> np.ndarray:
    return (np.arange(size) % 97 + 10 * rank).astype(np.float32)


def total(n: int, size: int) -> np.ndarray:
    return (n * (np.arange(size) % 97) + 10 * n * (n - 1) // 2).astype(np.float32)


def test_there_are_five():
    agree(WORLD.size == 5)


@pytest.mark.parametrize("algorithm", ["mpi", *ALGORITHMS])
@pytest.mark.parametrize("size", SIZES)
def test_the_sum_is_exact_in_place_on_every_rank(comm, algorithm, size):
    ok = True
    if comm:
        buffer = inputs(comm.rank, size)
        allreduce(comm, buffer, InjectedLink(), algorithm)
        ok = np.array_equal(buffer, total(comm.size, size))
    agree(ok)


@pytest.mark.parametrize("algorithm", ["mpi", *ALGORITHMS])
def test_a_part_of_a_larger_buffer_is_summed_and_nothing_else_touched(comm, algorithm):
    ok = True
    if comm:
        whole = np.full(120, -1, np.float32)
        whole[10:111] = inputs(comm.rank, 101)
        allreduce(comm, whole[10:111], InjectedLink(), algorithm)
        ok = (
            np.array_equal(whole[10:111], total(comm.size, 101))
            and (whole[:10] == -1).all()
            and (whole[111:] == -1).all()
        )
    agree(ok)


@pytest.mark.parametrize("size", SIZES)
def test_bytes_sent_are_those_of_the_textbook(comm, size):
    """Over all ranks: ring, tree and hierarchical move the buffer 2 (n - 1) times; doubling, on a power of two, n log2 n times."""
    ok = True
    if comm:
        n = comm.size
        sent = {
            name: comm.allreduce(allreduce(comm, inputs(comm.rank, size), InjectedLink(), name)) for name in ALGORITHMS
        }
        want = dict.fromkeys(("ring", "tree", "hierarchical"), 2 * (n - 1) * size * 4)
        if n in {1, 2, 4}:
            want["recursive-doubling"] = n * (n.bit_length() - 1) * size * 4
        ok = all(sent[name] == want[name] for name in want)
    agree(ok)


@pytest.mark.parametrize("algorithm", ["mpi", *ALGORITHMS])
def test_every_message_passes_the_injected_link(comm, algorithm):
    ok = True
    if comm:
        link = InjectedLink(latency_s=0.0005)
        buffer = inputs(comm.rank, 64)
        allreduce(comm, buffer, link, algorithm)
        spent, forgotten = link.take(), link.take()
        ok = np.array_equal(buffer, total(comm.size, 64)) and forgotten == 0
        # On a ring everybody sends 2 (n - 1) messages, and no sleep ends early.
        if algorithm in {"mpi", "ring"}:
            ok = ok and spent >= 2 * (comm.size - 1) * 0.0005 and (spent > 0) == (comm.size > 1)
        else:
            ok = ok and comm.allreduce(spent) >= (comm.size - 1) * 0.0005
    agree(ok)


def test_an_idle_link_costs_nothing(comm):
    link = InjectedLink()
    link.delay(10**9)
    agree(not link.active and link.take() == 0)


@pytest.mark.parametrize("latency_s", [0.0, 1e-6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [5, 1000, 4099])
def test_the_two_halves_of_an_all_reduce_with_uneven_chunks(comm, size, dtype, latency_s):
    ok = True
    if comm:
        n, me = comm.size, comm.rank
        counts = [size * (i + 1) // n - size * i // n for i in range(n)]
        begin, want = sum(counts[:me]), total(n, size)
        mine, _ = reduce_scatter(comm, inputs(me, size).astype(dtype), counts, InjectedLink(latency_s))
        ok = mine.dtype == dtype and np.array_equal(mine, want[begin : begin + counts[me]])
        whole = np.full(size, -1, dtype)
        whole[begin : begin + counts[me]] = mine
        all_gather(comm, whole, counts, InjectedLink(latency_s))
        ok = ok and np.array_equal(whole, want)
    agree(ok)


@pytest.mark.parametrize("size", [1, 1000, 4099])
def test_a_hierarchical_sum_crosses_between_hosts_as_a_ring_of_them(comm, hosts, size):
    """Whatever the ranks of a host: between h hosts goes the buffer 2 (h - 1) times."""
    ok = True
    if comm:
        there, crossed = hosts[: comm.size], []
        found = members.by_host(comm)
        ok = sorted(r for ranks in found for r in ranks) == list(range(comm.size))
        ok = ok and [{there[r] for r in ranks} for ranks in found] == [{h} for h in dict.fromkeys(there)]
        send, exchange = MPI.Intracomm.Send, MPI.Intracomm.Sendrecv

        class Watched(MPI.Intracomm):
            def Send(self, buffer, dest, tag):
                crossed.extend([buffer.nbytes] if there[dest] != there[self.rank] else [])
                send(self, buffer, dest, tag)

            def Sendrecv(self, out, dest, sendtag, into, source, recvtag):
                crossed.extend([out.nbytes] if there[dest] != there[self.rank] else [])
                exchange(self, out, dest, sendtag, into, source, recvtag)

        buffer = inputs(comm.rank, size)
        allreduce(Watched(comm), buffer, InjectedLink(), "hierarchical")
        ok = ok and np.array_equal(buffer, total(comm.size, size))
        ok = comm.allreduce(sum(crossed)) == 2 * (len(set(there)) - 1) * buffer.nbytes and ok
        ok = members.by_host(comm) is found and ok  # asked once, of one communicator
    agree(ok)
