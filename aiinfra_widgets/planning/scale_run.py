"""A run that was measured here, on ever more nodes like these: what its own numbers say, and where they stop saying anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelInputError, near
from ..models._check import Number, need
from ..models.collectives import halving_doubling_allreduce_time_s, ring_allreduce_time_s
from .scale import Conditions, ScaleAnswer, Scaling, labelled, running

KINDS = ("strong", "weak")


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One step of data-parallel training as it was measured.

    Attributes:
        compute_time_s, data_time_s: Of one node.
        runtime_time_s: That does not depend on the number of samples.
        samples_per_node: That one node took in a step.
        gradient_bytes: That all nodes add up.
        where: The run, for the reader.

    Raises:
        ModelInputError: A time that is negative, no samples, no gradient.
    """

    compute_time_s: float
    data_time_s: float
    runtime_time_s: float
    samples_per_node: float
    gradient_bytes: float
    where: str = ""

    def __post_init__(self) -> None:
        need("compute_time_s", self.compute_time_s, above=True)
        need("data_time_s", self.data_time_s)
        need("runtime_time_s", self.runtime_time_s)
        need("samples_per_node", self.samples_per_node, above=True)
        need("gradient_bytes", self.gradient_bytes, above=True)


def scale_run(
    step: MeasuredStep,
    bandwidth_oneway_bytes_per_s: Number,
    latency_s: Number,
    nodes: Any,
    *,
    global_batch: float,
    samples: float,
    conditions: Conditions,
    scaling: Scaling = "strong",
) -> ScaleAnswer:
    """Return what a measured step would be like on each number of nodes, linked by a fabric.

    Args:
        step: As measured.
        bandwidth_oneway_bytes_per_s, latency_s: Of the fabric between nodes.
        nodes: Whole numbers; shape (n,).
        global_batch: Samples of a step, with strong scaling; weak scaling keeps the samples of a node.
        samples: To train on, in all.
        conditions: Failures, prices, power, grid.
        scaling: "strong" or "weak".

    Raises:
        ModelInputError: A count that is not positive and whole, an unknown kind of scaling.

    Valid when: the time of a sample does not depend on how many there are; nothing is hidden behind computation.
    Off by: too good for few samples a node, where a step is mostly overhead that was not measured apart.
    Source: the run's own medians; Thakur, Rabenseifner, Gropp 2005 for the all-reduce.
    """
    if scaling not in KINDS:
        raise ModelInputError(f"scaling must be strong or weak, got {scaling!r}; {near(scaling, KINDS)}")
    counts = np.atleast_1d(np.asarray(nodes, dtype=float))
    need("nodes", counts, 1, whole=True)
    need("samples", samples, above=True)
    need("global_batch", global_batch, 1, whole=True)
    used = counts if scaling == "weak" else np.minimum(counts, global_batch)
    each = np.full_like(used, step.samples_per_node) if scaling == "weak" else np.ceil(global_batch / used)
    batch = each * used if scaling == "weak" else np.full_like(used, float(global_batch))
    link = (step.gradient_bytes, used, bandwidth_oneway_bytes_per_s, latency_s)
    parts = {
        "compute_time_s": step.compute_time_s * each / step.samples_per_node,
        "data_time_s": step.data_time_s * each / step.samples_per_node,
        "exposed_dp_comm_time_s": np.minimum(ring_allreduce_time_s(*link), halving_doubling_allreduce_time_s(*link)),
        "runtime_time_s": np.full_like(used, step.runtime_time_s),
    }
    step_time_s = sum(parts.values())
    comm_frac = parts["exposed_dp_comm_time_s"] / step_time_s
    numbers = {
        "step_time_s": step_time_s,
        **parts,
        "exposed_comm_frac": comm_frac,
        "samples_per_s": batch / step_time_s,
    }
    busy = (parts["compute_time_s"] / step_time_s, 0.0, comm_frac)
    numbers |= running(used, samples / numbers["samples_per_s"], busy, conditions)
    notes = [f"Time of a sample from {step.where or 'a run'}, measured; everything beyond its nodes is modelled."]
    if np.any(used < counts):
        notes.append(f"A batch of {int(global_batch):,} samples feeds at most as many nodes; the others have no work.")
    return ScaleAnswer(counts, used, labelled(numbers, used > 0), 1, {}, tuple(notes))
