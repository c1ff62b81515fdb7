"""What a server does with requests: sleeping to deadlines, and the nets' answers. Intervals and ratios, never wall times."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from aiinfra_widgets.experiments.serving.measure_services import MOST_BEHIND_S, Continuous, Demand, make_service
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
    early = Demand(7, 0.002, now_s + 0.1)
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
    service, now_s = make_service(spec(), cache, False), time.monotonic() + 0.1
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
    [slow] = service.serve([Demand(0, 0.002, time.monotonic() + 0.1)])
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


# --- gpt-tiny ---------------------------------------------------------------------------------------------------------
SIZES = [3.0, 1.0, 7.4, 0.2, 7.0, 4.0]


def language(cache, **values):
    return make_service(spec(service="gpt-tiny", prompt_tokens=5, max_batch=4, **values), cache, False)


def test_alone_in_a_batch_or_joining_and_leaving_the_answers_are_the_same(cache):
    demands = [Demand(i, size, 0.0) for i, size in enumerate(SIZES)]
    alone = language(cache)
    want = {d.id: alone.serve([d])[0].result for d in demands}
    assert len(set(want.values())) > 1
    batch = language(cache, batching="fixed").serve(demands[:4])
    assert {a.id: a.result for a in batch} == {i: want[i] for i in range(4)}

    service = language(cache, batching="continuous")
    assert isinstance(service, Continuous)
    left, found, steps = list(demands), [], []
    while left or service.active:
        while left and service.active < 2:
            service.add(left.pop(0))
        answers = service.step()
        found += answers
        steps.append(len(answers))
    assert {a.id: a.result for a in found} == want
    assert service.active == 0
    # Two slots and answers of 3, 1, 7, 1, 7 and 4 tokens: request 2 follows 1, 3 follows 0 after the third step, and so on.
    assert steps == [1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1]


def test_times_of_an_answer_are_in_order(cache):
    service = language(cache, batching="continuous")
    called_s = time.monotonic()
    batch = language(cache).serve([Demand(0, 4.0, 0.0), Demand(1, 2.0, 0.0)])
    service.add(Demand(2, 3.0, 0.0))
    joined = [a for _ in range(3) for a in service.step()]
    for a in [*batch, *joined]:
        assert called_s <= a.started_s < a.first_token_s < a.ended_s <= time.monotonic()
    assert batch[0].ended_s == batch[1].ended_s
    assert joined[0].started_s > batch[0].ended_s


def test_prompt_and_answer_fit_the_context_and_the_longest_decides_a_batch(cache):
    service = language(cache, batching="fixed")
    passes = []
    real = service.decoder.decode_step
    service.decoder.decode_step = lambda tokens: passes.append(len(tokens)) or real(tokens)
    service.serve([Demand(0, 1e6, 0.0), Demand(1, 1.0, 0.0)])
    assert passes == [2] * (256 - 5 - 1)
    service.decoder.decode_step = real


def test_a_slow_server_of_tokens_takes_longer(cache):
    asked = spec(service="gpt-tiny", slow_node=0, slow_factor=10.0)
    service = make_service(asked, cache, True)

    def least_s() -> float:
        answers = [service.serve([Demand(i, 3.0, 0.0)])[0] for i in range(10)]
        return min(a.ended_s - a.started_s for a in answers)

    slow_s = least_s()
    service.configure(asked, False)
    assert slow_s > 4 * least_s()
