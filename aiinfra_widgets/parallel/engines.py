"""Which engine carries out a plan."""

from __future__ import annotations

from mpi4py import MPI

from .engine import Engine, Job
from .plan import Plan


def make_engine(job: Job, plan: Plan, comm: MPI.Intracomm) -> Engine:
    """Return the engine of a plan on the active ranks; a collective.

    Raises:
        LabError: It cannot be carried out here, with the reason.
    """
    if plan.engine == "lab":
        from .grid_engine import GridEngine

        return GridEngine(job, plan, comm)
    from .reference import reference_engine

    return reference_engine(job, plan, comm)
