"""Scheduling on real ranks: the order that was predicted, the same training whatever happens to a job, and nothing lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest

from aiinfra_widgets.errors import LabError
from aiinfra_widgets.experiments.scheduling.jobs import State
from aiinfra_widgets.experiments.scheduling.spec import POLICIES, SchedulingSpec
from aiinfra_widgets.experiments.scheduling.vocabulary import STATES
from aiinfra_widgets.launch import local
from aiinfra_widgets.launch.session import watch
from aiinfra_widgets.runs.reader import RunReader

#: Three nodes and the scheduler: the pool of this folder.
ROOM = 4
SMALL = {"nodes": 3, "workload": "net-10-5-2", "step_s": 0.005, "hour_s": 0.3, "quantum_s": 0.3, "deadline_factor": 0.0}
PATIENCE_S = 60.0


class Runs:
    """Starts runs of SMALL in the folder's pool, asks things of them, and checks what they leave."""

    def __init__(self, lab: Any) -> None:
        self.lab, self.session = lab, lab.session

    def start(self, **values: Any) -> RunReader:
        """Start a run, and wait until it goes on."""
        reader = self.session.launch("scheduling", SchedulingSpec.make({**SMALL, **values}), room=ROOM)
        self.lab.started.append(reader)
        self.lab.ticked(reader, 1)
        return reader

    def ask(self, reader: RunReader, changes: Mapping[str, Any] | None = None, verb: str = "", **arguments: Any) -> Any:
        """Ask, and return the answer."""
        return self.lab.answer(reader, self.session.ask(reader, changes, verb=verb, arguments=arguments).id)

    def happened(self, reader: RunReader, **fields: Any) -> None:
        """Wait until there is an event with these fields."""
        self.lab.until(reader, lambda s: any(fields.items() <= e.items() for e in reader.events))

    def done(self, reader: RunReader) -> RunReader:
        """Follow a run to its end, and check that nothing is lost."""
        now = self.lab.end(reader)
        assert now.state == "done", (now, reader.kind("error"))
        nothing_lost(reader)
        return reader


@pytest.fixture
def runs(lab: Any) -> Runs:
    """See Runs."""
    return Runs(lab)


def nothing_lost(reader: RunReader) -> None:
    """Every job has exactly one end, no node had two jobs at once, and every node was given back."""
    submitted = [e["job"] for e in reader.kind("submitted")]
    ended = reader.records("jobs")["job"].astype(int).tolist()
    assert sorted(ended) == sorted(submitted)
    assert len(set(submitted)) == len(submitted)
    assert set(range(1, reader.asked.jobs + 1)) <= set(submitted)
    bars = reader.records("intervals")
    newest = bars.drop_duplicates(["job", "node", "start_s"], keep="last")
    assert newest["end_s"].notna().all()
    for _, lane in newest.sort_values("start_s").groupby("node"):
        assert (lane["start_s"].to_numpy()[1:] >= lane["end_s"].to_numpy()[:-1] - 1e-9).all()


def states(reader: RunReader) -> dict[int, State]:
    """How every job ended."""
    return {int(r.job): STATES[int(r.state)] for r in reader.records("jobs").itertuples()}


def losses(reader: RunReader) -> dict[int, float]:
    """The last loss of each job that was done: a step that was lost, or done twice, changes it."""
    return {int(r.job): r.loss for r in reader.records("jobs").itertuples() if STATES[int(r.state)] is State.DONE}


# --- as predicted
#: Each policy starts these in an order of its own, the same one when every start takes 0.2 s longer than it should.
TRACE = """submit_s,work_s,accelerators,priority,estimate_s
0.0,0.8,2,6,1.6
0.2,0.4,2,0,0.8
0.4,0.8,2,6,0.8
0.5,0.4,1,4,0.4
0.5,0.3,2,8,0.3
"""


@pytest.mark.parametrize("policy", ["fifo", "priority", "sjf", "srtf", "easy", "gang"])
def test_jobs_start_in_the_predicted_order(runs, tmp_path, policy):
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    reader = runs.done(runs.start(policy=policy, quantum_s=0.4, trace_file=str(file), trace_speedup=1.0, jobs=5))
    [segment] = reader.segments()
    planned = segment.prediction.extra["intervals"]
    first = {
        job: min(s for j, s in zip(planned["job"], planned["start_s"], strict=True) if j == job) for job in range(1, 6)
    }
    jobs = reader.records("jobs").sort_values(["start_s", "job"])
    assert jobs["job"].tolist() == sorted(first, key=lambda job: (first[job], job))
    assert states(reader) == dict.fromkeys(range(1, 6), State.DONE)
    assert segment.values["jobs_done"].value == segment.prediction.get("jobs_done")
    # A step is never shorter than asked for, so no job is faster than its work.
    assert (jobs["held_node_s"] >= jobs["work_s"] * jobs["nodes"] - 1e-6).all()
    held_s = reader.records("intervals").dropna().eval("end_s - start_s").sum()
    assert held_s == pytest.approx(jobs["held_node_s"].sum(), abs=1e-6)
    if policy in {"srtf", "gang"}:
        assert jobs["segments"].max() > 1


