"""How late the load generator is: 2 000 requests per second of a service that does nothing, beside a bare timer.

The timer is a process of its own that runs at the same time: it sleeps to the same kind of absolute deadlines and does
nothing else, so that what the machine does to both is not charged to the generator. Then the rate is raised, live, until
the generator says that it cannot keep up.

    python tests/bench/bench_generator.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.models import Arrivals
from aiinfra_widgets.runs.reader import RunReader

RATE, GATE_S = 2000.0, 1e-3
STEPS = (4000.0, 8000.0, 12_000.0, 16_000.0, 20_000.0)
#: Whoever waits goes to the server at once, so that the way there and back is no bottleneck: the generator is asked, not the server.
TOGETHER = {"batching": "dynamic", "max_batch": 64, "batch_wait_s": 0.0, "queue_limit": 10_000}
SHARES = (50, 99, 99.9)
#: From here on the generator calls itself late (measure_desk.LATE_S, in a module that only ranks load).
LATE_S = 0.005


def main() -> None:
    """Print a line for the timer, one for the generator, and one for each rate beyond."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the time")
    parser.add_argument("--timer", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.timer:
        print(json.dumps(np.percentile(bare_timer(asked.timer), SHARES).tolist()))
        return
    seconds = 8.0 if asked.quick else 24.0
    with tempfile.TemporaryDirectory() as folder:
        session = Session(runs=Path(folder))
        try:
            compare(session, seconds, asked.quick)
        finally:
            session.close()


def compare(session: Session, seconds: float, quick: bool) -> None:
    """Run the generator with the timer beside it, then raise its rate."""
    values = {"mean_service_s": 1e-5, "service_scv": 0.0, "arrival_rate_per_s": RATE, "duration_s": 3600.0, **TOGETHER}
    reader = session.launch("serving", spec_of("serving", {**values, "nodes": 1}), room=2)
    wait(reader, 20)
    command = [sys.executable, __file__, "--timer", str(seconds)]
    timer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    begun_s = time.monotonic() + 1.0  # its imports are over by then
    said, _ = timer.communicate(timeout=seconds + 60)
    own = lateness_s(reader, begun_s, time.monotonic())
    bare = np.array(json.loads(said))
    mine = np.percentile(own, SHARES)
    print(f"bare timer, {RATE:.0f}/s for {seconds:.0f} s: late by {told(bare)}")
    print(f"generator, {len(own)} requests at the same time: late by {told(mine)}")
    more_s = mine[1] - bare[1]
    verdict = "holds" if more_s <= GATE_S else "MISSED"
    print(f"generator above timer at p99: {more_s * 1e3:+.3f} ms (gate: at most {GATE_S * 1e3:.0f} ms: {verdict})")
    begins = None
    for rate in STEPS:
        said_so = raise_to(session, reader, rate, 2.5 if quick else 5.0)
        begins = rate if said_so and begins is None else begins
    session.stop(reader)
    said = (
        f"it begins to say that it cannot keep up at {begins:.0f} requests/s"
        if begins
        else "it kept up with every rate"
    )
    print(f"{said} (most that may be asked for: {STEPS[-1]:.0f}/s)")


def bare_timer(seconds: float) -> np.ndarray:
    """Return how late each wake-up of a loop was that only sleeps to absolute deadlines."""
    deadlines = (time.monotonic() + 0.2 + Arrivals("poisson", RATE, seed=1).next_until(seconds)).tolist()
    late = []
    for deadline in deadlines:
        left_s = deadline - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
        late.append(time.monotonic() - deadline)
    return np.array(late)


def raise_to(session: Session, reader: RunReader, rate: float, seconds: float) -> bool:
    """Offer `rate`, print what came of it, and return whether the generator was late for one request in a hundred, and said so."""
    asked = session.ask(reader, {"arrival_rate_per_s": rate})
    wait(reader, 0, until=lambda: reader.answer(asked.id) is not None)
    begun_s = time.monotonic() + 0.5
    time.sleep(seconds)
    ended_s = time.monotonic()
    late = lateness_s(reader, begun_s, ended_s)
    if not len(late):
        raise SystemExit(f"{rate:.0f}/s: nothing that was sent got an outcome within {seconds:.0f} s")
    says = [e for e in reader.kind("generator-late") if begun_s <= e["t_s"] <= ended_s]
    came = reader.ticks[(reader.ticks["t_s"] >= begun_s) & (reader.ticks["t_s"] <= ended_s)]["arrived_per_s"].mean()
    share = float((late > LATE_S).mean())
    print(
        f"{rate:.0f}/s: {came:.0f}/s were sent, late by {told(np.percentile(late, SHARES))}; {share:.1%} later than {LATE_S * 1e3:.0f} ms; "
        f"it said so {len(says)} times"
    )
    return bool(says) and float(np.percentile(late, 99)) > LATE_S


def lateness_s(reader: RunReader, begun_s: float, ended_s: float) -> np.ndarray:
    """Return how long after its intended arrival each request was sent."""
    reader.poll()
    rows = reader.records("requests")
    rows = rows[(rows["arrived_s"] >= begun_s) & (rows["arrived_s"] < ended_s)]
    return (rows["sent_s"] - rows["arrived_s"]).to_numpy()


def wait(reader: RunReader, ticks: int, until=None) -> None:
    """Follow a run until it has done so many ticks, or what is asked for holds."""
    reached = until or (lambda: len(reader.ticks) >= ticks)
    for now in watch(reader, until=lambda s: s.final or reached()):
        if now.final:
            raise SystemExit(f"the run ended: {now.message}")


def told(percentiles: np.ndarray) -> str:
    """Return percentiles in words."""
    return ", ".join(f"p{share:g} {value * 1e3:.3f} ms" for share, value in zip(SHARES, percentiles, strict=True))


if __name__ == "__main__":
    main()
