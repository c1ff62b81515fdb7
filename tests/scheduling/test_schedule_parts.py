"""The parts that a schedule is made of: placement, meters, figures, synthetic streams."""

from __future__ import annotations

import math
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.hourly import HourlyTrace
from aiinfra_widgets.experiments.scheduling.jobs import Job, State
from aiinfra_widgets.experiments.scheduling.metrics import Tally, Tariff, jain, metrics, quantile, tally
from aiinfra_widgets.experiments.scheduling.policies import make_policy
from aiinfra_widgets.experiments.scheduling.room import Room
from aiinfra_widgets.experiments.scheduling.simulate import Change, simulate
from aiinfra_widgets.experiments.scheduling.synthetic import Synthetic, node_shape

HOUR_S = 3600.0
asks = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.booleans()), max_size=40)


@settings(max_examples=200, deadline=None)
@given(asks, st.sampled_from([math.inf, 6.0]))
def test_placement_is_best_fit_and_lowest_of_equals(asks, memory_bytes):
    cluster, placed = Cluster(5, slots=4, memory_bytes=memory_bytes), {}
    for number, (nodes, slots, memory, leave) in enumerate(asks):
        if leave and placed:
            job, there = placed.popitem()
            cluster.release(job, there)
        fitting = [n for n in cluster.free if cluster.free[n] >= slots and cluster.free_memory[n] >= memory]
        best = tuple(sorted(fitting, key=lambda n: (cluster.free[n], n))[:nodes])
        found = cluster.place(nodes, slots, float(memory))
        assert found == (best if len(fitting) >= nodes else None)
        assert cluster.num_fitting(slots, float(memory)) == len(fitting)
        assert Room(cluster, Job(0, 0.0, nodes, 1.0, slots=slots, memory_bytes=memory)).num_fitting == len(fitting)
        if found:
            cluster.allocate(number, found, slots, float(memory))
            placed[number] = found
    for job, there in placed.items():
        cluster.release(job, there)
    assert set(cluster.free.values()) == {4}
    assert (cluster.num_busy, cluster.num_partly_free) == (0, 0)


def test_a_draining_node_takes_nobody_and_leaves_with_its_last_job():
    cluster = Cluster(2, slots=2)
    cluster.allocate(1, (0,), 1)
    cluster.drain(0)
    assert (cluster.num_nodes, cluster.place(1, 1), cluster.place(2, 1)) == (1, (1,), None)
    assert Room(cluster, Job(0, 0.0, 2, 1.0)).num_fitting == 1
    cluster.release(1, (0,))
    assert cluster.free == {1: 2}
    cluster.add([0])
    assert cluster.place(2, 2) == (0, 1)


def test_old_entries_of_the_heaps_do_not_pile_up():
    cluster = Cluster(3, slots=2)
    for number in range(5000):
        cluster.allocate(number, (0,), 1)
        cluster.release(number, (0,))
    assert sum(len(heap) for heap in cluster._heaps) < 300


def test_figures_by_hand():
    """Two nodes; job 0 has both from 0 to 100, job 1 waits from 20 to 100 and has one to 150, job 2 never runs."""
    jobs = [Job(0, 0.0, 2, 100.0, user="a"), Job(1, 20.0, 1, 50.0, user="b", deadline_s=120.0), Job(2, 30.0, 3, 1.0)]
    found = simulate(jobs, 2, make_policy("fifo"))
    figures = metrics(tally(found.jobs), found.meters, Tariff(10.0, 110.0, 3.6, 0.36, 500.0, pue=2.0))
    slowdowns = (1.0, 130 / 50)
    want = {
        "makespan_s": 150.0,
        "mean_wait_s": 40.0,
        "p95_wait_s": 76.0,  # 95 % of the way from 0 to 80
        "mean_response_s": (100 + 130) / 2,
        "mean_slowdown": statistics.fmean(slowdowns),
        "p95_slowdown": 1 + 0.95 * 1.6,
        "utilization_frac": 250 / 300,
        "fairness_frac": sum(slowdowns) ** 2 / (2 * sum(s * s for s in slowdowns)),
        "fragmentation_frac": 0.0,
        "num_ended": 3.0,
        "num_done": 2.0,
        "num_late": 1.0,
        "energy_j": 250 * 110.0 + 50 * 10.0,
        # 300 node-seconds at 3.6 USD an hour, and 28 kJ, doubled by the building, at 0.1 USD for a megajoule.
        "cost_usd": 0.3 + 28e3 * 2 / 3.6e6 * 0.36,
        "operational_gco2e": 28e3 * 2 / 3.6e6 * 500,
    }
    assert figures == pytest.approx(want)


def test_what_is_not_known_is_none():
    nothing = metrics(Tally(), simulate([], 1, make_policy("fifo")).meters, Tariff())
    assert {name for name, value in nothing.items() if value is not None} == {"num_ended", "num_done", "num_late"}
    found = simulate([Job(0, 0.0, 1, 1.0)], 1, make_policy("fifo"))
    figures = metrics(tally(found.jobs), found.meters, Tariff(busy_w=1.0))
    assert (figures["energy_j"], figures["cost_usd"], figures["operational_gco2e"]) == (1.0, None, None)


def test_a_short_job_counts_as_ten_seconds_in_a_slowdown():
    jobs = [Job(0, 0.0, 1, 60.0), Job(1, 0.0, 1, 1.0)]
    assert list(tally(simulate(jobs, 1, make_policy("fifo")).jobs).slowdown) == [1.0, 6.1]


