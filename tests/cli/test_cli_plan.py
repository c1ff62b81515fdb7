"""`aiinfra plan`: tables for a person, one JSON object for a program, a message for bad input."""

from __future__ import annotations

import pytest

from aiinfra_widgets.cli.plan import _counts
from aiinfra_widgets.errors import SpecError

JOB = ("plan", "--model", "llama-3.1-8b", "--node", "dgx-h100", "--nodes", "4", "--batch", "64", "--tokens", "1e10")


def test_it_names_the_best_plans_the_front_and_what_binds(aiinfra):
    said = aiinfra(*JOB, "--deadline", "30d", "--budget", "1e5")
    assert said.code == 0
    for words in (
        "quickest",
        "cheapest",
        "least carbon",
        "the Pareto front",
        "what binds:",
        "memory binds: with",
        "assumed: ",
    ):
        assert words in said.out
    assert "All numbers are modelled, none is measured" in said.out


def test_json_holds_the_same_and_each_plan_in_full(aiinfra):
    data = aiinfra(*JOB, "--deadline", "30d", "--price", "20", "--grid", "FRA", "--json").json
    assert data["method"] == "modelled"
    assert data["limits"] == {"memory_bytes": None, "deadline_s": 2592000.0, "budget_usd": None, "carbon_gco2e": None}
    assert set(data["best"]) == {"time_s", "cost_usd", "carbon_gco2e"}
    best = data["best"]["cost_usd"]
    assert best["cost_usd"] == pytest.approx(best["num_nodes"] * 20 * best["time_s"] / 3600)
    plan = best["plan"]
    assert plan["dp_size"] * plan["tp_size"] * plan["pp_size"] * plan["cp_size"] == 8 * best["num_nodes"]
    assert data["best"]["time_s"]["time_s"] == data["front"][0]["time_s"]
    assert all(b["words"] for bs in data["binding"].values() for b in bs)


@pytest.mark.parametrize(
    ("text", "counts"), [("48", [48, 24, 12, 6, 3]), ("1", [1]), ("48,64", [48, 64]), ("4,", None)]
)
def test_one_number_of_nodes_means_its_halves_too_and_a_list_means_exactly_these(text, counts):
    if counts is None:
        with pytest.raises(SpecError):
            _counts(text)
    else:
        assert _counts(text) == counts


def test_fewer_nodes_than_asked_are_tried_too(aiinfra):
    tried = [
        aiinfra(*JOB, "--nodes", n, "--price", "1", "--json").json["num_layouts"] for n in ("4", "4,4", "2,2", "1")
    ]
    assert tried[0] == sum(tried[1:])


def test_when_no_plan_is_left_it_says_why_and_ends_with_another_code(aiinfra):
    said = aiinfra(*JOB, "--deadline", "60")
    assert said.code == 2
    assert "no plan is left" in said.out
    assert "the nearest miss, modelled" in said.out
    data = aiinfra(*JOB, "--deadline", "60", "--json").json
    assert data["best"] == {}
    assert data["dead_end"]["constraint"] == "time_s"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "llama-3-70"), "no 'llama-3-70' in the catalog architectures; did you mean"),
        (("--model", "resnet-50"), "resnet-50 is of kind 'convolution'"),
        (("--node", "dgx-h10"), "no 'dgx-h10' in the catalog nodes; did you mean"),
        (("--nodes", "0"), "nodes: got '0'; give a whole number from 1"),
        (("--nodes", "four"), "nodes: got 'four'; give a whole number from 1"),
        (("--deadline", "30x"), "deadline: cannot read '30x'; give a number of seconds, or one with a unit: 30d"),
        (("--deadline", "30 kg"), "deadline: cannot read '30 kg'"),
        (("--deadline", "nan"), "deadline_s must be > 0"),
        (("--memory", "80 m"), "memory: cannot read '80 m'; give a number of bytes, or one with a unit: 80 GiB"),
        (("--budget", "-1"), "budget_usd must be > 0, got -1"),
        (("--price", "-3"), "price_usd_per_node_hour must be >= 0 and finite, got -3"),
        (("--steps", "5"), "give either tokens or steps to train"),
        (("--batch", "0"), "global_batch_size must be a whole number >= 1"),
        (("--precision", "bf61"), "no precision 'bf61'; did you mean 'bf16'"),
        (("--node", "dgx-a100-80gb", "--precision", "fp8"), "a100-sxm4-80gb has no peak rate in fp8"),
        (("--pue", "0.5"), "pue must be >= 1"),
        (("--grid", "Atlantis"), "no region 'Atlantis' in the catalog grids"),
        (("--kind", "reserved"), "no reserved price of a node with 8 x h100-sxm5-80gb"),
        (("--price", "3", "--kind", "spot"), "price: got 3 beside --instance or --kind"),
        (("--price", "3", "--carbon", "5 t"), "carbon_gco2e is set, but dgx-h100 lacks power or grid"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else None,
)  # fmt: skip
def test_bad_input_is_told_with_the_next_step(aiinfra, words, says):
    assert says in aiinfra(*JOB, *words).message
