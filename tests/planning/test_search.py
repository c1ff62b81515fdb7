"""The search against plain loops over the same models; what binds, against searching again with that limit relaxed."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiinfra_widgets.errors import ModelInputError, UnknownNameError
from aiinfra_widgets.machine.catalog import item, pue
from aiinfra_widgets.models.transformer.architecture import Transformer
from aiinfra_widgets.models.transformer.cluster import Accelerator, Cluster
from aiinfra_widgets.models.transformer.memory import memory_per_rank
from aiinfra_widgets.models.transformer.plan import Plan
from aiinfra_widgets.models.transformer.step import predict_step
from aiinfra_widgets.planning import search as searching
from aiinfra_widgets.planning.binding import CONSTRAINTS, bindings, dead_end, said
from aiinfra_widgets.planning.offers import Limits, Offer, owned, rented
from aiinfra_widgets.planning.plans import PlanSpace, enumerate_plans
from aiinfra_widgets.planning.search import OBJECTIVES, search

MODEL = Transformer(24, 2048, 16, 2048, 51200)
DEVICE = Accelerator(312e12, 0.8, 24e9, 2e12)
CLUSTER = Cluster(DEVICE, 8, 300e9, 2e-6, 25e9, 5e-6)
CHEAP = Offer("cheap", CLUSTER, (1, 2, 4), 10.0, 50, 400, 800, 1.3, 500, 1e6)
CLEAN = Offer("clean", CLUSTER, (2, 4), 16.0, 50, 400, 800, 1.1, 30, 1e6)
OFFERS = (CHEAP, CLEAN)
SPACE = PlanSpace(cp_sizes=[1], micro_batch_sizes=[1, 2, 4])
DP_ONLY = PlanSpace(tp_sizes=[1], pp_sizes=[1], cp_sizes=[1])
BATCH, STEPS = 64, 10_000


def found(limits: Limits | None = None, offers=OFFERS, **more):
    return search(MODEL, offers, BATCH, steps=STEPS, limits=limits, space=SPACE, **more)


FREE = found()


@pytest.fixture(scope="module")
def by_loops() -> list[dict]:
    """Each plan of two small offers, one call of the models for each."""
    rows = []
    for offer in OFFERS:
        for nodes in offer.node_counts:
            plans = enumerate_plans(MODEL, nodes * 8, BATCH, 8, SPACE)
            for at in range(0, len(plans.dp_size), 7):  # every seventh is enough of them
                plan = Plan(**{f.name: np.asarray(getattr(plans, f.name))[at].item() for f in fields(Plan)})
                step = predict_step(MODEL, plan, CLUSTER)
                time_s = STEPS * float(step.step_time_s)
                rows.append(
                    {
                        "key": (offer.name, nodes, plan),
                        "memory_bytes": float(memory_per_rank(MODEL, plan).total_bytes),
                        "time_s": time_s,
                        "cost_usd": nodes * time_s / 3600 * offer.price_usd_per_node_hour,
                    }
                )
    return rows


def test_every_row_is_what_the_models_say_of_that_plan_alone(by_loops):
    rows = {}
    for i in range(len(FREE.table["time_s"])):
        c = FREE.choice(i)
        rows[(c.offer.name, c.num_nodes, c.plan)] = c
    near = [r for r in by_loops if r["memory_bytes"] <= searching.NEAR_MEMORY_RATIO * DEVICE.memory_bytes]
    assert len(near) > 300
    for row in near:
        c = rows[row["key"]]
        assert (c.time_s, c.cost_usd, c.memory_bytes) == pytest.approx(
            (row["time_s"], row["cost_usd"], row["memory_bytes"])
        )
    assert not {
        r["key"] for r in by_loops if r["memory_bytes"] > searching.NEAR_MEMORY_RATIO * DEVICE.memory_bytes
    } & set(rows)


def test_every_plan_is_counted_once_per_offer():
    sizes = {n: len(enumerate_plans(MODEL, 8 * n, BATCH, 8, SPACE).dp_size) for n in (1, 2, 4)}
    assert FREE.num_layouts == sum(sizes.values())
    assert FREE.num_plans == sum(sizes.values()) + sizes[2] + sizes[4]


def test_the_best_is_the_least_of_what_keeps_the_limits():
    limits = Limits(
        20e9, FREE.choice(FREE.best["time_s"]).time_s * 2, 1e9, FREE.choice(FREE.best["carbon_gco2e"]).carbon_gco2e * 10
    )
    result, table = found(limits), FREE.table
    keeps = (
        (table["memory_bytes"] <= 20e9)
        & (table["time_s"] <= limits.deadline_s)
        & (table["carbon_gco2e"] <= limits.carbon_gco2e)
    )
    assert 0 < keeps.sum() == result.num_feasible < FREE.num_feasible
    for objective in OBJECTIVES:
        assert result.table[objective][result.best[objective]] == table[objective][keeps].min()


def test_energy_and_carbon_of_a_choice_follow_from_its_power():
    c = FREE.choice(FREE.best["carbon_gco2e"])
    watts = c.energy_j / c.offer.pue / c.time_s / c.num_nodes
    assert c.offer.host_w_per_node + 8 * 50 < watts < c.offer.host_w_per_node + 8 * 400
    made = c.num_nodes * 1e6 * c.time_s / c.offer.lifetime_s
    assert c.carbon_gco2e == pytest.approx(c.energy_j / 3.6e6 * c.offer.carbon_intensity_gco2e_per_kwh + made)


def test_the_front_holds_the_best_of_each_objective_and_none_beats_another():
    points = np.column_stack([FREE.table[o][FREE.front] for o in OBJECTIVES])
    assert np.all(np.diff(points[:, 0]) >= 0)
    for i, p in enumerate(points):
        assert not np.any((points <= p).all(axis=1) & (np.arange(len(points)) != i))
    np.testing.assert_allclose(points.min(axis=0), [FREE.table[o][FREE.best[o]] for o in OBJECTIVES])
    feasible = np.column_stack([FREE.table[o][FREE.table["feasible"]] for o in OBJECTIVES])
    for p in feasible[:: max(len(feasible) // 200, 1)]:
        assert (points <= p).all(axis=1).any()


TIGHT = {
    "memory_bytes": Limits(memory_bytes=6e9),
    "time_s": Limits(deadline_s=FREE.choice(FREE.best["time_s"]).time_s * 1.2),
    "cost_usd": Limits(budget_usd=FREE.choice(FREE.best["cost_usd"]).cost_usd * 1.1),
    "carbon_gco2e": Limits(carbon_gco2e=FREE.choice(FREE.best["carbon_gco2e"]).carbon_gco2e * 1.05),
}
LIMIT = {
    "memory_bytes": "memory_bytes",
    "time_s": "deadline_s",
    "cost_usd": "budget_usd",
    "carbon_gco2e": "carbon_gco2e",
}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_limit_that_is_tight_is_said_to_bind_and_relaxing_it_brings_what_was_said(constraint):
    limits = TIGHT[constraint]
    result = found(limits)
    told = [b for bs in result.binding.values() for b in bs if b.constraint == constraint]
    assert told
    for b in told:
        assert b.limit == getattr(limits, LIMIT[constraint]) < b.needed
        again = found(replace(limits, **{LIMIT[constraint]: b.needed}))
        best = again.table[b.objective][again.best[b.objective]]
        assert best == pytest.approx(b.then, rel=1e-12)
        assert b.then < b.now == result.table[b.objective][result.best[b.objective]]
        for limit, value in b.curve:
            midway = found(replace(limits, **{LIMIT[constraint]: limit}))
            assert midway.table[b.objective][midway.best[b.objective]] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_limit_that_is_not_said_to_bind_brings_nothing_when_it_is_given_up(constraint):
    limits = replace(TIGHT["memory_bytes"], deadline_s=TIGHT["time_s"].deadline_s * 3, budget_usd=1e4, carbon_gco2e=1e7)
    result = found(limits)
    assert result.best
    without = None if constraint == "memory_bytes" else math.inf
    freed = found(replace(limits, **{LIMIT[constraint]: without}))
    for objective, told in result.binding.items():
        gains = freed.table[objective][freed.best[objective]] < result.table[objective][result.best[objective]]
        assert gains == (constraint in {b.constraint for b in told})


cells = st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0])


@given(st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=30), st.tuples(cells, cells, cells, cells))
def test_of_any_table_the_binding_limits_and_the_dead_end_are_their_definition(rows, allowed):
    table = {c: np.array([r[i] for r in rows]) for i, c in enumerate(CONSTRAINTS)}
    limit = dict(zip(CONSTRAINTS, allowed, strict=True))
    within = {c: table[c] <= limit[c] for c in CONSTRAINTS}
    fine = [i for i in range(len(rows)) if all(within[c][i] for c in CONSTRAINTS)]
    only = {c: [i for i in range(len(rows)) if all(within[o][i] for o in CONSTRAINTS if o != c)] for c in CONSTRAINTS}
    if not fine:
        dead = dead_end(table, within, limit, 1000)
        assert set(dead.alone) == {c for c in CONSTRAINTS if only[c]}
        assert dead.left[dead.constraint] == 0
        worst = [max(table[c][i] / limit[c] for c in CONSTRAINTS if not within[c][i]) for i in range(len(rows))]
        assert max(needs / can for needs, can in dead.excess.values()) == min(worst)
        return
    for objective in OBJECTIVES:
        best = min(fine, key=lambda i: table[objective][i])
        told = {b.constraint: b for b in bindings(objective, best, table, within, limit)}
        for c in CONSTRAINTS:
            reach = min(table[objective][i] for i in only[c])
            assert (reach < table[objective][best]) == (c in told)
            if c in told:
                assert told[c].then == reach
                assert told[c].needed == min(table[c][i] for i in only[c] if table[objective][i] == reach)


def test_when_nothing_keeps_the_limits_it_says_which_one_and_how_near():
    result = found(Limits(deadline_s=FREE.choice(FREE.best["time_s"]).time_s / 2))
    dead = result.dead_end
    assert (result.best, len(result.front), result.num_feasible) == ({}, 0, 0)
    assert dead.constraint == "time_s"
    assert dead.alone == ("time_s",)
    assert dead.left["memory_bytes"] == FREE.num_feasible
    near = result.choice(dead.nearest)
    assert max(near.time_s / dead.excess["time_s"][1], near.memory_bytes / DEVICE.memory_bytes) == pytest.approx(
        2, rel=0.5
    )
    assert str(dead).startswith(
        f"no plan is left: of {result.num_plans:,} plans {FREE.num_feasible:,} fit in memory, none of these keep the"
    )
    assert "Giving up the deadline alone would leave a plan." in str(dead)


def test_when_nothing_comes_near_the_memory_the_leanest_plan_is_the_nearest_miss():
    result = found(Limits(memory_bytes=0.2e9))
    near = result.choice(result.dead_end.nearest)
    leanest = min(
        memory_per_rank(MODEL, enumerate_plans(MODEL, 8 * n, BATCH, 8, SPACE)).total_bytes.min() for n in (1, 2, 4)
    )
    assert near.memory_bytes == leanest
    assert near.time_s > 0
    assert result.dead_end.excess == {"memory_bytes": (near.memory_bytes, 0.2e9)}
    assert "none fits in memory" in str(result.dead_end)
    assert "times as much" in str(result.dead_end)


def test_the_words_say_the_limit_the_need_and_the_gain():
    [told] = [b for b in found(TIGHT["memory_bytes"]).binding["time_s"] if b.constraint == "memory_bytes"]
    assert str(told).startswith(
        f"memory binds: with {said('memory_bytes', told.needed)} instead of 5.59 GiB the best plan would take "
        f"{said('time_s', told.then)} instead of {said('time_s', told.now)}"
    )
    roomy = search(
        MODEL, replace(CHEAP, node_counts=(1,)), BATCH, steps=1, limits=Limits(memory_bytes=1e15), space=SPACE
    )
    assert roomy.why("time_s")[0] == "no limit binds: no plan considered is better"
    assert "it takes all 1 on offer" in roomy.why("time_s")[1]


def test_offers_of_one_cluster_share_its_predictions_and_blocks_stay_small():
    sizes = []

    def counted(model, plan, cluster):
        sizes.append(len(plan.dp_size))
        return predict_step(model, plan, cluster)

    one = found(offers=CHEAP, predict=counted)
    calls, sizes[:] = list(sizes), []
    copies = [replace(CHEAP, name=f"copy {i}", price_usd_per_node_hour=10.0 + i) for i in range(6)]
    six = found(offers=copies, predict=counted)
    assert sizes == calls
    assert max(calls) <= searching.BLOCK_ROWS
    assert (six.num_plans, six.num_layouts) == (6 * one.num_plans, one.num_layouts)
    assert six.choice(six.best["cost_usd"]).offer.name == "copy 0"


def test_a_million_plans_are_searched_in_one_call():
    model = Transformer(80, 8192, 64, 4096, 128256, kv_heads=8, ffn=28672, gated=True, tied=False)
    device = Accelerator(989e12, 0.8, 80e9, 3.35e12)
    offer = Offer(
        "big", Cluster(device, 8, 450e9, 2e-6, 50e9, 5e-6), (8, 16, 32, 64, 128, 256), 90.0, 70, 700, 2000, 1.1, 400
    )
    result = search(model, offer, 1536, tokens=1e12)
    assert result.num_layouts > 1_000_000
    assert result.table["feasible"][result.front].all()
    step = predict_step(model, result.choice(result.best["time_s"]).plan, offer.cluster)
    assert result.choice(result.best["time_s"]).step_time_s == pytest.approx(float(step.step_time_s))


def test_node_counts_without_a_plan_are_left_out_and_said():
    result = search(MODEL, replace(CHEAP, node_counts=(2, 3)), BATCH, steps=1, space=DP_ONLY)
    assert set(result.table["num_nodes"]) == {2}
    [note] = result.notes
    assert note.startswith(
        "3 nodes left out: no plan of 24 ranks: for example micro_batch_size(1) * dp_size(24) must divide"
    )


def test_an_error_of_a_model_is_not_taken_for_a_plan_that_does_not_fit():
    def broken(model, plan, cluster):
        raise ModelInputError("outside my domain")

    with pytest.raises(ModelInputError, match="outside my domain"):
        found(predict=broken)


def test_experts_are_spread_over_ranks():
    mixture = Transformer(8, 1024, 8, 1024, 32000, kv_heads=8, experts=8, active_experts=2)
    result = search(mixture, CHEAP, BATCH, steps=10, space=SPACE)
    sizes = {result.choice(row).plan.ep_size for row in range(0, len(result.table["time_s"]), 97)}
    assert sizes == {1, 2, 4, 8}


def test_without_a_price_or_a_grid_there_is_no_such_objective():
    result = found(offers=replace(CHEAP, price_usd_per_node_hour=None, carbon_intensity_gco2e_per_kwh=None))
    assert result.objectives == ("time_s",)
    c = result.choice(result.best["time_s"])
    assert (c.cost_usd, c.energy_j, c.carbon_gco2e) == (None, None, None)
    assert len(result.front) == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: search(MODEL, CHEAP, 64), "give either tokens or steps to train; got tokens=None, steps=None"),
        (lambda: search(MODEL, CHEAP, 64, steps=1, tokens=1e9), "give either tokens or steps"),
        (lambda: search(MODEL, CHEAP, 64, steps=0), "steps must be a whole number >= 1"),
        (lambda: search(MODEL, CHEAP, 64, tokens=-1), "tokens must be > 0"),
        (lambda: search(MODEL, CHEAP, 64, tokens=float("nan")), "tokens must be > 0"),
        (lambda: search(MODEL, [], 64, steps=1), "no offer, so no plan; give at least one"),
        (lambda: search(MODEL, CHEAP, 7, steps=1, space=DP_ONLY), "must divide global_batch_size(7)"),
        (lambda: Limits(deadline_s=0), "deadline_s must be > 0, got 0; leave it out for no limit"),
        (lambda: Limits(budget_usd=-5), "budget_usd must be > 0, got -5"),
        (lambda: replace(CHEAP, price_usd_per_node_hour=-1.0), "cheap: price_usd_per_node_hour must be >= 0 and finite, got -1"),
        (lambda: replace(CHEAP, pue=0.9), "cheap: pue must be >= 1 and finite, got 0.9"),
        (lambda: replace(CHEAP, node_counts=()), "cheap: node_counts must name at least one number of nodes"),
        (lambda: replace(CHEAP, node_counts=(0,)), "node_counts must be a whole number >= 1"),
        (lambda: found(Limits(budget_usd=1), replace(CHEAP, price_usd_per_node_hour=None)), "budget_usd is set, but cheap has no price"),
        (lambda: found(Limits(carbon_gco2e=1), replace(CHEAP, idle_w=None)), "carbon_gco2e is set, but cheap lacks power or grid"),
    ],
)  # fmt: skip
def test_what_it_refuses(call, says):
    with pytest.raises(ModelInputError) as error:
        call()
    assert says in str(error.value)


def test_offers_of_the_catalog_carry_price_grid_and_the_node_s_network():
    offers = rented(
        "dgx-h100", (1, 2), instances=["aws/us-east-1/p5.48xlarge", "azure/westeurope/Standard_ND96isr_H100_v5"]
    )
    assert [o.name for o in offers] == [
        "aws/us-east-1/p5.48xlarge on_demand",
        "azure/westeurope/Standard_ND96isr_H100_v5 on_demand",
    ]
    assert offers[0].cluster == offers[1].cluster == owned("dgx-h100", (1,), 3.0).cluster
    assert offers[0].carbon_intensity_gco2e_per_kwh != offers[1].carbon_intensity_gco2e_per_kwh
    assert {o.carbon_intensity_gco2e_per_kwh for o in rented("dgx-h100", (1,), grid="FRA")} == {
        owned("dgx-h100", (1,), 3.0, grid="FRA").carbon_intensity_gco2e_per_kwh
    }
    assert all(o.name.endswith("spot") for o in rented("dgx-h100", (1,), kinds=["spot"]))


def test_power_of_an_offer_comes_from_the_catalogs():
    offer = owned("dgx-h100", (1,), 3.0)
    printed_w = item("nodes", "dgx-h100")["power_max_w"].value
    assert 0 < offer.idle_w < 0.25 * offer.rated_w
    assert offer.host_w_per_node + 8 * offer.rated_w < printed_w
    assert offer.pue == pue("industry-average").value
    assert owned("dgx-h100", (1,), 3.0, pue=1.05).pue == 1.05
    assert {o.name.split("/")[0]: o.pue for o in rented("dgx-h100", (1,))} == {
        "aws": pue("aws").value,
        "azure": pue("microsoft").value,
        "gcp": pue("google").value,
    }
    assert owned("mi300x-8", (1,), 3.0).host_w_per_node > 0  # a node without a printed maximum
    assert owned("hgx-h200", (1,), 3.0).idle_w == item("accelerators", "h200-sxm-141gb")["power_idle_w"].value


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rented("dgx-h10", (1,)), "no 'dgx-h10' in the catalog nodes; did you mean 'dgx-h100'"),
        (lambda: rented("dgx-h100", (1,), instances=["aws/us-east-1/p5.48xlarg"]), "is called 'aws/us-east-1/p5.48xlarg'; did you mean"),
        (lambda: rented("dgx-h100", (1,), instances=["aws/us-east-1/p5.4xlarge"]), "no price of a node with 8 x h100-sxm5-80gb is called"),
        (lambda: rented("dgx-h100", (1,), kinds=["reserved"]), "no reserved price of a node with 8 x h100-sxm5-80gb in"),
        (lambda: rented("dgx-h100", (1,), grid="Atlantis"), "no region 'Atlantis' in the catalog grids"),
        (lambda: rented("mi300x-8", (1,)), "give a price per node and hour yourself"),
    ],
)  # fmt: skip
def test_offers_refuse_what_the_catalogs_do_not_have(call, says):
    with pytest.raises(UnknownNameError) as error:
        call()
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("time_s", 86400.0 * 30, "30 days"),
        ("time_s", 12.1, "12.1 s"),
        ("cost_usd", 1_234_567.8, "$1,234,568"),
        ("cost_usd", 12.345, "$12.35"),
        ("carbon_gco2e", 91.2e6, "91.2 tCO2e"),
        ("memory_bytes", 96 * 2**30, "96 GiB"),
        ("energy_j", 237.7 * 3.6e9, "237.7 MWh"),
        ("cost_usd", None, "not known"),
    ],
)
def test_numbers_are_said_as_a_person_says_them(name, value, words):
    assert said(name, value) == words
