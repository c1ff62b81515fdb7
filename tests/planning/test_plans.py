"""Plans: all that the rules allow and none other, against plain loops; and what is said of one that is wrong."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError
from aiinfra_widgets.models.transformer.architecture import Transformer
from aiinfra_widgets.models.transformer.plan import RECOMPUTE, SCHEDULES, Plan
from aiinfra_widgets.planning.plans import PlanSpace, check_plan, divisors, enumerate_plans, factors, plan_blocks

LLAMA = Transformer(80, 8192, 64, 8192, 128256, kv_heads=8, ffn=28672, gated=True, tied=False)
NUMBERS = (
    *("dp_size", "tp_size", "pp_size", "cp_size", "ep_size", "micro_batch_size", "interleave"),
    *("zero_stage", "sequence_parallel"),
)


def rows(plan: Plan) -> list[tuple]:
    names = (*NUMBERS, "schedule", "recompute")
    return list(zip(*(np.asarray(getattr(plan, n)).tolist() for n in names), strict=True))


def by_hand(model: Transformer, world: int, batch: int, per_node: int, across: bool) -> set[tuple]:
    """Every plan by loops over all numbers up to the number of ranks, and the rules in words of their own."""
    found = set()
    upto = range(1, world + 1)
    for tp, pp, cp in product(upto, upto, upto):
        if tp * pp * cp > world or world % (tp * pp * cp):
            continue
        if model.heads % tp or model.kv_heads % tp or model.layers % pp or (not across and per_node % tp):
            continue
        if cp > 1 and model.seq_len % (2 * cp):
            continue
        dp = world // (tp * pp * cp)
        for ep, mb, zero, sp in product(range(1, model.experts + 1), range(1, batch + 1), range(4), (False, True)):
            if model.experts % ep or (dp * cp) % ep or batch % (dp * mb):
                continue
            if (zero and dp * cp == 1) or (sp and tp == 1):
                continue
            for schedule, v, recompute in product(SCHEDULES, range(1, model.layers + 1), RECOMPUTE):
                chunked = schedule == "interleaved"
                if model.layers % (pp * v) or (v > 1) != chunked or (pp == 1 and schedule != SCHEDULES[0]):
                    continue
                if chunked and (batch // dp // mb) % pp:
                    continue
                found.add((dp, tp, pp, cp, ep, mb, v, zero, sp, schedule, recompute))
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 4, 6, 8, 12]),
    st.sampled_from([1, 4, 6, 8]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([(4, 4, 2, 1), (6, 6, 3, 2), (8, 4, 4, 4)]),
    st.booleans(),
)
def test_every_valid_plan_once_and_no_other(world, batch, per_node, shape, across):
    layers, heads, kv_heads, experts = shape
    model = Transformer(layers, 64, heads, 8, 100, kv_heads=kv_heads, experts=experts)
    want = by_hand(model, world, batch, per_node, across)
    try:
        got = rows(enumerate_plans(model, world, batch, per_node, PlanSpace(tp_across_nodes=across)))
    except ModelInputError:
        got = []
    assert len(got) == len(set(got))
    assert set(got) == want


def test_several_numbers_of_ranks_are_their_union():
    both = enumerate_plans(LLAMA, (16, 64), 64)
    alone = [enumerate_plans(LLAMA, n, 64) for n in (16, 64)]
    assert sorted(rows(both)) == sorted([r for a in alone for r in rows(a)])
    assert set(np.unique(both.world_size)) == {16, 64}


def test_blocks_hold_the_same_plans_and_are_no_longer_than_asked():
    blocks = list(plan_blocks(LLAMA, 64, 64, rows=1000))
    assert max(len(b.dp_size) for b in blocks) == 1000
    assert all(np.ndim(b.schedule) == 0 for b in blocks)
    whole = enumerate_plans(LLAMA, 64, 64)
    assert sum(len(b.dp_size) for b in blocks) == len(whole.dp_size)


def test_the_whole_is_one_plan_with_arrays_of_one_length():
    plan = enumerate_plans(LLAMA, 512, 1024)
    assert {np.shape(getattr(plan, f.name)) for f in fields(Plan)} == {np.shape(plan.dp_size)}
    assert np.all(plan.world_size == 512)
    assert len(plan.dp_size) > 50_000


@settings(max_examples=50)
@given(st.integers(0, 10**9))
def test_each_enumerated_plan_passes_the_check_of_explicit_plans(seed):
    plan = enumerate_plans(LLAMA, 128, 96)
    at = seed % len(plan.dp_size)
    one = Plan(**{f.name: np.asarray(getattr(plan, f.name))[at].item() for f in fields(Plan)})
    check_plan(LLAMA, one, world_size=128, per_node=8)


def test_a_choice_narrows_what_is_tried():
    space = PlanSpace(
        tp_sizes=[8], pp_sizes=[4], cp_sizes=[1], zero_stages=[1], recomputes=["full"], schedules=["1f1b"]
    )
    plan = enumerate_plans(LLAMA, 64, 64, space=space)
    assert {np.unique(x).item() for x in (plan.tp_size, plan.zero_stage)} == {8, 1}
    assert set(plan.recompute) == {"full"}
    assert sorted(plan.micro_batch_size) == sorted([1, 2, 4, 8, 16, 32] * 2)


def test_the_rest_of_a_plan_comes_from_the_base():
    plan = enumerate_plans(LLAMA, 8, 8, space=PlanSpace(base=Plan(precision="fp8", overlap_tensor=True)))
    assert set(plan.precision) == {"fp8"}
    assert plan.overlap_tensor.all()
    assert not plan.flash_attention.any()


@pytest.mark.parametrize(
    ("values", "world", "says"),
    [
        (
            {"tp_size": 3, "dp_size": 4, "global_batch_size": 4},
            12,
            ["tp_size 3 must divide the 64 heads and the 8 heads of keys and values; take tp_size from 1, 2, 4, 8"],
        ),
        (
            {"tp_size": 8, "dp_size": 4, "global_batch_size": 4},
            64,
            [
                "the degrees make 32 ranks, but there are 64; set dp_size to 8",
                "dp_size(4) * tp_size(8) * pp_size(1) * cp_size(1) != world_size(64)",
            ],
        ),
        ({"tp_size": 8, "pp_size": 5}, 64, ["make 40 ranks, but there are 64; choose degrees whose product is 64"]),
        (
            {"pp_size": 7},
            7,
            ["pp_size 7 must divide the 80 layers; take pp_size from 1, 2, 4, 5, 8, 10, 16, 20, 40, 80"],
        ),
        (
            {"pp_size": 8, "interleave": 3, "schedule": "interleaved", "global_batch_size": 8},
            8,
            ["pp_size(8) * interleave(3) must divide the 80 layers; take interleave from 1, 2, 5, 10"],
        ),
        (
            {"pp_size": 8, "interleave": 2, "global_batch_size": 8},
            8,
            ["interleave 2 needs the schedule 'interleaved' and pp_size above 1, got '1f1b' and pp_size(8)"],
        ),
        (
            {"pp_size": 8, "interleave": 2, "schedule": "interleaved", "global_batch_size": 12},
            8,
            ["num_microbatches(12) must be a multiple of pp_size(8)"],
        ),
        ({"tp_size": 8}, None, ["tp_size 8 must divide the 4 devices of a node, or its traffic leaves the node"]),
        ({"ep_size": 2, "dp_size": 2, "global_batch_size": 2}, 2, ["ep_size 2 must divide the 1 experts"]),
        ({"cp_size": 3}, 3, ["cp_size 3 must divide half of the 8192 tokens of a sequence"]),
    ],
    ids=[
        "tp",
        "product",
        "no-dp-helps",
        "layers",
        "chunks",
        "schedule",
        "micro-batches",
        "node",
        "experts",
        "sequence",
    ],
)
def test_a_wrong_plan_is_told_with_every_factor_and_the_next_step(values, world, says):
    per_node = 4 if values == {"tp_size": 8} else None
    with pytest.raises(ModelInputError) as error:
        check_plan(LLAMA, Plan(**values), world, per_node)
    for sentence in says:
        assert sentence in str(error.value)
    assert "dp_size(" in str(error.value).splitlines()[-1]


def test_several_faults_are_told_at_once():
    with pytest.raises(ModelInputError) as error:
        check_plan(LLAMA, Plan(tp_size=3, pp_size=7), world_size=64, per_node=8)
    assert [line.split()[0] for line in str(error.value).splitlines()] == [
        "the",
        "tp_size",
        "pp_size",
        "tp_size",
        "the",
    ]


def test_factors_spell_out_a_plan_that_fits():
    plan = Plan(dp_size=4, tp_size=8, pp_size=2, micro_batch_size=2, global_batch_size=64)
    assert factors(plan) == (
        "dp_size(4) * tp_size(8) * pp_size(2) * cp_size(1) == world_size(64), ep_size(1) within dp_size * cp_size, "
        "micro_batch_size(2) * num_microbatches(8) * dp_size(4) == global_batch_size(64), interleave(1)"
    )


@pytest.mark.parametrize(
    ("world", "batch", "space", "says"),
    [
        (48, 64, {"tp_sizes": [3]}, "no plan of 48 ranks: for example tp_size 3 must divide the 64 heads"),
        (48, 64, {"tp_sizes": [5]}, "no plan of 48 ranks: no tp_size * pp_size * cp_size that is allowed divides 48"),
        (
            64,
            64,
            {"micro_batch_sizes": [5]},
            "change the batch, or the degree of data parallelism (micro_batch_size tried: 5; dp_size tried: 1, 2, 4, 8, 16, 32, 64;",
        ),
        (7, 64, {"tp_sizes": [1], "pp_sizes": [1], "cp_sizes": [1]}, "dp_size(7) must divide global_batch_size(64)"),
        (
            4,
            8,
            {"pp_sizes": [2], "interleaves": [7], "schedules": ["interleaved"]},
            "give interleaves that divide layers / pp_size",
        ),
        (8, 8, {"tp_sizes": []}, "tp_sizes must be a list with at least one value, got []"),
        (8, 8, {"schedules": "1f1b"}, "schedules must be a list with at least one value, got '1f1b'"),
        (8, 8, {"schedules": ["2f2b"]}, "schedule must be one of gpipe, 1f1b"),
        (8, 8, {"micro_batch_sizes": [1.5]}, "micro_batch_sizes must be a whole number >= 1"),
        (0, 8, {}, "world_sizes must be a whole number >= 1"),
        (8, 2.5, {}, "global_batch_size must be a whole number >= 1"),
    ],
    ids=lambda x: None if isinstance(x, dict) else str(x)[:40],
)
def test_when_nothing_is_valid_the_rule_that_left_none_is_named(world, batch, space, says):
    with pytest.raises(ModelInputError) as error:
        enumerate_plans(LLAMA, world, batch, space=PlanSpace(**space))
    assert says in str(error.value)


@given(st.integers(1, 5000))
def test_divisors_divide_and_are_all(number):
    assert divisors(number) == [k for k in range(1, number + 1) if number % k == 0]
