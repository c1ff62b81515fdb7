"""Every fault test has a home and a pool of its own, and afterwards no process of it may be left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's import mode leaves it out

from aiinfra_widgets.launch.session import Session, spec_of, watch
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import Status

MARK = "AIINFRA_FAULT_TEST"
PATIENCE_S = 60.0
COMMAND = [sys.executable, "-c", "from aiinfra_widgets.cli import main; main()"]
#: Runs until somebody ends it.
LONG = {
    "workload": "net-10-5-2",
    "global_batch": 64,
    "steps": 10_000_000,
    "evaluate_every": 0,
    "checkpoint_every_s": 0.2,
    "restarts": 0,
}


def of_this_test(value: str) -> list[psutil.Process]:
    """Return the living processes that this test started, but not this one."""
    processes = []
    for process in psutil.process_iter():
        try:
            mine = process.pid != os.getpid() and process.environ().get(MARK) == value
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except (psutil.Error, OSError):
            continue
    return processes


def wait_until(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until `true` returns something that is true, and return it."""
    end = time.monotonic() + patience_s
    while not (value := true()):
        assert time.monotonic() < end, f"waited {patience_s:.0f} s in vain for {what}"
        time.sleep(0.02)
    return value


class Owner:
    """Owns runs in this process or in another one, and looks at them."""

    def __init__(self, home: Path, mark: str) -> None:
        self.home, self.mark = home, mark
        self.sessions: list[Session] = []
        self.processes: list[subprocess.Popen[str]] = []

    def session(self, **options: Any) -> Session:
        """Return a session of this process; it is closed after the test."""
        self.sessions.append(Session(found(), **options))
        return self.sessions[-1]

    def start(self, room: int, **values: Any) -> RunReader:
        """Start a run of LONG with `values` in a session of this process, and wait until it has done ten ticks."""
        session = self.sessions[-1] if self.sessions else self.session()
        reader = session.launch("training", spec_of("training", {**LONG, **values}), room=room)
        self.ticked(reader, 10)
        return reader

    def command(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start `aiinfra WORDS` in a process of its own."""
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.processes.append(process)
        return process

    def newest(self) -> RunReader:
        """Wait for a run directory to appear, and return its reader."""
        path = wait_until(lambda: sorted(self.home.glob("runs/*/run.json")), "a run directory")[-1]
        return RunReader(path.parent)

    def until(self, reader: RunReader, wanted: Callable[[Status], Any], patience_s: float = PATIENCE_S) -> Status:
        """Follow a run until its status is as wanted."""
        limit = time.monotonic() + patience_s
        for now in watch(reader, until=lambda s: s.final or wanted(s) or time.monotonic() > limit):
            last = now
        assert wanted(last), (last, [e for e in reader.events if e["kind"] in {"error", "ranks-ended", "rank-lost"}])
        return last

    def resumed(self, reader: RunReader) -> None:
        """Wait until another incarnation of a run that had ended is at work."""
        before = len(reader.kind("segment"))
        wait_until(lambda: reader.poll() and len(reader.kind("segment")) > before, "the resumed run")

    def ended(self, reader: RunReader) -> Status:
        """Follow a run until it has ended."""
        return self.until(reader, lambda now: now.final)

    def ticked(self, reader: RunReader, tick: int) -> None:
        """Follow a run until `tick` ticks are done; it must not end before."""
        now = self.until(reader, lambda s: s.final or max(s.last_tick.values(), default=0) >= tick)
        assert not now.final, now

    def ranks_gone(self, session: Session) -> None:
        """Wait until the supervisor has seen that its ranks ended."""
        wait_until(lambda: session.pool is None or not session.pool.state.get("mpiexec_pid"), "the end of the ranks")

    def pid(self, reader: RunReader, node: int) -> int:
        """The process of a node in the newest incarnation."""
        return int(next(e["pid"] for e in reversed(reader.kind("started")) if e["by"] == node))

    def alone(self, patience_s: float = 20.0) -> None:
        """Wait until no process of this test is left."""
        wait_until(lambda: not of_this_test(self.mark), f"the end of {of_this_test(self.mark)}", patience_s)


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """See Owner. Fails when a process survives the test."""
    mark = uuid.uuid4().hex
    home = tmp_path / "home"
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("AIINFRA_HOME", str(home))
    mine = Owner(home, mark)
    yield mine
    for session in mine.sessions:
        session.close()
    for process in mine.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
    try:
        mine.alone()
    finally:
        for process in of_this_test(mark):
            process.kill()


@pytest.fixture
def tmpfs(tmp_path):
    """Return a function that mounts a small disk; needs root."""
    mounted = []

    def mount(size_bytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a small disk here: {done.stderr.strip() or 'needs root'}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Return a function that has ranks and supervisor load one of the C files here, with a variable for it; returns their environment."""

    def load(name: str, **variables: str) -> dict[str, str]:
        library = tmp_path / f"{name}.so"
        source = Path(__file__).with_name(f"{name}.c")
        compiler = shutil.which("cc") or shutil.which("gcc") or pytest.skip("no C compiler here")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        # This process has its libraries already; what it starts has not.
        env = {"LD_PRELOAD": str(library), "AIINFRA_KEEP_ENV": "LD_PRELOAD", **variables}
        for variable, value in env.items():
            monkeypatch.setenv(variable, value)
        return {**os.environ, **env}

    return load
