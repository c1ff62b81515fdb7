"""A schedule predicted: the run's own stream, its own scheduler, and time that only passes in a simulation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ModelInputError
from ...machine.profile import Machine
from ...quantities import Prediction, Value
from .cluster import Cluster
from .jobs import Job
from .metrics import metrics, tally
from .setup import SHORT_S, most_nodes, policy_of, tariff_of, traces_of
from .simulate import Costs, Result, simulate
from .spec import SchedulingSpec
from .step_time import StepTime, step_time
from .stream import stream
from .values import ENERGY, NAMES, to_values

MODEL = "scheduling 1"
#: Assumed: from the decision until the first step, two looks at a message; and a small net's checkpoint.
START_S, CHECKPOINT_S = 0.003, 0.002
SWEPT = ("nodes", "policy", "offered_load", "mean_work_s", "seed")
#: Bars of a longer stream would fill the record of the prediction.
MOST_BARS = 2000


def predict(spec: SchedulingSpec, machine: Machine, **over: Any) -> Prediction:
    """Return the figures of the schedule, and its bars for the timeline.

    Args:
        spec: What is asked.
        machine: For the time of a step, where ranks share cores, and for power.
        over: Fields of SWEPT replaced by arrays; each value simulates the stream once.

    Raises:
        ModelInputError: Another field is swept.

    Valid when: the run begins on an empty machine, and nobody else uses its cores.
    Off by: low by a step or two for each preemption and resize, for a job leaves its nodes between two steps; low by what
        jobs take from each other beyond cores (caches, memory).
    """
    if unknown := [n for n in over if n not in SWEPT]:
        raise ModelInputError(
            f"{unknown[0]} cannot be swept here; allowed: {', '.join(SWEPT)}; predict one Spec at a time"
        )
    step = step_time(spec, machine)
    if over:
        return _swept(spec, machine, over)
    result = _run(spec, machine, step, 1.0)
    found = _figures(spec, machine, result)
    quick, slow = (_figures(spec, machine, _run(spec, machine, step, factor)) for factor in (0.0, 4.0))
    how = f"simulation of this stream (seed {spec.seed}) by the same scheduler"
    values = {}
    for name, value in to_values(found, method="modelled", how=how).items():
        ends = [e for e in (quick.get(name), slow.get(name), value.value) if e is not None]
        band = (min(ends), max(ends)) if name not in ENERGY else (value.low, value.high)
        values[name] = Value(name, value.value, *band, value.method, value.how)
    bars = sorted(result.intervals, key=lambda b: b.start_s)[:MOST_BARS]
    columns = {n: [getattr(b, n) for b in bars] for n in ("job", "node", "start_s", "end_s")}
    return Prediction(values, (*step.notes, *_notes(result)), MODEL, machine.id, {"intervals": columns})


def _run(spec: SchedulingSpec, machine: Machine, step: StepTime, factor: float) -> Result:
    """Simulate, with the overheads times a factor."""

    def duration_s(job: Job, nodes: int, busy: int) -> float:
        return job.work_s / spec.step_s * step.seconds(nodes, busy) * job.nodes / nodes

    costs = Costs(
        start_s=START_S * factor, checkpoint_s=CHECKPOINT_S * factor, restart_s=CHECKPOINT_S * factor,
        resize_s=(START_S + 2 * CHECKPOINT_S) * factor,
    )  # fmt: skip
    cluster, most = Cluster(range(1, spec.nodes + 1)), most_nodes(spec, machine)
    return simulate(
        stream(spec), cluster, policy_of(spec), duration_s=duration_s, costs=costs, traces=traces_of(spec), most_nodes=most
    )  # fmt: skip


def _figures(spec: SchedulingSpec, machine: Machine, result: Result) -> dict[str, float | None]:
    return metrics(tally(result.jobs, SHORT_S), result.meters, tariff_of(spec, machine))


def _notes(result: Result) -> list[str]:
    refused = [j for j in result.jobs if j.state == "refused"]
    if not refused:
        return []
    return [f"{len(refused)} of {len(result.jobs)} jobs are refused, the first because {refused[0].reason}."]


def _swept(spec: SchedulingSpec, machine: Machine, over: dict[str, Any]) -> Prediction:
    arrays = np.broadcast_arrays(*(np.asarray(v) for v in over.values()))
    found: dict[str, list[float]] = {}
    for point in zip(*(a.ravel() for a in arrays), strict=True):
        then = spec.changed(dict(zip(over, (p.item() for p in point), strict=True)), live_only=False)
        result = _run(then, machine, step_time(then, machine), 1.0)
        for name, value in _figures(then, machine, result).items():
            found.setdefault(name, []).append(np.nan if value is None else value)
    shape = arrays[0].shape
    values = {
        n: Value(n, np.array(v).reshape(shape), how="one simulation each") for n, v in found.items() if n in NAMES
    }
    return Prediction(values, model=MODEL, machine_id=machine.id)
