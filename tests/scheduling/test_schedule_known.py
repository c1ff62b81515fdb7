"""Known optima and known anomalies: what scheduling theory is famous for must appear here too."""

from __future__ import annotations

import math
import statistics
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.hourly import HourlyTrace
from aiinfra_widgets.experiments.scheduling.jobs import Job
from aiinfra_widgets.experiments.scheduling.metrics import Tariff, metrics, tally
from aiinfra_widgets.experiments.scheduling.policies import Policy, make_policy
from aiinfra_widgets.experiments.scheduling.simulate import simulate
from aiinfra_widgets.experiments.scheduling.synthetic import Synthetic

DAY_S = 86400.0
# Grams per kilowatt-hour over a day with much sun: clean at noon, dirty in the evening. A shape, not a measurement.
SUNNY_DAY = [400 + 200 * math.cos((hour - 1) / 24 * 2 * math.pi) for hour in range(24)]


def mean_wait_s(works: list[float], policy: str) -> float:
    jobs = [Job(i, 0.0, 1, work) for i, work in enumerate(works)]
    return statistics.fmean(tally(simulate(jobs, 1, make_policy(policy)).jobs).wait_s)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 20).map(float), min_size=2, max_size=5))
def test_no_order_waits_less_than_shortest_first_on_one_node(works):
    def wait_s(order: tuple[float, ...]) -> float:
        return statistics.fmean(sum(order[:i]) for i in range(len(order)))

    best = min(wait_s(order) for order in permutations(works))
    assert mean_wait_s(works, "sjf") == pytest.approx(best)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 20)), min_size=2, max_size=12))
def test_nobody_answers_faster_than_shortest_remaining_on_one_node(rows):
    def response_s(policy: Policy) -> float:
        jobs = [Job(i, float(s), 1, float(w)) for i, (s, w) in enumerate(rows)]
        return statistics.fmean(tally(simulate(jobs, 1, policy).jobs).response_s)

    best = response_s(make_policy("srtf"))
    others = [make_policy("fifo"), make_policy("sjf"), make_policy("easy"), make_policy("gang", quantum_s=1.0)]
    assert all(response_s(other) >= best - 1e-9 for other in others)


def test_convoy():
    """One long job first: fifo lets nine short ones wait for all of it."""
    works = [100.0] + [1.0] * 9
    assert mean_wait_s(works, "fifo") == pytest.approx((sum(range(100, 109)) + 0) / 10)
    assert mean_wait_s(works, "sjf") == pytest.approx(sum(range(10)) / 10)


def long_job_waits_s(policy: Policy, crowd: int) -> float:
    """A long job of low priority among short ones of high priority that fill the node for `crowd` seconds."""
    short = [Job(i, float(i), 1, 1.0, priority=1.0) for i in range(crowd)]
    found = simulate([Job(-1, 0.5, 1, 5.0, priority=0.0), *short], 1, policy)
    return next(job.start_s - job.submit_s for job in found.jobs if job.id == -1)


@pytest.mark.parametrize("crowd", [50, 500])
def test_starvation_and_its_cure(crowd):
    assert long_job_waits_s(make_policy("sjf"), crowd) == crowd - 0.5
    assert long_job_waits_s(make_policy("priority"), crowd) == crowd - 0.5
    # A second of waiting makes up for a tenth of the difference: after ten seconds it goes first, however many there are.
    assert long_job_waits_s(make_policy("priority", ageing_per_s=0.1), crowd) == pytest.approx(10.5, abs=1)
    assert long_job_waits_s(make_policy("fifo"), crowd) == 0.5


def busy(policy: str, seed: int) -> dict[str, float | None]:
    stream = Synthetic(600, 64, load=0.9, max_demand=64, max_s=3600.0, seed=seed)
    found = simulate(list(stream), Cluster(8, 8), make_policy(policy))
    return metrics(tally(found.jobs), found.meters)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_backfill_helps_utilisation_and_waits(seed):
    fifo, easy = busy("fifo", seed), busy("easy", seed)
    assert easy["utilization_frac"] > fifo["utilization_frac"]
    assert easy["makespan_s"] < fifo["makespan_s"]
    assert easy["mean_wait_s"] < fifo["mean_wait_s"] / 2


