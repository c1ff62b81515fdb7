"""A training step from calibration alone: operations of the net by their measured times, ranks that share cores by the
lockstep probe, gradients by the measured all-reduce. Nothing is fitted to any run of a workload.

# n nodes, b samples of one node, P parameters
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...errors import ModelInputError
from ...machine.profile import QUIET_FRAC, Machine
from ...models import bucket_bounds, overlapped_step
from ...quantities import Prediction, Value
from ...workloads import catalog
from ...workloads.calibrated import Which
from ...workloads.facts import Layer, WorkloadFacts
from ...workloads.step_times import StepTimes
from .bill import bill
from .predict_calls import SLEEP_OVERHEAD_S, injected_allreduce
from .predict_memory import memory, rule
from .predict_plan import PARTS, row_numbers, swept
from .predict_timeline import lockstep
from .spec import TrainingSpec

MODEL = "training-step 2"
SWEPT = ("nodes", "global_batch", "slow_factor", "link_latency_s", "link_bandwidth_bytes_per_s")
WHICH: tuple[Which, ...] = ("median", "q25", "q75")
MEMORY = ("parameters_bytes", "gradients_bytes", "optimizer_bytes", "transient_bytes")
#: Between two calibrations of one quiet machine the same probe differs by about this share.
DRIFT = 0.10


def predict(spec: TrainingSpec, machine: Machine, **over: Any) -> Prediction:
    """Return the parts of one step, throughput, memory, energy and cost, before the run.

    Args:
        spec: What is asked.
        machine: A calibrated profile.
        over: Any of SWEPT, as arrays that broadcast together. NaN where the plan's degrees do not divide the nodes.

    Raises:
        ModelInputError: Not calibrated; a GPU or one of torch's engines is asked for; a net that cannot be cut so; or a field
            that cannot be swept.

    Valid when: CPU ranks of one thread, otherwise quiet; layers of the kinds that were probed; one machine, or hosts whose links were
    calibrated, and whose speeds were measured or stand in the host file (plain replicas; other plans as if all ranks shared one machine).
    Off by: low when neighbours use the cores; up to tens of percent for layers far outside the probed sizes.
    """
    _check(spec, over)
    facts = catalog.facts(spec.workload).sized(spec.width, spec.depth)
    plan = spec.plan(spec.nodes)
    bands: dict[str, dict[str, Any]] = {}
    bars: dict[str, list[float]] = {}
    for which in WHICH:
        rates = StepTimes(machine, which, spec.algorithm)
        if plan.is_plain:
            bands[which] = _parts(spec, facts, rates, over)
        else:
            bands[which], drawn = swept(spec, facts, rates, machine, over)
            bars = bars or drawn
    values = {name: _value(name, [np.asarray(bands[w][name]) for w in WHICH]) for name in bands["median"]}
    middle = bands["median"]
    n = over.get("nodes", spec.nodes)
    step_s = middle["step_time_s"]
    known = ~np.isnan(step_s)
    told_s = np.where(known, step_s, 1.0)[()]
    per_step = bill(spec, machine, n, told_s, machine.cores_of(n) * told_s)
    for name in ("energy_per_step_j", "cost_per_step_usd"):
        values[name] = per_step[name] if np.all(known) else _where(known, per_step[name])
    if not over:
        values.update(_memory(spec, facts))
        bars = bars or _plain_bars(spec, facts, StepTimes(machine, algorithm=spec.algorithm), middle)
    return Prediction(
        values, tuple(_notes(spec, machine, over)), MODEL, machine.id, {"operations": bars} if bars else {}
    )


def _value(name: str, found: list[Any]) -> Value:
    """Return a predicted value with its band: the quartiles of the probes, and what calibrations differ by."""
    value = found[0]
    low, high = np.minimum.reduce(found), np.maximum.reduce(found)
    return Value(name, _plain(value), _plain(low * (1 - DRIFT)), _plain(high * (1 + DRIFT)), "modelled", MODEL)


def _where(known: Any, value: Value) -> Value:
    """Return a swept value with NaN where nothing is known."""
    found: dict[str, Any] = {
        side: None if getattr(value, side) is None else np.where(known, getattr(value, side), np.nan)
        for side in ("value", "low", "high")
    }
    return Value(value.quantity, **found, method=value.method, how=value.how)


def _memory(spec: TrainingSpec, facts: WorkloadFacts) -> dict[str, Value]:
    """Return the tensor storage of the fullest rank, kind by kind; it is counted, so it has no band."""
    plan = spec.plan(spec.nodes)
    ranks = memory(spec, facts, plan)
    kinds = {name: [getattr(r.held, name) for r in ranks] for name in MEMORY}
    kinds["compression_bytes"] = [r.compression_bytes for r in ranks]
    found = {name: float(max(sizes)) for name, sizes in kinds.items()}
    if plan.compression not in {"top-k", "powersgd"}:
        del found["compression_bytes"]
    if plan.mirrors:
        found["mirror_bytes"] = float(max(r.mirror_bytes for r in ranks))
    return {name: Value(name, size, size, size, "modelled", "counted") for name, size in found.items()}


def _plain_bars(
    spec: TrainingSpec, facts: WorkloadFacts, rates: StepTimes, middle: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the timeline of a step of plain replicas."""
    n, b = spec.nodes, max(spec.global_batch / spec.nodes, 1.0)
    passes = [float(way(facts.layers(), b, facts.task)) for way in (rates.forward_s, rates.backward_s)]
    update_s = min(float(rates.update_s(facts.params, n, optimizer=rule(spec))), float(middle["compute_time_s"]))
    slow_s = 0.0
    if spec.slow_node >= 0:
        slow_s = (float(middle["compute_time_s"]) - update_s) * (spec.slow_factor - 1)
    return lockstep(spec, {name: float(middle[name]) for name in PARTS}, (passes[0], passes[1]), update_s, slow_s)


