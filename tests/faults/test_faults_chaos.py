"""Faults on purpose: each does for real what its sentence says, is an event of the run, and the watchdog names what it must name."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from aiinfra_widgets import faults
from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.runs.watchdog import out_of_memory_kills

GROUPS = Path("/sys/fs/cgroup/memory")


class Breaker:
    """Breaks things in one run and follows what comes of it."""

    def __init__(self, owner, reader):
        self.owner, self.reader, self.session = owner, reader, owner.sessions[-1]

    def fault(self, kind, **arguments):
        """Ask for a fault, and wait until its node has said that it does it; the event."""
        asked = self.session.ask(self.reader, verb="fault", arguments={"kind": kind, **arguments})
        self.until(lambda: self.of("fault", asked.id) or self.of("fault-failed", asked.id))
        assert not self.of("fault-failed", asked.id)
        return self.of("fault", asked.id)[0]

    def of(self, kind, request):
        return [e for e in self.reader.kind(kind) if e["request"] == request]

    def over(self, event):
        self.until(lambda: self.of("fault-over", event["request"]))

    def until(self, true):
        self.owner.until(self.reader, lambda _: true())

    def refused(self, **arguments):
        asked = self.session.ask(self.reader, verb="fault", arguments=arguments)
        self.until(lambda: self.reader.answer(asked.id))
        answer = self.reader.answer(asked.id)
        assert answer["kind"] == "refused"
        return answer["reason"]

    def goes_on(self):
        tick = max(int(row["tick"]) for row in self.reader.latest().values())
        self.owner.ticked(self.reader, tick + 20)

    def alarm(self, what, since):
        """Wait for an alarm after `since` alarms."""
        self.until(lambda: [e for e in self.reader.kind("alarm")[since:] if e["what"] == what])
        return next(e for e in self.reader.kind("alarm")[since:] if e["what"] == what)


def test_what_passes_is_named_and_passes(owner):
    b = Breaker(owner, owner.start(3, nodes=2))
    stop = b.fault("stop", node=1, seconds=9.0)
    alarm = b.alarm("stalled", 0)
    assert alarm["nodes"] == [1]  # both are silent; this one was stopped
    assert f"its process {owner.pid(b.reader, 1)} was stopped (SIGSTOP)" in alarm["message"]
    assert alarm["next_step"].startswith("kill -CONT ")
    assert alarm["t_s"] - stop["t_s"] <= 10.0  # the promise of the issue, by the run's own clock
    b.over(stop)
    b.until(lambda: b.reader.kind("alarm-over"))
    b.goes_on()

    heard = len(b.reader.kind("alarm"))
    slow = b.fault("slow", node=0, share=0.9, seconds=60.0)
    alarm = b.alarm("straggler", heard)
    assert alarm["nodes"] == [0]
    assert alarm["excess_s"] > 0
    link = b.fault("link", node=1, seconds=1.0, latency_s=0.003)
    b.over(link)
    cut = b.fault("cut", node=1, seconds=1.0)
    b.over(cut)
    assert b.of("fault-over", cut["request"])[0]["t_s"] - cut["t_s"] >= 0.9
    rows = b.reader.nodes
    late = rows[(rows["node"] == 1) & (rows["tick"] > link["tick"] + 1)]["injected_time_s"]
    assert late.max() > 0.5  # a message waited until the cut was over
    assert (late >= 0.003).sum() >= 5  # and before that, each was late
    b.goes_on()

    disk = b.fault("disk", node=0, seconds=0.5, size_bytes=2**20)
    assert disk["taken_bytes"] == 2**20
    b.over(disk)
    b.until(lambda: not list(b.reader.run.work.glob(".fault-*")))
    assert not b.of("fault-over", slow["request"])

    assert "node: got 2; " in b.refused(kind="kill", node=2)  # it idles
    killed = b.fault("kill", node=1)
    assert killed["pid"] == owner.pid(b.reader, 1)
    b.until(lambda: b.reader.kind("resized"))
    assert b.reader.kind("resized")[0]["spare"] == [2]
    assert b.reader.kind("segment")[-1]["members"] == [0, 2]
    b.goes_on()
    now = owner.until(b.reader, lambda s: s.state == "running")
    assert "node 1 died; node 2 took its place at step " in now.message
    b.session.ask(b.reader, {"nodes": 1})
    owner.until(b.reader, lambda _: b.reader.spec.nodes == 1)
    assert "one node has no link" in b.refused(kind="cut")
    assert b.session.stop(b.reader, wait_s=30).state == "stopped"


def test_nan_ends_the_run_at_its_step_and_never_reaches_a_checkpoint(owner):
    b = Breaker(owner, owner.start(2, nodes=2, checkpoint_every_s=0.05))
    b.until(lambda: b.reader.kind("checkpoint"))
    poisoned = b.fault("nan", node=1)
    now = owner.ended(b.reader)
    assert now.state == "failed"
    alarm = b.reader.kind("alarm")[-1]
    assert (alarm["what"], alarm["tick"]) == ("nan", poisoned["tick"] + 1)
    assert f"the loss is nan at step {alarm['tick']}" in alarm["message"]
    meta, arrays = checkpoint.load(b.reader.run)
    assert meta["tick"] <= poisoned["tick"]
    assert all(np.isfinite(array).all() for array in arrays.values())
    again = b.session.resume(b.reader.run, room=2)
    again.poll()
    owner.resumed(again)
    assert again.kind("segment")[-1]["tick"] == meta["tick"]
    b.session.close()


@pytest.mark.parametrize(
    ("kind", "state", "says"),
    [("supervisor", "interrupted", "the launcher is gone"), ("launcher", "failed", "signal 9")],
)
def test_no_rank_outlives_its_launcher(owner, kind, state, says):
    b = Breaker(owner, owner.start(2, nodes=2))
    b.until(lambda: b.reader.kind("checkpoint"))
    assert b.fault(kind, node=1)["by"] == 1
    now = owner.ended(b.reader)
    assert (now.state, says in now.message) == (state, True), now
    assert "resume at step" in now.next_step
    b.session.close()
    owner.alone()


def test_a_disk_of_its_own_is_filled_up_and_the_run_says_so(owner, tmpfs):
    disk = tmpfs(24 * 2**20)
    session = owner.session(runs=disk)
    reader = owner.start(
        2, nodes=2, workload="digits-cnn", global_batch=256
    )  # long steps: it must not fill it by itself
    session.ask(reader, verb="checkpoint")
    owner.until(reader, lambda s: reader.kind("checkpoint"))
    b = Breaker(owner, reader)
    event = b.fault("disk", node=1, seconds=120.0, size_bytes=2**30)
    assert 2**20 < event["taken_bytes"] < 24 * 2**20
    now = owner.ended(b.reader)
    assert now.state == "failed"
    assert "No space left on device" in now.message
    assert np.isfinite(checkpoint.load(b.reader.run)[1]["parameters"]).all()
    for _ in range(200):  # the helper sees that the node is gone, and gives the space back
        if not list(b.reader.run.work.glob(".fault-*")):
            break
        time.sleep(0.05)
    assert not list(b.reader.run.work.glob(".fault-*"))


def test_a_node_killed_for_lack_of_memory_is_named_with_its_size(owner):
    group = GROUPS / f"aiinfra-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group here: {error.strerror}")
    try:
        b = Breaker(owner, owner.start(2, nodes=2))
        b.until(lambda: all(row.get("memory_bytes") for row in b.reader.latest().values()))
        before = out_of_memory_kills()
        (group / "memory.limit_in_bytes").write_text(str(2**17))
        (group / "cgroup.procs").write_text(str(owner.pid(b.reader, 1)))
        b.session.ask(b.reader, {"global_batch": 4096})  # needs more than that
        alarm = b.alarm("out-of-memory", 0)
        assert out_of_memory_kills() > before
        assert alarm["nodes"] == [1]
        assert alarm["memory_bytes"] > 50 * 2**20
        assert "node 1 was killed by the system for lack of memory; it held " in alarm["message"]
        b.goes_on()
    finally:
        for session in owner.sessions:
            session.close()
        owner.alone()
        group.rmdir()


def test_a_command_runs_under_chaos(owner):
    values = ("steps=1500", "workload=net-10-5-2", "evaluate_every=0")
    words = ["run", "training", "--nodes", "2", "--room", "3", *(word for v in values for word in ("--set", v))]
    process = owner.command(*words, "--chaos", "kill:1=0s", "--chaos", "stop:0=0.2s,seconds=0.3", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["status"] == "done"
    events = [json.loads(line) for path in owner.home.glob("runs/*/events/*") for line in path.read_text().splitlines()]
    assert sorted(e["fault"] for e in events if e["kind"] == "fault") == ["kill", "stop"]
    assert [e["lost"] for e in events if e["kind"] == "rank-lost"] == [[1]]
    assert [e["spare"] for e in events if e["kind"] == "resized"] == [[2]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kil=5s", "did you mean 'kill'"), ("kill", "it must say when"), ("kill=", "it must say when"), ("kill=soon", "when"),
        ("kill=-1s", "from 0"), ("kill:x=5s", "node"), ("kill:-2=5s", "from -1"), ("stop=5s,seconds", "write argument=value"),
        ("slow=5s,share=2", "from 0.05 to 0.95"), ("slow=5s,shar=0.5", "no such argument"),
    ],
)  # fmt: skip
def test_chaos_that_cannot_be_read_is_refused_before_anything_starts(text, says):
    with pytest.raises(SpecError) as error:
        faults.parse([text])
    assert says in str(error.value)


def test_chaos_is_read_with_units():
    first, second = faults.parse(["kill=5s", "slow:2=2 min, share=0.8, seconds=500ms"])
    assert (first.fault.kind, first.fault.node, first.after_s) == ("kill", -1, 5.0)
    assert (second.fault.node, second.fault.share, second.fault.seconds, second.after_s) == (2, 0.8, 0.5, 120.0)
