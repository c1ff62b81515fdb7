"""How many ranks: nonsense and too many are refused before any process is made, and who shares a machine is told who holds what."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from attacks import STRANGER, become, python, wait_until

from aiinfra_widgets.errors import AdmissionError, BusyError, LabError
from aiinfra_widgets.launch.session import Session, spec_of
from aiinfra_widgets.machine import limits, neighbours
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs import control
from aiinfra_widgets.runs.layout import RunDir

HERE = Machine("here", "now", 2, 2**35)
NONSENSE = (10_000, 10**9, -1, 0, 1.5, "64", float("nan"), float("inf"), True, None, [2], "2; touch pwned")
#: Carries out code in a process that notes every child that it makes, by the interpreter's own audit events, and how long it took.
COUNTING = """
import sys, json
made = []
events = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "os.spawn"}
sys.addaudithook(lambda event, args: made.append(event) if event in events else None)
from aiinfra_widgets.cli import main
sys.argv = ["aiinfra", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as ended:
    code = ended.code
print(json.dumps({"code": code, "made": made}))
"""


def doors(session: Session, run: RunDir) -> dict[str, Any]:
    """Every way to ask for so many ranks, from within Python."""
    spec = spec_of("training", {})
    return {
        "admit": lambda n: limits.admit(n, HERE),
        "Spec": lambda n: limits.admit(spec_of("training", {"nodes": n}).nodes, HERE),
        "launch": lambda n: session.launch("training", spec_of("training", {"nodes": n})),
        "room": lambda n: session.launch("training", spec, room=n) if n is not None else limits.admit(n, HERE),
        "ask": lambda n: limits.admit(spec.changed({"nodes": n}).nodes, HERE),
        "request": lambda n: control.ask(run, spec, {"nodes": n}) and limits.admit(int(n), HERE),
    }


@pytest.mark.parametrize("asked", NONSENSE, ids=repr)
def test_nonsense_is_refused_before_anything_is_made(asked: Any, runs: Path, run: RunDir) -> None:
    session = Session(HERE)
    before = {p.name for p in runs.iterdir()}
    for door, ask in doors(session, run).items():
        with pytest.raises(LabError) as refused:
            ask(asked)
        assert str(refused.value).startswith("nodes: "), door
        assert any(word in str(refused.value) for word in ("1 to 16", "from 1 to 512", "whole number")), door
    assert session.pool is None
    assert {p.name for p in runs.iterdir()} == before
    assert not (runs.parent / "pools").exists()


@pytest.mark.parametrize("asked", ["10000", "1e9", "-1", "0", "1.5", "64", "NaN", "2; touch pwned"])
def test_a_command_that_is_refused_made_no_process(asked: str, runs: Path) -> None:
    for words in (["run", "training", f"--nodes={asked}"], ["run", "training", f"--room={asked}"]):
        done = python(COUNTING, json.dumps(words))
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["code"] not in (0, None), done.stderr
        assert found["made"] == [], found
        assert "Traceback" not in done.stderr
    assert not list(runs.iterdir())


def test_the_counting_sees_a_process() -> None:
    done = python(COUNTING.replace("    main()", "    import subprocess; subprocess.run(['true']); sys.exit(0)"), "[]")
    assert "subprocess.Popen" in json.loads(done.stdout)["made"]


# --- beside other users -----------------------------------------------------------------------------------------------
@pytest.fixture
def neighbour(stranger: int) -> Iterator[psutil.Process]:
    """A process of another user that every list of processes shows as the supervisor of ten ranks: a shell's script of that name."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / neighbours.SUPERVISOR[1]).write_text("sleep 60\n")
    started = subprocess.Popen(
        ["sh", *neighbours.SUPERVISOR, "/home/stranger/pools/p", "10", "2"],
        cwd=folder,
        user=stranger,
        group=stranger,
        extra_groups=[],
    )
    process = psutil.Process(started.pid)
    wait_until(lambda: process.children(), "its sleep")
    yield process
    for one in (*process.children(), process):
        one.kill()
    started.wait()
    shutil.rmtree(folder)


def test_who_holds_the_cores_is_named_with_what_to_do(neighbour: psutil.Process, runs: Path) -> None:
    assert neighbours.held_by_others()[STRANGER] == 10
    limits.admit(6, HERE)
    with pytest.raises(BusyError) as refused:
        limits.admit(7, HERE)
    said = str(refused.value)
    assert (
        f"this machine takes 16 (8 ranks for each of 2 cores), and 10 are held by other users: 10 by {STRANGER}" in said
    )
    assert "choose at most 6, or wait: aiinfra run ... --wait 30min" in said
    assert limits.room(8, 1, HERE) == 6, "no more is kept warm than others leave"
    session = Session(HERE)
    with pytest.raises(BusyError):
        session.launch("training", spec_of("training", {"nodes": 7}))
    assert session.pool is None


def test_who_waits_goes_on_when_there_is_room_and_in_turn(neighbour: psutil.Process, runs: Path) -> None:
    code = """
import sys, time
from aiinfra_widgets.machine.limits import wait_for_room
from aiinfra_widgets.machine.profile import Machine
wait_for_room(7, Machine("here", "now", 2, 2**35), 60, lambda why: print(why, flush=True))
print("goes on", time.monotonic(), flush=True)
time.sleep(float(sys.argv[1]))
"""
    waiting = []
    for _ in range(2):
        waiting.append(subprocess.Popen([sys.executable, "-c", code, "0"], stdout=subprocess.PIPE, text=True))
        assert STRANGER in waiting[-1].stdout.readline()  # type: ignore[union-attr]
    assert [p.name() for p in [psutil.Process(w.pid) for w in waiting]] == [neighbours.WAITING] * 2
    for one in neighbour.children():
        one.kill()  # the script ends with its sleep
    ends = [w.communicate(timeout=60)[0].splitlines() for w in waiting]
    times = [float(lines[-1].split()[-1]) for lines in ends]
    assert all(lines[-1].startswith("goes on") for lines in ends)
    assert times[0] < times[1], "the younger lets the older go first"


def test_waiting_ends_with_the_reason_and_does_not_begin_for_what_never_fits(neighbour: psutil.Process) -> None:
    told: list[str] = []
    with pytest.raises(BusyError, match=f"10 by {STRANGER}"):
        limits.wait_for_room(7, HERE, 0.0, told.append)
    with pytest.raises(AdmissionError, match="1 to 16") as refused:
        limits.wait_for_room(17, HERE, 3600.0, told.append)
    assert not isinstance(refused.value, BusyError)
    assert psutil.Process().name() != neighbours.WAITING


def test_a_limit_on_processes_is_seen_before_the_first_rank(stranger: int, runs: Path) -> None:
    """As another user, since root has none; the interpreter is handed over by a right to read, as it may lie in root's home."""
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NPROC, (20, 20))
from aiinfra_widgets.machine.limits import admit
from aiinfra_widgets.machine.profile import Machine
here = Machine("here", "now", 512, 2**40)  # whatever others hold
admit(2, here)
print("two")
admit(4, here)
"""
    until = time.monotonic() + 10  # those of the tests before are on their way out, and count as long as they are there
    while time.monotonic() < until and any(
        p.info["uids"] and p.info["uids"].real == stranger for p in psutil.process_iter(["uids"])
    ):
        time.sleep(0.05)
    done = subprocess.run(
        [*become(stranger), sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no rights to hand over here")
    assert done.stdout == "two\n", done.stderr
    assert (
        "which take some 30 processes and threads; you may have 19 more (ulimit -u is 20, and 1 are in use)"
        in done.stderr
    )
    assert "choose at most 2 nodes, or end other programs" in done.stderr
