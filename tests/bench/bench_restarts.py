"""Restart mode: how soon a killed run computes again, how much it does again, and whether its weights are those of an unkilled run.

Each trial is a run whose state is shared out (ZeRO 3, tensor, pipeline); one node is killed by SIGKILL from outside at a tick from a
seed. The time is from the signal until the first step that the next incarnation has done, detection and the start of all ranks
included. Redone are the steps between the last checkpoint and the kill.

    python tests/bench/bench_restarts.py [KILLS]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import killing

from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.ranks import checkpoint

SEED, KILLS, STEPS = 20_261_122, 32, 400
WORK = {"workload": "synthetic", "width": 64, "depth": 4, "global_batch": 64, "steps": STEPS, "checkpoint_every_s": 0.2}
PLANS: dict[str, dict[str, Any]] = {
    "zero 3, 2 nodes": {"nodes": 2, "zero_stage": 3},
    "tensor, 2 nodes": {"nodes": 2, "tp_size": 2},
    "pipeline, 2 nodes": {"nodes": 2, "pp_size": 2, "num_microbatches": 4},
    "zero 1, 4 nodes": {"nodes": 4, "zero_stage": 1},
}


def weights(session: Session, values: dict[str, Any]) -> dict[str, Any]:
    """Return the last weights of a run that nobody killed."""
    reader = session.launch("training", spec_of("training", WORK | values))
    *_, last = watch(reader)
    assert last.state == "done", last
    return checkpoint.load(reader.run)[1]


def trial(session: Session, values: dict[str, Any], chance: random.Random) -> tuple[float, int, int, dict[str, Any]]:
    """Kill one node; return the seconds, the steps done again, the most steps between two checkpoints, and the last weights."""
    at = chance.randrange(20, STEPS // 2)
    reader = session.launch("training", spec_of("training", WORK | values))
    killing.wait(reader, lambda: killing.reached(reader) >= at, f"step {at}")
    pid = {e["by"]: e["pid"] for e in reader.kind("started")}[chance.randrange(values["nodes"])]
    killed_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    *_, last = watch(reader)
    assert last.state == "done", last
    rows = reader.nodes
    again = rows["incarnation"] == 1
    reached, kept = int(rows["tick"][~again].max()), [0]
    kept += sorted(e["tick"] for e in reader.kind("checkpoint") if e["incarnation"] == 0)
    resumed = next(e["tick"] for e in reader.kind("segment") if e["incarnation"] == 1)
    apart = max(b - a for a, b in zip(kept, [*kept[1:], reached], strict=True))
    return float(rows["t_s"][again].min()) - killed_s, reached - resumed, apart, checkpoint.load(reader.run)[1]


def main(kills: int = KILLS) -> None:
    """Print one line for each plan and one for all."""
    chance, seconds, worst, equal = random.Random(SEED), [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        session = Session(found(), runs=Path(folder))
        try:
            for name, values in PLANS.items():
                expected, mine = weights(session, values), []
                for _ in range(kills // len(PLANS)):
                    took_s, redone, apart, state = trial(session, values, chance)
                    mine.append(took_s)
                    assert redone <= apart, (redone, apart)
                    worst = max(worst, redone)
                    equal += all(np.array_equal(state[n], expected[n]) for n in expected)
                seconds += mine
                print(f"{name}: {len(mine)} kills, computes again after {np.median(mine):.2f} s (median)", flush=True)
        finally:
            session.close()
    p50, p95 = np.percentile(seconds, (50, 95))
    print(
        f"all: {len(seconds)} kills, computes again after {p50:.2f} s (p50), {p95:.2f} s (p95; gate 10 s); at most {worst} steps done "
        f"again, never more than lay between two checkpoints; {equal} ended with the weights of an unkilled run, bit for bit"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
