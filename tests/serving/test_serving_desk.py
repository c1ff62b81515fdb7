"""The desk: who gets a request and when, held against cases by hand, an independent simulation, and any sequence at all."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.experiments.serving.desk import MOST_TRIES, Desk, Outcome, Request
from aiinfra_widgets.experiments.serving.spec import BATCHING, DISPATCH, ServingSpec
from aiinfra_widgets.models import arrival_times, service_times, simulate_queue

RULES = [(d, b) for d in DISPATCH for b in BATCHING if b != "continuous"]


def desk_of(servers=1, **values):
    return Desk(ServingSpec.make({"nodes": servers, **values}), servers)


def come(desk, *times, size=1.0, first=0):
    """Let requests arrive at these times, and hand out after each, as rank 0 does; return what was handed out."""
    out = []
    for i, at in enumerate(times):
        desk.arrive(Request(first + i, at, size, 0), at)
        out += handed(desk, at)
    return out


def handed(desk, now):
    return [(server, [t.request.id for t in batch]) for server, batch in desk.assign(now)]


def done(desk, server, now):
    for number in list(desk.busy[server]):
        desk.answered(server, number, (now - 1, now, math.nan), now)


def ended(desk):
    return [(r.id, r.outcome.name) for r in desk.finished]


# --- by hand ----------------------------------------------------------------------------------------------------------
def test_one_queue_gives_the_next_request_to_the_server_that_is_idle_longest():
    desk = desk_of(2)
    assert come(desk, 0, 0, 0) == [(0, [0]), (1, [1])]
    done(desk, 1, 1.0)
    assert handed(desk, 1.0) == [(1, [2])]
    done(desk, 0, 2.0)
    done(desk, 1, 3.0)
    assert come(desk, 4.0, first=3) == [(0, [3])]


def test_round_robin_gives_in_turn_though_another_server_is_idle():
    desk = desk_of(2, dispatch="round-robin")
    assert come(desk, 0, 0, 0) == [(0, [0]), (1, [1])]
    done(desk, 1, 1.0)
    assert handed(desk, 1.0) == []  # the third waits for server 0
    done(desk, 0, 2.0)
    assert handed(desk, 2.0) == [(0, [2])]


def test_the_shortest_queue_counts_who_is_served_too():
    desk = desk_of(3, dispatch="shortest-queue")
    assert [s for s, _ in come(desk, 0, 0, 0)] == [0, 1, 2]
    done(desk, 1, 1.0)
    assert come(desk, 1.0, first=3) == [(1, [3])]


def test_of_two_choices_the_shorter_queue_is_taken():
    desk = desk_of(2, dispatch="two-choices")  # of two servers both are drawn each time
    assert sorted(s for s, _ in come(desk, 0, 0)) == [0, 1]
    come(desk, *[0.0] * 6, first=2)
    assert desk._live == [3, 3]


def test_a_fixed_batch_waits_until_it_is_full_however_long_that_takes():
    desk = desk_of(1, batching="fixed", max_batch=3)
    assert come(desk, 0, 1) == []
    assert desk.next_s() == math.inf
    assert come(desk, 1e6, first=2) == [(0, [0, 1, 2])]


def test_who_gave_up_does_not_fill_a_batch():
    desk = desk_of(1, batching="fixed", max_batch=3, timeout_s=1.0)
    come(desk, 0.0, 0.9)
    assert come(desk, 1.5, first=2) == []  # the first gave up at 1.0
    assert ended(desk) == [(0, "TIMED_OUT")]
    assert come(desk, 1.6, first=3) == [(0, [1, 2, 3])]


def test_a_dynamic_batch_goes_when_it_is_full_or_its_first_has_waited():
    desk = desk_of(1, batching="dynamic", max_batch=3, batch_wait_s=0.5)
    assert come(desk, 0, 0.1) == []
    assert desk.next_s() == 0.5
    assert handed(desk, 0.49) == []
    [(server, batch)] = desk.assign(0.5)
    assert (server, [t.request.id for t in batch], desk.ready_s(batch)) == (0, [0, 1], 0.5)
    come(desk, 0.6, 0.7, 0.8, first=2)
    assert desk.next_s() == math.inf  # nobody is free: there is nothing to look for
    done(desk, 0, 1.0)
    [(_, batch)] = desk.assign(1.0)
    assert ([t.request.id for t in batch], desk.ready_s(batch)) == ([2, 3, 4], 0.0)


def test_the_deadline_of_a_busy_servers_queue_wakes_nobody():
    desk = desk_of(2, dispatch="round-robin", batching="dynamic", max_batch=2, batch_wait_s=0.5)
    assert come(desk, 0, 0, 0) == [(0, [0, 2])]
    assert desk.next_s() == 0.5
    assert handed(desk, 0.5) == [(1, [1])]
    come(desk, 0.6, 0.7, first=3)  # one more for either, and both are busy
    assert desk.next_s() == math.inf
    done(desk, 0, 1.0)
    assert desk.next_s() == 0.7 + 0.5


def test_continuous_batches_fill_all_servers_alike():
    desk = Desk(ServingSpec.make({"nodes": 2, "service": "gpt-tiny", "batching": "continuous", "max_batch": 2}), 2)
    for i in range(6):
        desk.arrive(Request(i, 0.0, 4.0, 0), 0.0)
    assert handed(desk, 0.0) == [(0, [0]), (1, [1]), (0, [2]), (1, [3])]
    assert [t.batch for b in desk.busy for t in b.values()] == [1, 2, 1, 2]
    desk.answered(1, next(iter(desk.busy[1])), (0.0, 1.0, 0.5), 1.0)
    assert handed(desk, 1.0) == [(1, [4])]


def test_a_full_queue_rejects_but_never_before_an_idle_server():
    desk = desk_of(1, queue_limit=1)
    come(desk, 0, 0, 0)
    assert ended(desk) == [(2, "REJECTED")]
    assert desk.waiting == 1


def test_a_client_gives_up_in_the_queue_and_while_it_is_served():
    desk = desk_of(1, timeout_s=1.0)
    come(desk, 0.0, 0.5)
    assert desk.next_s() == 1.0
    desk.tend(1.0)
    desk.tend(1.5)
    assert ended(desk) == [(0, "TIMED_OUT"), (1, "TIMED_OUT")]
    assert desk.waiting == 0
    done(desk, 0, 2.0)  # work for nothing
    assert len(desk.finished) == 2
    assert come(desk, 2.0, first=2) == [(0, [2])]


def test_an_answer_that_comes_too_late_is_none_though_nobody_looked_meanwhile():
    desk = desk_of(1, timeout_s=1.0)
    come(desk, 0.0)
    done(desk, 0, 1.001)
    assert ended(desk) == [(0, "TIMED_OUT")]


def test_retries_stay_within_their_budget_and_each_request_within_its_tries():
    desk = desk_of(1, timeout_s=0.01, retry_budget_frac=0.5)
    come(desk, *np.arange(100) / 1e5)
    for t in np.arange(0.01, 20, 0.01):
        desk.tend(t)
    assert desk.retried == 50
    assert len(desk.finished) == 100
    assert all(r.outcome is Outcome.TIMED_OUT for r in desk.finished)
    generous = desk_of(1, timeout_s=0.01, retry_budget_frac=1.0)
    come(generous, 0.0)
    for t in np.arange(0.01, 5, 0.01):
        generous.tend(t)
    assert [r.tries for r in generous.finished] == [2]  # one request allows one retry
    assert MOST_TRIES == 4


def test_a_retry_answers_the_request_and_its_response_counts_from_the_first_try():
    desk = desk_of(1, timeout_s=1.0, retry_budget_frac=1.0)
    come(desk, 0.0)
    desk.tend(1.0)
    assert desk.finished == []
    back_s = desk.next_s()
    assert 1.0 < back_s < 1.1
    done(desk, 0, 1.01)  # the first try's answer: its client does not want it any more
    desk.tend(back_s)
    assert handed(desk, back_s) == [(0, [0])]
    done(desk, 0, 1.2)
    [request] = desk.finished
    assert (request.outcome, request.tries, request.arrived_s, request.received_s) == (Outcome.OK, 2, 0.0, 1.2)


def test_what_a_lost_server_had_goes_to_the_others_and_before_those_who_wait():
    desk = desk_of(3)
    come(desk, 0, 0, 0, 0)
    done(desk, 0, 1.0)
    handed(desk, 1.0)
    come(desk, 2.0, first=4)
    desk.configure(desk.spec.changed({"nodes": 2}), 2)
    assert handed(desk, 3.0) == [(0, [1]), (1, [2])]
    assert [t.request.id for t in desk._queues[0]] == [3, 4]
    assert desk.waiting == 2


def test_a_pause_takes_nobodys_time():
    desk = desk_of(1, timeout_s=1.0, retry_budget_frac=1.0)
    come(desk, 0.0, 0.4)
    desk.tend(1.0)  # the first gives up and is about to return
    back_s = desk.next_s()
    desk.postpone(100.0)
    assert desk.next_s() == back_s + 100
    desk.tend(101.3)
    assert len(desk.finished) == 0
    desk.tend(101.5)  # the second has waited 1.1 s now
    desk.unfinished()
    assert sorted((r.id, r.arrived_s) for r in desk.finished) == [(0, 100.0), (1, 100.4)]


# --- against the simulation -------------------------------------------------------------------------------------------
def rules_of(spec, base_s=0.0):
    batched = spec.batching != "none"
    return {
        "num_servers": spec.nodes, "dispatch": spec.dispatch, "batching": spec.batching, "max_batch": spec.max_batch if batched else 1,
        "batch_wait_s": spec.batch_wait_s, "batch_base_s": base_s, "queue_limit": spec.queue_limit or None,
        "timeout_s": spec.timeout_s or None, "retry_budget_frac": spec.retry_budget_frac,
    }  # fmt: skip


def assert_same(played, simulated):
    assert played.column("outcome") == [Outcome(o) for o in simulated.outcome.tolist()]
    assert played.column("tries") == simulated.tries.tolist()
    ok = simulated.outcome == 0
    np.testing.assert_allclose(np.array(played.column("started_s"))[ok], simulated.start_s[ok], atol=1e-9)
    np.testing.assert_allclose(np.array(played.column("ended_s"))[ok], simulated.end_s[ok], atol=1e-9)


@pytest.mark.parametrize(("dispatch", "batching"), [r for r in RULES if r[0] != "two-choices"])
@pytest.mark.parametrize("limits", [{}, {"queue_limit": 30}, {"timeout_s": 0.06}], ids=["endless", "full", "impatient"])
def test_the_same_requests_fare_the_same_at_the_desk_and_in_the_simulation(play, spec, dispatch, batching, limits):
    """The desk is written for real servers, the simulation for speed, by another hand: request by request they agree."""
    s = spec(nodes=3, dispatch=dispatch, batching=batching, max_batch=4, batch_wait_s=0.015, **limits)
    arrivals = arrival_times(3000, "poisson", 140.0, seed=1)
    sizes = service_times(3000, "exponential", 0.02, seed=2)
    base_s = 0.01 if batching != "none" else 0.0
    played = play(s, arrivals, sizes, work=lambda batch: base_s + sum(batch))
    assert_same(played, simulate_queue(arrivals, sizes, **rules_of(s, base_s)))
    if limits:
        assert len(set(played.column("outcome"))) > 1


@given(
    gaps=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=40),
    sizes=st.lists(st.floats(0.001, 3.0), min_size=40, max_size=40),
    rules=st.sampled_from([r for r in RULES if r[0] != "two-choices"]),
    servers=st.integers(1, 4),
    most=st.integers(1, 4),
    timeout_s=st.sampled_from([0.0, 0.7]),
)
def test_any_small_stream_fares_the_same(play, spec, gaps, sizes, rules, servers, most, timeout_s):
    dispatch, batching = rules
    s = spec(nodes=servers, dispatch=dispatch, batching=batching, max_batch=most, batch_wait_s=0.5, timeout_s=timeout_s)
    # Nothing may happen at the same time but by chance: who is first then is nobody's business.
    arrivals = np.cumsum(gaps) + np.arange(len(gaps)) * 1.37e-7
    sizes = np.array(sizes[: len(gaps)]) + np.arange(len(gaps)) * 3.1e-8
    assert_same(play(s, arrivals, sizes, work=sum), simulate_queue(arrivals, sizes, **rules_of(s)))


@pytest.mark.parametrize("batching", ["none", "dynamic"])
def test_two_choices_wait_as_long_as_in_the_simulation_on_average(play, spec, batching):
    s = spec(nodes=4, dispatch="two-choices", batching=batching, max_batch=2, batch_wait_s=0.005)
    arrivals = arrival_times(40_000, "poisson", 160.0, seed=3)
    sizes = service_times(40_000, "exponential", 0.02, seed=4)
    played = play(s, arrivals, sizes, work=sum)
    waited = np.array(played.column("started_s")) - arrivals
    assert waited.mean() == pytest.approx(simulate_queue(arrivals, sizes, **rules_of(s)).mean_wait_s, rel=0.06)


def test_retries_fare_as_in_the_simulation_on_average(play, spec):
    s = spec(nodes=2, timeout_s=0.1, retry_budget_frac=0.2)
    arrivals = arrival_times(20_000, "poisson", 80.0, seed=5)
    sizes = service_times(20_000, "exponential", 0.02, seed=6)
    played, simulated = play(s, arrivals, sizes), simulate_queue(arrivals, sizes, **rules_of(s))
    failed = np.mean([o is Outcome.TIMED_OUT for o in played.column("outcome")])
    assert 0.02 < failed < 0.4
    assert failed == pytest.approx(np.mean(simulated.outcome == Outcome.TIMED_OUT), rel=0.1)
    assert np.mean(played.column("tries")) == pytest.approx(simulated.tries.mean(), rel=0.02)


# --- whatever happens -------------------------------------------------------------------------------------------------
OPERATIONS = st.one_of(
    st.tuples(st.just("arrive"), st.floats(0, 0.4)),
    st.tuples(st.just("answer"), st.integers(0, 7)),
    st.tuples(st.just("wait"), st.floats(0, 1.5)),
    st.tuples(st.just("hold"), st.floats(0.1, 5)),
    st.tuples(st.just("servers"), st.integers(1, 4)),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("rules"), st.sampled_from(list(itertools.product(DISPATCH, BATCHING)))),
    st.tuples(st.just("limits"), st.tuples(st.sampled_from([0, 3]), st.sampled_from([0.0, 0.6]), st.sampled_from([0.0, 0.5]))),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(OPERATIONS, max_size=60))
def test_every_request_gets_exactly_one_outcome_and_nothing_is_handed_out_twice(operations):
    spec = ServingSpec.make({"service": "gpt-tiny", "nodes": 2, "max_batch": 2, "batch_wait_s": 0.2})
    desk, held, now, asked = Desk(spec, 2), {}, 0.0, []
    for what, value in operations:
        now += 1e-3
        match what:
            case "arrive":
                now += value
                asked.append(Request(len(asked), now, 1.0, 0))
                desk.arrive(asked[-1], now)
            case "answer" if held:
                number = sorted(held)[value % len(held)]
                desk.answered(held.pop(number)[0], number, (now, now, math.nan), now)
            case "wait":
                now += value
                desk.tend(now)
            case "hold":
                now += value
                desk.postpone(value)
            case "servers" | "lose" | "rules" | "limits":
                with contextlib.suppress(SpecError):  # refused, as a person would be: nothing changes
                    then = changed(desk.spec, what, value)
                    held.clear()  # a boundary: whoever was served is asked for again
                    desk.configure(then, then.nodes)
        for server, batch in desk.assign(now):
            assert 0 <= server < desk.spec.nodes
            assert all(t.number not in held for t in batch)
            served = {id(t.request) for _, t in held.values() if not t.dead}
            assert not served & {id(t.request) for t in batch}
            held.update({t.number: (server, t) for t in batch})
        check(desk, held, now)
    desk.unfinished()
    assert Counter(id(r) for r in desk.finished) == Counter(map(id, asked))
    assert all(r.outcome is not None for r in asked)
    assert desk.retried <= 0.5 * desk.arrived


def changed(spec, what, value):
    if what == "servers":
        return spec.changed({"nodes": value})
    if what == "lose":
        return spec.changed({"nodes": max(spec.nodes - 1, 1)})
    if what == "rules":
        return spec.changed(dict(zip(("dispatch", "batching"), value, strict=True)))
    return spec.changed(dict(zip(("queue_limit", "timeout_s", "retry_budget_frac"), value, strict=True)))


def check(desk, held, now):
    """What holds between any two calls."""
    waiting = [t for q in desk._queues for t in q if t.queue >= 0]
    assert desk.waiting == len(waiting) == sum(desk._live)
    assert not any(t.dead for t in waiting)
    assert {n for b in desk.busy for n in b} == set(held)
    most = desk.spec.max_batch if desk.spec.batching != "none" else 1
    assert all(len(b) <= most for b in desk.busy)
    assert all(math.isfinite(t.queued_s) for t in waiting)
    if desk.spec.batching in {"none", "continuous"}:  # nobody waits beside a server that could take him
        room = 1 if desk.spec.batching == "none" else desk.spec.max_batch
        for server, busy in enumerate(desk.busy):
            assert len(busy) >= room or not desk._live[desk._queue_of(server)]
    desk.tend(now)
    assert desk.next_s() > now or desk.spec.batching == "dynamic"
