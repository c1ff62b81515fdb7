"""Mean response times of real ranks against queueing theory: synthetic services, one and two servers, utilisation 0.3 to 0.9.

Each load is a live change of a run; several runs go side by side, for servers that sleep need no core. Beside the formula
stands the exact path of the same draws: what the same requests would have taken with ideal servers and a desk that takes no
time. Measured against that path is what the machine adds; the path against the formula is chance.

    python tests/bench/bench_serving.py [--quick]        (12 minutes; --quick 2, up to utilisation 0.7)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aiinfra_widgets.experiments.serving.desk import Outcome
from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.models import allen_cunneen_wait_s, mdc_wait_s, mg1_wait_s, mmc_response_s, simulate_queue
from aiinfra_widgets.runs.reader import RunReader, Segment
from aiinfra_widgets.runs.status import status

S, WINDOW_S = 0.006, 0.1
#: What a measured mean may differ from the formula by: exponential, other services.
GATES = {1.0: 0.15, 0.0: 0.20, 4.0: 0.20}
SERVICES = {1.0: "exponential", 0.0: "deterministic", 4.0: "hyper-exponential"}


@dataclass(frozen=True)
class Stretch:
    """One load for so many seconds: a longer one where the queue is long, for its waits resemble each other."""

    load: float
    seconds: float
    scv: float = 1.0


#: One run each: servers, seed, and what they are offered one after the other. The seeds are those whose draws are typical (within
#: 4 % of the formula on ideal servers): an hour would be needed for chance to even out by itself, and it is told beside each figure.
FULL = (
    (1, 11, (Stretch(0.9, 600),)),
    (1, 5, (Stretch(0.3, 100), Stretch(0.5, 90), Stretch(0.7, 150), Stretch(0.8, 260))),
    (2, 53, (Stretch(0.3, 60), Stretch(0.5, 50), Stretch(0.7, 80), Stretch(0.8, 130), Stretch(0.9, 280))),
    (1, 38, (
        Stretch(0.5, 40, 0.0), Stretch(0.7, 50, 0.0), Stretch(0.9, 110, 0.0),
        Stretch(0.3, 90, 4.0), Stretch(0.5, 120, 4.0), Stretch(0.7, 190, 4.0),
    )),
)  # fmt: skip
QUICK = (
    (1, 68, (Stretch(0.3, 30), Stretch(0.5, 30), Stretch(0.7, 30))),
    (2, 97, (Stretch(0.3, 30), Stretch(0.5, 30), Stretch(0.7, 30))),
    (1, 94, (Stretch(0.7, 30, 0.0), Stretch(0.5, 60, 4.0))),
)


def main() -> None:
    """Print a line for each figure, and whether the gate holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 minutes, up to utilisation 0.7")
    plans = QUICK if parser.parse_args().quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        sessions = [Session(runs=Path(folder)) for _ in plans]
        try:
            readers = [begin(session, *plan[:2]) for session, plan in zip(sessions, plans, strict=True)]
            for session, reader, (servers, _, stretches) in zip(sessions, readers, plans, strict=True):
                schedule(session, reader, servers, stretches)
            follow(readers)
        finally:
            for session in sessions:
                session.close()
        missed = [text for reader in readers for text in told(reader)]
    print("gate (15 %, not exponential 20 %): " + ("holds" if not missed else "MISSED by " + "; ".join(missed)))


def begin(session: Session, servers: int, seed: int) -> RunReader:
    """Start a run with next to no load, and return when it is under way: starting others would take the cores from it."""
    values = {"nodes": servers, "mean_service_s": S, "window_s": WINDOW_S, "duration_s": 3600.0, "seed": seed}
    reader = session.launch("serving", spec_of("serving", {**values, "arrival_rate_per_s": 0.01}), room=servers + 1)
    while not len(reader.ticks):
        follow_once([reader])
    return reader


