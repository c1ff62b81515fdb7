"""Processes beside the ranks: how they are started and ended, and what the run says when one dies."""

from __future__ import annotations

import os
import signal
import textwrap
import time

import psutil
import pytest

from aiinfra_widgets.experiment import Companion, experiment
from aiinfra_widgets.launch import companions
from aiinfra_widgets.launch.companions import Companions, declared
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import status
from aiinfra_widgets.runs.writer import EventWriter

HERE = Machine("here", "2026-01-01", 2, 8 * 2**30)
#: What the companions of these tests do.
STAYS = """
    import os, signal, sys, time
    print("up", *sys.argv[1:], os.environ.get("PMIX_RANK"), flush=True)
    time.sleep(600)
"""
FAILS = """
    print("why it failed", flush=True)
    raise SystemExit(3)
"""
IS_DONE = "print('done')"
STUBBORN = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time, signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""


class Beside:
    """Companions of one run, each a module of its own that is written for the test."""

    def __init__(self, folder, runs):
        self.folder = folder
        self.run = layout.create(runs, "training", experiment("training").spec.make({"workload": "net-10-5-2"}), HERE)
        self.event = EventWriter(self.run, 0, "launch")
        self.companions = Companions(self.run, 0, self.event)
        self.reader = RunReader(self.run)

    def start(self, **sources):
        """Start companions by name and source."""
        for name, source in sources.items():
            (self.folder / f"companion_{name}.py").write_text(textwrap.dedent(source))
        self.companions.start([Companion(name, f"companion_{name}") for name in sources])

    def until(self, kind, count=1):
        """Watch until there are `count` events of a kind, and return them."""
        end = time.monotonic() + 60
        while self.reader.poll_events() or len(self.reader.kind(kind)) < count:
            self.companions.watch()
            assert time.monotonic() < end, f"waited in vain for {count} {kind}: {self.reader.events}"
            time.sleep(0.01)
        return self.reader.kind(kind)

    def printed(self, name):
        """Wait for a whole line in a companion's log, and return the log."""
        log, end = self.run.log(0, name), time.monotonic() + 60
        while "\n" not in (text := log.read_text()):
            assert time.monotonic() < end, f"{name} prints nothing"
            time.sleep(0.01)
        return text


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """See Beside."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PMIX_RANK", "7")
    monkeypatch.setattr(companions, "STOP_S", 1.0)
    found = Beside(tmp_path, tmp_path / "runs")
    yield found
    found.companions.stop()
    found.event.close()


def lives(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def ends(pid):
    """Wait until a process that was killed, and that is no child of ours, is gone."""
    end = time.monotonic() + 30
    while lives(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_companion_is_told_the_run_and_prints_to_its_own_log(beside):
    beside.start(front=STAYS, tool=STAYS)
    pids = {e["name"]: e["pid"] for e in beside.until("companion-started", 2)}
    assert pids.keys() == {"front", "tool"}
    assert beside.printed("tool").split() == [
        "up",
        str(beside.run.path),
        "0",
        "None",
    ]  # and no variable of another launcher
    beside.companions.stop()
    assert not any(map(lives, pids.values()))
    assert beside.until("companion-started", 2) == beside.reader.events  # ended with its run: nothing to report


def test_one_that_dies_is_started_once_more_and_then_left(beside):
    beside.start(front=STAYS)
    [first] = beside.until("companion-started")
    os.kill(first["pid"], signal.SIGKILL)
    [ended] = beside.until("companion-ended")
    assert (ended["name"], ended["exit_code"], ended["restarted"]) == ("front", -9, True)
    assert ended["message"] == "companion front was killed by signal 9; it is started once more"
    second = beside.until("companion-started", 2)[1]
    os.kill(second["pid"], signal.SIGKILL)
    ended = beside.until("companion-ended", 2)[1]
    assert (ended["exit_code"], ended["restarted"]) == (-9, False)
    assert ended["message"].endswith("; the run goes on without it")
    assert len(beside.until("companion-started", 2)) == 2


def test_the_run_says_the_exit_code_and_the_last_output(beside):
    beside.start(front=FAILS)
    ended = beside.until("companion-ended", 2)
    assert [(e["exit_code"], e["restarted"]) for e in ended] == [(3, True), (3, False)]
    assert "why it failed" in ended[0]["tail"]
    assert status(beside.reader).state != "failed"  # the ranks do not depend on it


def test_a_module_that_is_not_there_is_reported_with_pythons_own_words(beside):
    beside.companions.start([Companion("front", "no_such_module")])
    assert "No module named no_such_module" in beside.until("companion-ended", 2)[1]["tail"]


def test_one_that_is_done_is_not_started_again(beside):
    beside.start(tool=IS_DONE)
    [ended] = beside.until("companion-ended")
    assert (ended["exit_code"], ended["restarted"], ended["message"]) == (
        0,
        False,
        "companion tool ended with exit code 0",
    )


def test_one_that_does_not_listen_is_killed_with_what_it_started(beside):
    beside.start(front=STUBBORN)
    [started] = beside.until("companion-started")
    child = int(beside.printed("front"))
    beside.companions.stop()
    assert not lives(started["pid"])
    ends(child)


def test_what_a_dead_one_left_of_its_group_is_killed_too(beside):
    beside.start(front=STUBBORN)
    [started] = beside.until("companion-started")
    child = int(beside.printed("front"))
    os.kill(started["pid"], signal.SIGKILL)
    beside.until("companion-ended")
    ends(child)


@pytest.mark.parametrize("name", ["launch", "owner", "7", "a-b", "../x", "", "A", "x" * 33])
def test_a_name_that_would_be_taken_for_another_file_is_refused(beside, name):
    beside.companions.start([Companion(name, "companion_x")])
    [event] = beside.until("companion-failed")
    assert repr(name) in event["message"]
    assert beside.reader.kind("companion-started") == []


def test_two_of_one_name_are_refused(beside):
    beside.start(front=STAYS)
    beside.start(front=STAYS)
    assert "the name is taken" in beside.until("companion-failed")[0]["message"]
    assert len(beside.reader.kind("companion-started")) == 1


def test_one_whose_heart_stands_still_is_named_once_and_once_more_when_it_is_back(beside):
    beside.start(front=STAYS, tool=STAYS)  # the tool has no heartbeat, so nobody waits for it
    beat = beside.run.heartbeat(0, "front")
    beat.touch()
    then = time.time() - 60
    os.utime(beat, (then, then))
    [silent] = beside.until("companion-silent")
    assert silent["name"] == "front"
    beat.touch()
    [back] = beside.until("companion-back")
    assert back["name"] == "front"
    assert len(beside.reader.kind("companion-silent")) == 1


def test_files_of_a_companion_do_not_disturb_who_reads_the_run(beside):
    EventWriter(beside.run, 0, "front")("front-ready", url="http://127.0.0.1:1")
    (beside.run.path / "samples" / "0-front.csv").write_text("tick,t_s,nodes,segment,loss\n1,1.0,1,0,0.5\n")
    (beside.run.path / "records" / "0-front-requests.csv").write_text("t_s,segment,id\n1.0,0,1\n")
    beside.reader.poll()
    assert [e["by"] for e in beside.reader.kind("front-ready")] == ["front"]
    assert len(beside.reader.ticks) == 0
    assert beside.run.incarnations() == 1


class Asks:
    """An experiment that wants a companion for each node."""

    def __init__(self, real):
        self.spec = real.spec

    def companions(self, spec):
        return tuple(Companion(f"c{i}", "m") for i in range(spec.nodes))


def test_what_is_declared_follows_the_spec_of_the_job_or_the_last_one(beside, monkeypatch):
    real = experiment("training")
    assert declared(beside.run, {}, beside.event) == ()
    monkeypatch.setattr(companions, "experiment", lambda name: Asks(real))
    monkeypatch.setattr(RunReader, "spec", real.spec.make({"nodes": 2}))
    job = {"spec": real.spec.make({"nodes": 3}).model_dump()}
    assert [c.name for c in declared(beside.run, job, beside.event)] == ["c0", "c1", "c2"]
    assert [c.name for c in declared(beside.run, {}, beside.event)] == ["c0", "c1"]


def test_an_experiment_that_fails_to_declare_takes_nobody_along(beside, monkeypatch):
    monkeypatch.setattr(companions, "experiment", lambda name: 1 / 0)
    assert declared(beside.run, {}, beside.event) == ()
    assert "ZeroDivisionError" in beside.until("companion-failed")[0]["message"]
