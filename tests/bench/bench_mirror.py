"""What copies in a neighbour's memory cost in time: steps with a copy against the steps around them, in one run, beside the prediction.

With mirror_every=2 every other step ends with a copy, so each one has a neighbour without on both sides: a disturbance longer than a
step cancels, and what is left is the median over hundreds of them. The share is that of a copy after every step; at the usual
mirror_every it is a tenth. Needs a machine profile; asserts nothing.

    python tests/bench/bench_mirror.py [--steps=300] [--parts] [WORKLOAD ...]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from aiinfra_widgets.experiments.training import Training
from aiinfra_widgets.launch.session import Session, spec_of, this_machine, watch

PLANS: dict[str, dict[str, Any]] = {
    "zero1 of 2": {"nodes": 2, "zero_stage": 1},
    "zero3 of 2": {"nodes": 2, "zero_stage": 3},
    "tensor of 2": {"nodes": 2, "tp_size": 2},
    "zero1 of 4": {"nodes": 4, "zero_stage": 1},
    "zero3 of 4": {"nodes": 4, "zero_stage": 3},
    "tensor of 4": {"nodes": 4, "tp_size": 4},
}
WORKLOADS: dict[str, dict[str, Any]] = {
    "gpt-char": {"global_batch": 8},
    "synthetic": {"width": 512, "depth": 4, "global_batch": 32},
}
QUIET = {"evaluate_every": 0, "checkpoint_every_s": 0.0, "trace_every": 0}
#: Steps that are not counted.
WARM_UP = 10


def main() -> None:
    """Print a line for each plan and workload."""
    words = sys.argv[1:]
    steps = int(next((w.split("=")[1] for w in words if w.startswith("--steps=")), 300))
    session = Session(this_machine(), grace_s=0.0)
    try:
        session.ready(4)
        for workload in [w for w in words if not w.startswith("--")] or WORKLOADS:
            for plan, values in PLANS.items():
                asked = {"workload": workload, **WORKLOADS[workload], **QUIET, **values}
                print(f"{workload} {plan}: {line(session, asked, steps, parts='--parts' in words)}", flush=True)
    finally:
        session.close()


def line(session: Session, asked: dict[str, Any], steps: int, *, parts: bool) -> str:
    """Predict, run and compare one plan."""
    spec = spec_of("training", {**asked, "steps": steps, "redundancy": "neighbour", "mirror_every": 2})
    found = [
        Training().predict(spec.changed(changes), session.machine)
        for changes in ({"redundancy": "checkpoint"}, {"mirror_every": 1})
    ]
    rows = run(session, spec)
    extra_s, beside_s = beside(rows, "step_time_s")
    predicted_s = found[1]["step_time_s"] - found[0]["step_time_s"]
    without_s, with_s = (np.percentile(rows["step_time_s"][rows.index % 2 == odd], 10) for odd in (1, 0))
    best_ms = (with_s - without_s) * 1e3
    told = (
        f"step {np.median(beside_s) * 1e3:.2f} ms, predicted {found[0]['step_time_s'] * 1e3:.2f} ms; "
        f"a copy {said(extra_s * 1e3, '.2f')} ms, of the quickest tenth {best_ms:.2f} ms, predicted {predicted_s * 1e3:.2f} ms; "
        f"share {said(extra_s / beside_s, '+.1%')}, predicted {predicted_s / found[0]['step_time_s']:+.1%} (n {len(extra_s)})"
    )
    names = [name for name in Training.parts if parts and name in rows]
    return told + "".join(
        f"\n    {name}: {said(beside(rows, name)[0] * 1e3, '.2f')} ms, predicted {(found[1][name] - found[0][name]) * 1e3:.2f} ms"
        for name in names
    )


def run(session: Session, spec: Any) -> Any:
    """Carry it out; return the mean over the nodes by tick."""
    reader = session.launch("training", spec, room=4)
    for now in watch(reader, every_s=0.2):
        last = now
    assert last.ok, last
    reader.poll()
    return reader.nodes.groupby("tick").mean(numeric_only=True).loc[WARM_UP:]


def beside(rows: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what steps with a copy take more than the mean of the two steps around each, and that mean."""
    values = rows[name]
    copied = [tick for tick in values.index if tick % 2 == 0 and {tick - 1, tick + 1} <= set(values.index)]
    around = np.array([(values[tick - 1] + values[tick + 1]) / 2 for tick in copied])
    return values[copied].to_numpy() - around, around


def said(values: np.ndarray, form: str) -> str:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    main()
