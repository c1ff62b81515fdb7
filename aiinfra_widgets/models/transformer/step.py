"""The time of one training step of a transformer under a plan, as parts that add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._check import Number, need
from .architecture import Transformer
from .cluster import Cluster
from .communication import gather_time_s, gradient_time_s, layer_traffic, local_parameters, stage_transfer_s
from .compute import embedding_time_s, head_time_s, layer_time
from .parameters import PARAMETERS, Parameters
from .pipeline import plan_bubble_frac, slowest_stage
from .plan import Plan
from .work import step_flop

#: The parts, in the order in which they are drawn.
PARTS = (
    "compute_time_s", "optimizer_time_s", "exposed_tp_comm_time_s", "exposed_cp_comm_time_s", "exposed_ep_comm_time_s",
    "exposed_pp_comm_time_s", "exposed_dp_comm_time_s", "bubble_time_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """One step, in seconds on the slowest rank; each field a number, or an array for many plans.

    Attributes:
        compute_time_s: Arithmetic and memory traffic of the slowest stage, with what is computed again.
        optimizer_time_s: The update.
        exposed_tp_comm_time_s, exposed_cp_comm_time_s, exposed_ep_comm_time_s, exposed_pp_comm_time_s,
        exposed_dp_comm_time_s: Communication that no arithmetic hides, or by which it slows arithmetic, by its cause.
        bubble_time_s: Idle time of the pipeline.
        comm_time_s: All communication, hidden or not.
        model_flop, hardware_flop: Operations of the whole job per step, without and with recomputation.
        mfu, hfu: The same against the peak of all devices, 0 to 1.
        tokens_per_s: Of the whole job.
    """

    compute_time_s: Number
    optimizer_time_s: Number
    exposed_tp_comm_time_s: Number
    exposed_cp_comm_time_s: Number
    exposed_ep_comm_time_s: Number
    exposed_pp_comm_time_s: Number
    exposed_dp_comm_time_s: Number
    bubble_time_s: Number
    comm_time_s: Number
    model_flop: Number
    hardware_flop: Number
    mfu: Number
    hfu: Number
    tokens_per_s: Number

    @property
    def step_time_s(self) -> Number:
        """The sum of the parts."""
        return sum(getattr(self, part) for part in PARTS)

    @property
    def exposed_comm_time_s(self) -> Number:
        """All exposed communication."""
        return sum(getattr(self, part) for part in PARTS if part.startswith("exposed"))


def predict_step(
    model: Transformer, plan: Plan, cluster: Cluster, parameters: Parameters = PARAMETERS
) -> StepPrediction:
    """Return the time of one training step and where it goes.

    Args:
        model: The transformer; with arrays, one per plan.
        plan: One plan, or many in arrays that broadcast.
        cluster: The machine.
        parameters: How far real systems fall short; the default is the one set that `aiinfra validate` tests.

    Raises:
        ModelInputError: Tensor parallelism that does not divide the heads, more stages than layers, chunks that do not fit,
            experts that do not spread.

    Valid when: steady state, no failures, the batch's data is there in time, nodes equal and alone on their fabric.
    Off by: `aiinfra validate` says it for every published source; alone-standing kernels just above a tile by up to 15 %.
    Source: `compute`, `communication`, `pipeline` each name theirs.
    """
    check_plan(model, plan)
    p, device, count = parameters, cluster.accelerator, plan.num_microbatches
    layer = layer_time(model, plan, device, p)
    head, lookup = head_time_s(model, plan, device, p), embedding_time_s(model, plan, device, p)
    full = plan.is_recompute("full")
    again = np.select([full, plan.is_recompute("selective")], [layer.forward_s, layer.selective_s], 0.0)
    busy = layer.forward_s + layer.backward_s + again
    traffic = layer_traffic(model, plan, cluster, p)
    passes = np.where(full, 3, 2)
    beside = np.where(plan.overlap_tensor, p.overlapped_comm_cost, 1.0)
    tensor, expert = passes * traffic.tensor_s, passes * traffic.expert_s
    context = passes * traffic.context_s
    exposed_context = p.overlapped_comm_cost * np.minimum(context, busy) + np.maximum(context - busy, 0)
    stage = slowest_stage(model, plan, busy + beside * tensor + expert + exposed_context, head, lookup)
    compute = stage.layers * busy + stage.heads * head + stage.embeddings * lookup
    transfer = stage_transfer_s(model, plan, cluster, p)
    exposed_transfer = np.where(plan.overlap_pipeline, p.overlapped_comm_cost, 1.0) * transfer
    gather = gather_time_s(model, plan, cluster, p)
    exposed_gather = p.hidden_comm_cost * np.minimum(gather, compute) + np.maximum(gather - compute, 0)
    sums = [
        compute,
        stage.layers * beside * tensor,
        stage.layers * exposed_context,
        stage.layers * expert,
        exposed_transfer,
        exposed_gather,
    ]
    bubble = plan_bubble_frac(plan) * count * sum(sums)
    reduce = gradient_time_s(model, plan, cluster, p)
    exposed_reduce = np.where(plan.overlap_grad_reduce, p.overlapped_comm_cost, 1.0) * reduce
    update = _update_time_s(model, plan, cluster, p)
    times = [count * one for one in sums]
    total = sum(times) + exposed_reduce + update + bubble
    needed, done = step_flop(model, plan)
    peak = plan.world_size * device.peak_flops * total
    return StepPrediction(
        compute_time_s=times[0],
        optimizer_time_s=update,
        exposed_tp_comm_time_s=times[1],
        exposed_cp_comm_time_s=times[2],
        exposed_ep_comm_time_s=times[3],
        exposed_pp_comm_time_s=times[4],
        exposed_dp_comm_time_s=times[5] + exposed_reduce,
        bubble_time_s=bubble,
        comm_time_s=count * (stage.layers * (tensor + context + expert) + transfer + gather) + reduce,
        model_flop=needed,
        hardware_flop=done,
        mfu=needed / peak,
        hfu=done / peak,
        tokens_per_s=plan.global_batch_size * model.seq_len / total,
    )


def check_plan(model: Transformer, plan: Plan) -> None:
    """Refuse a plan that this model cannot be spread by.

    Raises:
        ModelInputError: With the factor that is wrong and what is allowed.
    """
    need(
        "heads / tp_size",
        np.asarray(model.heads) / plan.tp_size,
        1,
        whole=True,
        hint="choose a tp_size that divides the heads",
    )
    need("layers / pp_size", np.asarray(model.layers) / plan.pp_size, 1, hint="there are no more stages than layers")
    need(
        "layers / (pp_size * interleave)",
        np.asarray(model.layers) / plan.pp_size / plan.interleave,
        0.5,
        hint="use fewer chunks",
    )
    need(
        "experts / ep_size",
        np.asarray(model.experts) / plan.ep_size,
        1,
        whole=True,
        hint="choose an ep_size that divides the experts",
    )
    need(
        "dp_size * cp_size / ep_size",
        np.asarray(plan.dp_size) * plan.cp_size / plan.ep_size,
        1,
        whole=True,
        hint="experts are spread over the data- and context-parallel ranks; choose an ep_size that divides these",
    )


def _update_time_s(model: Transformer, plan: Plan, cluster: Cluster, p: Parameters) -> Number:
    """The optimiser reads and writes its state once; ZeRO shares that among the replicas."""
    shards = np.where(np.asarray(plan.zero_stage) >= 1, plan.dp_size * plan.cp_size, 1)
    bandwidth = cluster.accelerator.memory_bandwidth_bytes_per_s * p.memory_frac
    return p.optimizer_bytes * local_parameters(model, plan) / shards / bandwidth
