"""Prediction, ex ante, against measurement: step time and memory over strategies and workloads on this machine.

Uses the newest machine profile, made before any run (calibrates where there is none, or when asked). Every point is predicted
first, and run then; all in one warm pool. One line per point, the medians last. Processors that other programs use make a
measured step longer than predicted: `got` says which share of the processor time that they needed the nodes got.

    python tests/bench/bench_plans_predicted.py [--calibrate] [--seconds=2] [WORKLOAD ...]
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from typing import Any

from aiinfra_widgets.comparison import Comparison, compare
from aiinfra_widgets.errors import LabError
from aiinfra_widgets.experiment import Spec, experiment
from aiinfra_widgets.launch.calibrate import calibrate
from aiinfra_widgets.launch.session import Session, spec_of, this_machine, watch

PIPELINE = {"nodes": 2, "pp_size": 2, "num_microbatches": 4}
PLANS: dict[str, dict[str, Any]] = {
    "dp2": {"nodes": 2},
    "tp2": {"nodes": 2, "tp_size": 2},
    "pp2-gpipe": {**PIPELINE, "schedule": "gpipe"},
    "pp2-1f1b": PIPELINE,
    "zero1": {"nodes": 2, "zero_stage": 1},
    "zero2": {"nodes": 2, "zero_stage": 2},
    "zero3": {"nodes": 2, "zero_stage": 3},
    "cp2": {"nodes": 2, "cp_size": 2},
    "tp2-dp2": {"nodes": 4, "tp_size": 2},
    "pp2-dp2": {**PIPELINE, "nodes": 4},
    "accumulate": {"nodes": 2, "num_microbatches": 4},
    "recompute": {"nodes": 2, "recompute": True},
    "powersgd": {"nodes": 2, "compression": "powersgd"},
    "local-sgd": {"nodes": 2, "average_every": 8},
}
WORKLOADS: dict[str, dict[str, Any]] = {
    "gpt-char": {"global_batch": 32},
    "digits-resnet": {"global_batch": 64},
    "digits-cnn": {"global_batch": 256},
    "synthetic": {"width": 512, "depth": 4, "global_batch": 256},
    "spoken-digits": {"global_batch": 64},
    "clicks-dlrm": {"global_batch": 512},
    "heat-pinn": {"global_batch": 512},
}
#: Counted and not estimated, so that any difference is a mistake.
COUNTED = ("parameters_bytes", "gradients_bytes", "optimizer_bytes", "transient_bytes", "sent_bytes")


def main() -> int:
    """Run the grid and print the table."""
    words = sys.argv[1:]
    seconds = float(next((w.split("=")[1] for w in words if w.startswith("--seconds=")), 2))
    if "--calibrate" in words or not this_machine().calibrated:
        calibrate()
    session = Session(grace_s=0.0)
    by_plan: dict[str, list[float]] = defaultdict(list)
    by_workload: dict[str, list[float]] = defaultdict(list)
    try:
        session.ready(4)
        for workload in [w for w in words if not w.startswith("--")] or WORKLOADS:
            for plan in PLANS:
                error = point(session, workload, plan, seconds)
                if error is not None:
                    by_plan[plan].append(error)
                    by_workload[workload].append(error)
    finally:
        session.close()
    for found in (by_plan, by_workload):
        for name, errors in found.items():
            print(
                f"{name:14s} median {statistics.median(map(abs, errors)):5.0%}, signed {statistics.median(errors):+5.0%}"
            )
    everything = [abs(e) for errors in by_plan.values() for e in errors]
    print(f"median absolute relative error, all: {statistics.median(everything):.1%} of {len(everything)} points")
    return 0


def point(session: Session, workload: str, plan: str, seconds: float) -> float | None:
    """Predict, run and print one point; return the relative error of its step time, None where there is no such plan."""
    asked = {"workload": workload, **WORKLOADS[workload], **PLANS[plan], "evaluate_every": 0, "checkpoint_every_s": 0.0}
    try:
        spec = spec_of("training", {**asked, "learning_rate": 1e-4})
        predicted = experiment("training").predict(spec, session.machine)
    except LabError as error:
        print(f"{workload:14s} {plan:10s} refused: {str(error)[:90]}", flush=True)
        return None
    steps = int(min(max(seconds / predicted["step_time_s"], 30), 400))
    found = run(session, spec.changed({"steps": steps}, live_only=False))
    row = found.row("step_time_s")
    assert row is not None
    assert row.predicted is not None
    assert row.measured is not None
    print(
        f"{workload:14s} {plan:10s} predicted {row.predicted.value * 1e3:8.2f} ms, measured {row.measured.value * 1e3:8.2f} ms, "
        f"error {row.relative_error:+5.0%} | got {got(found, session.machine.cores):4.0%} | {parts(found)}{counted(found)}",
        flush=True,
    )
    return row.relative_error


def run(session: Session, spec: Spec) -> Comparison:
    """Run a Spec to its end and compare it with what was predicted before it began."""
    reader = session.launch("training", spec, room=4)
    *_, now = watch(reader, every_s=0.5)  # looking costs processor time too
    if not now.ok:
        raise SystemExit(f"{spec}: {now.state}: {now.message}")
    return compare(reader.experiment, reader.segments()[0])


def value(found: Comparison, name: str, side: str) -> float:
    """Return one side of a row, NaN where there is none."""
    row = found.row(name)
    there = getattr(row, side) if row else None
    return float("nan") if there is None or there.value is None else float(there.value)


def got(found: Comparison, cores: int) -> float:
    """Return the share of a core that each node had."""
    nodes = found.segment.spec.ranks
    cpu_s, step_s = (value(found, name, "measured") for name in ("cpu_time_s", "step_time_s"))
    return cpu_s / (min(nodes, cores) * step_s)


def parts(found: Comparison) -> str:
    """Return predicted against measured for each part, in microseconds."""
    told = []
    for name in experiment("training").parts:
        predicted, measured = value(found, name, "predicted"), value(found, name, "measured")
        if max(predicted, measured) > 1e-5:
            told.append(f"{name.removesuffix('_time_s')} {predicted * 1e6:.0f}/{measured * 1e6:.0f}")
    return ", ".join(told)


def counted(found: Comparison) -> str:
    """Return what was counted wrong, if anything."""
    wrong = []
    for name in COUNTED if found.segment.spec.average_every == 1 else COUNTED[:-1]:  # a median step averages nothing
        predicted, measured = value(found, name, "predicted"), value(found, name, "measured")
        if abs(predicted - measured) > 0.02 * measured:
            wrong.append(f"{name} {predicted:.0f}/{measured:.0f}")
    return f" | COUNTED WRONG: {', '.join(wrong)}" if wrong else ""


if __name__ == "__main__":
    sys.exit(main())
