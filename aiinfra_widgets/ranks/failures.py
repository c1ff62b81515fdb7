"""What MPI tells of dead ranks, by ULFM: who is gone, and a communicator of those who are left."""

from __future__ import annotations

from typing import Any, cast

from mpi4py import MPI

from ..errors import LabError
from ..experiment import Spec

#: Error classes that mean "somebody died", not "somebody made a mistake".
LOST = frozenset({MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED})


def is_loss(error: MPI.Exception) -> bool:
    """Whether an MPI error says that a rank died."""
    return error.Get_error_class() in LOST


def alive(world: MPI.Intracomm) -> list[int]:
    """Return the ranks of `world` that are not known to be dead."""
    failed = world.Get_failed()
    if failed.size == 0:
        return list(range(world.size))
    dead = set(MPI.Group.Translate_ranks(failed, None, world.Get_group()))
    return [n for n in range(world.size) if n not in dead]


def acknowledge(world: MPI.Intracomm) -> None:
    """Say that the deaths so far are known: looking for messages from anybody works again."""
    world.Ack_failed(world.Get_failed().size)


def spec_for(spec: Spec, ranks: int) -> Spec:
    """Return the Spec for those who are left: fewer nodes, and no slow node where that place is gone.

    Raises:
        LabError: Too few are left to work at all.
    """
    nodes = ranks - spec.coordinators
    if nodes < 1:
        raise LabError(
            f"{ranks} rank is left, and this experiment needs {1 + spec.coordinators}; resume the run to go on"
        )
    changes: dict[str, Any] = {"nodes": nodes}
    if getattr(spec, "slow_node", -1) >= nodes:
        changes["slow_node"] = -1
    return spec.changed(changes)


def survivors(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Return a communicator of those of `comm` who live; everyone of them must call this. `comm` is of no use afterwards."""
    if not comm.Is_revoked():
        comm.Revoke()
    left = comm.Shrink()
    left.Set_errhandler(MPI.ERRORS_RETURN)
    return cast(MPI.Intracomm, left)