# --- a job trains the same, whatever happens to it
STREAM = {
    "jobs": 8,
    "mean_work_s": 0.8,
    "offered_load": 1.5,
    "most_demand": 2,
    "elastic_frac": 0.0,
    "save_every_s": 0.2,
}


def test_no_step_is_lost_or_done_twice_whatever_happens_to_a_job(runs):
    alone = losses(runs.done(runs.start(**STREAM)))
    assert set(alone) == set(range(1, 9))
    reader = runs.start(**STREAM, policy="gang")
    for changes in ({"policy": "srtf"}, {"nodes": 2}, {"policy": "gang", "quantum_s": 0.1}, {"nodes": 3}):
        assert runs.ask(reader, changes)["kind"] == "applied"
    assert runs.ask(reader, verb="pause")["kind"] == "applied"
    assert runs.ask(reader, verb="resume")["kind"] == "applied"
    now = runs.session.stop(reader, wait_s=PATIENCE_S)
    assert now.state == "stopped", now
    before = states(reader)
    assert len(before) < 8
    again = runs.session.resume(reader.run, room=ROOM)
    runs.lab.started.append(again)
    runs.done(again)
    assert losses(again) == alone
    assert again.records("jobs")["segments"].max() > 1
    assert {job: states(again)[job] for job in before} == before
    assert [s.spec.nodes for s in again.segments()] == [3, 3, 2, 2, 3, 3]
    # The clock of the run stands still while it is paused or stopped: no bar is longer than its job's work would have it.
    assert again.records("intervals")["end_s"].max() < 60.0


# --- verbs
def test_what_is_asked_of_a_job_is_done_or_refused_with_a_reason(runs):
    reader = runs.start(jobs=1, mean_work_s=0.2, work_scv=0.0, open_s=3.0, nodes=2, most_demand=1)
    for arguments in (
        {"nodes": 2, "work_s": 20.0},
        {"work_s": 30.0},
        {"work_s": 5.0, "after": 2},
        {"nodes": 2, "work_s": 0.1},
    ):
        assert runs.ask(reader, verb="submit", **arguments)["kind"] == "applied"
    runs.happened(reader, kind="job-ended", job=1)
    refused = {
        "submit: nodes is 200; this machine takes 15 at most": ("submit", {"nodes": 200}),
        "due_in_s is -3 s, which has passed; give a time to come": ("submit", {"due_in_s": -3.0}),
        "submit: after is 77, and there is no such job yet; the last one is 5": ("submit", {"after": 77}),
        "cancel: there is no job 77; the last one is 5": ("cancel", {"job": 77}),
        "end: job 1 has ended: it is done; nothing can change that": ("end", {"job": 1}),
        "break: there is no node 9; there are [1, 2]": ("break", {"node": 9}),
    }
    for says, (verb, arguments) in refused.items():
        answer = runs.ask(reader, verb=verb, **arguments)
        assert answer["kind"] == "refused"
        assert says in answer["reason"]
    # 2 runs on both nodes. Without it 3 could start, but 5, which needs both too, is more important by now.
    assert runs.ask(reader, {"policy": "priority"})["kind"] == "applied"
    assert runs.ask(reader, verb="priority", job=5, priority=9.0)["kind"] == "applied"
    assert runs.ask(reader, verb="end", job=2)["kind"] == "applied"
    runs.happened(reader, kind="job-ended", job=5)
    time.sleep(0.2)  # 3 has started by now: it is told to leave its node
    assert runs.ask(reader, verb="cancel", job=3)["kind"] == "applied"
    runs.done(reader)
    S = State
    assert states(reader) == {1: S.DONE, 2: S.KILLED, 3: S.CANCELLED, 4: S.REFUSED, 5: S.DONE}
    why = {e["job"]: e["reason"] for e in reader.kind("job-ended")}
    assert why[4] == "it depends on job 2, which is killed"
    start_s = reader.records("jobs").set_index("job")["start_s"]
    assert start_s[2] < start_s[5] < start_s[3]


def test_a_job_that_does_not_fit_waits_for_nodes_and_is_not_forgotten(runs):
    reader = runs.start(jobs=1, mean_work_s=0.1, work_scv=0.0, most_demand=1, nodes=1, open_s=2.0)
    for nodes in (3, 4):
        assert runs.ask(reader, verb="submit", nodes=nodes, work_s=0.1)["kind"] == "applied"
    assert runs.ask(reader, {"nodes": 3})["kind"] == "applied"
    runs.done(reader)
    assert states(reader) == {1: State.DONE, 2: State.DONE, 3: State.REFUSED}
    [last] = [e for e in reader.kind("job-ended") if e["job"] == 3]
    assert last["reason"] == "the run is over; it needs 4 nodes, the machine has 3 now"


