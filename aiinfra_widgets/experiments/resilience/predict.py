"""What theory says of a job under failures: renewal at each checkpoint, exact; Young and Daly for the best interval.

The cost of a checkpoint and of a restart are what the Spec says: an assumption, made before the run and never from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...errors import ModelInputError
from ...machine.profile import Machine
from ...models import reliability
from ...quantities import Prediction, Value
from .bill import bill
from .simulate import simulate
from .spec import ResilienceSpec
from .vocabulary import SHARES

MODEL = "renewal 1"
SWEPT = (
    "interval_s", "mtbf_s", "nodes", "checkpoint_cost_s", "restart_time_s", "takeover_time_s", "detection_time_s",
)  # fmt: skip
#: Traces of other seeds that show what chance does to a run as short as this.
OTHERS = 60


def predict(spec: ResilienceSpec, machine: Machine, **over: Any) -> Prediction:
    """Return the shares of the wall time in the long run, with the band that chance leaves to a run as short as this one.

    Args:
        spec: What is asked.
        machine: For its power.
        over: Any of SWEPT, as arrays that broadcast together.

    Raises:
        ModelInputError: A field that cannot be swept.

    Valid when: a checkpoint and a recovery take what the Spec says. Off by: too high where writing takes longer; a few
    percent where a step is not far below the interval, for a checkpoint waits for the end of a step.
    """
    if wrong := [name for name in over if name not in SWEPT]:
        raise ModelInputError(f"cannot sweep {', '.join(wrong)}; allowed: {', '.join(SWEPT)}")
    asked = SimpleNamespace(**{name: over.get(name, getattr(spec, name)) for name in SWEPT})
    nodes = np.asarray(asked.nodes, float)
    mtbf_s = np.asarray(asked.mtbf_s, float) / nodes
    found = _shares(spec, asked, nodes, mtbf_s)
    how = "renewal argument; costs as assumed in the Spec"
    values = {name: Value(name, _plain(v), method="modelled", how=how) for name, v in found.items()}
    if not over:
        values.update(_bands(spec, found))
    cost_s = asked.checkpoint_cost_s
    best = {"young_interval_s": reliability.young_interval_s, "optimal_interval_s": reliability.optimal_interval_s}
    values.update({name: Value(name, _plain(rule(cost_s, mtbf_s)), how=how) for name, rule in best.items()})
    recovery_s = np.where(_hands_over(spec, nodes), asked.takeover_time_s, asked.restart_time_s)
    values["job_mtbf_s"] = Value("job_mtbf_s", _plain(mtbf_s), method="assumed", how="as set, divided by the nodes")
    values["checkpoint_cost_s"] = Value("checkpoint_cost_s", cost_s, method="assumed", how="as set")
    values["restart_time_s"] = Value("restart_time_s", _plain(recovery_s), method="assumed", how="as set")
    goodput = found["training_goodput_frac"]
    busy = np.minimum(nodes, machine.cores) * (goodput + found["lost_frac"])
    values["busy_processors"] = Value(
        "busy_processors", _plain(busy), how="one for each node at work, to the cores there are"
    )
    values.update(bill(spec, machine, asked.nodes, goodput, busy))
    return Prediction(values, tuple(_notes(spec, machine, nodes)), MODEL, machine.id)


def young_goodput(spec: ResilienceSpec, intervals_s: Sequence[float]) -> Any:
    """Return the goodput that Young's argument of first order sees: every failure costs half an interval."""
    w, mean_s = np.asarray(intervals_s, float), spec.job_mtbf_s
    lost_s = (0 if spec.hands_over else w / 2) + spec.detection_time_s + spec.recovery_time_s
    return np.clip(1 - spec.checkpoint_cost_s / w - lost_s / mean_s, 0.0, 1.0)


def _shares(spec: ResilienceSpec, asked: SimpleNamespace, nodes: Any, mtbf_s: Any) -> dict[str, Any]:
    """Return SHARES, by the way of recovery."""
    late = (asked.interval_s, asked.checkpoint_cost_s, mtbf_s)
    again = reliability.goodput(*late, asked.restart_time_s, asked.detection_time_s)
    on = reliability.goodput_in_place(*late, asked.takeover_time_s, asked.detection_time_s)
    hands_over = _hands_over(spec, nodes)
    return {name: np.where(hands_over, getattr(on, name), getattr(again, name)) for name in SHARES}


def _hands_over(spec: ResilienceSpec, nodes: Any) -> Any:
    return (spec.recovery == "in-place") & (nodes > 1)


def _bands(spec: ResilienceSpec, found: Mapping[str, Any]) -> dict[str, Value]:
    """Return the shares with the 5th and 95th percentile of as many runs under other failures."""
    runs = []
    for seed in range(OTHERS):
        spent = list(simulate(spec, 1_000_000 + seed).values())
        runs.append(np.array(spent) / max(sum(spent), 1e-12))
    low, high = np.percentile(np.array(runs), (5, 95), axis=0)
    how = f"renewal argument; band: nine of ten runs of {spec.duration_s:g} s"
    return {
        name: Value(name, float(found[name]), float(min(a, found[name])), float(max(b, found[name])), "modelled", how)
        for name, a, b in zip(SHARES, low, high, strict=True)
    }


def _notes(spec: ResilienceSpec, machine: Machine, nodes: Any) -> list[str]:
    notes = [
        f"Failures are accelerated: a node fails once in {spec.mtbf_s:g} s on average. The trace comes from the seed and is the "
        "same for every interval.",
    ]
    if spec.recovery == "in-place" and np.any(nodes < 2):
        notes.append("Of a single node nobody survives: in-place then means to start again from the checkpoint.")
    if np.any(spec.duration_s < 10 * spec.mtbf_s / nodes):
        notes.append("Fewer than ten failures are expected in so short a run: chance decides much of what is measured.")
    return notes


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value
