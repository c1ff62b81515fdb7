"""Every catalogued transformer has the parameters that were published for it; the others are refused, with their counts."""

from __future__ import annotations

import csv

import pytest

from aiinfra_widgets.errors import CatalogError, ModelInputError, UnknownNameError
from aiinfra_widgets.machine import catalog
from aiinfra_widgets.planning import architectures

PUBLISHED = list(csv.DictReader((catalog.data_folder() / "published.csv").open(encoding="utf-8")))
#: Names of published rows that are no model of a catalog: their rows carry the shape themselves, or nothing has a shape.
NO_ARCHITECTURE = (
    "BLOOM-like",
    "matmul",
    "all_reduce",
    "pairwise",
    "host_to_device",
    "GPT-22B single",
    "ncf",
    "R-GAT",
    "UNet3D",
)
#: Where the published count is not the count of the shape by 2 %, and why.
ROUNDED = {
    "gpt-1.7b": "SC21 prints two figures; its own formula gives 1.65e9",
    "maxtext-16b": "the name of a script",
}


@pytest.mark.parametrize("key", architectures.names("transformer"))
def test_the_shape_gives_the_published_parameters(key):
    facts = architectures.facts(key)
    model = architectures.transformer(key, int(facts["max_seq_len"].value))
    assert float(model.parameters) == pytest.approx(facts["parameters"].value, rel=0.035 if key in ROUNDED else 0.02)
    if key in ROUNDED:
        assert float(model.parameters) != pytest.approx(facts["parameters"].value, rel=0.02), "no exception any more"
    # Heads fill the width, or the row says how wide a head is.
    assert "head_size" in facts or model.heads * model.head_size == model.hidden


@pytest.mark.parametrize(
    ("name", "active"),
    [("qwen3-30b-a3b", 3.3e9), ("qwen3-235b-a22b", 22e9), ("mixtral-8x7b", 12.9e9), ("mixtral-8x22b", 39e9)],
)
def test_a_mixture_activates_what_its_makers_say(name, active):
    model = architectures.transformer(name, 4096)
    assert float(model.active_parameters) == pytest.approx(active, rel=0.03)
    assert model.experts > model.active_experts


def test_published_counts_of_llm_foundry_are_met_to_a_tenth_of_a_percent_at_every_sequence_length():
    rows = {(r["model"], int(r["seq"]), int(r["params"])) for r in PUBLISHED if "llm-foundry" in r["source"]}
    assert len(rows) > 20
    for name, seq_len, parameters in rows:
        model = architectures.transformer(name, seq_len)
        # Below 2048 the catalog keeps its table of positions, the benchmark a shorter one; biases are not counted.
        spare = model.hidden * max(0, 2048 - seq_len)
        assert float(model.parameters) - spare == pytest.approx(parameters, rel=1e-3), name


@pytest.mark.parametrize(
    "name", sorted({r["model"] for r in PUBLISHED if r["model"] and not r["model"].startswith(NO_ARCHITECTURE)})
)
def test_every_published_model_is_catalogued(name):
    assert architectures.facts(name)["parameters"].value > 0


def test_shapes_of_published_rows_are_those_of_the_catalog():
    fields = (("layers", "layers"), ("hidden", "hidden"), ("heads", "heads"))
    checked = 0
    for row in PUBLISHED:
        if not row["model"] or row["model"].startswith(NO_ARCHITECTURE) or not row["layers"]:
            continue
        facts = architectures.facts(row["model"])
        for column, field in fields:
            assert facts[field].value == float(row[column]), (row["id"], field)
        checked += 1
    assert checked > 100


def test_spellings_lead_to_one_model():
    for name in ("LLAMA3_70B", "llama-3.1-70b", "Llama3.1-70B"):
        assert architectures.transformer(name, 8192) == architectures.transformer("Llama-3-70B", 8192)


def test_learned_positions_grow_with_the_sequence_and_rotary_ones_do_not_exist():
    assert architectures.transformer("mpt-7b", 8192).positions == 8192
    assert architectures.transformer("mpt-7b", 512).positions == 2048
    assert architectures.transformer("llama-2-7b", 32768).positions == 0


@pytest.mark.parametrize(
    ("name", "forward_flop"),
    [("resnet-50", 8.2e9), ("resnet-152", 23.0e9), ("vgg16", 30.9e9), ("alexnet", 1.43e9), ("inception-v3", 11.4e9)],
)
def test_a_convolution_is_counts_and_no_transformer(name, forward_flop):
    facts = architectures.facts(name)
    assert facts["forward_flop"].value == pytest.approx(forward_flop, rel=0.01)
    with pytest.raises(CatalogError, match=r"is of kind 'convolution'.*facts"):
        architectures.transformer(name, 1)


def test_kinds_are_listed_and_an_unknown_kind_is_refused():
    assert "dlrm-dcnv2" in architectures.names("recommender")
    assert {"wav2vec2-base", "conformer-l"} <= set(architectures.names("speech"))
    assert set(architectures.names("transformer")) < set(architectures.names())
    with pytest.raises(UnknownNameError, match="did you mean 'transformer'"):
        architectures.names("transfomer")


def test_unknown_models_are_refused_with_the_near_ones():
    with pytest.raises(UnknownNameError, match=r"did you mean .*llama-3\.1-8b|did you mean .*Llama"):
        architectures.transformer("llama-3.1-9b", 2048)


def test_a_sequence_of_no_tokens_is_refused():
    with pytest.raises(ModelInputError, match="seq_len"):
        architectures.transformer("gpt-2", 0)


def test_a_learner_adds_a_model_and_a_missing_row_is_named(tmp_path):
    header = "key,field,value,unit,scope,source_url,source_date,checked_on,note,kind,alias"
    row = "tiny,{},{},1,per_model,https://a.org,2026,never,,transformer,Tiny"
    path = tmp_path / "architectures.csv"
    shape = {"layers": 2, "hidden": 64, "heads": 4, "vocab": 100}
    path.write_text("\n".join([header, *(row.format(*pair) for pair in shape.items())]) + "\n")
    model = architectures.transformer("Tiny", 16, [tmp_path])
    # By hand: per layer 4 h^2 + 8 h^2 + 4 h, then 100 h and a last norm of 2 h.
    assert float(model.parameters) == 2 * (12 * 64**2 + 4 * 64) + 100 * 64 + 2 * 64
    path.write_text("\n".join([header, row.format("layers", 2), row.format("heads", 4)]) + "\n")
    with pytest.raises(CatalogError, match=r"^architectures\.csv:2: tiny has no row for hidden, vocab"):
        architectures.transformer("tiny", 16, [tmp_path])