# --- random sequences
def random_request(rng: random.Random, known: list[int]) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Something that a user might ask for, of a job that there may be."""
    job = rng.choice([*known[-8:], rng.randint(1, 40)])
    work = {
        "work_s": rng.choice([0.05, 0.3, 1.0]),
        "after": rng.choice([0, 0, job]),
        "due_in_s": rng.choice([0.0, 2.0]),
    }
    return rng.choices(
        [
            ({}, "submit", {"nodes": rng.randint(1, 4), "priority": rng.randint(0, 9), **work}),
            ({}, rng.choice(["cancel", "end"]), {"job": job}),
            ({}, "priority", {"job": job, "priority": rng.randint(0, 20)}),
            ({"policy": rng.choice(POLICIES)}, "", {}),
            ({"nodes": rng.randint(1, 3)}, "", {}),
            ({}, "pause", {}),
        ],
        [6, 5, 3, 5, 4, 1],
    )[0]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nothing_is_lost_over_a_random_sequence(runs, seed):
    """Requests come as they come, many within one window; some are refused, for the job has ended or is not there yet."""
    rng = random.Random(seed)
    reader = runs.start(jobs=14, mean_work_s=0.5, most_demand=4, step_s=0.01, open_s=1.5, seed=seed, save_every_s=0.2)
    asked = []
    for _ in range(40):
        reader.poll()
        known = [e["job"] for e in reader.kind("submitted")]
        changes, verb, arguments = random_request(rng, known)
        try:
            asked.append(runs.session.ask(reader, changes, verb=verb, arguments=arguments))
            time.sleep(rng.choice([0.0, 0.02, 0.1, 0.25]))
            if verb == "pause":
                asked.append(runs.session.ask(reader, verb="resume"))
        except LabError:
            assert list(watch(reader, until=lambda s: True))[-1].final  # the stream was through before the sequence was
            break
    runs.done(reader)
    over_s = reader.kind("end")[-1]["wall_s"]
    assert all(reader.answer(request.id) for request in asked if request.asked_at_s < over_s - 0.5)
    assert len(asked) > 20


# --- the members of a job, where a death becomes known
PROGRAM = """
import os, random, sys, time
import numpy as np
from mpi4py import MPI
from aiinfra_widgets.ranks.collectives import recursive_doubling
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.ranks.members import Members

def say(text):
    sys.stdout.write(f"<rank {world.rank} {text}>")
    sys.stdout.flush()

world, link = MPI.COMM_WORLD, InjectedLink()
comm = world.Dup()
comm.Set_errhandler(MPI.ERRORS_RETURN)
rng = random.Random(world.rank)
for members in ([2, 1], [3, 1, 2], [2, 3], [1]):  # one after the other, for some of them without a break
    if comm.rank in members:
        mine = np.full(999, 0.1 * comm.rank, np.float32)
        among = Members(comm, members)
        assert (among.size, members[among.rank]) == (len(members), comm.rank)
        recursive_doubling(among, mine, link)
        say(f"{members} {mine.min():.7f} {mine.max():.7f}")

# 40 times a death becomes known at any moment of jobs that begin, train and end.
for turn in range(40):
    world.Barrier()
    until_s = time.monotonic() + rng.uniform(0.0, 0.004)
    try:
        if comm.rank == 0:
            while time.monotonic() < until_s:
                comm.Iprobe(MPI.ANY_SOURCE, 84)
            comm.Revoke()
        while comm.rank:
            for members in ([1, 2, 3], [2, 1], [3, 2]):
                if comm.rank in members:
                    recursive_doubling(Members(comm, members), np.ones(50, np.float32), link)
    except MPI.Exception:
        pass
    comm = comm.Shrink()
    comm.Set_errhandler(MPI.ERRORS_RETURN)

# 3 dies; 1 waits for it, and 2 for 1, which will not come any more.
world.Barrier()
if world.rank == 3:
    os.kill(os.getpid(), 9)
try:
    if world.rank:
        recursive_doubling(Members(comm, [1, 3] if world.rank == 1 else [2, 1]), np.ones(50, np.float32), link)
except MPI.Exception:
    say("knows")
comm.Revoke()
say(f"has {comm.Shrink().size}")
os._exit(0)
"""


def test_who_waits_for_a_member_learns_of_a_death(repo, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    argv = local.command(4, [], local.mpiexec())
    argv = [*argv[: argv.index(sys.executable) + 1], "-m", "mpi4py", str(tmp_path / "program.py")]
    done = subprocess.run(
        argv, cwd=repo, env=local.environment(os.environ, 1), capture_output=True, text=True, timeout=60, check=False
    )
    sums = {"[2, 1]": (0.3, (1, 2)), "[3, 1, 2]": (0.6, (1, 2, 3)), "[2, 3]": (0.5, (2, 3)), "[1]": (0.1, (1,))}
    lines = [f"<rank {n} {who} {x:.7f} {x:.7f}" for who, (x, ranks) in sums.items() for n in ranks]
    lines += ["<rank 1 knows", "<rank 2 knows", *(f"<rank {n} has 3" for n in (0, 1, 2))]
    assert sorted(done.stdout.split(">")[:-1]) == sorted(lines), done.stdout + done.stderr[-2000:]