def test_a_wait_is_all_the_time_without_nodes():
    """Preempted from 2 to 5, so the wait is 3 s; a start is not the end of waiting."""
    jobs = [Job(0, 0.0, 1, 10.0), Job(1, 2.0, 1, 3.0)]
    assert list(tally(simulate(jobs, 1, make_policy("srtf")).jobs).wait_s) == [0.0, 3.0]


def test_fragmentation_is_what_whole_nodes_cannot_have():
    """Two nodes of 4: one job of 3 slots for 10 s, so that 1 of 5 free slots is on a node that is partly busy."""
    found = simulate([Job(0, 0.0, 1, 10.0, slots=3)], Cluster(2, slots=4), make_policy("fifo"))
    assert found.meters.fragmentation_frac == pytest.approx(1 / 5)
    assert found.meters.utilization_frac == pytest.approx(3 / 8)


def test_littles_law():
    """Mean number waiting is the rate of arrivals times the mean wait, exactly, over the whole of a run."""
    found = simulate(list(Synthetic(500, 16, 0.95, 4, 16, max_s=HOUR_S, seed=4)), Cluster(4, 4), make_policy("easy"))
    waits = tally(found.jobs).wait_s
    assert found.meters.waiting_job_s == pytest.approx(sum(waits))


def test_carbon_of_the_hour_in_which_the_work_was_done():
    """An hour at 100 g/kWh, then one at 300; the job runs from half past to half past."""
    trace = HourlyTrace([100, 300], start_s=0.0)
    jobs = [Job(0, 0.0, 1, HOUR_S / 2), Job(1, HOUR_S / 2, 1, HOUR_S)]
    found = simulate(jobs[1:], 2, make_policy("fifo"), traces={"carbon": trace})
    figures = metrics(tally(found.jobs), found.meters, Tariff(idle_w=0.0, busy_w=1000.0))
    assert figures["operational_gco2e"] == pytest.approx(0.5 * 100 + 0.5 * 300)
    with_idle = metrics(tally(found.jobs), found.meters, Tariff(idle_w=500.0, busy_w=1000.0))
    assert with_idle["operational_gco2e"] == pytest.approx(1.5 * 200)  # the other node idles at half the power


def test_an_hourly_trace_repeats():
    trace = HourlyTrace([1, 2, 6], start_s=-2 * HOUR_S)
    hour = HOUR_S
    assert trace.integral(0.5 * hour, 2.5 * hour) == pytest.approx((0.5 * 6 + 1 + 0.5 * 2) * hour)
    assert trace.mean(-20 * hour, 70 * hour) == pytest.approx(3)
    assert trace.best_start_s(0.0, 10 * hour, hour) == pytest.approx(hour)
    assert trace.best_start_s(5.0, 5.0, hour) == 5.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_numpys(values, part):
    assert quantile(values, part) == pytest.approx(float(np.quantile(values, part)), rel=1e-9, abs=1e-9)


def test_jain():
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([]) is None


@pytest.mark.parametrize(
    ("demand", "slots", "want"),
    [(1, 8, (1, 1)), (8, 8, (1, 8)), (9, 8, (2, 5)), (12, 8, (2, 6)), (64, 8, (8, 8)), (3, 1, (3, 1))],
)
def test_shape_of_a_demand(demand, slots, want):
    assert node_shape(demand, slots) == want


def test_a_synthetic_stream_offers_the_load_that_was_asked_for():
    stream = Synthetic(60_000, 1000, load=0.8, max_demand=64, sigma=1.0, max_s=6000.0, overestimate=3.0, seed=5)
    jobs = list(stream)
    work = [job.nodes * job.slots * job.work_s for job in jobs]
    assert sum(work) / (1000 * jobs[-1].submit_s) == pytest.approx(0.8, rel=0.03)
    assert statistics.fmean(job.work_s for job in jobs) == pytest.approx(stream.mean_run_s, rel=0.02)
    assert statistics.fmean(job.nodes * job.slots for job in jobs) == pytest.approx(stream.mean_demand, rel=0.03)
    widths = Counter(job.nodes * job.slots for job in jobs)
    assert sorted(widths) == [1, 2, 4, 8, 16, 32, 64]
    assert widths[1] == pytest.approx(2 * widths[2], rel=0.05)
    assert all(1 <= job.estimate_s / job.work_s <= 3 for job in jobs)
    assert max(job.work_s for job in jobs) <= 6000


def test_the_same_seed_is_the_same_stream():
    def rows(seed: int) -> list[tuple]:
        return [(job.submit_s, job.nodes, job.work_s, job.user) for job in Synthetic(50, 64, max_demand=8, seed=seed)]

    assert rows(3) == rows(3) != rows(4)


def test_memory_is_bounded_by_the_jobs_in_the_system():
    """Without a record nothing is kept of a job that has ended but how it ended."""
    stream, tally_, most = Synthetic(3000, 64, 0.7, 8, 32, max_s=HOUR_S), Tally(), []
    watch = [
        Change(t * 2000.0, lambda s, now_s: most.append((len(s.jobs), len(s.running) + len(s.queue))))
        for t in range(20)
    ]
    found = simulate(iter(stream), Cluster(8, 8), make_policy("easy"), record=False, on_end=tally_.note, changes=watch)
    assert (found.jobs, found.intervals, found.num_by_state) == ([], [], {State.DONE: 3000})
    assert max(kept for kept, _ in most) < 1000
    assert all(kept == in_system for kept, in_system in most)
    whole = simulate(list(stream), Cluster(8, 8), make_policy("easy"), changes=watch)
    assert metrics(tally_, found.meters) == metrics(tally(whole.jobs), whole.meters)
