"""What a server does with requests: sleeping to deadlines, and the nets' answers. Intervals and ratios, never wall times."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from aiinfra_widgets.experiments.serving.measure_services import MOST_BEHIND_S, Demand, make_service
from aiinfra_widgets.experiments.serving.spec import ServingSpec
from aiinfra_widgets.workloads import nets


def spec(**values) -> ServingSpec:
    return ServingSpec.make(values)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# --- synthetic --------------------------------------------------------------------------------------------------------
def test_a_service_begins_when_its_request_was_meant_to_arrive(cache):
    service, now_s = make_service(spec(), cache, False), time.monotonic()
    early = Demand(7, 0.002, now_s + 0.01)
    [answer] = service.serve([early])
    assert (answer.id, answer.started_s) == (7, early.arrived_s)
    assert answer.ended_s >= answer.started_s + early.size
    assert math.isnan(answer.first_token_s)


def test_late_wake_ups_do_not_add_up(cache):
    service, now_s = make_service(spec(), cache, False), time.monotonic()
    answers = [service.serve([Demand(i, 0.001, now_s)])[0] for i in range(40)]
    gaps = [b.started_s - (a.started_s + 0.001) for a, b in pairwise(answers)]
    assert min(gaps) >= -1e-9  # one at a time
    assert sum(g < 1e-9 for g in gaps) > 20  # and the next begins when the last was due, however late it woke up


def test_after_a_stall_there_is_no_rush(cache):
    service, called_s = make_service(spec(), cache, False), time.monotonic()
    [answer] = service.serve([Demand(0, 0.001, called_s - 3600)])
    assert answer.started_s >= called_s - MOST_BEHIND_S


def test_a_batch_begins_when_all_is_there_and_takes_as_long_as_its_largest(cache):
    service, now_s = make_service(spec(), cache, False), time.monotonic() + 0.005
    batch = [
        Demand(i, size, now_s + wait) for i, (size, wait) in enumerate([(0.001, 0.004), (0.006, 0), (0.002, 0.01)])
    ]
    answers = service.serve(batch)
    assert [a.id for a in answers] == [0, 1, 2]
    assert {a.started_s for a in answers} == {now_s + 0.01}
    assert all(a.ended_s >= now_s + 0.016 for a in answers)
    [waited] = service.serve([Demand(3, 0.001, now_s)], ready_s=now_s + 0.05)
    assert waited.started_s >= now_s + 0.05


def test_a_slow_server_takes_longer_until_it_is_no_longer_slow(cache):
    asked = spec(slow_node=0, slow_factor=3.0)
    service = make_service(asked, cache, True)
    [slow] = service.serve([Demand(0, 0.002, time.monotonic() + 0.01)])
    assert slow.ended_s >= slow.started_s + 0.006
    service.configure(asked, False)
    starts = [service.serve([Demand(i, 0.002, 0.0)])[0].started_s for i in range(30)]
    assert 0.002 - 1e-9 <= min(b - a for a, b in pairwise(starts)) < 0.004


# --- digits-cnn -------------------------------------------------------------------------------------------------------
def test_pictures_are_answered_as_the_net_answers_them(cache):
    service = make_service(spec(service="digits-cnn", batching="dynamic", max_batch=4), cache, False)
    work = nets.load("digits-cnn", seed=0, cache=cache)
    count = len(work.test[0])
    want = work.module(work.test[0]).argmax(1).tolist()
    ids = [3, count + 5, 2 * count - 1, 17]
    answers = service.serve([Demand(i, 0.0, 0.0) for i in ids])
    assert [a.id for a in answers] == ids
    assert [a.result for a in answers] == [want[i % count] for i in ids]
    [alone] = service.serve([Demand(ids[1], 0.0, 0.0)])
    assert alone.result == answers[1].result
    assert len(set(want)) > 1


def test_a_slow_server_of_pictures_takes_longer(cache):
    asked = spec(service="digits-cnn", slow_node=0, slow_factor=10.0)

    def least_s(slow: bool) -> float:
        service = make_service(asked, cache, slow)
        answers = [service.serve([Demand(i, 0.0, 0.0)])[0] for i in range(20)]
        return min(a.ended_s - a.started_s for a in answers)

    assert least_s(True) > 4 * least_s(False)
