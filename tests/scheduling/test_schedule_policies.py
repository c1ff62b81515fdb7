"""Each policy on schedules that were worked out by hand: bars of (job, from, to), per job in order."""

from __future__ import annotations

import pytest

from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.hourly import HourlyTrace
from aiinfra_widgets.experiments.scheduling.jobs import Job, State
from aiinfra_widgets.experiments.scheduling.policies import Preempt, Resize, Start, Stop, make_policy
from aiinfra_widgets.experiments.scheduling.scheduler import Scheduler
from aiinfra_widgets.experiments.scheduling.simulate import Change, Costs, Result, simulate


def bars(found: Result) -> dict[int, list[tuple[float, float, int]]]:
    """Return, for each job, (from, to, number of nodes) of its bars in order."""
    spans: dict[int, dict[tuple[float, float], int]] = {}
    for bar in found.intervals:
        of_job = spans.setdefault(bar.job, {})
        of_job[bar.start_s, bar.end_s] = of_job.get((bar.start_s, bar.end_s), 0) + 1
    return {job: sorted((a, b, n) for (a, b), n in of_job.items()) for job, of_job in spans.items()}


WIDE_BETWEEN = [(0, 2, 10), (1, 4, 2), (2, 1, 1), (2, 2, 9), (2, 2, 7)]  # submit, nodes, work


@pytest.mark.parametrize(
    ("policy", "options", "nodes", "rows", "want"),
    [
        pytest.param(
            *("fifo", {}, 4, WIDE_BETWEEN),
            {0: [(0, 10, 2)], 1: [(10, 12, 4)], 2: [(12, 13, 1)], 3: [(12, 21, 2)], 4: [(13, 20, 2)]},
            id="fifo-a-wide-job-holds-up-all-behind-it",
        ),
        pytest.param(
            *("easy", {}, 4, WIDE_BETWEEN),
            # Job 1 has the reservation 10. At 3 job 3 would end at 12, too late; job 4 ends at 10, just in time.
            {0: [(0, 10, 2)], 1: [(10, 12, 4)], 2: [(2, 3, 1)], 3: [(12, 21, 2)], 4: [(3, 10, 2)]},
            id="easy-fills-the-hole",
        ),
        pytest.param(
            *("easy", {}, 4, [(0, 2, 10), (1, 3, 2), (2, 1, 50)]),
            {0: [(0, 10, 2)], 1: [(10, 12, 3)], 2: [(2, 52, 1)]},
            id="easy-a-node-that-the-head-can-spare",
        ),
        pytest.param(
            *("easy", {}, 4, [(0, 2, 10), (1, 3, 2), (2, 1, 8), (3, 1, 50)]),
            # Job 2 ends just when the reservation begins, so one node is still to spare for job 3.
            {0: [(0, 10, 2)], 1: [(10, 12, 3)], 2: [(2, 10, 1)], 3: [(3, 53, 1)]},
            id="easy-two-in-two-holes",
        ),
        pytest.param(
            *("sjf", {}, 1, [(0, 1, 4), (1, 1, 5), (1, 1, 2), (2, 1, 3)]),
            {0: [(0, 4, 1)], 2: [(4, 6, 1)], 3: [(6, 9, 1)], 1: [(9, 14, 1)]},
            id="sjf",
        ),
        pytest.param(
            *("srtf", {}, 1, [(0, 1, 10), (2, 1, 3), (3, 1, 1)]),
            {0: [(0, 2, 1), (6, 14, 1)], 1: [(2, 3, 1), (4, 6, 1)], 2: [(3, 4, 1)]},
            id="srtf-twice",
        ),
        pytest.param(
            *("srtf", {"cost_s": 5.0}, 1, [(0, 1, 10), (2, 1, 3)]),
            {0: [(0, 10, 1)], 1: [(10, 13, 1)]},
            id="srtf-5-s-more-left-is-not-above-the-cost",
        ),
        pytest.param(
            # The head needs two nodes; the jobs with most left, 9 and 7, are on them; the one with 3 left stays.
            *("srtf", {}, 3, [(0, 1, 10), (0, 1, 4), (0, 1, 8), (1, 2, 2)]),
            {0: [(0, 1, 1), (3, 12, 1)], 1: [(0, 4, 1)], 2: [(0, 1, 1), (3, 10, 1)], 3: [(1, 3, 2)]},
            id="srtf-takes-from-the-longest",
        ),
        pytest.param(
            *("gang", {"quantum_s": 2.0}, 2, [(0, 2, 4), (0, 2, 3), (1, 1, 1)]),
            # At 2 the pair that waits gets the machine, at 4 the single job and, when it is done at 5, the first again.
            {0: [(0, 2, 2), (5, 7, 2)], 1: [(2, 4, 2), (7, 8, 2)], 2: [(4, 5, 1)]},
            id="gang-takes-turns",
        ),
    ],
)
def test_by_hand(policy, options, nodes, rows, want):
    jobs = [Job(i, float(s), n, float(w)) for i, (s, n, w) in enumerate(rows)]
    found = simulate(jobs, nodes, make_policy(policy, **options))
    assert bars(found) == want
    assert set(found.num_by_state) == {State.DONE}


