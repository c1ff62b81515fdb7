"""How long a live resize inside the pool takes: 1 to 2 nodes and back, 40 times, with about 2 M parameters.

What is timed is what the run itself records: from the boundary at which the plan is carried out until the new group of
nodes is at work, the broadcast of parameters and momentum included.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.runs.status import status
from aiinfra_widgets.workloads import catalog

RESIZES, WIDTH, DEPTH = 40, 704, 4


def main() -> None:
    """Print one line."""
    facts = catalog.facts("synthetic").sized(WIDTH, DEPTH)
    values = {"workload": "synthetic", "width": WIDTH, "depth": DEPTH, "global_batch": 64, "steps": 10_000_000}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(runs=Path(folder))
        try:
            reader = session.launch("training", spec_of("training", {**values, "evaluate_every": 0}), room=2)
            for _ in watch(reader, until=lambda s: s.final or max(s.last_tick.values(), default=0) > 20):
                pass
            for i in range(RESIZES):
                asked = session.ask(reader, {"nodes": 2 - i % 2})
                while reader.answer(asked.id) is None:
                    reader.poll()
                    if (now := status(reader)).final:
                        raise SystemExit(f"the run ended: {now.message}")
                    time.sleep(0.01)
            session.stop(reader)
            cost_s = np.array([e["resize_time_s"] for e in reader.kind("resized")])
        finally:
            session.close()
    median, p95 = np.percentile(cost_s, (50, 95))
    print(
        f"resize 1<->2, {facts.params / 1e6:.2f} M parameters, {len(cost_s)} times: median {median * 1e3:.1f} ms, "
        f"p95 {p95 * 1e3:.1f} ms, max {cost_s.max() * 1e3:.1f} ms (gate: p95 under 50 ms)"
    )


if __name__ == "__main__":
    main()
