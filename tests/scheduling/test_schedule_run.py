"""What a run and its prediction share: the stream, the step on shared cores, the figures, and what a new scheduler reads."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiinfra_widgets.errors import DataError, ModelInputError, SpecError
from aiinfra_widgets.experiment import Observed
from aiinfra_widgets.experiments.scheduling import Scheduling
from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.holdings import Interval
from aiinfra_widgets.experiments.scheduling.jobs import Job, State
from aiinfra_widgets.experiments.scheduling.journal import Journal, recorded
from aiinfra_widgets.experiments.scheduling.meters import Meters
from aiinfra_widgets.experiments.scheduling.metrics import metrics, tally
from aiinfra_widgets.experiments.scheduling.policies import POLICIES, make_policy
from aiinfra_widgets.experiments.scheduling.scheduler import Scheduler
from aiinfra_widgets.experiments.scheduling.setup import SHORT_S, policy_of, tariff_of, traces_of
from aiinfra_widgets.experiments.scheduling.simulate import simulate
from aiinfra_widgets.experiments.scheduling.spec import POLICIES as OFFERED
from aiinfra_widgets.experiments.scheduling.spec import SchedulingSpec
from aiinfra_widgets.experiments.scheduling.stream import stream
from aiinfra_widgets.experiments.scheduling.values import NAMES
from aiinfra_widgets.experiments.scheduling.vocabulary import INTERVALS, JOBS, METERS, STATES
from aiinfra_widgets.machine.profile import Machine, Probe
from aiinfra_widgets.runs.layout import RunDir

UNCALIBRATED = Machine("made-up", "now", 2, 2**33)


def spec(**values: Any) -> SchedulingSpec:
    return SchedulingSpec.make(values)


# --- the stream
def told(jobs: list[Job]) -> list[tuple[Any, ...]]:
    return [(j.id, j.submit_s, j.nodes, j.work_s, j.estimate_s, j.priority, j.user, j.deadline_s) for j in jobs]


def test_the_same_spec_is_the_same_stream_and_another_seed_another():
    assert told(stream(spec(seed=3))) == told(stream(spec(seed=3)))
    assert told(stream(spec(seed=3))) != told(stream(spec(seed=4)))


@pytest.mark.parametrize("load", [0.3, 1.0, 2.5])
def test_the_stream_offers_the_load_that_was_asked_for(load):
    asked = spec(offered_load=load, jobs=50, nodes=4, most_demand=4)
    jobs = stream(asked)
    per_job_s = (jobs[-1].submit_s - jobs[0].submit_s) / (len(jobs) - 1)
    assert sum(j.work_s * j.nodes for j in jobs) / (len(jobs) * per_job_s) == pytest.approx(load * 4)


def test_jobs_are_as_the_spec_says():
    asked = spec(jobs=400, most_demand=8, nodes=8, deadline_factor=5.0, estimate_factor=3.0, elastic_frac=0.3, users=4)
    jobs = stream(asked)
    assert [j.id for j in jobs] == list(range(1, 401))
    assert jobs[0].submit_s == 0.0
    assert all(a.submit_s <= b.submit_s for a, b in pairwise(jobs))
    widths = Counter(j.nodes for j in jobs)
    assert set(widths) == {1, 2, 4, 8}
    assert widths[1] > widths[2] > widths[4] > widths[8]
    for job in jobs:
        steps = job.work_s / asked.step_s
        assert steps == pytest.approx(round(steps))
        assert steps >= 2 - 1e-9
        assert job.work_s <= job.estimate_s <= 3 * job.work_s
        assert job.deadline_s == pytest.approx(job.submit_s + 5 * job.work_s)
        assert 1 <= job.min_nodes <= job.nodes <= job.max_nodes <= 8
    assert 0.2 < sum(j.elastic for j in jobs) / 400 < 0.4
    assert Counter(j.user for j in jobs).most_common(1)[0][0] == "user 1"
    assert {j.deadline_s for j in stream(spec(deadline_factor=0.0))} == {None}


TRACE = "job_id,submit_time,duration,gpu_num,user\n7,100,50,1,ann\n8,110,0,1,ann\n9,130,200,2,bob\n10,130,30,4,ann\n"


def test_a_trace_is_shortened_and_sped_up(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    jobs = stream(spec(trace_file=str(file), trace_speedup=100.0, step_s=0.02))
    assert [(j.id, j.nodes, j.user) for j in jobs] == [(1, 1, "user 1"), (2, 2, "user 2"), (3, 4, "user 1")]
    assert [j.submit_s for j in jobs] == pytest.approx([0.0, 0.3, 0.3])
    assert [j.work_s for j in jobs] == pytest.approx([0.5, 2.0, 0.3])
    assert len(stream(spec(trace_file=str(file), jobs=2))) == 2


def test_jobs_of_a_trace_keep_whom_they_depend_on(tmp_path):
    rows = [[5, 0, 0, 60, 1, -1, -1, 1, -1, -1, 1, 3, -1, -1, -1, -1, -1, -1]]
    rows.append([9, 10, 0, 60, 2, -1, -1, 2, -1, -1, 1, 3, -1, -1, -1, -1, 5, -1])
    file = tmp_path / "trace.swf"
    file.write_text("; a comment\n" + "\n".join(" ".join(map(str, row)) for row in rows) + "\n")
    assert [j.depends_on for j in stream(spec(trace_file=str(file)))] == [(), (1,)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, "there is no such file; give the path", id="missing"),
        pytest.param("", "no column for submit", id="empty"),
        pytest.param(TRACE.splitlines()[0] + "\n", "no job in it has work and a demand", id="only-a-header"),
        pytest.param(TRACE + "11,90,5,1,ann\n", "job before at 30 s|at 130 s; sort the file", id="unsorted"),
        pytest.param(TRACE + "11,,5,1,ann\n", "trace.csv:6: submit_time is empty", id="no-time"),
        pytest.param(
            TRACE + "11,140,-5,1,ann\n", "trace.csv:6: duration is -5; allowed: a number from 0", id="negative"
        ),
    ],
)
def test_a_trace_that_cannot_be_used(tmp_path, text, says):
    file = tmp_path / "trace.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=says):
        stream(spec(trace_file=str(file)))
    with pytest.raises(DataError, match=says):  # before a run, and not in it
        Scheduling().predict(spec(trace_file=str(file)), UNCALIBRATED)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"policy": "lottery"}, "policy: got 'lottery'.*fifo"),
        ({"offered_load": -1.0}, "offered_load: got -1"),
        ({"nodes": 0}, "nodes: got 0"),
        ({"step_s": 0.0}, "step_s: got 0"),
        ({"mean_work_s": 0.05, "step_s": 0.04}, "a job needs two steps on average; shorter steps, or more work"),
        ({"most_demnd": 2}, "most_demnd: no such field; did you mean 'most_demand'"),
    ],
)
def test_a_spec_that_cannot_be(values, says):
    with pytest.raises(SpecError, match=says):
        SchedulingSpec.make(values)


def test_every_policy_can_be_asked_for():
    assert set(OFFERED) == set(POLICIES)
    assert [policy_of(spec(policy=name)).name for name in OFFERED] == list(OFFERED)


# --- the prediction
@pytest.mark.parametrize("policy", OFFERED)
def test_the_predicted_bars_hold_every_job_for_its_work_and_no_node_twice(policy):
    asked = spec(policy=policy, jobs=30, most_demand=4, quantum_s=0.4)
    found = Scheduling().predict(asked, UNCALIBRATED)
    bars = pd.DataFrame(found.extra["intervals"])
    held_s = (bars["end_s"] - bars["start_s"]).groupby(bars["job"]).sum()
    refused = 30 - found.get("jobs_done")
    assert refused == 0 or policy == "deadline"
    for job in stream(asked):
        if job.id in held_s:
            assert job.nodes * job.work_s <= held_s[job.id] <= job.nodes * job.work_s + 1.0
    assert len(held_s) == found.get("jobs_done")
    for _, lane in bars.sort_values("start_s").groupby("node"):
        assert (lane["start_s"].to_numpy()[1:] >= lane["end_s"].to_numpy()[:-1] - 1e-9).all()
    for value in found.values.values():
        assert value.low <= value.value <= value.high


def test_a_sweep_simulates_each_point():
    swept = Scheduling().predict(spec(), UNCALIBRATED, nodes=[2, 4, 8], offered_load=[1.0, 1.0, 0.5])
    for i, (nodes, load) in enumerate([(2, 1.0), (4, 1.0), (8, 0.5)]):
        alone = Scheduling().predict(spec(nodes=nodes, offered_load=load), UNCALIBRATED)
        assert swept.values["makespan_s"].value[i] == alone.get("makespan_s")
        assert swept.values["mean_wait_s"].value[i] == alone.get("mean_wait_s")
    with pytest.raises(ModelInputError, match="step_s cannot be swept here; allowed: nodes, policy"):
        Scheduling().predict(spec(), UNCALIBRATED, step_s=[0.01, 0.02])


def test_jobs_that_never_fit_are_told_of():
    notes = Scheduling().predict(spec(jobs=60, most_demand=64), UNCALIBRATED).notes
    assert any("of 60 jobs are refused, the first because it needs" in note for note in notes)


def arithmetic(step_s: float, cores: int = 2) -> Machine:
    """A machine on which one sample through the perceptron takes so long, whatever the batch; the rest is free."""
    ways = ("forward", "backward")
    layers: dict[str, list[dict[str, Any]]] = {"chain": [{"layers": 1}, {"layers": 9}]}
    layers |= {"cross_entropy": [{"classes": c, "rows": b} for c in (2, 99) for b in (1, 999)]}
    layers |= {"squared_error": [{"batch": b} for b in (1, 999)], "activation": [{"elements": e} for e in (1, 9e9)]}
    layers |= {"pool": layers["activation"]}
    layers |= {
        "conv": [
            {"inputs": i, "outputs": o, "pixels": 64, "batch": b} for i in (1, 99) for o in (1, 99) for b in (1, 9)
        ]
    }
    free = {name: [{**at, "part": way} for at in ats for way in ways] for name, ats in layers.items()}
    free |= {"runtime": [{}], "tail": [{"ranks": n} for n in (1, 2)], "step": [{"widths": [16, 16, 10], "batch": 64}]}
    free |= {"gather": [{"row": r, "batch": b} for r in (1, 999) for b in (1, 999)]}
    free |= {"update": [{"params": p, "ranks": n, "optimizer": "sgd"} for p in (1, 9e9) for n in (1, 2)]}
    free |= {"allreduce": [{"ranks": n, "bytes": b} for n in (2, 4) for b in (8, 9e9)]}
    probes = [Probe(name, at, "s", *[1e-9] * 3, 9) for name, ats in free.items() for at in ats]
    # Two layers, forward 1, gradient of the matrix 1, of the input 1; the first needs no gradient of its input.
    share = step_s / 5
    for way, ws, aspects in itertools.product(ways, (1, 999), ({}, {"aspect": 1 / 256}, {"aspect": 256.0})):
        seconds = [share * (1 if way == "forward" else 2)] * 3
        name = "linear_shape" if aspects else "linear"
        probes += [Probe(name, {"width": ws, "batch": b, **aspects, "part": way}, "s", *seconds, 9) for b in (1, 999)]
    return Machine("made-up", "now", cores, 2**33, probes=tuple(probes))


def test_nodes_that_share_cores_make_steps_longer():
    asked = spec(step_s=0.002, nodes=4, jobs=4, most_demand=1, work_scv=0.0, elastic_frac=0.0, offered_load=5.0)
    idle = Scheduling().predict(asked, arithmetic(1e-6))
    assert idle.notes == ()
    free = Scheduling().predict(asked, UNCALIBRATED)
    assert "not calibrated: arithmetic is taken as free" in free.notes[0]
    assert free.get("makespan_s") == idle.get("makespan_s")
    busy = Scheduling().predict(asked, arithmetic(0.008))
    assert "4 nodes share 2 cores: while all of them train, a step takes 16 ms instead of 2 ms." in busy.notes[0]
    # On as many cores as nodes a step takes its arithmetic, and on half of them up to twice that.
    roomy = Scheduling().predict(asked, arithmetic(0.008, cores=4))
    assert roomy.get("makespan_s") > 2 * free.get("makespan_s")
    assert 1.2 * roomy.get("makespan_s") < busy.get("makespan_s") < 2 * roomy.get("makespan_s")


# --- from the records to the figures
def row_of(job: Job) -> tuple[float, ...]:
    """One row of the record of jobs, as the scheduler's rank writes it."""
    times = (math.nan if t is None else t for t in (job.submit_s, job.start_s, job.end_s))
    due_s = math.nan if job.deadline_s is None else job.deadline_s
    held = (job.segments, job.held_s, job.held_node_s)
    return (
        job.id, *times, STATES.index(job.state), *held, job.nodes, job.work_s, job.priority, float(job.user[5:]), due_s, math.nan,
    )  # fmt: skip


