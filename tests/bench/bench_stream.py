"""A real stream of jobs on real ranks against its simulation: makespan and mean wait, the median of five runs, for each policy.

Every run is predicted before it begins, from the Spec and the machine's profile. Allowed: 10 % for the makespan, 15 % for
the mean wait. One line per figure; beside each the spread of the runs. A busy neighbour makes jobs late, so what other
programs took meanwhile is told too.

    python tests/bench/bench_stream.py [--runs=5] [FIELD=VALUE ...] [POLICY ...]
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import psutil

from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.runs.reader import RunReader

POLICIES = ("fifo", "sjf", "srtf", "easy", "elastic", "gang", "priority")
ALLOWED = {"makespan_s": 0.10, "mean_wait_s": 0.15}
STREAM = {"nodes": 4, "jobs": 16, "most_demand": 4, "mean_work_s": 1.5, "estimate_factor": 3.0, "ageing_per_s": 0.5}


def main() -> int:
    """Run the policies and print the table; fail where a median is off by more than is allowed."""
    words = [w for w in sys.argv[1:] if not w.startswith("--")]
    runs = int(next((w.split("=")[1] for w in sys.argv[1:] if w.startswith("--runs=")), 5))
    values = {**STREAM, **dict(w.split("=") for w in words if "=" in w)}
    session = Session()
    print(f"# machine {session.machine.id}, {session.machine.cores} cores, {runs} runs each; {values}")
    failed = []
    try:
        for policy in [w for w in words if "=" not in w] or POLICIES:
            failed += compared(session, {**values, "policy": policy}, runs)
    finally:
        session.close()
    print("all within what is allowed" if not failed else f"beyond what is allowed: {', '.join(failed)}")
    return len(failed) > 0


def compared(session: Session, values: dict[str, object], runs: int) -> list[str]:
    """Run one policy several times, print its figures, and return those that are off by too much."""
    predicted: dict[str, float] = {}
    measured: dict[str, list[float]] = {name: [] for name in ALLOWED}
    others = []
    for _ in range(runs):
        before = psutil.cpu_times()
        reader = whole(session, values)
        others.append(others_frac(reader, before))
        [segment] = reader.segments()
        for name in ALLOWED:
            found, told = segment.values[name].value, segment.prediction and segment.prediction.get(name)
            assert found is not None
            assert told is not None
            measured[name].append(float(found))
            predicted[name] = float(told)
    off = []
    for name, allowed in ALLOWED.items():
        found = statistics.median(measured[name])
        error = found / predicted[name] - 1
        print(
            f"{values['policy']:10s} {name:11s} predicted {predicted[name]:7.3f} s, measured {found:7.3f} s, error {error:+6.1%}, "
            f"allowed {allowed:.0%} | runs {min(measured[name]):.3f} to {max(measured[name]):.3f} s, "
            f"others took {statistics.median(others):.0%} of the processor",
            flush=True,
        )
        if abs(error) > allowed:
            off.append(f"{values['policy']} {name} {error:+.0%}")
    return off


def others_frac(reader: RunReader, before: Any) -> float:
    """Return the share of this machine's processor that other programs, and looking at the run, took since `before`."""
    spent = [now - then for now, then in zip(psutil.cpu_times(), before, strict=True)]
    idle_s = sum(s for s, name in zip(spent, before._fields, strict=True) if name in {"idle", "iowait"})
    return max(1 - (idle_s + float(reader.nodes["cpu_time_s"].sum())) / sum(spent), 0.0)


def whole(session: Session, values: dict[str, object]) -> RunReader:
    """Carry out one run to its end."""
    spec = spec_of("scheduling", values)
    reader = session.launch("scheduling", spec, room=spec.ranks)
    *_, now = watch(reader, every_s=0.5)
    if now.state != "done":
        raise SystemExit(f"{values}: {now.state}: {now.message}")
    return reader


if __name__ == "__main__":
    sys.exit(main())