def test_one_node_more_makes_it_all_take_longer():
    """The anomaly of Graham 1969: nine jobs, some after others; 12 s on three processors, 15 s on four."""
    works = [3.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 9.0]
    after = {8: (0,), 4: (3,), 5: (3,), 6: (3,), 7: (3,)}

    def makespan_s(nodes: int, faster_s: float = 0.0) -> float:
        jobs = [Job(i, 0.0, 1, work - faster_s, depends_on=after.get(i, ())) for i, work in enumerate(works)]
        return simulate(jobs, nodes, make_policy("fifo")).end_s

    assert (makespan_s(3), makespan_s(4)) == (12, 15)
    assert makespan_s(3, faster_s=1.0) == 13  # every job a second shorter: longer as well


def test_fair_share_shields_a_modest_user_from_a_greedy_one():
    def slowdowns(policy: Policy) -> dict[str, float]:
        greedy = [Job(i, 0.0, 1, 60.0, user="greedy") for i in range(40)]
        modest = [Job(100 + i, 300.0 * i, 1, 60.0, user="modest") for i in range(1, 6)]
        return tally(simulate(greedy + modest, 2, policy).jobs).slowdown_of_user

    fifo, fair = slowdowns(make_policy("fifo")), slowdowns(make_policy("fair_share"))
    assert fair["modest"] < 2 < fifo["modest"] / 2
    assert fair["greedy"] < 1.3 * fifo["greedy"]


def test_gangs_in_turns_answer_short_jobs_while_a_long_one_runs():
    jobs = lambda: [Job(0, 0.0, 4, 1000.0), *(Job(i, 10.0 * i, 4, 5.0) for i in range(1, 20))]  # noqa: E731
    fifo = tally(simulate(jobs(), 4, make_policy("fifo")).jobs)
    gang = tally(simulate(jobs(), 4, make_policy("gang", quantum_s=10.0)).jobs)
    assert max(sorted(gang.response_s)[:-1]) < min(sorted(fifo.response_s)[:-1]) / 10


def shifted(name: str, trace: str, hours: list[float]) -> tuple[dict, dict]:
    """Figures of a week of small jobs at low load, under fifo and under the policy, with the same trace and tariff."""
    values = HourlyTrace(hours)
    tariff = Tariff(idle_w=0.0, busy_w=1000.0)

    def run(policy: Policy) -> dict:
        stream = Synthetic(
            400, 32, load=0.25, slots_per_node=1, max_demand=4, median_s=1800.0, sigma=1.0, max_s=4 * 3600.0
        )
        found = simulate(list(stream), 32, policy, traces={trace: values})
        return metrics(tally(found.jobs), found.meters, tariff)

    return run(make_policy("fifo")), run(make_policy(name, trace=values, max_delay_s=DAY_S))


def test_clean_hours_really_emit_less():
    now, later = shifted("carbon", "carbon", SUNNY_DAY)
    assert later["energy_j"] == pytest.approx(now["energy_j"])  # the same work
    assert later["operational_gco2e"] < 0.75 * now["operational_gco2e"]
    assert later["mean_wait_s"] > now["mean_wait_s"]  # and this is its price


def test_cheap_hours_really_cost_less():
    now, later = shifted("price", "price", [v / 2000 for v in SUNNY_DAY])
    assert later["cost_usd"] < 0.75 * now["cost_usd"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.floats(0, 50), st.floats(0, 60), st.floats(0.1, 40))
def test_no_start_in_the_window_is_better_than_the_best(values, earliest_s, slack_s, duration_s):
    trace = HourlyTrace(values, step_s=5.0)
    best_s = trace.best_start_s(earliest_s, earliest_s + slack_s, duration_s)
    assert earliest_s <= best_s <= earliest_s + slack_s
    tried = [earliest_s + slack_s * k / 50 for k in range(51)]
    least = min(trace.mean(t, t + duration_s) for t in tried)
    assert trace.mean(best_s, best_s + duration_s) <= least + 1e-6
