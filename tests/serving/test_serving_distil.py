"""From records to figures: by hand, with intervals that hold what they promise, and true to Little's law."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from aiinfra_widgets.experiment import Observed, experiment
from aiinfra_widgets.experiments.serving.desk import Outcome, Request
from aiinfra_widgets.experiments.serving.distil import distil, mean_value, percentile_value
from aiinfra_widgets.experiments.serving.vocabulary import REQUESTS
from aiinfra_widgets.experiments.serving.windows import SAMPLE, Window
from aiinfra_widgets.models import arrival_times, mmc_response_percentile_s, mmc_response_s, service_times
from aiinfra_widgets.runs.writer import RECORD_HEAD

NAN = math.nan


def seen(rows, ticks=None, begun_s=0.0, steady_s=0.0, ended_s=10.0):
    """What one segment left behind: `rows` hold values of REQUESTS by name."""
    known = {
        "id": range(len(rows)),
        "server": 0,
        "tries": 1,
        "batch": 1,
        "outcome": 0,
        "first_token_s": NAN,
        "size": 1.0,
    }
    columns = {c: [r.get(c, known.get(c, NAN)) for r in rows] for c in REQUESTS}
    columns["id"] = list(range(len(rows)))
    frame = pd.DataFrame({**dict.fromkeys(RECORD_HEAD, 0), **columns})
    ticks = dict(ticks or {"queue_length": []})
    count = len(next(iter(ticks.values())))  # equal windows, unless a test says when each ended
    ticks.setdefault("t_s", [steady_s + (i + 1) * (ended_s - steady_s) / count for i in range(count)])
    return Observed(begun_s, steady_s, ended_s, pd.DataFrame(ticks), {"requests": frame}, {"requests": frame})


def answered(arrived_s, wait_s=0.1, service_s=0.2, back_s=0.01, **more):
    started_s, ended_s = arrived_s + wait_s, arrived_s + wait_s + service_s
    return {"arrived_s": arrived_s, "started_s": started_s, "ended_s": ended_s, "received_s": ended_s + back_s, **more}


def unanswered(arrived_s, outcome, received_s=NAN):
    return {"arrived_s": arrived_s, "outcome": int(outcome), "received_s": received_s}


# --- by hand ----------------------------------------------------------------------------------------------------------
def test_the_parts_add_up_to_the_response(spec):
    found = distil(spec(), seen([answered(1.0), answered(2.0, wait_s=0.3)]))
    parts = [found[name].value for name in ("mean_wait_s", "mean_service_s", "dispatch_time_s")]
    assert parts == pytest.approx([0.2, 0.2, 0.01])
    assert found["mean_response_s"].value == pytest.approx(sum(parts))
    assert (found["mean_response_s"].low, found["mean_response_s"].n) == (None, 2)  # too few for an interval


def test_requests_count_from_their_intended_arrival_after_the_warm_up(spec):
    rows = [answered(0.5, wait_s=5.0), answered(2.0), answered(3.0)]
    found = distil(spec(), seen(rows, steady_s=1.0))
    assert found["mean_response_s"].value == pytest.approx(0.31)
    assert found["mean_response_s"].n == 2


def test_failures_are_counted_and_have_no_response_time(spec):
    rows = [answered(1.0)] * 6 + [
        unanswered(2.0, Outcome.REJECTED, 2.0), unanswered(2.0, Outcome.TIMED_OUT, 3.0), unanswered(9.9, Outcome.UNFINISHED),
    ]  # fmt: skip
    found = distil(spec(), seen(rows))
    assert found["failed_frac"].value == pytest.approx(2 / 8)  # who still waited has not failed
    assert found["mean_response_s"].value == pytest.approx(0.31)
    assert "1 who still waited at the end are left out" in found["mean_response_s"].how


def test_goodput_is_what_kept_the_promise_per_second(spec):
    rows = [answered(1.0)] * 4 + [answered(1.0, wait_s=1.0)] * 2 + [unanswered(1.0, Outcome.REJECTED, 1.0)]
    found = distil(spec(slo_s=0.5), seen(rows, steady_s=0.5, ended_s=8.5))
    assert found["slo_goodput_per_s"].value == pytest.approx(4 / 8)


def test_time_above_the_promise_counts_late_answers_and_failures_alike(spec):
    good, late = answered(0.0), answered(0.0, wait_s=1.0)
    stretches = {
        0.1: [good] * 20 + [late],  # one of 21 is late: the promise holds
        0.6: [good] * 18 + [late] * 2,
        1.1: [good] * 9 + [unanswered(0.0, Outcome.REJECTED, 0.0)],
        1.6: [good] * 9 + [unanswered(0.0, Outcome.TIMED_OUT, 2.0)],
        2.1: [unanswered(0.0, Outcome.UNFINISHED)],  # it has waited for 7.9 s by now
        9.9: [unanswered(0.0, Outcome.UNFINISHED)],  # it came a moment ago
    }
    rows = []
    for at, some in stretches.items():
        for row in some:
            moved = {k: v + at if k.endswith("_s") else v for k, v in row.items()}
            rows.append(moved)
    found = distil(spec(slo_s=0.5), seen(rows))
    assert found["above_slo_s"].value == pytest.approx(4 * 0.5)


def test_where_nothing_was_answered_the_failures_are_told_all_the_same(spec):
    found = distil(spec(slo_s=0.5), seen([unanswered(1.0, Outcome.TIMED_OUT, 2.0)] * 3))
    assert (found["failed_frac"].value, found["above_slo_s"].value) == (1.0, 0.5)
    assert "mean_response_s" not in found
    assert distil(spec(), seen([])) == {}


def test_tokens(spec):
    rows = [
        answered(1.0, service_s=1.0, first_token_s=1.4, size=7.3),  # 7 tokens: six gaps in 0.7 s
        answered(2.0, service_s=0.3, first_token_s=2.4, size=0.2),  # one token: no gap
    ]
    found = distil(spec(service="gpt-tiny"), seen(rows))
    assert found["p95_ttft_s"].value == pytest.approx(0.4)
    assert (found["mean_tpot_s"].value, found["mean_tpot_s"].n) == (pytest.approx(0.7 / 6), 1)


def test_what_is_measured_at_every_moment_is_a_mean_over_time_not_a_median(spec):
    ticks = {"queue_length": [0.0] * 9 + [10.0], "utilization_frac": [NAN, 0.5] * 5, "lateness_s": [0.001] * 9 + [0.1]}
    found = distil(spec(), seen([answered(1.0)], ticks))
    assert found["queue_length"].value == pytest.approx(1.0)
    assert (found["utilization_frac"].value, found["utilization_frac"].n) == (0.5, 5)
    assert 0.01 < found["lateness_s"].value < 0.1
    assert "99th percentile" in found["lateness_s"].how


def test_every_figure_is_in_the_vocabulary_and_says_that_it_was_measured(spec):
    known = {q.name for q in experiment("serving").quantities} | {"mean_wait_s", "utilization_frac"}
    found = distil(spec(), seen([answered(1.0, first_token_s=1.2)] * 3, {n: [1.0] * 3 for n in SAMPLE}))
    assert set(found) <= known
    assert {v.method for v in found.values()} == {"measured"}
    assert all(v.quantity == name for name, v in found.items())


# --- intervals --------------------------------------------------------------------------------------------------------
def waits(count, rho, seed):
    """Responses of M/M/1 in order of arrival: they resemble their neighbours, the more the higher the load."""
    arrivals = arrival_times(count, "poisson", rho, seed=seed)
    sizes = service_times(count, "exponential", 1.0, seed=seed + 10_000)
    free, found = 0.0, np.empty(count)
    for i, (at, size) in enumerate(zip(arrivals.tolist(), sizes.tolist(), strict=True)):
        free = max(at, free) + size
        found[i] = free - at
    return found[count // 10 :]


@pytest.mark.parametrize("rho", [0.3, 0.7])
def test_a_95_percent_interval_of_the_mean_holds_the_truth_nearly_as_often(rho):
    truth = float(mmc_response_s(rho, 1.0, 1))
    held = [v.low <= truth <= v.high for v in (mean_value("mean_response_s", waits(6000, rho, s)) for s in range(120))]
    assert 0.88 <= np.mean(held) <= 1.0


@pytest.mark.parametrize(("rho", "share"), [(0.3, 50), (0.3, 99), (0.7, 50), (0.7, 95)])
def test_so_does_that_of_a_percentile_though_its_waits_resemble_each_other(rho, share):
    truth = float(mmc_response_percentile_s(rho, 1.0, 1, share / 100))
    held = [
        v.low <= truth <= v.high
        for v in (percentile_value("p95_response_s", waits(6000, rho, s), share) for s in range(120))
    ]
    assert 0.85 <= np.mean(held) <= 1.0


def test_an_interval_narrows_with_the_root_of_the_number():
    rng = np.random.default_rng(0)
    few, many = (mean_value("mean_wait_s", rng.exponential(1.0, n)) for n in (2000, 200_000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.5)
    narrow = percentile_value("p50_response_s", rng.exponential(1.0, 10_000), 50)
    # Of independent exponentials the median's standard error is 1 / root n.
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * 0.01, rel=0.4)


def test_no_interval_is_below_zero_or_beside_its_value():
    rare = np.zeros(400)
    rare[7] = 1.0
    found = mean_value("mean_wait_s", rare)
    assert 0 <= found.low <= found.value <= found.high
    assert found.interval
    for n in (1, 2, 3, 45):
        value = percentile_value("p99_response_s", np.arange(1.0, n + 1), 99)
        assert value.low <= value.value <= value.high


# --- Little's law -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "values",
    [
        {"nodes": 1},
        {"nodes": 3, "dispatch": "round-robin"},
        {"nodes": 2, "batching": "dynamic", "max_batch": 4, "batch_wait_s": 0.03},
        {"nodes": 2, "batching": "fixed", "max_batch": 3},
    ],
    ids=str,
)
def test_queue_length_is_rate_times_wait(play, spec, values):
    """What is averaged over time and what is averaged over requests are measured apart; they must agree."""
    s = spec(mean_service_s=0.02, arrival_rate_per_s=40.0 * values["nodes"], **values)
    until_s = 200.0
    arrivals = arrival_times(int(until_s * s.arrival_rate_per_s), "poisson", s.arrival_rate_per_s, seed=1)
    played = play(s, arrivals, service_times(len(arrivals), "exponential", 0.02, seed=2))
    names = ("arrived_s", "started_s", "ended_s", "received_s", "server", "batch")
    rows = [{**{n: getattr(r, n) for n in names}, "outcome": int(r.outcome)} for r in played.requests]
    found = distil(s, seen(rows, windows(s, played, until_s), ended_s=until_s))
    for name in ("queue_length", "arrived_per_s", "mean_wait_s"):
        assert found[name].low < found[name].value < found[name].high
    assert found["queue_length"].value == pytest.approx(
        found["arrived_per_s"].value * found["mean_wait_s"].value, rel=0.02
    )
    busy = found["arrived_per_s"].value * 0.02 / s.nodes
    assert busy < 1  # each run here is of a load that can be served


def windows(s, played, until_s):
    """The ticks of `played`, by the desk's own window, looked at whenever something happens, as rank 0 does."""
    ticks = {"queue_length": [], "arrived_per_s": []}
    window, came = Window(0.0), iter([*played.column("arrived_s"), math.inf])
    coming, waiting, end_s = next(came), 0, s.window_s
    for at, count in [*played.queue, (until_s, 0)]:
        while at > end_s and end_s <= until_s:
            window.look(end_s, waiting)
            sample = window.sample([], end_s)
            for name, values in ticks.items():
                values.append(sample[name])
            window, end_s = Window(end_s), end_s + s.window_s
        while coming <= at:
            window.arrived += 1
            coming = next(came)
        window.look(at, waiting)
        waiting = count
    return ticks


