"""What cuts leave of checkpoints that ranks write together, and for how long one stops the training: `bench_checkpoints.py [CUTS] [TIMES]`.

Cuts: a run of 3 nodes writes one checkpoint after the other; SIGKILL, at moments from a seed, hits one of the nodes, or all of them.
Each time the newest whole one is loaded at once and compared, number by number, with what it is at its step (tests/faults/cutting.py).
Stall: `cost_s` of the event, from the boundary until training goes on, with 10 million parameters and two numbers of the optimiser for
each, in float32; one writer and all W of them take turns in the same pool, and what is printed is the median and the ratio of medians.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import cutting
import killing

from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.machine.devices import found

SEED, TIMES, PARAMETERS, SIZES = 20_261_122, 200, 10_000_000, (2, 4)
#: float64 numbers that take as much as three float32 for each parameter.
NUMBERS, ROUNDS = PARAMETERS * 3 // 2, 3


def main(cuts: int = TIMES, times: int = 8) -> None:
    """Print one line for the cuts and one for each number of writers."""
    cutting.known()
    with tempfile.TemporaryDirectory() as folder:
        stalls(Path(folder), times)
        begun_s = time.perf_counter()
        seen = cutting.cut_off(Path(folder), random.Random(SEED), cuts) if cuts else []
        all_at_once = sum(cut.killed == cut.of for cut in seen)
        print(
            f"cuts {len(seen)} loaded {sum(cut.tick is not None for cut in seen)}, each exactly a step that was reached and none before "
            f"the last; {all_at_once} of all nodes at once; under way {sum(cut.under_way for cut in seen)}; "
            f"{time.perf_counter() - begun_s:.0f} s"
        )


def stalls(folder: Path, times: int) -> None:
    """Print the stall of one writer beside that of all, in turns."""
    for size in SIZES:
        session, found_s = Session(found(), runs=folder), {True: [], False: []}
        try:
            for _ in range(ROUNDS):
                for together, those in found_s.items():
                    those += costs_s(session, size, times, together=together)
        finally:
            session.close()
        alone, ours = (np.median(found_s[together]) for together in (False, True))
        print(
            f"stall with {PARAMETERS / 1e6:.0f} M parameters on {size} nodes: 1 writer {alone * 1e3:.1f} ms, {size} writers "
            f"{ours * 1e3:.1f} ms, ratio {ours / alone:.2f} (medians of {len(found_s[True])})",
            flush=True,
        )


def costs_s(session: Session, size: int, times: int, *, together: bool) -> list[float]:
    """Return the stall of each of some checkpoints, one after the other, none of which waits for the one before."""
    asked = {"nodes": size, "numbers": NUMBERS, "shards": together, "checkpoint_every_s": 0.0, "checkpoints_kept": 1}
    reader = session.launch("counter", spec_of("counter", asked), room=size)
    for done in range(times + 1):
        session.ask(reader, verb="checkpoint")
        killing.wait(reader, lambda n=done: len(reader.kind("checkpoint")) > n, "a checkpoint")
    session.stop(reader, wait_s=killing.PATIENCE_S)
    events = reader.kind("checkpoint")[1 : times + 1]  # the first finds cold memory, the last one ends the run
    assert {e["shards"] for e in events} == {size if together else 1}
    return [float(e["cost_s"]) for e in events]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