def test_srtf_preempts_nobody_whose_slots_do_not_help():
    """The first has most left, but the one beside it is too short to be preempted: only the third makes a whole node free."""
    jobs = [Job(0, 0.0, 1, 20.0), Job(1, 0.0, 1, 4.0), Job(2, 0.0, 1, 11.0, slots=2), Job(3, 1.0, 1, 5.0, slots=2)]
    found = simulate(jobs, Cluster(2, slots=2), make_policy("srtf"))
    # At 1 only the third goes. At 4 the second has ended, and the third, with 10 s left, takes the place of the first.
    assert bars(found) == {0: [(0, 4, 1), (6, 22, 1)], 1: [(0, 4, 1)], 2: [(0, 1, 1), (4, 14, 1)], 3: [(1, 6, 1)]}


def test_srtf_waits_for_those_that_are_leaving_already():
    jobs = [Job(0, 0.0, 1, 20.0), Job(1, 0.0, 1, 15.0), Job(2, 1.0, 1, 1.0), Job(3, 2.0, 1, 50.0)]
    found = simulate(jobs, 2, make_policy("srtf"), costs=Costs(checkpoint_s=2.0))
    assert {job.id: job.segments for job in found.jobs} == {0: 2, 1: 1, 2: 1, 3: 1}
    assert bars(found)[2] == [(3, 4, 1)]


def test_easy_makes_its_reservation_anew_when_nodes_come():
    """Nodes that come at 10 make it 52 s instead of 100 s, so the last job, which would end at 71 s, may not start."""
    more = Change(10.0, lambda s, now_s: s.add_nodes([3, 4], now_s))
    jobs = [Job(0, 0.0, 2, 100.0), Job(1, 1.0, 3, 5.0), Job(2, 2.0, 1, 50.0), Job(3, 11.0, 1, 60.0)]
    assert {j.id: j.start_s for j in simulate(jobs, 3, make_policy("easy"), changes=[more]).jobs} == {
        0: 0,
        2: 2,
        1: 52,
        3: 57,
    }


def test_easy_counts_a_job_once_that_was_thrown_back_and_started_again_at_the_same_moment():
    """Job 3 wants a whole node: at 20, when both small jobs have ended. Until then there is room for job 4."""

    def blink(scheduler: Scheduler, now_s: float) -> None:
        scheduler.remove_nodes([0], now_s)
        scheduler.add_nodes([0], now_s)

    jobs = [Job(0, 0.0, 1, 10.0), Job(1, 0.0, 1, 20.0), Job(2, 0.0, 1, 30.0, slots=3), Job(3, 3.0, 1, 1.0, slots=3)]
    found = simulate(
        [*jobs, Job(4, 4.0, 1, 15.0)], Cluster(2, slots=3), make_policy("easy"), changes=[Change(2.0, blink)]
    )
    assert {j.id: (j.end_s, j.segments) for j in found.jobs} == {
        0: (10, 2),
        1: (20, 2),
        2: (30, 1),
        3: (21, 1),
        4: (19, 1),
    }


def test_no_work_is_done_during_a_resize():
    """Told at 1 to shrink, which takes 2 s; told at 2 to leave a node that goes away: 1 s of work is done, not 2."""
    jobs = [Job(0, 0.0, 4, 10.0, min_nodes=1), Job(1, 1.0, 2, 1.0)]
    leave = Change(2.0, lambda s, now_s: s.remove_nodes([0], now_s))
    left = []
    look = Change(2.5, lambda s, now_s: left.append((jobs[0].state, len(jobs[0].on), jobs[0].left_s(now_s))))
    simulate(jobs, 4, make_policy("elastic"), costs=Costs(resize_s=2.0), changes=[leave, look])
    assert left == [(State.RUNNING, 3, 9.0)]  # on the three nodes that are left, and told to shrink again


