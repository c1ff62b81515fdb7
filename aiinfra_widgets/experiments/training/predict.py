"""A training step from calibration alone: operations of the net by their measured times, ranks that share cores by the
lockstep probe, gradients by the measured all-reduce. Nothing is fitted to any run of a workload.

# n nodes, b samples of one node, P parameters
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import ModelInputError
from ...machine.profile import QUIET_FRAC, Machine
from ...models import (
    bucket_bounds,
    overlapped_step,
    recursive_doubling_allreduce_time_s,
    ring_allreduce_time_s,
    tree_allreduce_time_s,
)
from ...quantities import Prediction, Value
from ...workloads import catalog
from ...workloads.facts import Layer, WorkloadFacts
from ...workloads.step_times import StepTimes
from .bill import bill
from .spec import TrainingSpec

MODEL = "training-step 1"
SWEPT = ("nodes", "global_batch", "slow_factor", "link_latency_s", "link_bandwidth_bytes_per_s")
INJECTED_LINK = {
    "mpi": ring_allreduce_time_s, "ring": ring_allreduce_time_s, "tree": tree_allreduce_time_s,
    "recursive-doubling": recursive_doubling_allreduce_time_s,
}  # fmt: skip
#: A sleep of t takes this much longer before the rank runs again; the injected delays are sleeps.
SLEEP_OVERHEAD_S = 8e-5
#: Between two calibrations of one quiet machine the same probe differs by about this share.
DRIFT = 0.10


def predict(spec: TrainingSpec, machine: Machine, **over: Any) -> Prediction:
    """Return the parts of one step, throughput, energy and cost, before the run.

    Args:
        spec: What is asked.
        machine: A calibrated profile.
        over: Any of SWEPT, as arrays that broadcast together.

    Raises:
        ModelInputError: Not calibrated, a GPU is asked for, or a field that cannot be swept.

    Valid when: one machine, CPU ranks of one thread, otherwise quiet; layers of the kinds that were probed.
    Off by: low when neighbours use the cores; up to tens of percent for layers far outside the probed sizes.
    """
    _check(spec, over)
    facts = catalog.facts(spec.workload).sized(spec.width, spec.depth)
    bands = {w: _parts(spec, facts, StepTimes(machine, w), over) for w in ("median", "q25", "q75")}
    middle = bands["median"]
    values = {}
    for name, value in middle.items():
        low, high = np.minimum(bands["q25"][name], value), np.maximum(bands["q75"][name], value)
        if name == "samples_per_s":
            low, high = np.minimum(bands["q75"][name], value), np.maximum(bands["q25"][name], value)
        values[name] = Value(
            name, _plain(value), _plain(low * (1 - DRIFT)), _plain(high * (1 + DRIFT)), "modelled", MODEL
        )
    n = over.get("nodes", spec.nodes)
    cpu_s = np.minimum(np.asarray(n), machine.cores) * middle["step_time_s"]
    per_step = bill(spec, machine, n, middle["step_time_s"], cpu_s)
    values.update({name: per_step[name] for name in ("energy_per_step_j", "cost_per_step_usd")})
    return Prediction(values, tuple(_notes(spec, machine, over)), MODEL, machine.id)


def _parts(spec: TrainingSpec, facts: WorkloadFacts, rates: StepTimes, over: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a step of the mean rank; they add up to step_time_s."""
    n = np.asarray(over.get("nodes", spec.nodes), dtype=float)
    batch = np.asarray(over.get("global_batch", spec.global_batch), dtype=float)
    b = np.maximum(batch / n, 1.0)
    forward_s = rates.forward_backward_s(facts.layers(), facts.task, b) + rates.glue_s
    data_s = rates.gather_s(math.prod(facts.sample_shape), b)
    update_s = rates.update_s(facts.params, n)
    reduced_bytes = facts.gradient_bytes + 8 + 8 * n
    compute_x, wait_s, comm_s = rates.lockstep(n, forward_s, reduced_bytes)
    compute_s = forward_s * compute_x + update_s
    if spec.overlap:
        compute_s, exposed_s, link_s = _overlapped(spec, facts, rates, over, n, compute_s, update_s)
    else:
        exposed_s, link_s = comm_s, _injected_link_s(spec, over, reduced_bytes, n)
    slow_s = np.zeros_like(forward_s * n)
    if spec.slow_node >= 0:
        slow_s = forward_s * compute_x * (np.asarray(over.get("slow_factor", spec.slow_factor)) - 1)
    parts = {
        "data_time_s": data_s * compute_x,
        "compute_time_s": compute_s,
        "exposed_comm_time_s": np.where(n > 1, exposed_s, rates.tail_s(n)),
        "straggler_wait_time_s": wait_s + slow_s * (n - 1) / n,
        "injected_time_s": slow_s / n + link_s,
        "runtime_time_s": rates.runtime_s() * compute_x,
    }
    shape = np.broadcast_shapes(*(np.shape(v) for v in parts.values()))
    parts = {k: np.broadcast_to(v, shape) for k, v in parts.items()}
    step_s = sum(parts.values())
    return {
        "step_time_s": step_s,
        **parts,
        "samples_per_s": batch / step_s,
        "sent_bytes": 2 * (n - 1) / n * reduced_bytes * n,
    }