def meter_rows(meters: Meters) -> pd.DataFrame:
    hours = [x for name in ("carbon", "price") for x in meters.weighted[name]]
    last = (
        meters.now_s,
        meters.slot_s,
        meters.busy_slot_s,
        meters.partly_free_slot_s,
        meters.node_s,
        meters.waiting_job_s,
    )
    return pd.DataFrame([[0.0] * len(METERS), [*last, *hours]], columns=list(METERS))


def test_measured_figures_come_from_the_same_arithmetic_as_predicted_ones():
    asked = spec(policy="gang", quantum_s=0.3, jobs=25)
    found = simulate(stream(asked), Cluster(range(1, 5)), policy_of(asked), traces=traces_of(asked))
    records = {"jobs": pd.DataFrame(map(row_of, found.jobs), columns=list(JOBS)), "meters": meter_rows(found.meters)}
    measured = Scheduling().distil(asked, UNCALIBRATED, Observed(0.0, 0.0, found.end_s, pd.DataFrame(), records, {}))
    figures = metrics(tally(found.jobs, SHORT_S), found.meters, tariff_of(asked, UNCALIBRATED))
    assert {n: v.value for n, v in measured.items()} == pytest.approx({n: figures[NAMES[n]] for n in measured})
    assert set(measured) == set(Scheduling().predict(asked, UNCALIBRATED).values)
    assert (measured["makespan_s"].method, measured["makespan_s"].n) == ("measured", 25)
    assert measured["energy_j"].method == "modelled"