def test_preemption_costs_a_checkpoint_a_start_and_a_restart():
    jobs = [Job(0, 0.0, 1, 10.0), Job(1, 2.5, 1, 3.0)]
    found = simulate(jobs, 1, make_policy("srtf"), costs=Costs(start_s=0.5, checkpoint_s=1.0, restart_s=2.0))
    # 0.5 start, 2 s of work, 1 s of checkpoint; then 0.5 + 3; then 0.5 + 2 and the 8 s that were left.
    assert bars(found) == {0: [(0, 3.5, 1), (7, 17.5, 1)], 1: [(3.5, 7, 1)]}


def test_priority_and_what_ageing_does_to_it():
    def starts(ageing_per_s: float) -> dict[int, float | None]:
        jobs = [Job(0, 0.0, 1, 10.0), Job(1, 1.0, 1, 1.0, priority=0), Job(2, 8.0, 1, 1.0, priority=5)]
        found = simulate(jobs, 1, make_policy("priority", ageing_per_s=ageing_per_s))
        return {job.id: job.start_s for job in found.jobs}

    assert starts(0.0) == {0: 0, 2: 10, 1: 11}
    assert starts(0.5) == {0: 0, 2: 10, 1: 11}  # 7 s older, which makes up for 3.5 of 5
    assert starts(1.0) == {0: 0, 1: 10, 2: 11}


def test_fair_share_lets_the_user_go_first_who_had_least():
    jobs = [Job(i, 0.0, 1, 4.0, user="a") for i in range(3)] + [Job(i, 1.0, 1, 2.0, user="b") for i in (3, 4)]
    found = simulate(jobs, 1, make_policy("fair_share", half_life_s=float("inf")))
    # At 4 a has used 4 and b nothing; at 6 b has used 2; at 8 both have used 4, and a's job was there first.
    assert {job.id: job.start_s for job in found.jobs} == {0: 0, 3: 4, 4: 6, 1: 8, 2: 12}


def test_fair_share_forgets():
    """One half-life after using 8, a counts 4 and what b has used in the meantime, 6 s without decay, counts more."""

    def second(half_life_s: float) -> str:
        jobs = [Job(0, 0.0, 1, 8.0, user="a"), Job(1, 8.0, 1, 6.0, user="b")]
        jobs += [Job(2, 9.0, 1, 1.0, user="b"), Job(3, 9.0, 1, 1.0, user="a")]
        found = simulate(jobs, 1, make_policy("fair_share", half_life_s=half_life_s))
        return min((job for job in found.jobs if job.id > 1), key=lambda job: job.start_s).user

    assert second(float("inf")) == "b"
    assert second(6.0) == "a"


def test_drf_on_the_example_of_its_paper():
    """9 processors and 18 GB; A's tasks take 1 and 4 GB, B's 3 and 1 GB: three of A and two of B run at once."""
    a = [Job(i, 0.0, 1, 10.0, slots=1, memory_bytes=4.0, user="A") for i in range(6)]
    b = [Job(10 + i, 0.0, 1, 10.0, slots=3, memory_bytes=1.0, user="B") for i in range(6)]
    found = simulate([*a, *b], Cluster(1, slots=9, memory_bytes=18.0), make_policy("drf"))
    first = [job.user for job in found.jobs if job.start_s == 0]
    assert (first.count("A"), first.count("B")) == (3, 2)


def test_elastic_jobs_shrink_for_others_and_grow_again():
    jobs = [Job(0, 0.0, 2, 8.0, min_nodes=1, max_nodes=4), Job(1, 1.0, 2, 4.0)]
    found = simulate(jobs, 4, make_policy("elastic"))
    # On 4 nodes the first does 2 s of work in the first second, then 4 s on two, then the last 2 s on 4 again.
    assert {job.id: (job.start_s, job.end_s) for job in found.jobs} == {0: (0, 6), 1: (1, 5)}
    assert bars(found)[0] == [(0, 1, 2), (0, 6, 2), (5, 6, 2)]
    assert next(job for job in found.jobs if job.id == 0).segments == 3


