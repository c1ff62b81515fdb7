"""Some ranks of a communicator, without one of their own, and which ranks share a host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from mpi4py import MPI

from ..runs.alive import here

NAME_BYTES = 64
_HOSTS = MPI.Comm.Create_keyval()


class Members:
    """Some ranks of a communicator, numbered from 0 in the order given; has what an algorithm asks of one, by the same names.

    None can be made while ranks may die: in Open MPI's `Create_group` ranks wait forever, also for one that lives, where a
    death elsewhere becomes known meanwhile (half a millisecond). Messages need nothing made beforehand, and whoever waits for
    one learns of a death. As long as two nodes are in one such group at a time, messages of two groups cannot be taken for
    each other.
    """

    def __init__(self, comm: MPI.Intracomm, ranks: Sequence[int]) -> None:
        self._comm, self._ranks = comm, tuple(ranks)
        self.size, self.rank = len(self._ranks), self._ranks.index(comm.rank)

    def Send(self, buffer: Any, dest: int, tag: int) -> None:  # noqa: N802
        """See MPI."""
        self._comm.Send(buffer, self._ranks[dest], tag)

    def Recv(self, buffer: Any, source: int, tag: int) -> None:  # noqa: N802
        """See MPI."""
        self._comm.Recv(buffer, self._ranks[source], tag)

    def Sendrecv(self, out: Any, dest: int, sendtag: int, into: Any, source: int, recvtag: int) -> None:  # noqa: N802
        """See MPI."""
        self._comm.Sendrecv(out, self._ranks[dest], sendtag, into, self._ranks[source], recvtag)


def hosts_of(comm: MPI.Intracomm) -> list[str]:
    """Return the host of every rank; a collective."""
    name = here().encode()[:NAME_BYTES]
    mine = np.zeros(NAME_BYTES, np.uint8)
    mine[: len(name)] = np.frombuffer(name, np.uint8)
    all_names = np.empty((comm.size, NAME_BYTES), np.uint8)
    comm.Allgather(mine, all_names)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in all_names]


def by_host(comm: MPI.Intracomm) -> tuple[tuple[int, ...], ...]:
    """Return the ranks of each host, hosts in the order of their first rank; the first call for a communicator is a collective."""
    found = cast("tuple[tuple[int, ...], ...] | None", comm.Get_attr(_HOSTS))
    if found is None:
        groups: dict[str, list[int]] = {}
        for rank, host in enumerate(hosts_of(comm)):
            groups.setdefault(host, []).append(rank)
        found = tuple(map(tuple, groups.values()))
        comm.Set_attr(_HOSTS, found)
    return found