def test_nothing_recorded_is_nothing_measured():
    none = {"jobs": pd.DataFrame(columns=list(JOBS)), "meters": pd.DataFrame(columns=list(METERS))}
    assert Scheduling().distil(spec(), UNCALIBRATED, Observed(0.0, 0.0, 1.0, pd.DataFrame(), none, {})) == {}


# --- what a new scheduler reads
@dataclass
class Recorder:
    """Writes records as the ranks do."""

    run: RunDir

    def __call__(
        self, writer: str, table: str, columns: tuple[str, ...], *rows: tuple[Any, ...], torn: str = ""
    ) -> None:
        path = self.run.path / "records" / f"{writer}-{table}.csv"
        path.parent.mkdir(exist_ok=True)
        lines = [",".join(("t_s", "segment", *columns)), *(",".join(["1.5", "2", *map(str, row)]) for row in rows)]
        path.write_text("\n".join(lines) + "\n" + torn)


def test_a_journal_tells_what_was_asked_also_when_its_end_is_torn(tmp_path: Path):
    journal = Journal(tmp_path / "work")
    first = Job(4, 0.5, 2, 3.0, 6.0, min_nodes=1, max_nodes=4, priority=2.0, user="user 3", deadline_s=9.0)
    second = Job(5, 0.7, 1, 1.0, depends_on=(4,))
    for job in (first, second):
        journal.submitted(job)
    Scheduler(Cluster(2), make_policy("fifo")).submit(first, 0.5)
    first.priority, first.segments = 8.0, 3
    journal.changed(first)
    with (tmp_path / "work" / "jobs.jsonl").open("a") as file:
        file.write(json.dumps({"job": {"id": 6}})[:9])
    again = Journal(tmp_path / "work").read()
    assert [(j.id, j.nodes, j.work_s, j.estimate_s, j.min_nodes, j.max_nodes) for j in again] == [
        (4, 2, 3.0, 6.0, 1, 4),
        (5, 1, 1.0, 1.0, 1, 1),
    ]
    assert [(j.priority, j.segments, j.user, j.deadline_s, j.depends_on) for j in again] == [
        (8.0, 3, "user 3", 9.0, ()),
        (0.0, 0, "", None, (4,)),
    ]
    assert {j.state for j in again} == {State.WAITING}


