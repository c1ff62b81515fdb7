"""What MPI tells of dead ranks, by ULFM: who is gone, and a communicator of those who are left."""

from __future__ import annotations

import contextlib
import time
from typing import Any, cast

from mpi4py import MPI

from ..errors import StateLostError
from ..experiment import Spec

#: Error classes that mean "somebody died", not "somebody made a mistake".
LOST = frozenset({MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED})


#: What a message gets that was torn in the middle by a death, before MPI has understood it, and what several messages get of
#: which one failed; also mistakes are told so.
UNSPECIFIC = frozenset({MPI.ERR_OTHER, MPI.ERR_INTERN, MPI.ERR_UNKNOWN, MPI.ERR_IN_STATUS})
#: A death is known to all this long after it, at the latest.
KNOWN_S = 2.0


def is_loss(error: MPI.Exception, world: MPI.Intracomm) -> bool:
    """Whether an MPI error says that a rank died, or is one of those that a death leaves behind and somebody is dead."""
    kind = error.Get_error_class()
    if kind not in UNSPECIFIC:
        return kind in LOST
    end_s = time.monotonic() + KNOWN_S
    while len(look_alive(world)) == world.size:
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


def alive(world: MPI.Intracomm) -> list[int]:
    """Return the ranks of `world` that are not known to be dead."""
    failed = world.Get_failed()
    if failed.size == 0:
        return list(range(world.size))
    dead = set(MPI.Group.Translate_ranks(failed, None, world.Get_group()))
    return [n for n in range(world.size) if n not in dead]


def look_alive(world: MPI.Intracomm) -> list[int]:
    """Return the same, where nothing else lets MPI learn of deaths meanwhile: looking for messages does."""
    with contextlib.suppress(MPI.Exception):
        world.Iprobe()
    return alive(world)


def acknowledge(world: MPI.Intracomm) -> None:
    """Say that the deaths so far are known: looking for messages from anybody works again."""
    world.Ack_failed(world.Get_failed().size)


def spec_for(spec: Spec, ranks: int) -> Spec:
    """Return the Spec for those who are left: fewer nodes, no slow node where that place is gone, no neighbour of the last one.

    Raises:
        StateLostError: Too few are left to work at all.
    """
    nodes = ranks - spec.coordinators
    if nodes < 1:
        raise StateLostError(f"{ranks} rank is left, and this experiment needs {1 + spec.coordinators}")
    changes: dict[str, Any] = {"nodes": nodes}
    if getattr(spec, "slow_node", -1) >= nodes:
        changes["slow_node"] = -1
    if nodes == 1 and getattr(spec, "redundancy", "") == "neighbour":  # there is none left
        changes["redundancy"] = "checkpoint"
    return spec.changed(changes)


def survivors(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Return a communicator of those of `comm` who live; everyone of them must call this. `comm` is of no use afterwards."""
    if not comm.Is_revoked():
        comm.Revoke()
    return living(comm)


def living(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Return a communicator of those of `comm` who live; everyone of them must call this. `comm` stays as it is."""
    # Open MPI (5.0, comm_cid.c) makes communicators in the order of their parents' numbers, and where a death breaks one off it
    # forgets to say that this one's turn is over: those of higher numbers would wait forever. Only `COMM_WORLD` is before
    # `COMM_SELF`, so making one from that takes its turn, without a message, and ends it.
    MPI.COMM_SELF.Dup().Free()
    left = comm.Shrink()
    with contextlib.suppress(
        MPI.Exception
    ):  # who is in Shrink yet crashes when somebody else revokes what comes out of it
        comm.Agree(1)
    left.Set_errhandler(MPI.ERRORS_RETURN)
    return cast(MPI.Intracomm, left)
