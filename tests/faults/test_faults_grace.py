"""The grace of a run whose owner died, while the wall clock is set: it lasts as long as it was to last, whatever the clock says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.status import status

#: A kernel: launches with a grace and then only waits.
KERNEL = """
import sys, time
from aiinfra_widgets.launch.session import Session, spec_of
session = Session(grace_s=float(sys.argv[1]))
spec = spec_of("training", {"workload": "net-10-5-2", "nodes": 2, "steps": 10**7, "evaluate_every": 0, "checkpoint_every_s": 0.2})
print(session.launch("training", spec, room=2).run.path, flush=True)
time.sleep(600)
"""
#: Another kernel, started by the new clock: takes the run over, waits until it has done a hundred ticks more, and stops it.
HEIR = """
import json
from aiinfra_widgets.launch.session import Session, watch
session = Session(grace_s=0.0)
reader = session.attach()
reader.poll()
reached = lambda: max(row["tick"] for row in reader.latest().values())
then = reached() + 100
for now in watch(reader, until=lambda s: s.final or reached() >= then):
    pass
print(json.dumps([now.state, session.stop(reader, wait_s=30).state]))
"""
DAY_S = 86_400


def orphaned(owner, env, grace_s):
    """Start a run whose owner is a process of its own, by its clock, and kill that one; return the reader and when."""
    process = subprocess.Popen([sys.executable, "-c", KERNEL, str(grace_s)], stdout=subprocess.PIPE, text=True, env=env)
    owner.processes.append(process)
    reader = owner.newest()
    owner.ticked(reader, 20)
    process.kill()
    process.wait()
    return reader, time.monotonic()


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A file with the seconds that the wall clock of the run's processes is ahead."""
    file = tmp_path / "ahead"
    file.write_text("0")
    return file


@pytest.mark.parametrize(
    ("grace_s", "jumps"),
    [
        (3.0, (DAY_S,)),
        pytest.param(3.0, (-DAY_S,), marks=pytest.mark.slow),
        pytest.param(60.0, (DAY_S, -3600, 0), marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
    ids=str,
)
def test_a_clock_that_is_set_neither_shortens_nor_prolongs_the_grace(owner, loaded, clock, grace_s, jumps):
    env = loaded("jumping_clock", AIINFRA_TEST_CLOCK=str(clock))
    reader, gone_s = orphaned(owner, env, grace_s)
    for number, ahead in enumerate(jumps, 1):
        clock.write_text(str(ahead))
        while time.monotonic() < gone_s + 0.7 * grace_s * number / len(jumps):
            reader.poll()
            assert not status(reader).final, (ahead, status(reader))
            time.sleep(0.05)
        newest = max(reader.events, key=lambda e: e["t_s"])["wall_s"]
        assert abs(newest - time.time() - ahead) < 60, "no clock was set"
    now = owner.until(reader, lambda s: s.final, grace_s + 30)
    lasted_s = next(e["t_s"] for e in reversed(reader.events) if e["kind"] == "end") - gone_s
    print(f"grace of {grace_s:g} s lasted {lasted_s:.2f} s")
    assert grace_s - 0.5 < lasted_s < grace_s + 15  # the end writes a checkpoint first
    assert now.state == "interrupted"
    assert f"nobody took the run over in {grace_s:.0f} s" in now.message
    assert checkpoint.load(reader.run)[0]["tick"] == reader.ticks["tick"].max()
    assert not [e for e in reader.kind("alarm") if e["what"] != "straggler"]
    owner.alone()


@pytest.mark.parametrize("ahead", [DAY_S, pytest.param(-DAY_S, marks=pytest.mark.slow)])
def test_within_the_grace_a_run_is_taken_over_by_the_new_clock(owner, loaded, clock, ahead):
    env = loaded("jumping_clock", AIINFRA_TEST_CLOCK=str(clock))
    reader, _ = orphaned(owner, env, 300.0)
    clock.write_text(str(ahead))
    heir = subprocess.run([sys.executable, "-c", HEIR], capture_output=True, text=True, env=env, timeout=90)
    assert heir.returncode == 0, heir.stderr
    assert json.loads(heir.stdout) == ["running", "stopped"]
    reader.poll()
    assert reader.run.incarnations() == 1, "it went on, and was not started again"
    owner.alone()