def _parts(spec: TrainingSpec, facts: WorkloadFacts, rates: StepTimes, over: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a step of the mean rank; they add up to step_time_s."""
    n = np.asarray(over.get("nodes", spec.nodes), dtype=float)
    batch = np.asarray(over.get("global_batch", spec.global_batch), dtype=float)
    b = np.maximum(batch / n, 1.0)
    forward_s = rates.forward_backward_s(facts.layers(), facts.task, b) + rates.glue_s
    data_s = rates.gather_s(row_numbers(facts), b)
    update_s = rates.update_s(facts.params, n, optimizer=rule(spec))
    reduced_bytes = facts.gradient_bytes + 8 + 8 * n
    compute_x, wait_s, comm_s = rates.lockstep(n, forward_s, reduced_bytes)
    compute_s = forward_s * compute_x + update_s
    if spec.overlap:
        compute_s, exposed_s, link_s = _overlapped(spec, facts, rates, over, n, compute_s, update_s)
    else:
        exposed_s, link_s = comm_s, _injected_link_s(spec, rates, over, reduced_bytes, n)
    slow_s = np.zeros_like(forward_s * n)
    if spec.slow_node >= 0:
        slow_s = forward_s * compute_x * (np.asarray(over.get("slow_factor", spec.slow_factor)) - 1)
    parts = {
        "data_time_s": data_s * compute_x,
        "compute_time_s": compute_s,
        "exposed_comm_time_s": np.where(n > 1, exposed_s, rates.tail_s(n)),
        "straggler_wait_time_s": wait_s + slow_s * (n - 1) / n,
        "bubble_time_s": 0.0,
        "injected_time_s": slow_s / n + link_s,
        "engine_time_s": 0.0,
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
    link_s = sum(_injected_link_s(spec, rates, over, size, n) for size in buckets)
    backward = np.clip((compute_s - update_s) * 2 / 3 / compute_s, 0.0, 1.0)
    parts = overlapped_step(compute_s, own_s + link_s, len(buckets), np.where(link_s > 0, 1.0, 0.0), backward)
    exposed_s = np.maximum(parts.exposed_comm_time_s, 0.0)
    share = link_s / np.maximum(own_s + link_s, 1e-12)
    last_s = rates.allreduce_s(tail_bytes, n)
    return (
        parts.compute_time_s,
        exposed_s * (1 - share) + last_s,
        exposed_s * share + _injected_link_s(spec, rates, over, tail_bytes, n),
    )


def _tensors(layer: Layer) -> tuple[int, ...]:
    """Sizes of a layer's bias and weight, in the order in which backward finishes them."""
    bias = {"linear": "out", "conv": "out_channels"}.get(layer.kind)
    return (layer.dims[bias], layer.params - layer.dims[bias]) if bias else ()


def _injected_link_s(spec: TrainingSpec, rates: StepTimes, over: Mapping[str, Any], size_bytes: Any, n: Any) -> Any:
    """Seconds that the injected link adds to an all-reduce: every message on the longest path waits."""
    latency = np.asarray(over.get("link_latency_s", spec.link_latency_s), dtype=float)
    rate = np.asarray(over.get("link_bandwidth_bytes_per_s", spec.link_bandwidth_bytes_per_s), dtype=float)
    active = (latency > 0) | (rate > 0)
    hop_s = latency + np.where(active, SLEEP_OVERHEAD_S, 0.0)
    bandwidth = np.where(rate > 0, rate, np.inf)
    return np.where(active, injected_allreduce(spec.algorithm, rates.machine)(size_bytes, n, bandwidth, hop_s), 0.0)


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
    if spec.engine != "lab":
        raise ModelInputError(
            f"engine: {spec.engine} is torch's own, run as a reference, and not predicted; compare with engine=lab, which is"
        )
    if spec.precision != "float32":
        raise ModelInputError(
            f"precision: got {spec.precision}; calibration probes float32 arithmetic, nothing else is predicted; use float32"
        )
    if spec.compile:
        raise ModelInputError(
            "compile: calibration probes layers that are not compiled, so a compiled net is not predicted; switch it off"
        )
    if spec.threads_per_node != 1:
        raise ModelInputError(
            f"threads_per_node: got {spec.threads_per_node}; calibration probes nodes of one thread; use 1"
        )


def _notes(spec: TrainingSpec, machine: Machine, over: Mapping[str, Any]) -> list[str]:
    notes: list[str] = []
    most = int(np.max(over.get("nodes", spec.nodes)))
    if machine.hosts:
        notes += _hosts_notes(machine, most)
    elif most > machine.cores:
        notes.append(
            f"{most} nodes share {machine.cores} cores: they take turns, so more nodes than cores make a step longer."
        )
    if machine.disturbed_frac > QUIET_FRAC:
        notes.append(
            f"Other programs used {machine.disturbed_frac:.0%} of this machine while it was calibrated: "
            "calibrate again when it is quiet (aiinfra calibrate)."
        )
    probed = max((p.at["ranks"] for p in machine.rows("lockstep")), default=1)
    if most > probed:
        notes.append(f"{most} nodes were not calibrated (up to {probed} were); the prediction extends the last slope.")
    plan = spec.plan(spec.nodes)
    if plan.is_plain and spec.overlap:
        notes.append(
            "Overlap hides injected delays, but no bytes: on one machine a core either computes or moves them."
        )
    notes += [] if plan.is_plain else list(_plan_notes(spec, machine))
    if spec.algorithm == "hierarchical" and machine.hosts:
        notes.append(
            "The hierarchical sum is predicted from the links inside a host and between hosts, stage by stage."
        )
    elif spec.algorithm != "mpi":
        notes.append(
            "The written-out algorithms are predicted at the speed of the library's, plus what the link injects."
        )
    return notes


def _hosts_notes(machine: Machine, most: int) -> Iterator[str]:
    """Say on which hosts the nodes stand, whom the others wait for, and where their speeds are from."""
    ranks = machine.ranks_on_hosts(most)
    used = [(host, int(n)) for host, n in zip(machine.hosts, ranks, strict=True) if n]
    told = ", ".join(f"{n} on {host.name}" for host, n in used[:8]) + (", ..." if len(used) > 8 else "")
    slowest = min((host for host, _ in used), key=lambda host: host.speed)
    waits = f"; all wait for {slowest.name}, at {slowest.speed:g} of this machine's speed" if slowest.speed < 1 else ""
    yield f"Nodes stand on {len(used)} hosts ({told}){waits}. Energy and price are this machine's, for as many cores."
    yield f"Speeds, relative to this machine: {machine.speeds_said([host for host, _ in used[:8]])}."
    yield from (f"Speed of {host.contradiction}." for host, _ in used if host.contradiction)


def _plan_notes(spec: TrainingSpec, machine: Machine) -> Iterator[str]:
    """Yield what the model of a plan leaves out."""
    if spec.overlap:
        yield "Overlap is not predicted under this plan: gradients are taken to be summed behind the last backward pass."
    if spec.pp_size > 1:
        yield "A stage that waits is taken to leave its core to others, and a message to cost its receiver nothing but time."
    if spec.compression in {"top-k", "powersgd"}:
        what = "choosing the largest numbers" if spec.compression == "top-k" else "making factors orthogonal"
        yield f"Compression: {what} was not probed; it is counted as other passes over as many numbers."
    if spec.average_every > 1:
        yield f"Averages are spread over the {spec.average_every} steps between two of them; the step that averages takes longer."
    if spec.redundancy == "neighbour":
        yield f"Copies into a neighbour's memory are spread over the {spec.mirror_every} steps between two of them."
    elif spec.restarts and spec.checkpoint_every_s and (launches := machine.rows("launch")):
        up, again_s = launches[-1], spec.checkpoint_every_s / 2
        yield (
            f"A node that dies starts the run again: {up.median:.1f} s until the ranks are up (measured with {up.at['ranks']}), "
            f"and {again_s:g} s of steps done again on average; neither is in the time of a step."
        )
    if spec.recompute:
        yield "Recompute: what is computed again is counted, the bookkeeping of doing so is not."
    if spec.outer_momentum:
        yield "The outer step of the averages is not counted."


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value
