"""Prediction, ex ante, against measurement: step time over workloads, batches and nodes on this machine.

Uses the newest machine profile, made before any run (calibrates where there is none). One line per point, the medians
last; more nodes than cores count.

    python tests/bench/bench_prediction.py [--calibrate] [WORKLOAD ...]
"""

from __future__ import annotations

import statistics
import sys

from aiinfra_widgets.comparison import compare
from aiinfra_widgets.launch.calibrate import calibrate
from aiinfra_widgets.launch.session import Session, spec_of, this_machine, watch

WORKLOADS = ("digits-perceptron", "digits-cnn", "dense-100-64-1", "linear-regression", "synthetic")
BATCHES = (64, 256, 1024)
NODES = (1, 2, 4)
PARTS = ("data_time_s", "compute_time_s", "exposed_comm_time_s", "straggler_wait_time_s", "runtime_time_s")


def main() -> int:
    """Run the grid and print the table."""
    if "--calibrate" in sys.argv or not this_machine().calibrated:
        calibrate()
    session = Session(grace_s=0.0)
    errors: dict[int, list[float]] = {n: [] for n in NODES}
    try:
        for workload in [w for w in sys.argv[1:] if w != "--calibrate"] or WORKLOADS:
            for batch in BATCHES:
                for nodes in NODES:
                    errors[nodes].append(point(session, workload, batch, nodes))
    finally:
        session.close()
    everything = [e for found in errors.values() for e in found]
    for nodes, found in errors.items():
        print(f"median absolute relative error, {nodes} nodes: {statistics.median(found):.0%} of {len(found)} points")
    print(f"median absolute relative error, all: {statistics.median(everything):.1%} of {len(everything)} points")
    return 0


def point(session: Session, workload: str, batch: int, nodes: int) -> float:
    """Predict, run and print one point; return the absolute relative error of the step time."""
    steps = max(60, min(400, 25600 // batch))
    asked = {"workload": workload, "global_batch": batch, "nodes": nodes, "steps": steps, "learning_rate": 1e-3}
    spec = spec_of("training", {**asked, "evaluate_every": 0, "checkpoint_every_s": 0.0})
    reader = session.launch("training", spec, room=max(NODES))
    *_, now = watch(reader, every_s=1.0)  # looking costs processor time too
    if not now.ok:
        raise SystemExit(f"{workload}, batch {batch}, {nodes} nodes: {now.state}: {now.message}")
    found = compare(reader.experiment, reader.segments()[0])
    row = found.row("step_time_s")
    parts = []
    for name in PARTS:
        part = found.row(name)
        predicted = part.predicted.value * 1e6 if part and part.predicted else float("nan")
        measured = part.measured.value * 1e6 if part and part.measured else float("nan")
        parts.append(f"{name.removesuffix('_time_s')} {predicted:.0f}/{measured:.0f}")
    print(
        f"{workload:18s} batch {batch:5d} nodes {nodes}: predicted {row.predicted.value * 1e3:8.3f} ms, "
        f"measured {row.measured.value * 1e3:8.3f} ms, error {row.relative_error:+5.0%} | us predicted/measured: {', '.join(parts)}",
        flush=True,
    )
    return abs(row.relative_error)


if __name__ == "__main__":
    sys.exit(main())
