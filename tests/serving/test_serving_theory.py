"""What is predicted of a service: which formula where, what is said where there is none, and never a wait that makes no sense."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.experiments.serving import theory
from aiinfra_widgets.experiments.serving.predict import WAY_BACK_S, predict, references, sweep
from aiinfra_widgets.experiments.serving.service_time import ServiceTime, service_time
from aiinfra_widgets.experiments.serving.spec import AUTOSCALERS, ServingSpec
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.models import (
    mdc_wait_s,
    mg1_wait_s,
    mmc_response_percentile_s,
    mmc_wait_s,
    mmck_rejected_frac,
    mmck_wait_s,
    service_times,
    simulate_queue,
)

BARE = Machine("here", "2026-01-01", 2, 8 * 2**30)
S = 0.02


def predicted(spec, **over):
    return predict(spec, BARE, **over)


def how(found):
    return found.values["mean_response_s"].how


@pytest.fixture
def quick(monkeypatch):
    """Simulations that are over soon, where how exact they are does not matter."""
    monkeypatch.setattr(theory, "SIMULATED", 1500)
    monkeypatch.setattr(theory, "SIMULATED_EACH", 1000)
    monkeypatch.setattr(theory, "COURSE", 1500)


# --- which theory -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "named", "wait"),
    [
        ({"nodes": 1}, "M/M/c, exact", mmc_wait_s(25.0, 50.0, 1)),
        ({"nodes": 3, "arrival_rate_per_s": 120.0}, "M/M/c, exact", mmc_wait_s(120.0, 50.0, 3)),
        ({"nodes": 1, "dispatch": "two-choices"}, "M/M/c, exact", mmc_wait_s(25.0, 50.0, 1)),
        ({"nodes": 1, "service_scv": 4.0}, "M/G/1 (Pollaczek-Khinchine), exact", mg1_wait_s(25.0, 50.0, 4.0)),
        ({"nodes": 1, "service_scv": 0.0}, "M/G/1 (Pollaczek-Khinchine), exact", mg1_wait_s(25.0, 50.0, 0.0)),
        ({"nodes": 2, "service_scv": 0.0, "arrival_rate_per_s": 70.0}, "M/D/c (Cosmetatos)", mdc_wait_s(70.0, 50.0, 2)),
        ({"nodes": 2, "service_scv": 4.0, "arrival_rate_per_s": 70.0}, "G/G/c (Allen-Cunneen)", 2.5 * mmc_wait_s(70.0, 50.0, 2)),
        ({"arrivals": "http"}, "M/M/c, exact", mmc_wait_s(25.0, 50.0, 1)),
        ({"nodes": 2, "slow_node": 1, "slow_factor": 1.0}, "M/M/c, exact", mmc_wait_s(25.0, 50.0, 2)),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)  # fmt: skip
def test_the_formula_is_the_most_exact_one_that_covers_it_and_is_named(spec, values, named, wait):
    found = predicted(spec(mean_service_s=S, **values))
    assert how(found) == named
    assert found.get("mean_wait_s") == pytest.approx(float(wait))
    assert found.get("mean_response_s") == pytest.approx(float(wait) + S + WAY_BACK_S)


@pytest.mark.parametrize(
    "values",
    [
        {"arrivals": "constant"}, {"arrivals": "bursty"}, {"nodes": 2, "dispatch": "round-robin"}, {"nodes": 2, "slow_node": 0},
        {"queue_limit": 5}, {"timeout_s": 1.0}, {"batching": "fixed"}, {"batching": "dynamic"},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_formula_is_simulated_and_says_so_with_its_seed(spec, quick, values):
    found = predicted(spec(**values))
    assert how(found).startswith("simulation of")
    assert str(theory.SEED) in how(found)
    assert any("it was simulated" in note for note in found.notes)
    assert found.get("p99_response_s") > found.get("p50_response_s") > 0


def test_computing_servers_need_a_core_each_for_a_formula(spec):
    assert theory.has_formula(spec(nodes=2), 2)
    assert not theory.has_formula(spec(nodes=3), 2)
    assert not theory.has_formula(spec(nodes=1), 2, np.array([1, 2, 3]))
    assert theory.has_formula(spec(nodes=3), None)
    assert not theory.has_formula(spec(dispatch="round-robin"), None, np.array([1, 2]))


def test_percentiles_and_goodput_know_the_way_back(spec):
    found = predicted(spec(slo_s=0.1))
    assert found.get("p95_response_s") == pytest.approx(
        float(mmc_response_percentile_s(25.0, 50.0, 1, 0.95)) + WAY_BACK_S
    )
    # M/M/1: the response is exponential with rate mu - lambda; the answer is at the desk a little later.
    assert found.get("slo_goodput_per_s") == pytest.approx(25 * (1 - math.exp(-25 * (0.1 - WAY_BACK_S))))


def test_the_knee_the_front_and_the_autoscaler_are_told_about(spec):
    assert any("The knee: at 25 requests/s" in n for n in predicted(spec()).notes)  # M/M/1: at half its capacity
    assert any("up to the caller" in n for n in predicted(spec(arrivals="http")).notes)
    for policy in AUTOSCALERS[1:]:
        assert any("the autoscaler chooses" in n for n in predicted(spec(autoscaler=policy)).notes)


def test_a_service_shorter_than_the_way_to_it_is_warned_of(spec):
    assert any("0.01 ms hides behind the way" in n for n in predicted(spec(mean_service_s=1e-5)).notes)
    assert not any("hides" in n for n in predicted(spec(mean_service_s=0.005)).notes)
    assert not any(
        "hides" in n for n in predicted(spec(mean_service_s=1e-5, batching="dynamic", arrival_rate_per_s=1.0)).notes
    )


# --- simulated cases with a truth -------------------------------------------------------------------------------------
def test_a_limited_queue_turns_away_what_the_formula_says(spec):
    found = predicted(spec(arrival_rate_per_s=45.0, queue_limit=4))
    # The mean response of those who were let in; the formula counts places to wait.
    assert found.get("failed_frac") == pytest.approx(float(mmck_rejected_frac(45.0, 50.0, 1, 4)), rel=0.1)
    assert found.get("mean_wait_s") == pytest.approx(float(mmck_wait_s(45.0, 50.0, 1, 4)), rel=0.06)
    answered = found.get("completed_per_s")
    assert answered == pytest.approx(45 * (1 - found.get("failed_frac")), rel=0.02)
    assert found.get("slo_goodput_per_s") == pytest.approx(answered, rel=0.1)  # nearly all keep a promise of 0.2 s


def test_all_alike_and_by_the_clock_nobody_waits(spec):
    found = predicted(spec(arrivals="constant", service_scv=0.0, arrival_rate_per_s=40.0))
    assert found.get("mean_wait_s") == pytest.approx(0.0, abs=1e-9)
    assert found.get("p99_response_s") == pytest.approx(S + WAY_BACK_S)


@pytest.mark.parametrize("scv", [0.0, 1.0])
@pytest.mark.parametrize("batching", ["fixed", "dynamic"])
def test_a_synthetic_batch_is_predicted_as_the_servers_serve_it(play, spec, batching, scv):
    s = spec(batching=batching, service_scv=scv, arrival_rate_per_s=60.0, max_batch=4)
    arrivals = np.cumsum(np.random.default_rng(1).exponential(1 / 60, 20_000))
    kind = "exponential" if scv else "deterministic"
    played = play(s, arrivals, service_times(20_000, kind, S, seed=3))
    measured = np.array(played.column("received_s")) - arrivals
    found = predicted(s)
    assert found.get("mean_response_s") - WAY_BACK_S == pytest.approx(np.nanmean(measured), rel=0.05)
    assert found.get("p95_response_s") - WAY_BACK_S == pytest.approx(np.nanpercentile(measured, 95), rel=0.08)


def test_a_trace_is_predicted_by_itself_as_far_as_the_run_gets(spec, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s\n" + "\n".join(str(t) for t in (0.5, 1.0, 1.25, 1.5, 9.0)))
    s = spec(
        arrivals="trace",
        trace_file=str(path),
        service_scv=0.0,
        mean_service_s=0.5,
        duration_s=5.0,
        arrival_rate_per_s=1e4,
    )
    found = predicted(s)  # answered at 1, 1.5, 2 and 2.5
    assert found.get("mean_response_s") - WAY_BACK_S == pytest.approx((0.5 + 0.5 + 0.75 + 1.0) / 4)
    assert "the 4 requests of 5 s" in how(found)
    assert not any("Unstable" in n for n in found.notes)
    few = predicted(s, arrival_rate_per_s=np.array([1e-3, 1.0]))  # a sweep stretches it
    assert few.values["mean_wait_s"].value[0] == 0 < few.values["mean_wait_s"].value[1]


def test_a_trace_without_an_arrival_in_time_is_refused(spec, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s\n100\n")
    with pytest.raises(ModelInputError, match="nothing arrives within 5 s: the trace begins at 100 s"):
        predicted(spec(arrivals="trace", trace_file=str(path), duration_s=5.0))


def test_a_run_that_is_over_before_anybody_comes_is_refused(spec):
    with pytest.raises(ModelInputError, match=r"nothing arrives within 0\.5 s; let the run last longer"):
        predicted(spec(nodes=2, dispatch="round-robin", mean_service_s=10.0, arrival_rate_per_s=0.2, duration_s=0.5))


# --- too much ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "values",
    [
        {"arrival_rate_per_s": 65.0},
        {"arrival_rate_per_s": 50.0},  # exactly what the server can do does not settle either
        {"arrival_rate_per_s": 200.0, "nodes": 3},
        {"arrival_rate_per_s": 65.0, "service_scv": 0.0},
        {"arrival_rate_per_s": 130.0, "nodes": 2, "dispatch": "round-robin"},
        {"arrival_rate_per_s": 65.0, "arrivals": "bursty", "burst_s": 0.02},
        {"arrival_rate_per_s": 2000.0, "batching": "dynamic"},
        {
            "arrival_rate_per_s": 60.0,
            "nodes": 2,
            "dispatch": "round-robin",
            "slow_node": 0,
        },  # the slow one's own queue grows
    ],
    ids=str,
)
def test_a_load_that_cannot_be_served_is_called_unstable_and_shown_as_a_course(spec, values):
    found = predicted(spec(duration_s=20.0, **values))
    [said] = [n for n in found.notes if "Unstable" in n]
    assert "no steady state" in said
    assert "20 s" in said
    assert all(np.isfinite(v.value) and v.value >= 0 for v in found.values.values())
    assert found.get("mean_wait_s") > 0
    assert found.get("utilization_frac") > 0.5
    longer = predicted(spec(duration_s=60.0, **values))
    assert longer.get("mean_wait_s") > 1.3 * found.get("mean_wait_s")


@pytest.mark.parametrize("rate", [60.0, 75.0, 150.0])
def test_the_course_is_that_of_the_requests_which_are_answered_in_time(spec, rate):
    """Who still waits at the end has no response time yet: a mean that counted his would be one that nobody can measure."""
    found = predicted(spec(arrival_rate_per_s=rate, duration_s=60.0))
    means, queues = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * 60 * 1.3)))
        arrivals = arrivals[arrivals < 60]
        result = simulate_queue(arrivals, rng.exponential(S, len(arrivals)))
        means.append(np.mean((result.end_s - arrivals)[result.end_s <= 60]))
        queues.append(result.queue_length)
    assert found.get("mean_response_s") == pytest.approx(np.mean(means), rel=0.12)
    assert found.get("queue_length") == pytest.approx(np.mean(queues), rel=0.12)


def test_limits_make_every_load_stable(spec, quick):
    for limits in ({"queue_limit": 10}, {"timeout_s": 0.5}):
        found = predicted(spec(arrival_rate_per_s=200.0, **limits))
        assert not any("Unstable" in n for n in found.notes)
        assert 0.5 < found.get("failed_frac") < 1
    nobody = predicted(spec(arrival_rate_per_s=20.0, timeout_s=0.01, service_scv=0.0))  # no service is that short
    assert nobody.get("failed_frac") == 1
    assert nobody.get("mean_response_s") is None


@pytest.mark.parametrize(
    ("values", "most"),
    [
        ({}, 50.0), ({"nodes": 4}, 200.0), ({"nodes": 2, "slow_node": 1, "slow_factor": 4.0}, 62.5),
        ({"nodes": 2, "slow_node": 1, "slow_factor": 4.0, "dispatch": "round-robin"}, 25.0),
        ({"service_scv": 0.0, "batching": "fixed", "max_batch": 8}, 400.0),
        ({"batching": "dynamic", "max_batch": 2}, 50.0 * 2 / 1.5),  # the larger of two exponentials takes 1.5 times as long
    ],
    ids=str,
)  # fmt: skip
def test_what_the_servers_can_do_at_most(spec, values, most):
    s = spec(mean_service_s=S, **values)
    time = service_time(s, BARE)
    assert theory.capacity_per_s(s, time, time.mean_s, s.nodes, None) == pytest.approx(most, rel=0.01)


# --- whatever is asked ------------------------------------------------------------------------------------------------
@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {
            "nodes": st.integers(1, 5), "arrival_rate_per_s": st.floats(0.5, 400), "service_scv": st.sampled_from([0.0, 0.3, 1.0, 6.0]),
            "dispatch": st.sampled_from(["central", "central", "round-robin", "shortest-queue", "two-choices"]),
            "batching": st.sampled_from(["none", "none", "fixed", "dynamic"]), "max_batch": st.integers(1, 8),
            "queue_limit": st.sampled_from([0, 0, 50]), "timeout_s": st.sampled_from([0.0, 0.0, 0.05]),
            "retry_budget_frac": st.sampled_from([0.0, 0.3]), "slow_node": st.integers(-1, 0), "slo_s": st.sampled_from([1e-4, 0.05]),
            "arrivals": st.sampled_from(["poisson", "constant", "bursty", "http"]),
        }
    )
)  # fmt: skip
def test_no_figure_is_negative_endless_or_nonsense(values):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SIMULATED", "SIMULATED_EACH", "COURSE"):
            patch.setattr(theory, name, 800)
        s = ServingSpec.make({"duration_s": 5.0, **values})
        found = predicted(s)
    numbers = {name: v.value for name, v in found.values.items()}
    assert all(np.isfinite(v) and v >= 0 for v in numbers.values()), numbers
    assert all(v.low <= v.value <= v.high for v in found.values.values() if v.low is not None)
    assert numbers["utilization_frac"] <= 1 + 1e-9
    assert numbers["failed_frac"] <= 1
    assert numbers.get("slo_goodput_per_s", 0) <= 1.25 * s.arrival_rate_per_s * 10  # bursts are loads too
    if "mean_response_s" in numbers:
        parts = sum(numbers[p] for p in ("mean_wait_s", "mean_service_s", "dispatch_time_s"))
        assert numbers["mean_response_s"] == pytest.approx(parts)
    if "p99_response_s" in numbers:
        assert numbers["p50_response_s"] <= numbers["p95_response_s"] <= numbers["p99_response_s"]


# --- sweeps -----------------------------------------------------------------------------------------------------------
RATES = np.array([1.0, 20.0, 49.0, 50.0, 80.0])


@pytest.mark.parametrize(
    "values",
    [
        {"nodes": 1}, {"nodes": 2, "service_scv": 0.0}, {"nodes": 2, "service_scv": 4.0}, {"nodes": 2, "dispatch": "round-robin"},
        {"batching": "dynamic"},
    ],
    ids=str,
)  # fmt: skip
def test_a_sweep_is_as_good_as_one_call_for_each_point(spec, quick, values):
    s = spec(**values)
    whole = predicted(s, arrival_rate_per_s=RATES)
    for i, rate in enumerate(RATES):
        one = predicted(s, arrival_rate_per_s=np.array([rate]))
        for name, value in whole.values.items():
            if np.ndim(value.value):
                np.testing.assert_allclose(value.value[i], one.values[name].value[0], rtol=1e-12, err_msg=name)


def test_a_sweep_over_servers_and_load_broadcasts(spec):
    found = predicted(spec(), arrival_rate_per_s=RATES[:, None], nodes=np.array([1, 2, 4]))
    wait = found.values["mean_wait_s"].value
    assert wait.shape == (5, 3)
    assert wait[1, 1] == pytest.approx(float(mmc_wait_s(20.0, 50.0, 2)))
    assert np.all(np.diff(wait[:3], axis=0) >= 0)
    assert np.all(np.diff(wait[:3], axis=1) <= 0)


@pytest.mark.parametrize(
    "values", [{}, {"dispatch": "round-robin", "nodes": 1, "slow_node": 0}], ids=["formula", "simulated"]
)
def test_a_sweep_beyond_the_capacity_has_no_end_of_waiting_and_no_nonsense(spec, quick, values):
    found = predicted(spec(**values), arrival_rate_per_s=np.array([10.0, 51.0, 500.0]))
    for name in ("mean_response_s", "mean_wait_s", "queue_length", "p99_response_s"):
        first, *rest = found.values[name].value
        assert np.isfinite(first)
        assert rest == [np.inf, np.inf], name
    assert not any(np.isnan(v.value).any() for v in found.values.values())


def test_another_field_cannot_be_swept(spec):
    with pytest.raises(
        ModelInputError, match=r"mean_service_s cannot be swept here; allowed: arrival_rate_per_s, nodes"
    ):
        predicted(spec(), mean_service_s=np.array([0.1, 0.2]))


@pytest.mark.parametrize(
    "values", [{}, {"nodes": 3}, {"nodes": 2, "dispatch": "two-choices"}, {"batching": "dynamic"}], ids=str
)
def test_a_curve_goes_from_nearly_nothing_to_nearly_all(spec, quick, values):
    s = spec(**values)
    time = service_time(s, BARE)
    most = theory.capacity_per_s(s, time, time.mean_s, s.nodes, None)
    loads = np.array(sweep(s, BARE))
    assert np.all(np.diff(loads) > 0)
    assert 0 < loads[0] < 0.1 * most
    assert 0.98 * most < loads[-1] < most
    response = predicted(s, arrival_rate_per_s=loads).values["mean_response_s"].value
    assert np.all(np.isfinite(response))
    for curve in experiment("serving").curves:
        for line in references(s, BARE, curve.quantity, loads.tolist()).values():
            assert np.shape(line) == loads.shape
            assert not np.isnan(line).any()


# --- continuous batches -----------------------------------------------------------------------------------------------
def shared(batch_s):
    """A service whose requests share every step: with b of them the server answers b / batch_s[b - 1] a second."""
    each = np.array(batch_s, float)
    return ServiceTime(each[0], 1.0, each[0], each[0], each, np.ones_like(each), each[0], 0.0, 0.0, "by hand")


def continuous(servers, most):
    return ServingSpec.make({"service": "gpt-tiny", "batching": "continuous", "nodes": servers, "max_batch": most})


@pytest.mark.parametrize("servers", [1, 2, 3])
@pytest.mark.parametrize("load", [0.2, 0.6, 0.9])
def test_continuous_batches_of_one_are_the_plain_queue(servers, load):
    rate = load * servers / S
    found = theory.continuous_figures(continuous(servers, 1), shared([S]), None, {"arrival_rate_per_s": rate}).values
    assert found["mean_wait_s"] == pytest.approx(float(mmc_wait_s(rate, 1 / S, servers)), rel=1e-6)
    assert found["mean_response_s"] == pytest.approx(found["mean_wait_s"] + S, rel=1e-6)
    assert found["utilization_frac"] == pytest.approx(load, rel=1e-6)
    assert found["queue_length"] == pytest.approx(rate * found["mean_wait_s"], rel=1e-6)


def test_requests_that_slow_each_other_down_fully_share_the_processor():
    """Where b requests take b times as long, sharing is no gain: the number in the system is that of one plain server."""
    spec, time = continuous(1, 8), shared(S * np.arange(1, 9))
    found = theory.continuous_figures(spec, time, None, {"arrival_rate_per_s": np.array([30.0, 45.0])}).values
    np.testing.assert_allclose(found["mean_response_s"], 1 / (1 / S - np.array([30.0, 45.0])), rtol=1e-6)


def test_requests_that_do_not_slow_each_other_down_hardly_wait():
    found = theory.continuous_figures(continuous(1, 32), shared([S] * 32), None, {"arrival_rate_per_s": 100.0}).values
    assert found["mean_response_s"] == pytest.approx(S, rel=1e-3)
    assert found["mean_wait_s"] == pytest.approx(0, abs=1e-6)


def test_more_than_shared_steps_can_do_has_no_end(spec):
    time = shared([S, 1.5 * S])
    found = theory.continuous_figures(
        continuous(1, 2), time, None, {"arrival_rate_per_s": np.array([60.0, 70.0])}
    ).values
    assert np.isfinite(found["mean_response_s"][0])
    assert found["mean_response_s"][1] == np.inf
    assert theory.capacity_per_s(continuous(1, 2), time, S, 1, None) == pytest.approx(2 / (1.5 * S))


def test_servers_that_share_cores_are_slower_all_together():
    found = [
        theory.continuous_figures(continuous(4, 2), shared([S, S]), cores, {"arrival_rate_per_s": 90.0}).values["mean_response_s"]
        for cores in (None, 4, 2)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1])
    assert found[2] > 1.1 * found[0]
