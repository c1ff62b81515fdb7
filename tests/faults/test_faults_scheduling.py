"""Ranks of a scheduled run that die: every job still ends exactly once, and trains as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import Any

import pytest

from aiinfra_widgets.errors import LabError
from aiinfra_widgets.experiments.scheduling.jobs import State
from aiinfra_widgets.experiments.scheduling.spec import SchedulingSpec
from aiinfra_widgets.experiments.scheduling.vocabulary import STATES
from aiinfra_widgets.runs.reader import RunReader

#: Three nodes and the scheduler. No job is elastic: then its losses do not depend on when it ran, and where.
VALUES = {
    "nodes": 3, "jobs": 8, "mean_work_s": 0.8, "offered_load": 2.0, "most_demand": 2, "elastic_frac": 0.0, "step_s": 0.005,
    "deadline_factor": 0.0, "workload": "net-10-5-2", "save_every_s": 0.2, "policy": "gang", "quantum_s": 0.3,
    "checkpoint_every_s": 0.3,
}  # fmt: skip
ROOM = 4


def start(owner: Any, **values: Any) -> RunReader:
    """Start a run, and wait until several of its jobs are there."""
    session = owner.sessions[-1] if owner.sessions else owner.session()
    reader = session.launch("scheduling", SchedulingSpec.make({**VALUES, **values}), room=ROOM)
    owner.until(reader, lambda s: s.final or len(reader.kind("submitted")) >= 4)
    return reader


def done(owner: Any, reader: RunReader) -> tuple[dict[int, State], dict[int, float]]:
    """Follow a run to its end, check that nothing is lost, and return how each job ended, and with which loss."""
    now = owner.ended(reader)
    assert now.state == "done", (now, reader.kind("error"))
    nothing_lost(reader)
    jobs = reader.records("jobs")
    ends = {int(r.job): STATES[int(r.state)] for r in jobs.itertuples()}
    return ends, {int(r.job): r.loss for r in jobs.itertuples() if ends[int(r.job)] is State.DONE}


def nothing_lost(reader: RunReader) -> None:
    """Every job has exactly one end, no node had two jobs at once, and every node was given back."""
    submitted = [e["job"] for e in reader.kind("submitted")]
    assert sorted(reader.records("jobs")["job"]) == sorted(submitted)
    assert set(range(1, reader.asked.jobs + 1)) <= set(submitted)
    bars = reader.records("intervals").drop_duplicates(["job", "node", "start_s"], keep="last")
    assert bars["end_s"].notna().all()
    for _, lane in bars.sort_values("start_s").groupby("node"):
        assert (lane["start_s"].to_numpy()[1:] >= lane["end_s"].to_numpy()[:-1] - 1e-9).all()


@pytest.fixture(scope="module")
def undisturbed() -> dict[int, float]:
    """The losses of a run to which nothing happened, once there was one."""
    return {}


def trained_as(undisturbed: dict[int, float], owner: Any, losses: dict[int, float]) -> None:
    """A step that was lost, or done twice, changes the loss of its job."""
    if not undisturbed:
        undisturbed.update(done(owner, start(owner))[1])
        assert len(undisturbed) == 8
    assert losses == {job: undisturbed[job] for job in losses}


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param([2], id="a-node", marks=pytest.mark.slow),
        pytest.param([0], id="the-scheduler"),
        pytest.param([1, 3], id="two-nodes", marks=pytest.mark.slow),
        pytest.param([0, 2], id="both", marks=pytest.mark.slow),
    ],
)
def test_ranks_that_die(owner, undisturbed, victims):
    reader = start(owner)
    for node in victims:
        os.kill(owner.pid(reader, node), signal.SIGKILL)
    ends, losses = done(owner, reader)
    lost = [node for e in reader.kind("rank-lost") for node in e["lost"]]
    assert sorted(lost) == victims
    left = 4 - len(victims)
    assert reader.segments()[-1].spec.nodes == left - 1
    # A survivor schedules now. What needs more nodes than are left is refused with a reason, all else is done.
    wide = {j.job: j.nodes for j in reader.records("jobs").itertuples() if j.nodes > left - 1}
    assert {job for job, end in ends.items() if end is not State.DONE} <= set(wide)
    for event in reader.kind("job-ended"):
        assert event["state"] == "done" or "it needs 2 nodes, the machine has 1 now" in event["reason"]
    trained_as(undisturbed, owner, losses)


@pytest.mark.slow
def test_a_node_broken_on_request_while_the_run_is_paused(owner, undisturbed):
    reader = start(owner)
    session = owner.sessions[-1]
    for verb, arguments in (("pause", {}), ("break", {"node": 1}), ("resume", {})):
        asked = session.ask(reader, verb=verb, arguments=arguments)
        if verb != "break":
            owner.until(reader, lambda s, asked=asked: reader.answer(asked.id))
    ends, losses = done(owner, reader)
    assert set(ends.values()) == {State.DONE}
    assert [e["lost"] for e in reader.kind("rank-lost")] == [[1]]
    trained_as(undisturbed, owner, losses)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nodes_die_while_jobs_begin_and_end_all_the_time(owner, seed):
    """Jobs of up to two nodes and 50 ms, a new policy now and then, and two deaths close together: nobody else is lost."""
    rng = random.Random(seed)
    quick = {"jobs": 60, "mean_work_s": 0.05, "work_scv": 0.0, "nodes": 5, "policy": "fifo", "window_s": 0.05}
    session = owner.session()
    reader = session.launch("scheduling", SchedulingSpec.make({**VALUES, **quick}), room=6)
    owner.until(reader, lambda s: s.final or len(reader.kind("submitted")) >= 4)
    for policy in ("gang", "srtf"):
        session.ask(reader, {"policy": policy})
    time.sleep(rng.uniform(0.0, 0.1))
    victims = rng.sample(range(1, 6), 2)
    for node in victims:
        os.kill(owner.pid(reader, node), signal.SIGKILL)
        time.sleep(rng.uniform(0.0, 0.02))
    with contextlib.suppress(LabError):  # the run may be over
        session.ask(reader, verb="submit", arguments={"nodes": 3, "work_s": 0.1})
    ends, _ = done(owner, reader)
    assert set(ends.values()) == {State.DONE}
    assert sorted(node for e in reader.kind("rank-lost") for node in e["lost"]) == sorted(victims)


@pytest.mark.slow
def test_everything_dies_and_the_run_is_resumed(owner, undisturbed):
    reader = start(owner)
    owner.until(reader, lambda s: reader.kind("checkpoint") and reader.kind("job-ended"))
    session = owner.sessions[-1]
    os.kill(session.pool.state["mpiexec_pid"], signal.SIGKILL)
    now = owner.ended(reader)
    assert now.state == "failed"
    before = reader.records("jobs")["job"].tolist()
    time.sleep(0.5)
    again = session.resume(reader.run, room=ROOM)
    owner.resumed(again)
    ends, losses = done(owner, again)
    assert set(ends.values()) == {State.DONE}
    assert set(before) <= set(losses)
    trained_as(undisturbed, owner, losses)