def test_records_tell_a_new_scheduler_what_happened(tmp_path: Path):
    write = Recorder(RunDir(tmp_path))
    bars = [(1, 1, 0.0, ""), (1, 2, 0.0, ""), (1, 1, 0.0, 2.0), (1, 2, 0.0, 2.0), (2, 2, 2.0, ""), (3, 1, 2.5, "")]
    write("0-0", "intervals", INTERVALS, *bars)
    done, cancelled = STATES.index(State.DONE), STATES.index(State.CANCELLED)
    write(
        "0-0", "jobs", JOBS, (1, 0, 0, 2.0, done, *[""] * 9), (9, 1, "", 2.25, cancelled, *[""] * 9), torn="1.5,2,3,0"
    )
    # The next scheduler closed one bar of the dead one's, and began another.
    write("0-1", "intervals", INTERVALS, (2, 2, 2.0, 2.75), (2, 1, 3.25, ""))
    past = recorded(RunDir(tmp_path))
    assert past.ends == {1: State.DONE, 9: State.CANCELLED}
    assert past.last_s == 3.25
    assert past.open == [(2, Interval(3, 1, 2.5, 3.25)), (2, Interval(2, 1, 3.25, 3.25))]
    job = Job(2, 0.0, 1, 5.0)
    past.tell(job)
    assert (job.start_s, job.held_s, job.held_node_s) == (2.0, 0.75, 0.75)
    gang = Job(1, 0.0, 2, 5.0)
    past.tell(gang)
    assert (gang.start_s, gang.held_s, gang.held_node_s) == (0.0, 2.0, 4.0)
    waiting = Job(8, 0.0, 1, 1.0)
    past.tell(waiting)
    assert (waiting.start_s, waiting.held_s) == (None, 0.0)


def test_a_run_without_records_has_no_past(tmp_path: Path):
    past = recorded(RunDir(tmp_path))
    assert (past.ends, past.bars, past.open, past.last_s) == ({}, {}, [], 0.0)