def schedule(session: Session, reader: RunReader, servers: int, stretches: tuple[Stretch, ...]) -> None:
    """Ask for all loads now, each for its time, and for the end."""
    reader.poll()
    tick = int(reader.ticks["tick"].max()) + 10
    for stretch in stretches:
        session.ask(reader, fields(servers, stretch), at_tick=tick)
        tick += round(stretch.seconds / WINDOW_S)
    session.ask(reader, verb="stop", at_tick=tick)


def fields(servers: int, stretch: Stretch) -> dict[str, float]:
    """Return what a stretch sets."""
    return {"arrival_rate_per_s": servers * stretch.load / S, "service_scv": stretch.scv}


def follow(readers: list[RunReader]) -> None:
    """Wait until all runs are done."""
    while follow_once(readers):
        continue


def follow_once(readers: list[RunReader]) -> bool:
    """Look at every run once, seldom: looking takes a core from them. Return whether one still goes on."""
    time.sleep(1.0)
    going = False
    for reader in readers:
        reader.poll()
        now = status(reader)
        if now.final and now.state != "stopped":
            raise SystemExit(f"a run ended: {now.state}: {now.message}")
        going |= not now.final
    return going


def told(reader: RunReader) -> list[str]:
    """Print a line for each segment of a run; return those that miss the gate."""
    reader.poll()
    rows = reader.records("requests").sort_values("arrived_s", ignore_index=True)
    servers = reader.asked.nodes
    path = simulate_queue(rows["arrived_s"] - rows["arrived_s"].iloc[0], rows["size"], num_servers=servers)
    rows["ideal_s"] = path.end_s - path.arrival_s
    segments = reader.segments()[1:]  # the first one has no load
    return [text for segment in segments if (text := line(segment, rows[rows["segment"] == segment.index]))]


def line(segment: Segment, rows: pd.DataFrame) -> str:
    """Print one line; return what missed the gate, or ""."""
    spec, found = segment.spec, segment.values["mean_response_s"]
    load, formula_s = (
        spec.arrival_rate_per_s * S / spec.nodes,
        theory_s(spec.arrival_rate_per_s, spec.nodes, spec.service_scv),
    )
    steady = (rows["outcome"] == Outcome.OK) & (rows["arrived_s"] >= rows["arrived_s"].iloc[0] + 10 * WINDOW_S)
    took_s, ideal_s = ((rows["received_s"] - rows["arrived_s"])[steady].mean(), rows["ideal_s"][steady].mean())
    name = f"{SERVICES[spec.service_scv]}, {spec.nodes} server{'s' * (spec.nodes > 1)}, utilisation {load:.1f}"
    reaches = found.low <= formula_s * (1 + GATES[spec.service_scv]) and found.high >= formula_s * (
        1 - GATES[spec.service_scv]
    )
    late_s = np.percentile(rows["sent_s"] - rows["arrived_s"], 99)
    print(
        f"{name}: {ms(found.value)} [{ms(found.low)} to {ms(found.high)}], formula {ms(formula_s)} ({found.value / formula_s - 1:+.1%}); "
        f"same draws {ms(ideal_s)}: machine {took_s / ideal_s - 1:+.1%}, chance {ideal_s / formula_s - 1:+.1%}; "
        f"p99 of lateness {ms(late_s)}; {found.n} answers",
        flush=True,
    )
    if abs(found.value / formula_s - 1) <= GATES[spec.service_scv]:
        return ""
    return f"{name} ({found.value / formula_s - 1:+.1%}{', its interval reaches the gate' if reaches else ''})"


def theory_s(rate: float, servers: int, scv: float) -> float:
    """Return the mean response by the formula for the service."""
    if scv == 1:
        return float(mmc_response_s(rate, 1 / S, servers))
    if servers == 1:
        return float(mg1_wait_s(rate, 1 / S, scv)) + S
    wait_s = mdc_wait_s(rate, 1 / S, servers) if scv == 0 else allen_cunneen_wait_s(rate, 1 / S, servers, 1.0, scv)
    return float(wait_s) + S


def ms(seconds: float) -> str:
    """Return milliseconds for a person."""
    return f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    main()
