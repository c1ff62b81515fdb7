"""Key results, what moved since the batch before, and the schemas: from data, without running anything."""

from __future__ import annotations

import json

import jsonschema
import pytest

from aiinfra_widgets.errors import UnknownNameError
from aiinfra_widgets.reports.batch.differences import earlier, moved, of_report
from aiinfra_widgets.reports.batch.key_results import key_results
from aiinfra_widgets.reports.schemas import NAMES, schema


def quantity(predicted, measured, quartiles=None):
    return {
        "predicted": predicted, "measured": measured, "measured_quartiles": quartiles, "measured_interval_95": None,
        "relative_error": None, "method": "measured", "predicted_method": "modelled",
    }  # fmt: skip


def segment(nodes, **quantities):
    return {
        "segment": 0,
        "nodes": nodes,
        "transient": False,
        "spec": {"nodes": nodes, "lr": nodes / 10},
        "quantities": quantities,
    }


def test_the_compared_quantities_of_each_segment_most_important_first():
    found = key_results(
        {
            "experiment": "training",
            "segments": [
                segment(
                    1, sent_bytes=quantity(0, 0), compute_time_s=quantity(1, 2), step_time_s=quantity(3, 4, [3.5, 5])
                ),
                segment(2, step_time_s=quantity(5, 6)),
                {**segment(3, step_time_s=quantity(7, 8)), "transient": True},
            ],
        }
    )
    assert [(r["at"], r["quantity"]) for r in found] == [
        ("1: 1 node", "step_time_s"),
        ("2: 2 nodes, lr=0.2", "step_time_s"),
        ("1: 1 node", "compute_time_s"),
        ("1: 1 node", "sent_bytes"),
    ]
    assert found[0] | {"key": ""} == {
        "key": "", "at": "1: 1 node", "label": "Step time", "quantity": "step_time_s", "unit": "s", "predicted": 3, "measured": 4,
        "low": 3.5, "high": 5, "relative_error": None, "method": "measured", "word": None,
    }  # fmt: skip
    assert len({r["key"] for r in found}) == 4


def test_what_was_not_run_is_predicted_only_and_claims_have_verdicts():
    found = key_results(
        {
            "guess": {"quantity": "mfu"},
            "counts": [
                {"accelerators": 8, "chosen": False, "quantities": {"mfu": {"value": 0.5, "method": "modelled"}}},
                {"accelerators": 16384, "chosen": True, "quantities": {
                    "step_time_s": {"value": 7.0, "method": "modelled"}, "mfu": {"value": 0.4, "method": "modelled"},
                }},
            ],
            "claims": [{"id": "S1", "verdict": "holds"}],
        }
    )  # fmt: skip
    assert [(r["at"], r["quantity"], r["predicted"], r["measured"], r["word"]) for r in found] == [
        ("16 384 accelerators", "mfu", 0.4, None, None),
        ("S1", None, None, None, "holds"),
        ("16 384 accelerators", "step_time_s", 7.0, None, None),
    ]


@pytest.mark.parametrize(
    "results", [None, {}, {"segments": "x"}, {"segments": [1, {"quantities": {"step_time_s": 1}}]}]
)
def test_a_notebook_without_quantities_has_no_key_results(results):
    assert key_results(results) == []


@pytest.mark.parametrize(
    ("name", "label", "unit"),
    [
        pytest.param("exposed_comm_frac", "Communication", "frac", id="of-the-models-of-scale"),
        pytest.param("brewing_time_s", "Brewing time", "s", id="from-its-suffix"),
        pytest.param("cups", "Cups", "1", id="a-count"),
    ],
)
def test_a_quantity_outside_the_vocabulary_says_what_its_name_tells(name, label, unit):
    [found] = key_results({"cups": [{"quantities": {name: {"value": 0.5, "method": "modelled"}}}]})
    assert (found["label"], found["unit"]) == (label, unit)


def row(measured=None, low=None, high=None, predicted=None, quantity="step_time_s", word=None):
    return {
        "key": "k", "at": "1 node", "label": "Step time", "quantity": quantity, "predicted": predicted, "measured": measured,
        "low": low, "high": high, "word": word, "unit": "s",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        pytest.param(row(1.0, 0.9, 1.1), row(2.0, 1.8, 2.2), "measured 1 s became 2 s (+100%), worse", id="slower"),
        pytest.param(row(2.0, 1.8, 2.2), row(1.0, 0.9, 1.1), "measured 2 s became 1 s (-50%), better", id="faster"),
        pytest.param(row(1.0, 0.9, 1.1), row(1.05, 1.0, 1.2), "", id="within-both"),
        pytest.param(row(1.0, 0.9, 1.1), row(1.2, 0.9, 2.2), "", id="old-within-new"),
        pytest.param(row(1.0, 0.5, 3.0), row(2.0, 1.8, 2.2), "", id="new-within-old"),
        pytest.param(row(1.0), row(2.0, 1.8, 2.2), "", id="no-spread-no-word"),
        pytest.param(row(1.0, 0.9, 1.1), row(None), "was measured, is not", id="lost"),
        pytest.param(row(predicted=1.0), row(predicted=1.5), "predicted 1 s became 1.5 s (+50%)", id="predicted"),
        pytest.param(row(predicted=1.0), row(predicted=1.0 + 1e-9), "", id="same-prediction"),
        pytest.param(row(word="holds"), row(word="refuted"), "holds became refuted", id="verdict"),
    ],
)
def test_a_result_has_moved_when_each_median_lies_outside_the_others_quartiles(before, after, says):
    assert moved(before, after) == says


def test_what_changed_in_a_report():
    old = {"status": "done", "parameters": {"nodes": 1}, "key_results": [row(1.0, 0.9, 1.1)]}
    new = {"status": "failed", "parameters": {"nodes": 2}, "key_results": [row(3.0, 2.9, 3.1)]}
    assert [c["kind"] for c in of_report(old, new)] == ["outcome", "parameters", "result"]
    assert of_report(old, old) == []
    assert [c["kind"] for c in of_report(None, new)] == ["new"]


def test_the_batch_before_is_the_newest_earlier_one_of_that_title_beside_this_one(tmp_path):
    for name, title, at in (
        ("a", "t", "2026-01-01"),
        ("b", "t", "2026-01-02"),
        ("c", "t", "2026-01-04"),
        ("d", "u", "2026-01-02"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "batch.json").write_text(json.dumps({"title": title, "started_at": at}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "batch.json").write_text('{"title": "t", "star')
    assert earlier(tmp_path / "now", "t", "2026-01-03") == tmp_path / "b"
    assert earlier(tmp_path / "b", "t", "2026-01-02") == tmp_path / "a"
    assert earlier(tmp_path / "a", "t", "2026-01-01") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_another_schema_is_an_error_with_the_names():
    with pytest.raises(UnknownNameError, match="did you mean 'results'"):
        schema("result")
