"""Measured goodput against Young and Daly: intervals a factor 2 apart, all under one trace of failures, on real ranks.

The failures are accelerated: a node fails once in seconds. What fails is a node's state (see experiments/resilience/measure.py);
every restart reads the checkpoint that was written, and verifies it. Printed: goodput with its 95 % bootstrap interval, how far
each interval lies below the best one (compared failure by failure), and whether the predicted optimum is among the best.

    python tests/bench/bench_goodput.py [--quick] [--seed N]        (7 minutes; --quick 1)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.launch.session import Session, spec_of, this_machine, watch
from aiinfra_widgets.research.goodput import Intervals
from aiinfra_widgets.runs.status import status

#: Two nodes: the job fails once in two seconds; the best interval is half a second.
SETUP = {"nodes": 2, "mtbf_s": 4.0, "checkpoint_cost_s": 0.06, "restart_time_s": 0.15, "detection_time_s": 0.05}
#: Factors around the predicted optimum.
FULL, QUICK = (0.125, 0.25, 0.5, 1, 2, 4, 8), (0.25, 0.5, 1, 2, 4)


def main() -> int:
    """Run all intervals, print the table, and say whether the gate holds."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    setup = {**SETUP, "duration_s": 10.0 if given.quick else 60.0, "seed": given.seed}
    machine = this_machine()
    best_s = float(experiment("resilience").predict(spec_of("resilience", setup), machine)["optimal_interval_s"])
    with tempfile.TemporaryDirectory(prefix="aiinfra-goodput-") as folder:
        session = Session(machine, runs=Path(folder))
        try:
            runs = [run(session, {**setup, "interval_s": best_s * f}) for f in (QUICK if given.quick else FULL)]
        finally:
            session.close()
        return told(Intervals(runs))


def run(session: Session, values: dict[str, float]) -> Path:
    """Carry out one run and return its folder."""
    reader = session.launch("resilience", spec_of("resilience", values))
    for _ in watch(reader):
        pass
    now = status(reader)
    if now.state != "done":
        raise SystemExit(f"interval {values['interval_s']:.3g} s: {now.state}: {now.message}")
    return reader.run.path


def told(found: Intervals) -> int:
    """Print what was found; return 0 where the predicted optimum is among the best."""
    print(" interval  failures  predicted  measured      95 % interval     below the best by")
    for p in found.points:
        ends = "too few failures" if p.low is None or p.high is None else f"{p.low:6.1%} to {p.high:6.1%}"
        mark = "  among the best" if p.among_best else ""
        print(
            f"{p.interval_s:7.3f} s {p.failures:8d} {p.predicted:10.1%} {p.measured:9.1%}  {ends:>18}  "
            f"{p.below_low:6.1%} to {p.below_high:6.1%}{mark}"
        )
    print(found.verdict)
    return 0 if found.known and found.nearest.among_best else 1


if __name__ == "__main__":
    sys.exit(main())
