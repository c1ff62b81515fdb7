"""What the cells of every rank find, and what keeps MPI going where no cell does."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

#: Seconds between two calls of `progress`.
PROGRESS_S = 0.01


def names(lost: bool = False) -> dict[str, Any]:
    """Return what cells find: a communicator of their own, their rank, how many there are, MPI. Collective.

    Args:
        lost: Whether a rank is gone: the communicator is then that of the others (ULFM).
    """
    comm = MPI.COMM_WORLD.Shrink() if lost else MPI.COMM_WORLD.Dup()
    return {"comm": comm, "rank": comm.rank, "size": comm.size, "MPI": MPI}


def progress() -> None:
    """Let MPI look at what arrived: a rank that waits to send is freed only when the other one answers the revocation."""
    MPI.COMM_SELF.Iprobe()  # of itself, since on COMM_WORLD it raises where a rank is gone