# --- one window -------------------------------------------------------------------------------------------------------
def test_a_window_counts_the_queue_over_time_and_what_ended_in_it():
    window = Window(10.0)
    window.look(10.2, 0)
    window.look(10.6, 5)
    window.look(11.0, 1)
    window.arrived, window.lateness_s = 7, [0.001, 0.004]
    ok = Request(0, 10.0, 1.0, 0, started_s=10.1, ended_s=10.4, received_s=10.5, batch=2, outcome=Outcome.OK)
    failed = Request(1, 10.0, 1.0, 0, outcome=Outcome.TIMED_OUT, received_s=10.9)
    found = window.sample([ok, failed], 11.0)
    assert set(found) == set(SAMPLE)
    assert found["queue_length"] == pytest.approx((5 * 0.4 + 1 * 0.4) / 1.0)
    assert (found["arrived_per_s"], found["completed_per_s"], found["failed_per_s"]) == pytest.approx((7, 1, 1))
    assert (found["mean_response_s"], found["p99_response_s"]) == pytest.approx((0.5, 0.5))
    parts = found["mean_wait_s"], found["mean_service_s"], found["dispatch_time_s"]
    assert parts == pytest.approx((0.1, 0.3, 0.1))
    assert (found["lateness_s"], found["batch_size"]) == (0.004, 2)


def test_the_percentiles_of_a_window_are_those_of_its_answers():
    took = np.random.default_rng(0).exponential(0.1, 57)
    ended = [
        Request(i, 1.0, 1.0, 0, 1.0, 1.0, received_s=1.0 + t, batch=1, outcome=Outcome.OK) for i, t in enumerate(took)
    ]
    found = Window(1.0).sample(ended, 2.0)
    for share in (50, 95, 99):
        assert found[f"p{share}_response_s"] == pytest.approx(np.percentile(took, share))
    assert found["mean_response_s"] == pytest.approx(took.mean())


def test_a_window_without_answers_has_no_response_times_and_not_zero():
    found = Window(0.0).sample([], 0.1)
    assert found["completed_per_s"] == 0
    assert all(math.isnan(found[n]) for n in ("mean_response_s", "p95_response_s", "mean_wait_s", "lateness_s"))


def test_a_window_that_was_cut_short_counts_for_as_long_as_it_was(spec):
    ticks = {"completed_per_s": [10.0, 1000.0, 10.0], "t_s": [5.0, 5.001, 10.0]}
    found = distil(spec(), seen([answered(1.0)], ticks))
    assert found["completed_per_s"].value == pytest.approx(10.0, rel=0.02)
