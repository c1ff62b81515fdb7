"""Who changes the number of servers besides a person: by hand, within its limits, and the same again for the same load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.experiments.serving.autoscale import EVERY_S, KINDS, LOOK_BACK, PATIENCE, Bins, Seen, Steady
from aiinfra_widgets.experiments.serving.spec import AUTOSCALERS

LOADS = st.lists(st.floats(0, 20), min_size=1, max_size=60)


def steady(spec, policy="target-utilization", target=0.5, most=8):
    return Steady(spec(autoscaler=policy, autoscaler_target=target, most_servers=most))


def follow(scaler, loads, servers=1, in_system=0):
    """Let it decide on one load after the other; its decisions are carried out."""
    found = []
    for load in loads:
        servers = scaler.decide(Seen(load, in_system, servers))
        found.append(servers)
    return found


def test_every_policy_that_may_be_asked_for_is_there():
    assert set(AUTOSCALERS) == {"none", *KINDS}


def test_target_utilisation_wants_what_the_load_of_the_last_seconds_keeps_that_busy():
    policy = KINDS["target-utilization"](0.5)
    wanted = [policy.wanted(Seen(load, 0, 1)) for load in (1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0)]
    assert wanted == [2, 2, 2, 2, 3, 3, 4, 4]  # the mean of four: 1.25, 1.5, 1.75, 2
    assert LOOK_BACK == 4


def test_queue_length_wants_so_many_that_each_holds_the_target():
    policy = KINDS["queue-length"](4.0)
    assert [policy.wanted(Seen(0.0, held, 3)) for held in (0, 1, 4, 5, 40)] == [0, 1, 1, 2, 10]


def test_predictive_acts_on_a_ramp_before_target_utilisation_does():
    ramp = [0.2 * i for i in range(12)]
    early, late = (_wanted(KINDS[name](0.5), ramp) for name in ("predictive", "target-utilization"))
    assert all(a >= b for a, b in zip(early[3:], late[3:], strict=True))
    # A straight line is carried on exactly: two steps ahead of 2.2 there are 2.6, and each server takes 0.5.
    assert early[-1] == 6
    assert late[-1] == 4


def _wanted(policy, loads):
    return [policy.wanted(Seen(load, 0, 1)) for load in loads]


def test_it_grows_at_once_and_shrinks_when_nobody_wanted_more_for_a_while(spec):
    scaler = steady(spec, "queue-length", target=1.0)
    busy = [scaler.decide(Seen(0.0, held, 1)) for held in (1, 5, 1, 1, 1, 1)]
    assert busy == [1, 5, 5, 5, 5, 5]
    assert PATIENCE == 6
    assert scaler.decide(Seen(0.0, 1, 5)) == 5  # the last that wanted five is the sixth ago
    assert scaler.decide(Seen(0.0, 1, 5)) == 1


def test_it_takes_nobody_away_before_it_has_watched_for_a_while(spec):
    assert follow(steady(spec), [0.0] * 7, servers=4) == [4] * 5 + [1, 1]


def test_a_step_of_the_load_is_followed_up_and_down(spec):
    found = follow(steady(spec), [0.4] * 8 + [1.9] * 8 + [0.4] * 12)
    assert found[7] == 1
    assert found[15] == 4
    assert found[-1] == 1
    assert found[8:12] == sorted(found[8:12])
    down = found[16:]
    assert down[:5] == [4] * 5
    assert down == sorted(down, reverse=True)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), max_size=50), st.lists(st.floats(0, 10), max_size=20))
def test_bins_are_the_same_whenever_they_are_looked_at(requests, looks):
    """What arrived counts by when it was meant to; how often the desk looks, and how late, changes nothing."""
    requests.sort()
    whole, pieces = Bins(0.0), Bins(0.0)
    found, coming = [], iter([*requests, (99.0, 0.0)])
    at, size = next(coming)
    for look in sorted(looks):
        while at <= look:
            pieces.add(at, size)
            at, size = next(coming)
        found += pieces.over(look)
    for at, size in requests:
        whole.add(at, size)
    expected = list(whole.over(10.0))
    assert [end for end, _ in expected] == [EVERY_S * i for i in range(1, 21)]
    assert found == expected[: len(found)]
    assert sum(rate * EVERY_S for _, rate in expected) == pytest.approx(sum(size for at, size in requests if at < 10))


def test_who_begins_to_look_later_begins_with_the_first_whole_bin():
    bins = Bins(7.2)
    for at in (7.3, 7.6, 8.1):
        bins.add(at, 1.0)
    assert list(bins.over(7.9)) == []  # the bin before 7.5 is not whole, and no load of it is taken for none
    assert list(bins.over(8.5)) == [(8.0, 2.0), (8.5, 2.0)]


@given(LOADS, st.sampled_from(sorted(KINDS)), st.integers(1, 5))
def test_it_stays_within_one_and_the_most(spec, loads, policy, most):
    target = 0.5
    scaler = steady(spec, policy, target, most)
    assert all(1 <= n <= most for n in follow(scaler, loads, servers=1, in_system=17))


@given(LOADS, st.sampled_from(["target-utilization", "predictive"]))
def test_the_same_load_gives_the_same_decisions_whatever_waits(spec, loads, policy):
    """These two look at what was offered, not at the queue: a slow day of the machine changes nothing."""
    one = follow(steady(spec, policy), loads, in_system=0)
    two = follow(steady(spec, policy), loads, in_system=1000)
    assert one == two == follow(steady(spec, policy), loads)


@given(LOADS)
def test_it_never_shrinks_below_what_was_wanted_lately(spec, loads):
    policy, scaler = KINDS["target-utilization"](0.5), steady(spec)
    wanted = [min(max(n, 1), 8) for n in _wanted(policy, loads)]
    for i, servers in enumerate(follow(scaler, loads)):
        assert servers >= max(wanted[max(0, i - PATIENCE + 1) : i + 1])


@pytest.mark.parametrize("policy", sorted(KINDS))
def test_a_load_of_nothing_leaves_one_server(spec, policy):
    assert follow(steady(spec, policy), [0.0] * 10, servers=3)[-1] == 1
