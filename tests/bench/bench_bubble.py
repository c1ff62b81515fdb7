"""The pipeline's bubble, measured, against (p - 1) / (m + p - 1) and the interleaved formula, over m on two stages.

One net of equal blocks, micro-batches of one size, so that a step grows with m. One line per point: the measured share of the
step in which a stage had nothing to do (median over steps, mean over stages), the formula, and what else took time.

    python tests/bench/bench_bubble.py [--seconds 4]
"""

from __future__ import annotations

import argparse
import statistics
import sys

from aiinfra_widgets.launch.session import Session, spec_of, this_machine, watch
from aiinfra_widgets.models.schedules import bubble_frac

STAGES = 2
MICROBATCHES = (1, 2, 4, 8, 16)
MICROBATCH = 128
WORK = {"workload": "synthetic", "width": 512, "depth": 16, "learning_rate": 1e-4, "nodes": STAGES, "pp_size": STAGES}


def main() -> int:
    """Run the grid and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point")
    seconds = parser.parse_args().seconds
    session, errors = Session(grace_s=0.0), []
    print(f"{STAGES} stages on {this_machine().cores} cores, micro-batches of {MICROBATCH}")
    try:
        for schedule in ("gpipe", "1f1b", "interleaved"):
            for m in MICROBATCHES:
                if schedule == "interleaved" and m % STAGES:
                    continue
                errors.append(point(session, schedule, m, seconds))
    finally:
        session.close()
    print(
        f"median absolute relative error: {statistics.median(errors):.1%}, largest {max(errors):.1%}, of {len(errors)} points"
    )
    return 0


def point(session: Session, schedule: str, m: int, seconds: float) -> float:
    """Run and print one point; return the relative error of the bubble's share."""
    chunks = 2 if schedule == "interleaved" else 1
    steps = max(12, int(seconds / (0.012 * (m + 1))))
    asked = {**WORK, "schedule": schedule, "chunks": chunks, "num_microbatches": m, "global_batch": m * MICROBATCH}
    spec = spec_of(
        "training", {**asked, "steps": steps, "evaluate_every": 0, "checkpoint_every_s": 0.0, "trace_every": 0}
    )
    reader = session.launch("training", spec, room=STAGES)
    *_, now = watch(reader, every_s=1.0)
    if not now.ok:
        raise SystemExit(f"{schedule}, m {m}: {now.state}: {now.message}")
    rows = reader.nodes
    rows = rows[rows["tick"] > 5]
    share = (rows["bubble_time_s"] / rows["step_time_s"]).groupby(rows["node"]).median()
    rest = {
        name: float((rows[f"{name}_time_s"] / rows["step_time_s"]).median())
        for name in ("exposed_comm", "straggler_wait", "data")
    }
    want = float(bubble_frac(schedule, STAGES, m, chunks))
    found = float(share.mean())
    others = ", ".join(f"{name.split('_')[0]} {value:.1%}" for name, value in rest.items())
    print(
        f"{schedule:12s} m {m:2d}: bubble {found:6.1%}, formula {want:6.1%}, error {found / want - 1:+6.1%} "
        f"(stages {', '.join(f'{v:.1%}' for v in share)}; {others}; step {rows['step_time_s'].median() * 1e3:.1f} ms)",
        flush=True,
    )
    return abs(found / want - 1)


if __name__ == "__main__":
    sys.exit(main())
