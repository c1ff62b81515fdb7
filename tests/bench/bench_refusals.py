"""How long it takes to refuse a nonsensical number of ranks, at every door: the median of 20 for each request, in milliseconds.

The command is a process of its own: beside its time stands how many times that is what the bare interpreter takes, measured in turn
with it, and `main` is the part within the process, from the call of main() to the refusal.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

TIMES, CLI_TIMES = 20, 9
#: Carries out a command as `aiinfra` does, and says how long main() took until it ended, in milliseconds.
COMMAND = """
import sys, time
from aiinfra_widgets.cli import main
begun_s = time.perf_counter()
try:
    main()
finally:
    print(1e3 * (time.perf_counter() - begun_s))
"""
ASKED: tuple[Any, ...] = (10_000, 10**9, -1, 0, 1.5, "64", float("nan"))


def refused_ms(ask: Callable[[], Any]) -> float:
    """Return how long a door takes to refuse; what is not refused is an error of this benchmark."""
    from aiinfra_widgets.errors import LabError

    begun_s = time.perf_counter()
    try:
        ask()
    except LabError:
        return 1e3 * (time.perf_counter() - begun_s)
    raise SystemExit("it was not refused")


def process_ms(argv: list[str], *, refused: bool) -> tuple[float, str]:
    """Return how long a process takes from its start to its end, and what it printed."""
    begun_s = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    took_ms = 1e3 * (time.perf_counter() - begun_s)
    assert bool(done.returncode) is refused, done
    return took_ms, done.stdout


def command_ms(words: list[str]) -> tuple[float, float, float]:
    """Return medians for a command that is refused: the process, the bare interpreter in turn with it, and main() alone."""
    rows = []
    for _ in range(CLI_TIMES):
        bare_ms, _ = process_ms([sys.executable, "-c", "pass"], refused=False)
        whole_ms, said = process_ms([sys.executable, "-c", COMMAND, *words], refused=True)
        rows.append((whole_ms, bare_ms, float(said.splitlines()[-1])))
    whole, bare, main_ms = (statistics.median(column) for column in zip(*rows, strict=True))
    return whole, bare, main_ms


def main() -> None:
    """Print one line for each request; the last row is what an interpreter takes that imports the command and does nothing."""
    os.environ["AIINFRA_HOME"] = tempfile.mkdtemp()
    from aiinfra_widgets.launch.session import Session, spec_of
    from aiinfra_widgets.machine.devices import found
    from aiinfra_widgets.runs import layout
    from aiinfra_widgets.runs.home import runs_folder
    from aiinfra_widgets.runs.reader import RunReader

    session = Session(found())
    spec = spec_of("training", {})
    reader = RunReader(layout.create(runs_folder(), "training", spec, session.machine))
    doors: dict[str, Callable[[Any], Any]] = {
        "session": lambda n: session.launch("training", spec_of("training", {"nodes": n})),
        "room": lambda n: session.launch("training", spec, room=n),
        "live change": lambda n: session.ask(reader, {"nodes": n}),
    }
    names = [*doors, "process", "times bare", "main"]
    print(f"{'asked':>12} {''.join(f'{name:>14}' for name in names)}   ms, median of {TIMES} ({CLI_TIMES})")
    for asked in ASKED:
        row = [
            statistics.median(refused_ms(lambda d=ask, n=asked: d(n)) for _ in range(TIMES)) for ask in doors.values()
        ]
        whole, bare, main_ms = command_ms(["run", "training", f"--nodes={asked}"])
        row += [whole, whole / bare, main_ms]
        print(f"{asked!r:>12} {''.join(f'{ms:14.2f}' for ms in row)}", flush=True)
    for words in (
        ["run", "training", "--room=10000"],
        ["run", "training", "--nodes=10000", "--set=seed=-1"],
        ["ask", "last", "nodes=10000"],
        ["sweep", "training", "--over", "nodes=10000"],
        ["resume", "last", "--room=10000"],
    ):
        whole, bare, main_ms = command_ms(words)
        print(f"{' '.join(words):>54} {whole:14.2f}{whole / bare:14.2f}{main_ms:14.2f}", flush=True)


if __name__ == "__main__":
    main()
