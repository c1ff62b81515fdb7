"""Processes that run out by `ulimit -u` while a run wants more ranks than it has: as another user, for the system asks no limit of root."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import COMMAND, LONG, Owner, wait_until

from aiinfra_widgets.machine import neighbours
from aiinfra_widgets.runs.reader import RunReader

sys.path.insert(0, str(Path(__file__).parents[1] / "security"))

from attacks import STRANGER, become

#: Each starts ranks twice, with another user's cold interpreter: some 20 s.
pytestmark = pytest.mark.slow


class Stranger:
    """Another user of this machine, who has a home and runs commands there."""

    def __init__(self, uid: int, owner: Owner) -> None:
        self.uid, self.owner = uid, owner
        owner.home = Path(tempfile.mkdtemp())  # where every user may go, which pytest's own folders are not
        os.chown(owner.home, uid, uid)
        os.environ["AIINFRA_HOME"] = str(owner.home)  # as the test's own home, which is put back after it

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start `aiinfra WORDS` as this user; Python may lie where only root can look."""
        process = subprocess.Popen(
            [*become(self.uid), *COMMAND, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip
        self.owner.processes.append(process)
        return process

    def start(self, nodes: int) -> RunReader:
        """Start a run of LONG and wait for ten ticks and a checkpoint."""
        command = self.command("run", "training", f"--nodes={nodes}", *(f"--set={k}={v}" for k, v in LONG.items()))
        with contextlib.suppress(subprocess.TimeoutExpired):  # it goes on
            _, said = command.communicate(timeout=1)
            if "Operation not permitted" in said:
                pytest.skip("no rights to hand over here")
            pytest.fail(said)
        reader = self.owner.newest()
        self.owner.ticked(reader, 10)
        self.owner.until(reader, lambda s: reader.kind("checkpoint"))
        return reader

    def tasks(self) -> int:
        """Return the processes and threads of this user, as the limit counts them."""
        tasks = 0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                tasks += process.num_threads() if process.uids().real == self.uid else 0
        return tasks

    def limit(self, *processes: psutil.Process, tasks: int) -> None:
        """Limit processes, and what they start from now on, to so many of this user's processes and threads."""
        for process in processes:
            limit = [*become(self.uid), "prlimit", f"--pid={process.pid}", f"--nproc={tasks}:{tasks}"]
            subprocess.run(limit, check=True, cwd="/")


@pytest.fixture
def stranger(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    """Somebody else; skips where nobody can be made."""
    if os.geteuid() or not all(map(shutil.which, ("setpriv", "prlimit"))):
        pytest.skip("needs root, to become another user")
    made = subprocess.run(
        ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", STRANGER], capture_output=True, check=False
    )
    if made.returncode not in (0, 9):  # 9: is there already
        pytest.skip("cannot make a second user")
    monkeypatch.setenv("AIINFRA_HOME", "")
    yield Stranger(pwd.getpwnam(STRANGER).pw_uid, owner)
    for process in owner.processes:
        process.terminate()
    for process in owner.processes:
        process.communicate(timeout=60)
    owner.alone()
    shutil.rmtree(owner.home)
    if made.returncode == 0:
        subprocess.run(["userdel", STRANGER], capture_output=True, check=False)


def supervisor_of(reader: RunReader) -> psutil.Process:
    return psutil.Process(reader.kind("launching")[-1]["pid"])


def test_more_ranks_than_processes_are_refused_and_the_run_goes_on(owner: Owner, stranger: Stranger) -> None:
    reader = stranger.start(2)
    supervisor = supervisor_of(reader)
    (launcher,) = supervisor.children()
    mine = neighbours.tasks_of(launcher.pid)
    room = (
        stranger.tasks() - mine + neighbours.TASKS_PER_POOL + 3 * neighbours.TASKS_PER_RANK + 4
    )  # who asks is one, too
    stranger.limit(supervisor, *supervisor.children(recursive=True), tasks=room)
    ask = stranger.command("ask", "last", "nodes=8", "--json")
    out, err = ask.communicate(timeout=60)
    assert out, err
    answer = json.loads(out)
    assert (ask.returncode, answer["kind"]) == (1, "refused"), err
    print(answer["reason"])
    assert "nodes: got 8, which take some 54 processes and threads" in answer["reason"]
    assert "ulimit -u is" in answer["reason"]
    assert "choose at most 3 nodes" in answer["reason"]
    owner.ticked(reader, max(reader.ticks["tick"]) + 50)
    assert not reader.kind("ranks-ended", "launch-failed", "resized")
    stranger.command("ask", "last", "nodes=3", "--wait=0").communicate(timeout=60)
    owner.until(reader, lambda s: len(reader.kind("segment")[-1]["members"]) == 3)  # there was room for what it said
    owner.ticked(reader, max(reader.ticks["tick"]) + 20)


@pytest.mark.parametrize("when", ["before", "while"])
def test_processes_that_run_out_at_the_relaunch_end_it_with_a_checkpoint(
    owner: Owner, stranger: Stranger, when: str
) -> None:
    """Somebody else of this user takes what was there when it was asked: before the new ranks are started, or meanwhile."""
    reader = stranger.start(2)
    supervisor = supervisor_of(reader)
    (launcher,) = supervisor.children()
    others = stranger.tasks() - neighbours.tasks_of(launcher.pid)
    if when == "before":  # the ranks that decide know of no limit
        stranger.limit(supervisor, tasks=others + neighbours.TASKS_PER_POOL + 6)
    stranger.command("ask", "last", "nodes=4")
    if when == "while":
        owner.until(reader, lambda s: reader.kind("end"))
        (new,) = wait_until(lambda: set(supervisor.children()) - {launcher}, "another mpiexec")
        stranger.limit(new, tasks=others + 4)
    now = owner.ended(reader)
    print(now, reader.kind("ranks-ended"))
    assert now.state == "failed"
    assert "ulimit -u" in now.message
    tick = reader.kind("end")[-1]["tick"]
    assert now.next_step == f"resume at step {tick} with: aiinfra resume {reader.run.id}"
    owner.processes[0].communicate(timeout=60)
    owner.alone()
    stranger.command("resume", "last")
    owner.resumed(reader)
    assert reader.kind("segment")[-1]["tick"] == tick, "nothing was lost"
    owner.ticked(reader, tick + 20)
