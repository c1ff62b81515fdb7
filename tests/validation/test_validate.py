"""The whole validation: what the issue asks of the shipped rows, and how errors become groups and pools."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from aiinfra_widgets.errors import DataError
from aiinfra_widgets.models.transformer import PARAMETERS
from aiinfra_widgets.validation import report
from aiinfra_widgets.validation.rows import COLUMNS, Row, read, shipped
from aiinfra_widgets.validation.validate import POOLS, fit_parameters, fitted_ids, validate

SC21 = {
    "source": "My lab", "source_location": "Table 3; second line", "kind": "perf", "model": "GPT-7.5B", "layers": "36",
    "hidden": "4096", "heads": "32", "seq": "2048", "vocab": "51200", "global_batch": "512", "micro_batch": "16",
    "accelerator": "A100-SXM4-80GB", "n_accel": "128", "tp": "4", "pp": "1", "dp": "32", "recompute": "full",
    "precision": "fp16", "metric": "iter_time_s", "value": "1", "unit": "s",
}  # fmt: skip


def row(line, **changes):
    return Row(f"mine.csv:{line}", dict.fromkeys(COLUMNS, "") | SC21 | {"id": f"mine-{line}"} | changes)


@pytest.fixture(scope="module")
def ours():
    return read(shipped())


@pytest.fixture(scope="module")
def found(ours):
    return validate(ours, fitted_on=fitted_ids(ours))


def mape(found, *, pool="", source="", table="", metric="", zero_3=None, no_layers=True):
    """Mean absolute percentage error of the rows that these words name, and how many they are."""
    errors = [
        r.error
        for r in found.results
        if r.error is not None
        and pool in r.pool
        and source in r.row["source"]
        and table in r.row["source_location"]
        and metric in r.row["metric"]
        and (zero_3 is None or zero_3 == (r.row["zero_stage"] == "3"))
        and not (no_layers and r.row["metric"].startswith("layer_"))
    ]
    return 100 * float(np.mean(np.abs(errors))), len(errors)


# Issue 4, point 1; in brackets what it was when this was written.
@pytest.mark.parametrize(
    ("words", "limit", "at_least"),
    [
        pytest.param({"pool": "iteration_time", "no_layers": False}, 10, 190, id="all-iteration-times (6.2)"),
        pytest.param({"source": "SC21", "table": "Table 1"}, 5.9, 5, id="sc21-table-1 (4.7)"),
        pytest.param({"source": "Korthikanti", "table": "Table 5"}, 5, 8, id="korthikanti-table-5 (3.2)"),
        pytest.param({"source": "tr11-176B prequel", "metric": "iter_time_s"}, 9, 26, id="bloom-topology (8.7)"),
        pytest.param({"source": "llm-foundry"}, 12, 67, id="llm-foundry (5.4)"),
        pytest.param({"source": "SC21", "zero_3": True}, 15, 2, id="sc21-zero-3 (13.3)"),
        pytest.param({"pool": "memory"}, 10, 17, id="memory (6.6)"),
        pytest.param({"pool": "power_energy"}, 12, 79, id="power-and-energy (4.7)"),
        pytest.param({"metric": "busbw"}, 15, 21, id="all-reduce (8)"),
        pytest.param({"pool": "time_to_train_ratio"}, 10, 6, id="time-to-train (7.2)"),
    ],
)
def test_targets_on_the_shipped_rows(found, words, limit, at_least):
    error, rows = mape(found, **words)
    assert rows >= at_least
    assert error < limit


def test_no_fitted_source_of_training_steps_is_lost(found):
    # llm-foundry on each of its devices, not only on average.
    for device in ("A100-SXM4-40GB", "A100-SXM4-80GB", "H100-SXM5-80GB"):
        [group] = [g for g in found.groups if "foundry" in g.source and g.table == device]
        assert group.mape < 12
        assert group.expressed == group.rows


def test_cross_validation_is_no_more_than_half_worse_and_both_beat_every_rule(found):
    fitted, crossed = found.steps(), found.cross_validated()["iteration_time"]
    assert fitted["rows"] == crossed["rows"]
    assert fitted["mape"] < crossed["mape"] <= 1.5 * fitted["mape"]
    assert len(found.baselines) == 3
    for rule in found.baselines:
        assert crossed["mape"] < rule.mape
        assert rule.held_out_mape is None or crossed["mape"] < rule.held_out_mape
    # Power: each job predicted by a fit without it stays below the target of those with it (8.2 %, with it 3.2 %).
    power, left = found.pooled()["power_energy"], found.cross_validated()["power_energy"]
    assert 60 <= left["rows"] <= power["rows"]
    assert left["mape"] < 12


def test_every_row_is_predicted_or_has_its_reason_with_its_line(ours, found):
    assert [r.row["id"] for r in found.results] == [r["id"] for r in ours]
    for r in found.results:
        assert r.pool in POOLS
        assert (r.predicted is None) == (r.error is None)
        if r.error is None:
            assert r.reason.startswith(f"{r.row.where}: "), r.reason
            assert len(r.reason) > len(r.row.where) + 10
        else:
            assert math.isfinite(r.error)
            assert r.predicted > 0


def test_errors_are_on_time_for_performance_and_on_the_value_for_all_else(found):
    rates = ("tokens_per_s", "tflops", "mfu", "hfu", "samples_per_s", "images_per_s")
    for r in found.results:
        if r.error is not None:
            ratio = r.row.value / r.predicted if any(w in r.row["metric"] for w in rates) else r.predicted / r.row.value
            assert r.error == pytest.approx(ratio - 1, rel=1e-6, abs=1e-9), r.row["id"]


def test_groups_and_pools_are_of_all_rows(found):
    assert sum(g.rows for g in found.groups) == len(found.results)
    assert sum(g.expressed for g in found.groups) == sum(r.error is not None for r in found.results)
    for g in found.groups:
        assert sum(g.reasons.values()) == g.rows - g.expressed
        assert (g.mape is None) == (g.expressed == 0)
        if g.expressed:
            assert abs(g.bias) <= g.mape + 1e-9
            assert g.median <= abs(g.worst_error) + 1e-9
            assert g.mape <= abs(g.worst_error) + 1e-9
    for pool, values in found.pooled().items():
        assert values["mape"] == pytest.approx(mape(found, pool=pool, no_layers=False)[0])


def test_the_record_is_strict_json_of_the_promised_shape(found):
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["parameters"] == asdict(PARAMETERS)
    assert set(record["pooled"]["iteration_time"]) == {"rows", "mape"}
    assert set(record["pooled"]) <= set(POOLS)
    for group in record["groups"]:
        assert {"source", "kind", "metric", "rows", "expressed", "mape", "median", "bias"} <= set(group)
    for one in record["rows"]:
        assert {"id", "metric", "published", "predicted", "reason", "error"} <= set(one)
    assert len(record["fitted_on"]) == found.steps()["rows"]
    assert set(record["fitted_on"]) <= {one["id"] for one in record["rows"]}
    assert set(record["cross_validated"]) == {"iteration_time", "power_energy"}
    assert sum(s["rows"] for s in record["left_out"]) == sum(p["rows"] for p in record["cross_validated"].values())


def test_numbers_of_a_group_by_hand():
    # One run, published as 80, 100 and 125 % of what is predicted: errors +25, 0 and -20 %.
    time_s = validate([row(2)], cross=False).results[0].predicted
    table = [row(n, value=str(share * time_s)) for n, share in ((2, 0.8), (3, 1.0), (4, 1.25))]
    found = validate([*table, row(5, accelerator="Abacus"), row(6, zero_stage="3")], cross=False)
    group, sharded = found.groups
    assert (group.source, group.table, group.kind, group.metric) == ("My lab", "Table 3", "perf", "iter_time_s")
    assert sharded.table == "Table 3, ZeRO-3"
    assert (group.rows, group.expressed, group.worst) == (4, 3, "mine-2")
    assert [group.mape, group.median, group.bias, group.worst_error] == pytest.approx([15, 20, 5 / 3, 25])
    assert list(group.reasons.values()) == [1]
    assert "Abacus" in next(iter(group.reasons))
    assert found.held == []


@pytest.mark.parametrize("metric", ["iter_time_s", "tokens_per_s_per_accel", "hw_tflops_per_accel", "mfu_pct"])
def test_a_prediction_given_back_as_published_has_no_error(metric):
    unit = {"iter_time_s": "s", "tokens_per_s_per_accel": "tokens/s", "mfu_pct": "%"}.get(metric, "TFLOP/s")
    first = validate([row(2, metric=metric, unit=unit)], cross=False).results[0]
    again = validate([row(2, metric=metric, unit=unit, value=repr(first.predicted))], cross=False).results[0]
    assert again.error == pytest.approx(0, abs=1e-9)


def test_one_source_is_not_left_out_of_itself_and_nothing_was_fitted_on_it():
    found = validate([row(2), row(3, value="2")])
    record = found.record()
    assert (record["cross_validated"], record["left_out"], record["fitted_on"]) == ({}, [], [])


@pytest.mark.parametrize("kind", ["perf", "scaling", "energy", "carbon", "cost", "comm", "memory"])
def test_rows_of_one_kind_alone_are_enough(ours, kind):
    rows = [r for r in ours if r["kind"] == kind]
    assert rows
    found = validate(rows, cross=False)
    assert len(found.results) == len(rows)
    json.dumps(found.record(), allow_nan=False)
    assert report.markdown(found)


def test_other_parameters_give_other_predictions(ours):
    some = [r for r in ours if "foundry" in r["source"]][:5]
    slow = validate(some, replace(PARAMETERS, layer_overhead_s=1e-4, elementwise_traffic=3.0), cross=False)
    assert slow.record()["parameters"]["layer_overhead_s"] == 1e-4
    for one, other in zip(slow.results, validate(some, cross=False).results, strict=True):
        assert one.predicted < other.predicted  # tokens per second


def test_parameters_fitted_to_a_file_fit_it_better(ours):
    some = [r for r in ours if "foundry" in r["source"]]
    own = validate(some, fit_parameters(some), cross=False).steps()
    assert own["mape"] < validate(some, cross=False).steps()["mape"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        pytest.param([row(2, accelerator="Abacus")], "no row to fit on; mine.csv:2: no 'Abacus'", id="none-expressed"),
        pytest.param([row(2, metric="busbw_GBps")], "there are no rows of training steps", id="none-of-steps"),
    ],
)
def test_nothing_to_fit_on_is_said(rows, words):
    with pytest.raises(DataError, match=words):
        fit_parameters(rows)


# What a user's row may hold in any kind: nothing of it may end the command.
@pytest.mark.parametrize("kind", ["perf", "scaling", "energy", "carbon", "cost", "comm", "memory", "astrology"])
@pytest.mark.parametrize(
    "changes",
    [
        {"accelerator": "Abacus"}, {"accelerator": ""}, {"n_accel": ""}, {"n_accel": "1"}, {"value": "0"},
        {"model": "my own net"}, {"global_batch": ""}, {"metric": "no_such_metric"}, {"precision": "int3"}, {"tp": "7"},
        {"unit": "1"}, {"source": "nobody"},
    ],
    ids=str,
)  # fmt: skip
def test_no_row_ends_the_validation(ours, kind, changes):
    base = {r["metric"]: r for r in ours if r["kind"] == kind} or {"iter_time_s": row(2, kind=kind)}
    table = [Row(f"mine.csv:{n}", {**r.cells, **changes, "id": str(n)}) for n, r in enumerate(base.values(), 2)]
    found = validate(table, cross=kind in ("energy", "carbon", "cost"))
    for r in found.results:
        assert r.error is not None or r.reason.startswith(r.row.where + ": "), r.reason
    json.dumps(found.record(), allow_nan=False)