def test_elastic_starts_small_rather_than_wait_and_does_not_grow_for_less_than_it_costs():
    jobs = [Job(0, 0.0, 3, 2.0), Job(1, 0.0, 2, 4.0, min_nodes=1)]
    assert bars(simulate(jobs, 4, make_policy("elastic")))[1] == [(0, 5, 1), (2, 5, 1)]
    again = [Job(0, 0.0, 3, 2.0), Job(1, 0.0, 2, 4.0, min_nodes=1)]
    assert bars(simulate(again, 4, make_policy("elastic", resize_cost_s=3.0)))[1] == [(0, 8, 1)]


def test_deadlines_earliest_first_and_who_is_refused():
    jobs = [
        Job(0, 0.0, 1, 2.0),
        Job(1, 1.0, 1, 3.0, deadline_s=20.0),
        Job(2, 1.0, 1, 2.0, deadline_s=5.0),
        Job(3, 1.0, 1, 5.0, deadline_s=10.0),
        Job(4, 1.0, 1, 4.0, deadline_s=9.0),  # would end at 8, and make job 3 end at 13
        Job(5, 1.0, 1, 4.0, deadline_s=4.5),  # not even alone
        Job(6, 1.0, 1, 1.0, deadline_s=5.5),  # after job 2 it would end at 5, job 3 at 10: both fine
        Job(7, 1.0, 1, 2.0, deadline_s=5.2),  # after job 2 it would end at 6
    ]
    found = simulate(jobs, 1, make_policy("deadline"))
    assert {job.id: job.start_s for job in found.jobs if job.state is State.DONE} == {0: 0, 2: 2, 6: 4, 3: 5, 1: 10}
    refused = {job.id: job.reason for job in found.jobs if job.state is State.REFUSED}
    assert refused.keys() == {4, 5, 7}
    assert "job 3, admitted before, would miss its deadline: it would be done at 13 s" in refused[4]
    assert "cannot be met: started now, 1 s, it would be done at 5 s" in refused[5]
    assert "with those before it, it would be done at 6 s" in refused[7]


@pytest.mark.parametrize("name", ["carbon", "price"])
@pytest.mark.parametrize(
    ("work_s", "deadline_s", "start_s"),
    [
        pytest.param(5.0, None, 10.0, id="the-best-hour"),
        pytest.param(15.0, None, 10.0, id="longer-than-an-hour"),
        pytest.param(12.0, None, 10.0, id="not-8-the-next-hour-is-better-than-the-one-before"),
        pytest.param(5.0, 12.0, 7.0, id="the-latest-that-its-deadline-allows"),
        pytest.param(5.0, 5.0, 0.0, id="no-slack"),
    ],
)
def test_waiting_for_a_better_hour(name, work_s, deadline_s, start_s):
    policy = make_policy(name, trace=HourlyTrace([5, 1, 2, 4], step_s=10.0), max_delay_s=30.0)
    (job,) = simulate([Job(0, 0.0, 1, work_s, deadline_s=deadline_s)], 1, policy).jobs
    assert job.start_s == start_s


def test_a_wake_up_for_nobody_does_not_swallow_the_next():
    """The first job is cancelled while it waits for 10; the second comes at 12 and waits for the same hour of the next day."""
    policy = make_policy("carbon", trace=HourlyTrace([5, 1, 5, 5], step_s=10.0), max_delay_s=100.0)
    drop = Change(5.0, lambda s, now_s: s.cancel(0, now_s))
    found = simulate([Job(0, 0.0, 1, 10.0), Job(1, 21.0, 1, 10.0)], 1, policy, changes=[drop])
    assert {job.id: (job.state, job.start_s) for job in found.jobs} == {
        0: (State.CANCELLED, None),
        1: (State.DONE, 50.0),
    }


def test_no_time_passes_until_an_end_that_will_not_come():
    """A job of 100 s is cancelled at 5: the run is over at 5, and nothing is said of the time until 100."""
    drop = Change(5.0, lambda s, now_s: s.cancel(0, now_s))
    found = simulate([Job(0, 0.0, 1, 100.0)], 1, make_policy("fifo"), changes=[drop])
    assert (found.end_s, found.meters.slot_s) == (5.0, 5.0)


def scheduler(nodes: int, policy: str, **options: object) -> Scheduler:
    return Scheduler(Cluster(nodes), make_policy(policy, **options))


