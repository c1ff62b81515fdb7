"""A node dies within milliseconds of a resize: the others go on, or the run ends with a reason; it never waits for the dead."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import dying
import killing
import pytest

from aiinfra_widgets.launch import local
from aiinfra_widgets.launch.session import Session
from aiinfra_widgets.runs.status import status

SEED, SIZE, ROOM = 20_261_122, 4, 8
#: A request is looked at within 40 ms, so a node dies some ms before, while or after it is carried out.
WITHIN_S = 0.065
PATIENCE_S = 30.0


def resize_and_kill(session: Session, reader, chance: random.Random, living: set[int]) -> bool:
    """Ask for another node count, kill a node meanwhile, and return whether the others go on; they may also end with a reason."""
    reader.poll()
    now = reader.spec.nodes
    pids = {e["by"]: e["pid"] for e in reader.kind("started")}
    to = chance.choice([n for n in range(1, min(len(living), 6) + 1) if n != now])
    members = reader.kind("segment")[-1]["members"]
    victim = members[0] if chance.random() < 0.3 else chance.choice(sorted(living))
    asked = session.ask(reader, {"nodes": to})
    time.sleep(chance.uniform(0.0, WITHIN_S))
    os.kill(pids[victim], signal.SIGKILL)
    living.discard(victim)
    killed_s = time.monotonic()
    what = f"{now} -> {to} nodes, node {victim} of {members} killed"
    while time.monotonic() - killed_s < PATIENCE_S:
        reader.poll()
        ended = status(reader)
        if ended.final:
            assert ended.state == "failed", (what, ended)
            assert ended.message, what
            return False
        rows = reader.nodes
        after = rows[rows["t_s"] > killed_s + 0.25]["tick"]
        if len(after) and after.max() > after.min() + 5 and reader.answer(asked.id):
            return True
        time.sleep(0.02)
    raise AssertionError(f"{what}: nothing goes on, and nothing is said; {status(reader)}")


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_death_during_a_resize_hangs_nobody(owner, rounds):
    chance, done = random.Random(SEED), 0
    while done < rounds:
        session = owner.session()
        reader, living, goes_on = killing.start(session, SIZE, ROOM), set(range(ROOM)), True
        while goes_on and done < rounds and len(living) > 3 and reader.run.incarnations() == 1:
            goes_on = resize_and_kill(session, reader, chance, living)
            done += 1
        session.close()


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["the-first", "another"])
@pytest.mark.parametrize("place", ["untold", pytest.param("told", marks=pytest.mark.slow)])
def test_a_death_while_the_dead_are_left_behind(owner, tmp_path, monkeypatch, victim, place):
    """Newcomers join after a death only when all the living have left the dead behind, and here one more dies in the middle."""
    dying.arm(tmp_path / "dying", monkeypatch, victim, place)
    session = owner.session()
    reader = killing.start(session, 3, 6)
    os.kill(owner.pid(reader, 5), signal.SIGKILL)
    asked = session.ask(reader, {"nodes": 4})
    killing.wait(reader, lambda: reader.answer(asked.id), "the answer")
    assert [victim] in [e["lost"] for e in reader.kind("rank-lost")]
    left = sorted({0, 1, 2} - {victim})
    assert reader.kind("segment")[-1]["members"] == [*left, 3, 4]
    then = killing.reached(reader)
    killing.wait(reader, lambda: killing.reached(reader) > then + 20, "the ticks after that")


#: Both of two ranks leave a communicator behind while another one, with a lower number, is in the making on the first of them.
PROGRAM = """
import os
from mpi4py import MPI
from aiinfra_widgets.ranks.failures import living
first, later = MPI.COMM_WORLD.Dup(), MPI.COMM_WORLD.Dup()
if first.rank == 0:
    _, begun = first.Idup()
    for _ in range(1000):
        begun.Test()
os.write(1, f"{living(later).size} ".encode())
os._exit(0)
"""


def test_a_communicator_that_was_broken_off_in_the_making_holds_up_no_other(tmp_path):
    """As a death may leave it; `Shrink` alone waits for ever here (Open MPI 5.0)."""
    (tmp_path / "program.py").write_text(PROGRAM)
    argv = local.command(2, [], local.mpiexec())
    argv = [*argv[: argv.index("-m")], "-m", "mpi4py", str(tmp_path / "program.py")]
    done = subprocess.run(argv, env=local.environment(os.environ, 1), capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "2"], done.stderr
