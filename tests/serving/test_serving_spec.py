"""What a person may ask of a service, and what is said to what makes no sense."""

from __future__ import annotations

import pytest

from aiinfra_widgets.errors import ControlError, SpecError
from aiinfra_widgets.experiment import experiment
from aiinfra_widgets.experiments.serving.spec import ServingSpec
from aiinfra_widgets.runs.control import arguments_of


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"arrival_rate_per_s": "-3"}, ["arrival_rate_per_s", "-3", "from 0.01 to 20000 1/s"]),
        ({"arrival_rate_per_s": 0}, ["arrival_rate_per_s", "got 0", "from 0.01"]),
        ({"arrival_rate_per_s": "fast"}, ["arrival_rate_per_s", "'fast'", "a number from"]),
        ({"arrival_rate_per_s": float("nan")}, ["arrival_rate_per_s", "nan", "a number from"]),
        ({"service_scv": -1.0}, ["service_scv", "-1", "from 0 to 50"]),
        ({"mean_service_s": 0.0}, ["mean_service_s", "got 0", "from 1e-05 to 10 s"]),
        ({"arrivals": "bursty", "burst_ratio": 1.0}, ["burst_ratio", "got 1", "from 1.1"]),
        ({"arrivals": "bursty", "burst_s": 0.0}, ["burst_s", "got 0", "from 0.01"]),
        ({"arrivals": "possion"}, ["arrivals", "'possion'", "did you mean 'poisson'"]),
        ({"dispatch": "jsq"}, ["dispatch", "'jsq'", "shortest-queue"]),
        ({"arrivals": "trace"}, ["trace_file", "got nothing", "CSV", "column arrival_s"]),
        ({"batching": "continuous"}, ["batching", "'continuous'", "'synthetic'", "service=gpt-tiny", "fixed or dynamic"]),
        ({"nodes": 2, "slow_node": 2}, ["slow_node", "got 2", "nodes=2", "-1 (none) to 1", "set slow_node=-1"]),
        ({"nodes": 0}, ["nodes", "got 0", "from 1"]),
        ({"autoscaler": "queue-length", "nodes": 5}, ["nodes", "got 5", "4 at most", "raise most_servers"]),
        ({"autoscaler": "predictive", "autoscaler_target": 2.0}, ["autoscaler_target", "got 2", "below 1"]),
        ({"batching": "fixed", "max_batch": 8, "queue_limit": 7}, ["queue_limit", "got 7", "never fill", "from 8", "dynamic"]),
        ({"batching": "fixed", "max_batch": 8, "queue_limit": 15, "nodes": 3, "dispatch": "round-robin"}, ["queue_limit", "from 22"]),
        ({"retry_budget_frac": 1.5}, ["retry_budget_frac", "1.5", "from 0 to 1"]),
        ({"rate": 3}, ["rate: no such"]),
    ],
    ids=lambda v: ",".join(v) if isinstance(v, dict) else "",
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_value_seen_and_what_is_allowed(asked, said):
    with pytest.raises(SpecError) as refused:
        ServingSpec.make(asked)
    for words in said:
        assert words in str(refused.value)


@pytest.mark.parametrize(
    "asked",
    [
        {"arrivals": "bursty", "service_scv": 0.0},  # bursts of requests that are all alike
        {"arrivals": "constant", "service_scv": 0.0},
        {"slow_node": 0},
        {"batching": "fixed", "max_batch": 8, "queue_limit": 8},
        {"batching": "dynamic", "max_batch": 8, "queue_limit": 1},
        {"batching": "fixed", "max_batch": 1, "queue_limit": 1},
        {"arrival_rate_per_s": 1000.0, "mean_service_s": 1.0},  # far too much, and that is worth seeing
    ],
    ids=str,
)
def test_what_is_unusual_but_makes_sense_is_taken(asked):
    ServingSpec.make(asked)


def test_several_faults_are_told_at_once():
    with pytest.raises(SpecError) as refused:
        ServingSpec.make({"arrival_rate_per_s": -1, "dispatch": "jsq", "speed": 3})
    assert len(str(refused.value).splitlines()) == 3


def test_a_trace_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ServingSpec.make({"arrivals": "trace", "trace_file": "day.csv"})
    assert asked.trace_file == str(tmp_path / "day.csv")
    monkeypatch.chdir("/")
    assert ServingSpec.make(asked.model_dump()) == asked


def test_the_kind_of_load_does_not_change_while_a_run_goes_on():
    with pytest.raises(ControlError, match=r"arrivals cannot change .* live fields: .*arrival_rate_per_s"):
        ServingSpec().changed({"arrivals": "bursty"}, live_only=True)


def test_the_argument_of_kill_is_checked():
    kill = experiment("serving").all_verbs()["kill"]
    with pytest.raises(ControlError, match=r"kill: server: got -1; allowed: a whole number from 0"):
        arguments_of(kill, {"server": -1})


def test_what_the_autoscaler_or_a_death_may_do_was_foreseen():
    exp = experiment("serving")
    alone = ServingSpec(nodes=3, slow_node=2)
    assert [(s.nodes, s.slow_node) for s in exp.foreseen(alone)] == [(2, -1)]
    scaled = ServingSpec(nodes=2, autoscaler="queue-length", most_servers=4)
    assert [s.nodes for s in exp.foreseen(scaled)] == [1, 3, 4]