def test_the_conversation_with_a_driver():
    """Every action and its answer, as real ranks have it."""
    s = scheduler(4, "elastic")
    first = s.submit(Job(1, 0.0, 4, 10.0, min_nodes=1), 0.0)
    assert s.decide(0.0) == [Start(first, (0, 1, 2, 3))]
    second = s.submit(Job(2, 1.0, 2, 5.0), 1.0)
    (resize,) = s.decide(1.0)
    assert resize == Resize(first, (0, 1))
    assert s.decide(1.5) == []  # it is on its way: nothing is asked twice, and no node is given away early
    s.resized(1, 2.0, remaining_s=8.0)
    assert s.decide(2.0) == [Start(second, (2, 3))]
    s.cancel(2, 3.0)
    assert s.decide(3.0) == [Stop(second, "cancel")]
    assert second.state is State.RUNNING
    s.stopped(2, 4.0)
    assert second.state is State.CANCELLED
    s.remove_nodes([0], 4.0)
    assert s.decide(4.0) == [Preempt(first)]
    s.stopped(1, 5.0, remaining_s=6.0)
    assert (first.state, first.remaining_s) == (State.PREEMPTED, 6.0)
    assert s.decide(5.0) == [Start(first, (1, 2, 3))]  # it wants 4 nodes, or as few as 1: it gets those that are left
    assert first.left_s(9.0) == 3.0
    s.finish(1, 13.0)
    assert (first.state, first.segments, s.cluster.num_busy) == (State.DONE, 3, 0)


def test_a_dead_node_throws_a_job_back_to_its_last_checkpoint():
    jobs = [Job(0, 0.0, 2, 10.0), Job(1, 0.0, 1, 3.0)]
    kill = Change(7.0, lambda s, now_s: s.node_died(0, now_s))
    found = simulate(jobs, 4, make_policy("fifo"), changes=[kill], costs=Costs(checkpoint_every_s=3.0))
    # 7 s of work were done and 6 of them saved; the 4 s left run on the nodes 1 to 3.
    assert bars(found)[0] == [(0, 7, 2), (7, 11, 2)]
    assert {bar.node for bar in found.intervals if bar.job == 0 and bar.start_s == 7} <= {1, 2, 3}


def test_jobs_wait_for_a_larger_machine_without_holding_up_others():
    grow = Change(20.0, lambda s, now_s: s.add_nodes([2, 3], now_s))
    jobs = [Job(0, 0.0, 4, 1.0), Job(1, 1.0, 2, 5.0)]
    found = simulate(jobs, 2, make_policy("fifo"), changes=[grow], most_nodes=4)
    assert bars(found) == {1: [(1, 6, 2)], 0: [(20, 21, 4)]}


def test_a_job_starts_when_all_that_it_depends_on_are_done():
    jobs = [Job(0, 0.0, 1, 3.0), Job(1, 0.0, 1, 5.0), Job(2, 0.0, 1, 1.0, depends_on=(0, 1)), Job(3, 0.0, 1, 1.0)]
    assert bars(simulate(jobs, 3, make_policy("fifo")))[2] == [(5, 6, 1)]


def test_a_change_of_policy_reorders_the_queue():
    jobs = [Job(0, 0.0, 1, 5.0), Job(1, 1.0, 1, 9.0), Job(2, 2.0, 1, 1.0)]
    shortest = Change(3.0, lambda s, now_s: s.set_policy(make_policy("sjf"), now_s))
    assert {j.id: j.start_s for j in simulate(jobs, 1, make_policy("fifo"), changes=[shortest]).jobs} == {
        0: 0,
        2: 5,
        1: 6,
    }


def test_computing_jobs_that_share_cores_slow_each_other_down():
    """Two cores, three jobs of one node: while all compute, each gets two thirds of a core."""

    def duration_s(job: Job, nodes: int, busy: int) -> float:
        return job.work_s * max(1.0, busy / 2)

    jobs = [Job(0, 0.0, 1, 4.0), Job(1, 0.0, 1, 6.0), Job(2, 0.0, 1, 6.0)]
    found = simulate(jobs, 3, make_policy("fifo"), duration_s=duration_s)
    assert {job.id: job.end_s for job in found.jobs} == pytest.approx({0: 6.0, 1: 8.0, 2: 8.0})
