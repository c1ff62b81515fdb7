"""Why measured and predicted differ, where only this experiment can tell; and what an answer costs."""

from __future__ import annotations

import pytest

from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.experiments.serving.explain import explain
from aiinfra_widgets.experiments.serving.predict import predict
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.quantities import Value

BARE = Machine("here", "2026-01-01", 2, 8 * 2**30)


def measured(**values):
    """Values by name; a triple is one with its interval."""
    found = {}
    for name, value in values.items():
        at, low, high = value if isinstance(value, tuple) else (value, None, None)
        found[name] = Value(name, at, low, high, "measured", n=100, interval=low is not None)
    return found


def causes(spec, **values):
    return explain(spec, BARE, predict(spec, BARE), measured(**values))


def test_a_load_that_was_another_by_chance_is_named(spec):
    [said] = causes(spec(arrival_rate_per_s=25.0), arrived_per_s=28.0)
    assert said.startswith("By chance the load was 12% more than asked")
    [said] = causes(spec(arrival_rate_per_s=25.0), arrived_per_s=20.0)
    assert "20% less" in said
    assert causes(spec(arrival_rate_per_s=25.0), arrived_per_s=25.5) == []


def test_a_load_that_others_offer_is_not_called_chance(spec):
    assert causes(spec(arrivals="http"), arrived_per_s=100.0) == []


def test_a_generator_that_was_late_is_named_with_what_it_means(spec):
    [said] = causes(spec(), lateness_s=0.02, mean_response_s=0.05)
    assert "up to 20 ms late" in said
    assert "counts as waiting" in said
    assert causes(spec(), lateness_s=0.001, mean_response_s=0.05) == []


def test_a_difference_within_the_interval_is_called_chance(spec):
    [said] = causes(spec(), mean_response_s=(0.05, 0.035, 0.065))  # predicted: 40.3 ms
    assert "within chance" in said
    assert "known to 30% only" in said
    assert causes(spec(), mean_response_s=(0.05, 0.048, 0.052)) == []
    assert causes(spec(), mean_response_s=(0.041, 0.03, 0.05)) == []  # hardly a difference at all


def test_nothing_is_said_of_what_was_not_measured(spec):
    assert causes(spec()) == []


def test_the_bill_is_shared_among_the_answers(spec):
    exp, s = experiment("serving"), spec(nodes=2, price_usd_per_node_hour=3.6)
    found = exp.derive(s, BARE, measured(completed_per_s=50.0, cpu_time_s=0.02), 10.0)
    # Two servers for ten seconds at a thousandth of a dollar each second, for 500 answers.
    assert found["cost_usd"].value == pytest.approx(0.02)
    assert found["cost_per_million_requests_usd"].value == pytest.approx(40.0)
    assert found["energy_per_request_j"].value == pytest.approx(found["energy_j"].value / 500)
    assert exp.derive(s, BARE, measured(completed_per_s=0.0), 10.0) == {}
    assert exp.derive(s, BARE, {}, 10.0) == {}


def test_a_promised_price_is_that_of_the_servers_held_not_of_the_work_done(spec):
    few, many = (predict(spec(arrival_rate_per_s=rate), BARE) for rate in (5.0, 40.0))
    ratio = few.get("cost_per_million_requests_usd") / many.get("cost_per_million_requests_usd")
    assert ratio == pytest.approx(8.0)
