"""One warm pool of four ranks for all tests here: starting ranks costs seconds, a run in a warm pool costs its steps."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.launch import local
from aiinfra_widgets.launch.schedule import ask_all, parse_changes
from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import Status

PATIENCE_S = 60.0
QUICK = {"workload": "digits-perceptron", "global_batch": 64, "steps": 40, "evaluate_every": 0}


class Lab:
    """Starts training runs in one session and follows them."""

    def __init__(self, runs: Path, room: int) -> None:
        self.session = Session(found(), runs=runs)
        self.room = room
        self.started: list[RunReader] = []

    def start(self, changes: Iterable[str] = (), **values: Any) -> RunReader:
        """Start a run of QUICK with `values`, and script `changes`."""
        spec = spec_of("training", {**QUICK, **values})
        parsed = parse_changes(experiment("training"), spec, changes)
        reader = self.session.launch("training", spec, room=self.room)
        self.started.append(reader)
        ask_all(self.session, reader, parsed)
        return reader

    def tidy(self) -> None:
        """End what a test that failed left running, so that the next one does not wait behind it."""
        while self.started:
            self.session.stop(self.started.pop(), wait_s=PATIENCE_S)

    def end(self, reader: RunReader) -> Status:
        """Follow a run until it ends."""
        return self.until(reader, lambda now: now.final)

    def until(self, reader: RunReader, wanted: Callable[[Status], bool]) -> Status:
        """Follow a run until its status is as wanted; fails when it ends otherwise, or takes minutes."""
        limit = time.monotonic() + PATIENCE_S
        for now in watch(reader, until=lambda s: s.final or wanted(s) or time.monotonic() > limit):
            last = now
        assert wanted(last), last
        return last

    def ticked(self, reader: RunReader, tick: int) -> None:
        """Follow a run until it has done `tick` ticks."""
        self.until(reader, lambda now: max(now.last_tick.values(), default=0) >= tick)

    def answer(self, reader: RunReader, request: str) -> Mapping[str, Any]:
        """Wait for the controller's decision on a request."""
        self.until(reader, lambda now: reader.answer(request) is not None)
        found = reader.answer(request)
        assert found is not None
        return found

    def done(self, changes: Iterable[str] = (), **values: Any) -> RunReader:
        """Carry out a whole run; it must end as done."""
        reader = self.start(changes, **values)
        now = self.end(reader)
        assert now.state == "done", (now, [e for e in reader.events if e["kind"] in {"error", "ranks-ended"}])
        return reader


def losses(reader: RunReader) -> list[float]:
    """Return the global loss of every tick, checking that no tick is missing or there twice."""
    ticks = reader.ticks
    assert ticks["tick"].tolist() == list(range(1, len(ticks) + 1))
    return [float(x) for x in ticks["loss"]]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Four warm ranks, for all tests."""
    found = Lab(tmp_path_factory.mktemp("runs"), room=4)
    yield found
    found.session.close()


@pytest.fixture
def lab(warm: Lab) -> Iterator[Lab]:
    """Four warm ranks that nobody else uses meanwhile."""
    yield warm
    warm.tidy()


@pytest.fixture(scope="session")
def make_lab() -> type[Lab]:
    """For a pool of another size, in an AIINFRA_HOME of its own."""
    return Lab


@pytest.fixture(scope="session")
def curve() -> Callable[[RunReader], list[float]]:
    """The loss of every tick."""
    return losses


@pytest.fixture
def on_ranks(repo: Path, tmp_path: Path) -> Callable[..., None]:
    """Run a file of tests under mpiexec: every rank must pass all of them."""

    def run(inner: Path, ranks: int, *words: str, each_s: int = 240, all_s: int = 560) -> None:
        argv = local.command(ranks, [], local.mpiexec())
        start = argv[: argv.index("-m")]  # up to the Python; what follows is the lab's own programme
        tests = ["-m", "mpi4py", "-m", "pytest", str(inner), "-x", f"--timeout={each_s}", *words]
        tests += [f"--basetemp={tmp_path / 'ranks'}", "-p", "no:cacheprovider"]
        env = local.environment(os.environ, 1)
        done = subprocess.run([*start, *tests], cwd=repo, env=env, capture_output=True, text=True, timeout=all_s)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert done.stdout.count(" passed") == ranks, done.stdout[-2000:]

    return run
