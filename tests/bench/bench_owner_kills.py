"""Kernels killed at random moments: how many ranks still live two seconds after the grace is over, and how long they took to go.

Each trial starts a process that holds a run as a kernel does, kills it with SIGKILL after a random time from its start - before the
ranks are up, while they train, while they write a checkpoint - and looks at the processes that carry the trial's mark. The grace is
mostly 0 or 3 s, and `--long` trials have 60 s. Every fifth run that is at work is taken over within its grace by another process, or
was launched detached, and then must go on untouched. One line per trial, then the worst and the count of what should not have been.

    python tests/bench/bench_owner_kills.py --trials 100 --long 3 --seed 20261121
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil

from aiinfra_widgets.launch.session import Session
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.runs.reader import RunReader

MARK = "AIINFRA_KILL_BENCH"
AFTER_S, GRACES_S, LATEST_S = 2.0, (0.0, 3.0), 9.0
KERNEL = """
import sys, time
from aiinfra_widgets.launch.session import Session, spec_of
session = Session(grace_s=float(sys.argv[1]))
spec = spec_of("training", {"workload": "net-10-5-2", "nodes": 2, "steps": 10**7, "evaluate_every": 0, "checkpoint_every_s": 0.2})
session.launch("training", spec, room=2, detached=sys.argv[2] == "detached")
time.sleep(600)
"""


def of(mark: str) -> list[psutil.Process]:
    """Return the living processes of a trial."""
    living = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def newest(home: Path) -> RunReader | None:
    """Return the reader of the trial's run, None before there is one."""
    paths = sorted(home.glob("runs/*/run.json"))
    return RunReader(paths[-1].parent) if paths else None


def tick(reader: RunReader | None) -> int:
    """Return the last tick of a run, 0 before the first."""
    if reader is None:
        return 0
    reader.poll()
    return max((int(row["tick"]) for row in reader.latest().values()), default=0)


def goes_on(home: Path) -> bool:
    """Whether the run takes further steps."""
    reader, end_s = newest(home), time.monotonic() + 20
    first = tick(reader)
    while time.monotonic() < end_s:
        if tick(reader) > first + 10:
            return True
        time.sleep(0.1)
    return False


def trial(number: int, grace_s: float, kill_after_s: float, fate: str, folder: Path) -> bool:
    """Carry out one trial, print its line, and return whether it kept the promise."""
    home, mark = folder / f"t{number}", uuid.uuid4().hex
    os.environ["AIINFRA_HOME"] = str(home)
    env = {**os.environ, MARK: mark, "AIINFRA_HOME": str(home), "AIINFRA_KEEP_ENV": MARK}
    kernel = subprocess.Popen([sys.executable, "-c", KERNEL, str(grace_s), fate], env=env)
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < kill_after_s or (fate != "left" and tick(newest(home)) < 10):
        time.sleep(0.01)
        if time.monotonic() - begun_s > 60:
            break
    at = tick(newest(home))
    kernel.kill()
    kernel.wait()
    killed_s = time.monotonic()
    session = Session(found(), grace_s=0.0) if fate == "adopted" else None
    if session is not None and session.attach() is None:
        fate = "not found"
    if fate in {"detached", "adopted"}:
        time.sleep(grace_s + AFTER_S)
        kept = goes_on(home)
        said = "goes on" if kept else "was ended, or stands still"
    else:
        gone_s, end_s = None, killed_s + grace_s + AFTER_S
        while time.monotonic() < end_s:
            if not of(mark):
                gone_s = time.monotonic() - killed_s
                break
            time.sleep(0.05)
        left = of(mark)
        kept = not left
        said = (
            f"none left {gone_s - grace_s:+.2f} s from the end of the grace" if kept else f"{len(left)} processes left"
        )  # type: ignore[operator]
    print(
        f"trial {number}: grace {grace_s:g} s, killed {kill_after_s:.2f} s after its start at step {at}, {fate}: {said}",
        flush=True,
    )
    if session is not None:
        session.close()
    for process in of(mark):
        with contextlib.suppress(psutil.Error):
            process.kill()
    return kept


def main() -> None:
    """Carry out the trials and print what they say together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--long", type=int, default=0, help="trials, of them, with a grace of 60 s")
    parser.add_argument("--seed", type=int, default=20_261_121)
    args = parser.parse_args()
    chance, kept = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        for number in range(args.trials):
            grace_s = 60.0 if number < args.long else chance.choice(GRACES_S)
            fate = "left" if number % 5 else ("detached" if number % 2 or not grace_s else "adopted")
            kept += trial(number, grace_s, chance.uniform(0.0, LATEST_S), fate, Path(folder))
    print(
        f"{kept} of {args.trials} kept the promise: nothing left {AFTER_S:g} s after the grace, or untouched where it was asked to go on"
    )


if __name__ == "__main__":
    main()
