"""torch's own engines as references: the same job, data order and loss, carried out by DDP, FSDP2, DTensor or pipelining.

All four run on processors with gloo in torch 2.13 (one-process losses are met to 1e-9 in float64 on 2 and 3 ranks), and on GPUs
with NCCL where every rank has one (not measured on several GPUs: none were at hand). What they are not asked to do here is
refused by `check`, with the reason: torch has no context parallelism for the lab's nets, its engines do not combine with each
other in this lab, and no delay can be put on torch's messages.
"""

from __future__ import annotations

from importlib import import_module

import torch.distributed as dist
from mpi4py import MPI

from ..errors import LabError, ModelInputError
from ..workloads.nets import Workload
from .engine import Engine, Job
from .plan import Plan

#: What each engine distributes over; every other degree must be 1.
_AXES = {"torch-ddp": "dp", "torch-fsdp2": "dp", "torch-tensor": "tp", "torch-pipelining": "pp"}
_ENGINES = {
    "torch-ddp": ("reference_ddp", "TorchDdp"),
    "torch-fsdp2": ("reference_fsdp", "TorchFsdp"),
    "torch-tensor": ("reference_tensor", "TorchTensor"),
    "torch-pipelining": ("reference_pipeline", "TorchPipeline"),
}


def reference_engine(job: Job, plan: Plan, comm: MPI.Intracomm) -> Engine:
    """Return torch's engine for a plan on the active ranks; a collective, on one machine.

    The engine that was there before must be closed: torch has one process group at a time.

    Raises:
        LabError: This machine, these ranks or this torch cannot; with the reason.
        ModelInputError: The plan or the net is not one that torch's engine can carry out; see `check`.
    """
    check(plan, job.work)
    if not dist.is_available():
        raise LabError(
            f"engine: {plan.engine} needs torch.distributed, which this build of torch lacks; use engine=lab"
        )
    if job.link.active:
        raise LabError(
            f"engine: got {plan.engine} with an injected link (latency {job.link.latency_s:g} s, bandwidth "
            f"{job.link.bandwidth_bytes_per_s:g} bytes/s); torch's messages cannot be delayed; set both to 0, or use engine=lab"
        )
    module, name = _ENGINES[plan.engine]
    chosen: type[Engine] = getattr(import_module(f"{__package__}.{module}"), name)
    return chosen(job, plan, comm)


def check(plan: Plan, work: Workload, batch: int = 0) -> None:
    """Refuse what torch's engine of this plan cannot do, before ranks are asked.

    Args:
        plan: Its engine is one of torch's; `plan.check` has passed.
        work: The net.
        batch: Samples of the global batch; 0 leaves that to the first step.

    Raises:
        ModelInputError: What was chosen, what is allowed, what to do.
    """
    for problem in (*_of_plan(plan), *_of_net(plan, work)):
        raise ModelInputError(f"{problem}, or use engine=lab")
    if plan.engine == "torch-pipelining" and batch:
        from .reference_pipeline import check_batch

        check_batch(batch, plan.num_microbatches)


def _of_plan(plan: Plan) -> list[str]:
    name, found, grid = plan.engine, [], plan.grid
    if name not in _AXES:
        return [f"engine: got {name!r}; torch's are {', '.join(_AXES)}"]
    axis = _AXES[name]
    if grid.world_size != (size := grid.size(axis)):  # type: ignore[arg-type]
        found.append(
            f"engine: {name} distributes over {axis} alone, and the plan is {grid}; set {axis}_size to all nodes"
        )
    elif axis != "dp" and size == 1:
        found.append(f"{axis}_size: got 1; {name} needs 2 or more")
    allowed = (2, 3) if name == "torch-fsdp2" else (0,)
    if plan.zero_stage not in allowed:
        found.append(f"zero_stage: got {plan.zero_stage}; {name} has {' and '.join(map(str, allowed))}")
    ours = {
        "sequence_parallel": plan.sequence_parallel,
        "recompute": plan.recompute,
        "compile": plan.compile,
        "compression": plan.compression != "none",
        "average_every": plan.average_every > 1,
    }
    found += [f"{field}: {name} is run without it here; switch it off" for field, wanted in ours.items() if wanted]
    return found


def _of_net(plan: Plan, work: Workload) -> list[str]:
    grid, parts = plan.grid, work.net.parts
    if plan.engine == "torch-tensor":
        from .reference_tensor import why_not

        reason = why_not(work.net, work.module, grid.tp_size)
        return (
            [f"engine: torch-tensor cannot cut {work.facts.name}: {reason}; choose another workload or width"]
            if reason
            else []
        )
    if plan.engine == "torch-pipelining" and grid.pp_size * plan.chunks > len(parts):
        return [
            f"pp_size: {grid.pp_size} stages of {plan.chunks} chunks need as many parts, and {work.facts.name} has {len(parts)}; "
            "lower them"
        ]
    return []