def _overlapped(
    spec: TrainingSpec,
    facts: WorkloadFacts,
    rates: StepTimes,
    over: Mapping[str, Any],
    n: Any,
    compute_s: Any,
    update_s: Any,
) -> tuple[Any, Any, Any]:
    """Return (compute, exposed communication, exposed injected delay) when buckets go out during backward.

    A core that waits for an injected delay computes meanwhile; one that moves bytes itself does one or the other.
    """
    sizes = [size for layer in reversed(facts.layers()) for size in _tensors(layer)]
    buckets = [4.0 * sum(sizes[a:b]) for a, b in bucket_bounds(sizes, spec.bucket_bytes // 4)]
    tail_bytes = 8 + 8 * n
    own_s = sum(rates.allreduce_s(size, n) for size in buckets)
    link_s = sum(_injected_link_s(spec, over, size, n) for size in buckets)
    backward = np.clip((compute_s - update_s) * 2 / 3 / compute_s, 0.0, 1.0)
    parts = overlapped_step(compute_s, own_s + link_s, len(buckets), np.where(link_s > 0, 1.0, 0.0), backward)
    exposed_s = np.maximum(parts.exposed_comm_time_s, 0.0)
    share = link_s / np.maximum(own_s + link_s, 1e-12)
    last_s = rates.allreduce_s(tail_bytes, n)
    return (
        parts.compute_time_s,
        exposed_s * (1 - share) + last_s,
        exposed_s * share + _injected_link_s(spec, over, tail_bytes, n),
    )


def _tensors(layer: Layer) -> tuple[int, ...]:
    """Sizes of a layer's bias and weight, in the order in which backward finishes them."""
    bias = {"linear": "out", "conv": "out_channels"}.get(layer.kind)
    return (layer.dims[bias], layer.params - layer.dims[bias]) if bias else ()


def _injected_link_s(spec: TrainingSpec, over: Mapping[str, Any], size_bytes: Any, n: Any) -> Any:
    """Seconds that the injected link adds to an all-reduce: every message on the longest path waits."""
    latency = np.asarray(over.get("link_latency_s", spec.link_latency_s), dtype=float)
    rate = np.asarray(over.get("link_bandwidth_bytes_per_s", spec.link_bandwidth_bytes_per_s), dtype=float)
    active = (latency > 0) | (rate > 0)
    hop_s = latency + np.where(active, SLEEP_OVERHEAD_S, 0.0)
    bandwidth = np.where(rate > 0, rate, np.inf)
    return np.where(active, INJECTED_LINK[spec.algorithm](size_bytes, n, bandwidth, hop_s), 0.0)


def _check(spec: TrainingSpec, over: Mapping[str, Any]) -> None:
    wrong = [name for name in over if name not in SWEPT]
    if wrong:
        raise ModelInputError(
            f"cannot sweep {', '.join(wrong)}; allowed: {', '.join(SWEPT)}; predict one Spec after another instead"
        )
    if spec.device == "cuda":
        raise ModelInputError(
            "device: a GPU step is not predicted yet: calibration probes the processor; use device=cpu"
        )
    if spec.threads_per_node != 1:
        raise ModelInputError(
            f"threads_per_node: got {spec.threads_per_node}; calibration probes nodes of one thread; use 1"
        )


def _notes(spec: TrainingSpec, machine: Machine, over: Mapping[str, Any]) -> list[str]:
    notes = []
    most = int(np.max(over.get("nodes", spec.nodes)))
    if most > machine.cores:
        notes.append(
            f"{most} nodes share {machine.cores} cores: they take turns, so more nodes than cores make a step longer."
        )
    if machine.disturbed_frac > QUIET_FRAC:
        notes.append(
            f"Other programs used {machine.disturbed_frac:.0%} of this machine while it was calibrated: calibrate again when it is quiet."
        )
    probed = max((p.at["ranks"] for p in machine.rows("lockstep")), default=1)
    if most > probed:
        notes.append(f"{most} nodes were not calibrated (up to {probed} were); the prediction extends the last slope.")
    if spec.overlap:
        notes.append(
            "Overlap hides injected delays, but no bytes: on one machine a core either computes or moves them."
        )
    if spec.algorithm != "mpi":
        notes.append(
            "The written-out algorithms are predicted at the speed of the library's, plus what the link injects."
        )
    return notes


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value
