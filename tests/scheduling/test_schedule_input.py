"""Bad input as a user would try it: what is refused, and what the message says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from aiinfra_widgets.errors import ControlError, DataError, ModelInputError, UnknownNameError
from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.hourly import HourlyTrace
from aiinfra_widgets.experiments.scheduling.jobs import FINAL, Job, State, check_dependencies
from aiinfra_widgets.experiments.scheduling.metrics import Tariff
from aiinfra_widgets.experiments.scheduling.policies import POLICIES, make_policy
from aiinfra_widgets.experiments.scheduling.scheduler import Scheduler
from aiinfra_widgets.experiments.scheduling.simulate import Costs, simulate
from aiinfra_widgets.experiments.scheduling.synthetic import Synthetic
from aiinfra_widgets.experiments.scheduling.traces import read_csv, read_swf, read_trace


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param({"nodes": 0}, "job 7: nodes is 0; allowed: a whole number from 1", id="no-nodes"),
        pytest.param({"nodes": 1.5}, "nodes is 1.5", id="half-a-node"),
        pytest.param({"nodes": -2}, "nodes is -2", id="negative-nodes"),
        pytest.param({"work_s": 0.0}, "work_s is 0.0; allowed: seconds, above 0 and finite", id="no-work"),
        pytest.param({"work_s": -1.0}, "work_s is -1.0", id="negative-work"),
        pytest.param({"work_s": math.nan}, "work_s is nan", id="work-is-no-number"),
        pytest.param({"work_s": math.inf}, "work_s is inf", id="endless"),
        pytest.param({"estimate_s": 0.0}, "estimate_s is 0.0; allowed: seconds, above 0", id="no-estimate"),
        pytest.param({"submit_s": math.nan}, "submit_s is nan; allowed: seconds, finite", id="never-submitted"),
        pytest.param({"slots": 0}, "slots is 0; allowed: accelerators on each node", id="no-slots"),
        pytest.param({"min_nodes": 3}, r"min_nodes is 3; allowed: 1 to nodes \(2\)", id="least-above-demand"),
        pytest.param({"max_nodes": 1}, r"max_nodes is 1; allowed: at least nodes \(2\)", id="most-below-demand"),
        pytest.param({"memory_bytes": -1.0}, "memory_bytes is -1.0", id="negative-memory"),
        pytest.param({"deadline_s": math.nan}, "deadline_s is nan", id="deadline-is-no-number"),
        pytest.param({"priority": math.nan}, "priority is nan", id="priority-is-no-number"),
    ],
)
def test_a_job_that_cannot_be(fields, says):
    with pytest.raises(ModelInputError, match=says):
        Job(**{"id": 7, "submit_s": 0.0, "nodes": 2, "work_s": 1.0, **fields})


def refused(job: Job, **options: object) -> str:
    scheduler = Scheduler(Cluster(4, slots=2, memory_bytes=64.0), make_policy("fifo"), **options)
    scheduler.submit(job, 10.0)
    assert job.state is State.REFUSED
    assert job.id not in scheduler.running
    return job.reason


def test_larger_than_the_machine():
    assert refused(Job(0, 10.0, 5, 1.0)) == "it needs 5 nodes, the machine has at most 4; ask for fewer"
    assert "it needs 3 slots on a node, a node has 2" in refused(Job(0, 10.0, 1, 1.0, slots=3))
    assert "it needs 65 bytes on a node, a node has 64" in refused(Job(0, 10.0, 1, 1.0, memory_bytes=65.0))


def test_deadline_in_the_past():
    assert "its deadline, 9 s, has passed: it is 10 s" in refused(Job(0, 10.0, 1, 1.0, deadline_s=9.0))


def test_a_machine_that_shrank_for_good():
    scheduler = Scheduler(Cluster(2), make_policy("fifo"))
    job = scheduler.submit(Job(0, 0.0, 2, 5.0), 0.0)
    scheduler.remove_nodes([1], 0.0)
    assert (job.state, job.reason) == (State.WAITING, "it needs 2 nodes, the machine has 1 now")
    scheduler.add_nodes([1], 1.0)
    assert [action.job for action in scheduler.decide(1.0)] == [job]
    scheduler.node_died(1, 2.0)
    assert (job.state, job.reason) == (State.REFUSED, "it needs 2 nodes, the machine has at most 1; ask for fewer")


def test_dependencies_in_a_circle():
    jobs = [Job(i, 0.0, 1, 1.0, depends_on=after) for i, after in {1: (2,), 2: (5,), 5: (1,), 6: (1,)}.items()]
    with pytest.raises(ModelInputError, match="jobs wait for each other in a circle: 1 -> 2 -> 5 -> 1; "):
        check_dependencies(jobs)
    with pytest.raises(ModelInputError, match="circle"):
        simulate(jobs, 2, make_policy("fifo"))
    scheduler = Scheduler(Cluster(1), make_policy("fifo"))
    with pytest.raises(ModelInputError, match="circle: 3 -> 3;"):
        scheduler.submit(Job(3, 0.0, 1, 1.0, depends_on=(3,)), 0.0)
    scheduler.submit(Job(4, 0.0, 1, 1.0, depends_on=(5,)), 0.0)
    with pytest.raises(ModelInputError, match="circle: 4 -> 5 -> 4;"):
        scheduler.submit(Job(5, 0.0, 1, 1.0, depends_on=(4,)), 0.0)


def test_a_long_chain_is_no_circle_and_ends_as_one():
    """Five thousand jobs, each after the one before; when the first is cancelled, none is forgotten."""
    jobs = [Job(i, 0.0, 1, 1.0, depends_on=(i - 1,) if i else ()) for i in range(5000)]
    check_dependencies(jobs[::-1])
    scheduler = Scheduler(Cluster(1), make_policy("fifo"))
    for job in jobs:
        scheduler.submit(job, 0.0)
    scheduler.cancel(0, 1.0)
    assert jobs[0].state is State.CANCELLED
    assert {job.state for job in jobs[1:]} == {State.REFUSED}
    assert jobs[1].reason == "it depends on job 0, which is cancelled"


def test_a_dependency_that_never_comes():
    found = simulate([Job(1, 0.0, 1, 1.0, depends_on=(99,))], 1, make_policy("fifo"))
    assert found.jobs[0].reason == "nothing more will happen on this machine; it waits for job 99"


def test_what_a_driver_may_not_do():
    scheduler = Scheduler(Cluster(2), make_policy("fifo"))
    job = scheduler.submit(Job(1, 0.0, 1, 1.0), 0.0)
    with pytest.raises(ControlError, match="job 1 does not run: it is waiting"):
        scheduler.finish(1, 0.0)
    with pytest.raises(ControlError, match="there is no job 2"):
        scheduler.cancel(2, 0.0)
    with pytest.raises(ModelInputError, match="there was a job 1 already"):
        scheduler.submit(Job(1, 0.0, 1, 1.0), 0.0)
    scheduler.decide(0.0)
    with pytest.raises(ControlError, match="was not told to stop"):
        scheduler.stopped(1, 0.0)
    with pytest.raises(ControlError, match="was not told to resize"):
        scheduler.resized(1, 0.0)
    with pytest.raises(ControlError, match="remaining_s of job 1 must be from 0 to 1"):
        scheduler.progress(1, -1.0, 0.5)
    scheduler.finish(1, 1.0)
    with pytest.raises(ControlError, match="job 1 has ended: it is done; nothing can change that"):
        scheduler.kill(1, 1.0)
    with pytest.raises(ControlError, match="job 1 is done and cannot become cancelled; allowed: nothing"):
        job.move(State.CANCELLED)
    with pytest.raises(ControlError, match=r"it is 0\.5 s, after 1\.0 s; use one clock that never goes back"):
        scheduler.decide(0.5)
    with pytest.raises(ControlError, match="there is no node 9"):
        scheduler.remove_nodes([0, 9], 1.0)
    assert scheduler.cluster.num_nodes == 2  # all or none
    with pytest.raises(ModelInputError, match=r"nodes \[5, 0\]: \[0\] would be in the machine twice"):
        scheduler.add_nodes([5, 0], 1.0)
    assert scheduler.cluster.num_nodes == 2


@pytest.mark.parametrize("end", sorted(FINAL))
def test_final_is_final(end):
    job = Job(1, 0.0, 1, 1.0)
    job.move(State.RUNNING)
    job.move(end)
    for state in State:
        with pytest.raises(ControlError):
            job.move(state)


def test_slots_are_given_back_exactly_once():
    cluster = Cluster(2, slots=4)
    cluster.allocate(1, (0,), 3)
    with pytest.raises(ControlError, match="job 2 cannot have 2 slots on node 0: 1 of 4 free"):
        cluster.allocate(2, (1, 0), 2)
    assert cluster.free == {0: 1, 1: 4}
    cluster.release(1, (0,))
    with pytest.raises(ControlError, match="job 1 holds nothing on node 0"):
        cluster.release(1, (0,))
    assert cluster.free == {0: 4, 1: 4}
    small = Cluster(1, slots=4, memory_bytes=10.0)
    small.allocate(1, (0,), 1, 6.0)
    with pytest.raises(ControlError, match="job 2 cannot have 5 bytes on node 0: 4 free"):
        small.allocate(2, (0,), 1, 5.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: make_policy("backfill"), "no policy 'backfill'; known: carbon", id="unknown-policy"),
        pytest.param(lambda: make_policy("esy"), "did you mean 'easy'", id="misspelt"),
        pytest.param(
            lambda: make_policy("priority", ageing_per_s=-1), "ageing_per_s must be >= 0, got -1", id="ageing"
        ),
        pytest.param(lambda: make_policy("gang", quantum_s=0), "quantum_s must be > 0, got 0", id="quantum"),
        pytest.param(lambda: make_policy("srtf", cost_s=-1), "cost_s must be >= 0, got -1", id="cost"),
        pytest.param(
            lambda: make_policy("fair_share", half_life_s=0), "half_life_s must be > 0, got 0", id="half-life"
        ),
        pytest.param(lambda: make_policy("elastic", resize_cost_s=-1), "resize_cost_s must be >= 0", id="resize"),
        pytest.param(
            lambda: make_policy("carbon", trace=HourlyTrace([1]), max_delay_s=-1),
            "max_delay_s must be >= 0",
            id="delay",
        ),
        pytest.param(lambda: HourlyTrace([]), "an hourly trace needs numbers from 0, got no hours", id="no-hours"),
        pytest.param(lambda: HourlyTrace([1, -2]), "got -2 in hour 1", id="negative-hour"),
        pytest.param(lambda: HourlyTrace([1], step_s=0), "step_s must be > 0", id="no-step"),
        pytest.param(lambda: Cluster(2, slots=0), "a node has 0 slots", id="no-slots"),
        pytest.param(lambda: Cluster([1, 1]), "would be in the machine twice", id="node-twice"),
        pytest.param(lambda: Costs(start_s=-1), "start_s must be >= 0 and finite, got -1", id="negative-overhead"),
        pytest.param(lambda: Costs(checkpoint_every_s=0), "checkpoint_every_s must be > 0", id="always-saving"),
        pytest.param(lambda: Tariff(idle_w=5, busy_w=1), "busy_w >= idle_w", id="idle-above-busy"),
        pytest.param(lambda: Synthetic(0, 8, max_demand=8), "num_jobs must be >= 1, got 0", id="no-jobs"),
        pytest.param(
            lambda: Synthetic(5, 8, load=-0.1, max_demand=8), "load must be > 0 and finite, got -0.1", id="load"
        ),
        pytest.param(lambda: Synthetic(5, 8), "max_demand is 1024, the machine has 8 slots", id="demand"),
    ],
)
def test_options_outside_their_range(make, says):
    with pytest.raises((ModelInputError, UnknownNameError), match=says):
        make()


def test_every_policy_is_registered_under_its_name():
    assert all(policy.name == name and policy.title and policy.__doc__ for name, policy in POLICIES.items())
    assert len(POLICIES) == 12


def test_a_stream_that_goes_back_in_time():
    with pytest.raises(ModelInputError, match=r"job 2 is submitted at 1\.0 s, after one at 5\.0 s; sort the stream"):
        simulate(iter([Job(1, 5.0, 1, 1.0), Job(2, 1.0, 1, 1.0)]), 1, make_policy("fifo"))


def test_a_duration_that_cannot_be():
    with pytest.raises(ModelInputError, match="duration_s of job 1 on 1 nodes must be > 0, got 0"):
        simulate([Job(1, 0.0, 1, 1.0)], 1, make_policy("fifo"), duration_s=lambda *_: 0.0)


SWF = "; Version: 2.2\n; MaxProcs: 16\n"
#       id submit wait run procs cpu mem reqp reqt reqm status user group exe queue part prev think
LINES = [
    "1 0 5 100 4 -1 -1 4 200 -1 1 3 1 1 0 -1 -1 -1",
    "2 10 0 50.5 -1 -1 -1 12 -1 2048 1 4 1 1 0 -1 1 60",
    "3 10 0 7 16 -1 1024 16 30 -1 1 -1 1 1 0 -1 -1 -1",
]


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_standard_workload_format(tmp_path):
    path = write(tmp_path, "tiny.swf", SWF + "\n".join(LINES) + "\n\n")
    one, two, three = read_trace(path, slots_per_node=8)
    assert (one.id, one.submit_s, one.nodes, one.slots, one.work_s, one.estimate_s, one.user) == (
        1,
        0,
        1,
        4,
        100,
        200,
        "3",
    )
    # 12 processors on nodes of 8: two nodes with 6 each, and 2048 KiB for each processor.
    assert (two.nodes, two.slots, two.work_s, two.estimate_s, two.depends_on) == (2, 6, 50.5, 50.5, (1,))
    assert two.memory_bytes == 6 * 2048 * 1024
    assert (three.nodes, three.slots, three.user, three.memory_bytes) == (2, 8, "", 8 * 1024 * 1024)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        pytest.param([LINES[1], LINES[0]], "tiny.swf:4: submitted at 0 s, the job before at 10 s; sort", id="unsorted"),
        pytest.param(
            ["1 -1" + LINES[0][3:]], r"tiny.swf:3: the time of submission \(field 2\) is missing", id="no-time"
        ),
        pytest.param(
            [LINES[0].replace("100", "-100")], "tiny.swf:3: field 4 is -100; allowed: from 0, or -1", id="negative"
        ),
        pytest.param(
            [LINES[0].replace("100", "soon")], "tiny.swf:3: could not convert string to float: 'soon'", id="words"
        ),
        pytest.param([LINES[0][:-3]], "tiny.swf:3: 17 fields; a job has 18", id="too-few"),
        pytest.param([LINES[0], LINES[0]], "tiny.swf:4: job 1 is there twice", id="twice"),
        pytest.param(
            [LINES[0].replace("100", "-1")], "job 1 has run time -1 and 4 processors; .* unusable='skip'", id="unrun"
        ),
    ],
)
def test_a_bad_workload_file(tmp_path, lines, says):
    path = write(tmp_path, "tiny.swf", SWF + "\n".join(lines))
    with pytest.raises(DataError, match=says):
        list(read_swf(path))


def test_jobs_that_never_ran_can_be_left_out(tmp_path):
    path = write(tmp_path, "tiny.swf", SWF + "\n".join([LINES[0].replace("100", "0"), *LINES[1:]]))
    kept = list(read_swf(path, unusable="skip"))
    assert [(job.id, job.depends_on) for job in kept] == [(2, ()), (3, ())]


HELIOS = "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue\n"


def test_helios_columns(tmp_path):
    rows = (
        "11,uA,vc1,1,1,1,COMPLETED,2020-06-09 18:41:00,2020-06-09 18:41:01,2020-06-10 04:55:09,36848,0\n"
        "12,uB,vc1,16,64,2,FAILED,2020-06-09 18:41:27,2020-06-09 18:41:27,2020-06-09 18:45:36,249,0\n"
        "13,uB,vc1,0,4,1,COMPLETED,2020-06-09 18:42:00,2020-06-09 18:42:00,2020-06-09 18:42:09,9,0\n"
    )
    path = write(tmp_path, "helios.csv", HELIOS + rows)
    with pytest.raises(DataError, match=r"helios.csv:4: duration is 9 and gpu_num is 0; allowed: above 0; .*'skip'"):
        list(read_csv(path))
    one, two = read_csv(path, slots_per_node=8, unusable="skip")
    assert (one.id, one.submit_s, one.nodes, one.slots, one.work_s, one.user) == (11, 0.0, 1, 1, 36848.0, "uA")
    assert (two.submit_s, two.nodes, two.slots) == (27.0, 2, 8)


def test_philly_columns_with_names_and_seconds(tmp_path):
    text = "jobid,submitted_time,run_time,num_gpus,user,time_limit\napplication_1_10,3,20,4,ann,60\napplication_1_11,4,5,1,,\n"
    one, two = read_trace(write(tmp_path, "philly.csv", text), slots_per_node=4)
    assert (one.id, one.payload, one.submit_s, one.work_s, one.estimate_s, one.slots) == (
        0,
        "application_1_10",
        3,
        20,
        60,
        4,
    )
    assert (two.id, two.estimate_s, two.user) == (1, 5, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "submit_s,gpus\n0,1\n", "bad.csv:1: no column for run; allowed names: work_s, duration", id="column"
        ),
        pytest.param(
            "submit_s,work_s,gpus\n5,1,1\n4,1,1\n", "bad.csv:3: submitted at 4 s, the job before at 5", id="order"
        ),
        pytest.param("submit_s,work_s,gpus\n,1,1\n", "bad.csv:2: submit_s is empty", id="no-time"),
        pytest.param(
            "submit_s,work_s,gpus\nnoon,1,1\n", "submit_s is 'noon'; allowed: seconds from 0, or a date", id="noon"
        ),
        pytest.param(
            "submit_s,work_s,gpus\n0,-3,1\n", "bad.csv:2: work_s is -3; allowed: a number from 0", id="negative"
        ),
        pytest.param(
            "submit_s,work_s,gpus\n-4,3,1\n", "bad.csv:2: submit_s is -4; allowed: a number from 0", id="before-0"
        ),
        pytest.param("submit_s,work_s,gpus\n0,1,many\n", "bad.csv:2: gpus is 'many'", id="words"),
    ],
)
def test_a_bad_table(tmp_path, text, says):
    with pytest.raises(DataError, match=says):
        list(read_csv(write(tmp_path, "bad.csv", text)))


def test_a_trace_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none.swf: there is no such file"):
        read_trace(tmp_path / "none.swf")
