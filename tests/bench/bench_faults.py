"""How soon survivors compute again after a kill, and what a cut-off checkpoint leaves: `bench_faults.py [KILLS] [CHECKPOINTS]`, 200 each.

Kills are by SIGKILL from outside, of a node and at a tick from a seed, with 2, 4 and 8 nodes at work in a pool of 8. The time is from
the signal until a survivor has done the first tick that counts, the detection and the first tick itself included.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import killing

from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.runs import layout

SEED, POOL, SIZES, TIMES = 20_261_121, 8, (2, 4, 8), 200


def main(kills: int = TIMES, checkpoints: int = TIMES) -> None:
    """Print one line for each size, one for all, and one for the checkpoints."""
    chance, by_size = random.Random(SEED), {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        for size in itertools.cycle(SIZES):
            left = kills - sum(map(len, by_size.values()))
            if left <= 0:
                break
            by_size[size] += campaign(Path(folder), chance, size, min(left, POOL - 1))
        for size, those in by_size.items():
            say(f"{size} nodes", those)
        say("all sizes", [kill for those in by_size.values() for kill in those])
        run = layout.create(Path(folder), "training", spec_of("training", {}), found())
        begun_s = time.perf_counter()
        seen = killing.cut_off_writers(run, chance, checkpoints)
        print(
            f"checkpoints: {checkpoints} writers killed at random moments, {len(seen)} after the first whole one; each time the newest "
            f"loaded and was a step that was reached; {time.perf_counter() - begun_s:.0f} s"
        )


def campaign(folder: Path, chance: random.Random, size: int, kills: int) -> list[killing.Kill]:
    """Kill one node after the other of one run, and compare what is left with a run that nobody killed."""
    session = Session(found(), runs=folder)
    try:
        reader = killing.start(session, size, POOL)
        those = [killing.kill_one(reader, chance, size) for _ in range(kills)]
        ticks, state = killing.stopped(session, reader)
        _, expected = killing.unkilled(session, ticks)
        apart = float(np.abs(state["parameters"] - expected["parameters"]).max())
        print(
            f"  {size} nodes, {kills} kills, {ticks} steps: parameters differ from an unkilled run by at most {apart:.1e}",
            flush=True,
        )
        return those
    finally:
        session.close()


def say(what: str, those: list[killing.Kill]) -> None:
    """Print percentiles of the time without computing."""
    if not those:
        return
    p50, p99 = np.percentile([kill.gap_s for kill in those], (50, 99))
    back = max(kill.back for kill in those)
    print(
        f"{what}: {len(those)} kills, survivors compute again after {p50 * 1e3:.0f} ms (p50), {p99 * 1e3:.0f} ms (p99); "
        f"the step counter went back by at most {back} (gate: p99 under 500 ms, at most 1)"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
