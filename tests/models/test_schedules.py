"""Pipeline schedules: every order finishes without deadlock, holds what it says, and takes the time of the closed forms."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError, UnknownNameError
from aiinfra_widgets.models import schedules
from aiinfra_widgets.models.kinds import BACKWARD, BUBBLE, COMMUNICATION, DATA, FORWARD, KINDS, UPDATE, WAITING
from aiinfra_widgets.models.schedule_simulation import Interval, SimulatedStep, simulate
from aiinfra_widgets.models.schedules import (
    SCHEDULES,
    Operation,
    bubble_frac,
    in_flight,
    order,
    virtual_stage,
)

PLANS = [
    (name, p, m, v)
    for name, p, m, v in product(SCHEDULES, range(1, 5), range(1, 17), range(1, 4))
    if (v == 1 if name != "interleaved" else m % p == 0)
]
DURATION = st.floats(1e-4, 10.0)


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, int, int, int]:
    name = draw(st.sampled_from(SCHEDULES))
    p = draw(st.integers(1, 6))
    if name != "interleaved":
        return name, p, draw(st.integers(1, 20)), 1
    return name, p, p * draw(st.integers(1, 4)), draw(st.integers(1, 3))


def orders(name: str, p: int, m: int, v: int) -> list[tuple[Operation, ...]]:
    return [order(name, p, m, stage, v) for stage in range(p)]


def needs(one: Operation, stage: int, p: int, v: int) -> tuple[str, int, int] | None:
    """The result that a pass waits for: of the virtual stage before it, or, backwards, behind it."""
    other = virtual_stage(stage, one.chunk, p) + (-1 if one.kind == "forward" else 1)
    return (one.kind, one.microbatch, other) if 0 <= other < p * v else None


@pytest.mark.parametrize("name", SCHEDULES)
def test_blocking_receives_and_buffered_sends_never_deadlock(name: str) -> None:
    for _, p, m, v in (plan for plan in PLANS if plan[0] == name):
        todo = [list(reversed(o)) for o in orders(name, p, m, v)]
        made: set[tuple[str, int, int]] = set()
        moved = True
        while moved:
            moved = False
            for stage, left in enumerate(todo):
                while left and (needs(left[-1], stage, p, v) is None or needs(left[-1], stage, p, v) in made):
                    one = left.pop()
                    made.add((one.kind, one.microbatch, virtual_stage(stage, one.chunk, p)))
                    moved = True
        assert not any(todo), f"{name} p={p} m={m} v={v} stops with {todo}"


def test_messages_of_one_kind_are_asked_for_in_the_order_in_which_they_were_sent() -> None:
    for name, p, m, v in (plan for plan in PLANS if plan[1] > 1):
        sent: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        asked: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        for stage, found in enumerate(orders(name, p, m, v)):
            for one in found:
                here, way = virtual_stage(stage, one.chunk, p), 1 if one.kind == "forward" else -1
                if 0 <= here + way < p * v:
                    sent.setdefault((one.kind, stage, (here + way) % p), []).append((one.microbatch, here))
                if 0 <= here - way < p * v:
                    asked.setdefault((one.kind, (here - way) % p, stage), []).append((one.microbatch, here - way))
        assert sent == asked


def test_each_pass_is_done_once_forward_before_backward_and_gradients_in_one_order() -> None:
    for name, p, m, v in PLANS:
        for found in orders(name, p, m, v):
            assert Counter(found) == Counter(
                Operation(k, i, c) for k in ("forward", "backward") for i in range(m) for c in range(v)
            )
            at = {o: i for i, o in enumerate(found)}
            for i, c in product(range(m), range(v)):
                assert at[Operation("forward", i, c)] < at[Operation("backward", i, c)]
            for c in range(v):
                backward = [o.microbatch for o in found if o.kind == "backward" and o.chunk == c]
                assert backward == list(range(m)), "gradients add up in the same order under every schedule"


def test_hand_written_orders() -> None:
    def text(name: str, p: int, m: int, stage: int, v: int = 1) -> str:
        return " ".join(f"{o.kind[0]}{o.microbatch}{'ab'[o.chunk]}" for o in order(name, p, m, stage, v))

    assert text("gpipe", 2, 3, 0) == "f0a f1a f2a b0a b1a b2a"
    assert text("1f1b", 2, 3, 0) == "f0a f1a b0a f2a b1a b2a"
    assert text("1f1b", 2, 3, 1) == "f0a b0a f1a b1a f2a b2a"
    assert text("1f1b", 4, 1, 0) == "f0a b0a"
    # Narayanan et al. 2021, figure 4: two chunks; the last stage warms up with one round of p passes.
    assert text("interleaved", 2, 2, 1, 2) == "f0a f1a f0b b0b f1b b1b b0a b1a"
    assert text("interleaved", 2, 4, 0, 2).startswith("f0a f1a f0b f1b f2a b0b f3a b1b f2b b0a")


def test_what_a_stage_must_remember() -> None:
    p, m = 4, 10
    assert [in_flight(o) for o in orders("gpipe", p, m, 1)] == [m] * p
    assert [in_flight(o) for o in orders("1f1b", p, m, 1)] == [4, 3, 2, 1]
    assert [in_flight(o) for o in orders("interleaved", p, 12, 2)] == [11, 9, 7, 5]
    assert in_flight(()) == 0


@pytest.mark.parametrize(
    ("name", "p", "m", "v", "want"),
    [
        ("gpipe", 1, 5, 1, 0.0), ("gpipe", 2, 1, 1, 0.5), ("1f1b", 4, 8, 1, 3 / 11), ("interleaved", 4, 8, 2, 3 / 19),
    ],
)  # fmt: skip
def test_bubble_by_hand(name: str, p: int, m: int, v: int, want: float) -> None:
    assert bubble_frac(name, p, m, v) == pytest.approx(want)


def test_bubble_over_a_sweep() -> None:
    assert bubble_frac("1f1b", 2, np.array([1, 3, 7])) == pytest.approx([0.5, 0.25, 0.125])
    with pytest.raises(ModelInputError, match=r"multiple of the 4 stages.*got 6; use 4 or 8"):
        bubble_frac("interleaved", np.array([2, 4]), 6)


@given(plans(), DURATION, DURATION)
def test_equal_stages_take_the_time_of_the_closed_form(
    plan: tuple[str, int, int, int], forward_s: float, backward_s: float
) -> None:
    name, p, m, v = plan
    found = simulate(name, m, np.full((p, v), forward_s / v), np.full((p, v), backward_s / v))
    busy_s = m * (forward_s + backward_s)
    assert found.step_time_s == pytest.approx(busy_s / (1 - bubble_frac(name, p, m, v)))
    assert found.compute_time_s == pytest.approx([busy_s] * p)
    assert [x / found.step_time_s for x in found.bubble_time_s] == pytest.approx([bubble_frac(name, p, m, v)] * p)
    assert found.exposed_comm_time_s == (0.0,) * p


@given(plans(), st.data())
def test_the_parts_add_up_and_causes_come_first(plan: tuple[str, int, int, int], data: st.DataObject) -> None:
    name, p, m, v = plan
    times = st.lists(st.lists(DURATION, min_size=v, max_size=v), min_size=p, max_size=p)
    each = st.lists(st.floats(0.0, 5.0), min_size=p, max_size=p)
    p2p_s = data.draw(st.floats(0.0, 3.0))
    found = simulate(
        name, m, data.draw(times), data.draw(times), p2p_s=p2p_s, cores=data.draw(st.sampled_from([None, 1, 2, 1.5])),
        ranks_per_stage=data.draw(st.integers(1, 3)), data_s=data.draw(each), sync_s=data.draw(each), update_s=data.draw(each),
    )  # fmt: skip
    parts = (found.compute_time_s, found.data_time_s, found.exposed_comm_time_s, found.bubble_time_s)
    assert np.sum(parts, axis=0) == pytest.approx([found.step_time_s] * p)
    ends = {(i.kind, i.microbatch, virtual_stage(i.rank, i.chunk, p)): i.end_s for i in found.intervals if i.kind < 2}
    for rank in range(p):
        mine = [i for i in found.intervals if i.rank == rank]
        assert mine[0].start_s == 0.0
        assert all(a.end_s == b.start_s for a, b in pairwise(mine)), "no gap and no overlap"
        done = [Operation(("forward", "backward")[i.kind], i.microbatch, i.chunk) for i in mine if i.kind < 2]
        assert tuple(done) == order(name, p, m, rank, v)
        for i in (i for i in mine if i.kind < 2):
            source = needs(Operation(("forward", "backward")[i.kind], i.microbatch, i.chunk), rank, p, v)
            if source is not None:
                assert i.start_s >= ends[i.kind, i.microbatch, source[2]] + (p2p_s if p > 1 else 0.0) - 1e-9


@given(plans(), DURATION, DURATION, st.integers(1, 3))
def test_one_core_does_one_thing_at_a_time(
    plan: tuple[str, int, int, int], forward_s: float, backward_s: float, ranks_per_stage: int
) -> None:
    name, p, m, v = plan
    forward, backward = np.full((p, v), forward_s), np.full((p, v), backward_s)
    found = simulate(name, m, forward, backward, cores=1, ranks_per_stage=ranks_per_stage)
    assert found.step_time_s == pytest.approx(ranks_per_stage * p * v * m * (forward_s + backward_s))
    many = simulate(name, m, forward, backward, cores=p * ranks_per_stage, ranks_per_stage=ranks_per_stage)
    assert many == simulate(name, m, forward, backward)


def test_a_step_by_hand() -> None:
    """Two stages, one micro-batch, 1 s forward, 2 s backward, 0.5 s per message; then 0.25 s of exchange, 0.75 s of update."""
    found = simulate("1f1b", 1, [1, 1], [2, 2], p2p_s=0.5, data_s=[0.5, 0], sync_s=0.25, update_s=0.75)
    assert found.intervals == (
        Interval(0, DATA, -1, -1, 0, 0.5), Interval(0, FORWARD, 0, 0, 0.5, 1.5), Interval(0, BUBBLE, 0, 0, 1.5, 5.0),
        Interval(0, COMMUNICATION, 0, 0, 5.0, 5.5), Interval(0, BACKWARD, 0, 0, 5.5, 7.5),
        Interval(0, COMMUNICATION, -1, -1, 7.5, 7.75), Interval(0, UPDATE, -1, -1, 7.75, 8.5),
        Interval(1, BUBBLE, 0, 0, 0, 1.5), Interval(1, COMMUNICATION, 0, 0, 1.5, 2.0), Interval(1, FORWARD, 0, 0, 2.0, 3.0),
        Interval(1, BACKWARD, 0, 0, 3.0, 5.0), Interval(1, COMMUNICATION, -1, -1, 5.0, 5.25),
        Interval(1, UPDATE, -1, -1, 5.25, 6.0), Interval(1, BUBBLE, -1, -1, 6.0, 8.5),
    )  # fmt: skip
    assert found.step_time_s == 8.5
    assert found.bubble_time_s == (3.5, 4.0)
    assert found.columns()["kind"] == [i.kind for i in found.intervals]
    assert tuple(found.columns()) == ("rank", "kind", "microbatch", "chunk", "start_s", "end_s")


def test_a_slow_link_only_between_two_stages() -> None:
    quick = simulate("gpipe", 2, [1, 1, 1], [1, 1, 1], p2p_s=[0, 0])
    slow = simulate("gpipe", 2, [1, 1, 1], [1, 1, 1], p2p_s=[0, 4])
    assert slow.step_time_s == quick.step_time_s + 8
    assert slow.exposed_comm_time_s[1] > 0 == quick.exposed_comm_time_s[1]


def test_one_rank_sends_nothing_to_itself() -> None:
    found: SimulatedStep = simulate("interleaved", 3, [[1, 2]], [[2, 4]], p2p_s=9.0)
    assert found.step_time_s == 27.0
    assert found.exposed_comm_time_s == (0.0,)


def test_the_kinds_are_colours_of_the_vocabulary() -> None:
    from aiinfra_widgets.widgets.theme import PARTS

    assert {part for _, part in KINDS} <= set(PARTS)
    assert [KINDS[k][0] for k in (FORWARD, BACKWARD, COMMUNICATION, BUBBLE, UPDATE, DATA, WAITING)] == [
        n for n, _ in KINDS
    ]
    assert Operation("backward", 3).code == BACKWARD
    assert schedules.SCHEDULES == ("gpipe", "1f1b", "interleaved")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: order("1f1b", 2, 4, 2), "stage must be a whole number >= 0 and <= 1, got 2; there are 2 stages"),
        (lambda: order("1f1b", 2, 0, 0), "num_microbatches must be a whole number >= 1 and finite, got 0"),
        (lambda: order("1f1b", 2, 4, 0, 2), "chunks must be 1 with schedule '1f1b', got 2; only 'interleaved'"),
        (lambda: order("interleaved", 4, 3, 0, 2), "multiple of the 4 stages.*got 3; use 4, or schedule '1f1b'"),
        (lambda: simulate("1f1b", 2, [1, 1], [1]), "one shape, got (2, 1) and (1, 1)"),
        (lambda: simulate("1f1b", 2, [1, -1], [1, 1]), "forward_s must be >= 0 and finite, got -1"),
        (lambda: simulate("1f1b", 2, [1, 1], [1, 1], p2p_s=[1, 1]), "one per boundary (1), got the shape (2,)"),
        (lambda: simulate("1f1b", 2, [1, 1], [1, 1], cores=0), "cores must be > 0, got 0"),
        (lambda: simulate("1f1b", 2, 1.0, [1, 1]), "forward_s must have one number per stage"),
    ],
)
def test_what_cannot_be_says_what_can(call, said: str) -> None:
    import re

    pattern = ".*".join(re.escape(piece) for piece in said.split(".*"))
    with pytest.raises(ModelInputError, match=pattern):
        call()


def test_an_unknown_schedule_names_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean '1f1b'"):
        order("1f1b2", 2, 4, 0)
