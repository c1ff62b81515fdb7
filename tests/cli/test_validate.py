"""`aiinfra validate`: what a user may give it, what it prints, and its exit codes."""

from __future__ import annotations

import csv
import io

import pytest

from aiinfra_widgets.machine.catalog import data_folder
from aiinfra_widgets.validation.rows import NEEDED

ROW = {
    "id": "mine-1", "source": "My lab", "kind": "perf", "model": "GPT-7.5B", "layers": "36", "hidden": "4096",
    "heads": "32", "seq": "2048", "vocab": "51200", "global_batch": "512", "micro_batch": "16",
    "accelerator": "A100-SXM4-80GB", "n_accel": "128", "tp": "4", "pp": "1", "dp": "32", "recompute": "full",
    "precision": "fp16", "metric": "hw_tflops_per_accel", "value": "142", "unit": "TFLOP/s",
}  # fmt: skip
KEYS = {"source", "kind", "metric", "rows", "expressed", "mape", "median", "bias"}


@pytest.fixture
def mine(tmp_path):
    def save(*rows, columns=None, encoding="utf-8", end="\n"):
        text = io.StringIO()
        table = csv.DictWriter(text, columns or list(ROW), extrasaction="ignore", lineterminator=end)
        table.writeheader()
        table.writerows(rows or [ROW])
        path = tmp_path / "mine.csv"
        path.write_bytes(text.getvalue().encode(encoding))
        return str(path)

    return save


def test_ours_is_what_it_runs_on_and_json_is_one_document_of_the_promised_shape(aiinfra):
    said = aiinfra("validate", "--no-cross", "--json")
    assert said.code == 0
    data = said.json
    assert "NaN" not in said.out
    assert "Infinity" not in said.out
    assert isinstance(data["parameters"], dict)
    assert set(data["pooled"]["iteration_time"]) == {"rows", "mape"}
    assert data["pooled"]["iteration_time"]["mape"] < 10
    assert all(set(group) >= KEYS for group in data["groups"])
    assert all(set(r) >= {"id", "metric", "published", "predicted", "reason", "error"} for r in data["rows"])
    with (data_folder() / "published.csv").open(newline="") as file:
        assert [r["id"] for r in data["rows"]] == [r["id"] for r in csv.DictReader(file)]


def test_the_tables_name_groups_pools_rules_and_reasons(aiinfra, mine, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    bad = {**ROW, "id": "mine-2", "accelerator": "A100-SXM4-80"}
    said = aiinfra("validate", mine(ROW, bad), "--no-cross")
    assert said.code == 0
    for words in ("My lab", "hw_tflops_per_accel", "mine-1", "iteration_time", "HFU of 45%", "mine.csv:3"):
        assert words in said.out, words
    assert "did you mean" in said.out
    assert "not asked for" in said.out


def test_markdown_is_tables_too(aiinfra, mine):
    said = aiinfra("validate", mine(), "--no-cross", "--markdown")
    assert "### Pooled" in said.out
    assert "| My lab | hw_tflops_per_accel | mine-1 " in said.out
    assert "`flash_frac`" in said.out


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"columns": list(reversed(ROW))}, id="columns-in-another-order"),
        pytest.param({"encoding": "utf-8-sig"}, id="byte-order-mark"),
        pytest.param({"end": "\r\n"}, id="windows-line-ends"),
    ],
)
def test_files_as_programs_write_them_give_the_same(aiinfra, mine, form):
    plain = aiinfra("validate", mine(), "--json").json
    other = aiinfra("validate", mine(**form), "--json").json
    assert other == plain
    [row] = plain["rows"]
    assert row["id"] == "mine-1"
    assert row["published"] == 142
    assert row["error"] == pytest.approx(142 / row["predicted"] - 1)
    assert row["reason"] == ""


def test_only_the_needed_columns_are_enough_to_be_told_what_lacks(aiinfra, mine):
    [row] = aiinfra("validate", mine(columns=NEEDED), "--json").json["rows"]
    assert row["predicted"] is row["error"] is None
    assert row["reason"] == "mine.csv:2: global_batch, micro_batch, precision was not published"


def test_rows_of_only_one_kind(aiinfra, mine):
    busbw = {"kind": "comm", "metric": "busbw_GBps", "unit": "GB/s", "value": "230", "n_accel": "8"}
    data = aiinfra("validate", mine({**ROW, **busbw}), "--json").json
    assert set(data["pooled"]) == {"communication"}
    assert data["baselines"] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"accelerator": "A100-SXM4-80"}, "did you mean 'a100-sxm4-80gb'", id="unknown-accelerator"),
        pytest.param({"tp": "64", "dp": "2"}, "tp_size that divides the heads", id="tp-does-not-divide-the-heads"),
        pytest.param({"tp": "8"}, "dp 32 x tp 8 x pp 1 x cp 1 is 256, not the 128 of n_accel", id="product"),
        pytest.param({"global_batch": ""}, "global_batch was not published", id="no-global-batch"),
        pytest.param({"unit": "GFLOP/s"}, "write it in TFLOP/s", id="a-unit-that-is-not-the-metrics"),
        pytest.param({"value": "0"}, "0 TFLOP/s is no usable", id="zero"),
    ],
)
def test_a_row_that_cannot_be_expressed_is_named_and_the_others_go_on(aiinfra, mine, change, reason):
    table = mine(ROW, {**ROW, "id": "mine-2", **change})
    said = aiinfra("validate", table, "--json")
    assert said.code == 0
    first, second = said.json["rows"]
    assert first["error"] is not None
    assert second["predicted"] is second["error"] is None
    assert second["reason"].startswith("mine.csv:3: ")
    assert reason in second["reason"]
    strict = aiinfra("validate", table, "--strict", "--json")
    assert strict.code == 2
    assert len(strict.json["rows"]) == 2
    assert strict.err.startswith("aiinfra: 1 row not predicted; the first: mine.csv:3: ")


def test_strict_is_content_where_every_row_is_predicted(aiinfra, mine):
    assert aiinfra("validate", mine(), "--strict").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"unit": "furlong"}, "mine.csv:3: unit 'furlong' is not known", id="unknown-unit"),
        pytest.param({"value": "fast"}, "mine.csv:3: value is 'fast', which is no number", id="text"),
        pytest.param({"tp": "0"}, "mine.csv:3: tp is 0; it is a whole number from 1", id="tp-0"),
        pytest.param({"tp": "1.5"}, "mine.csv:3: tp is 1.5; it is a whole number from 1", id="tp-1.5"),
        pytest.param({"value": "-5"}, "mine.csv:3: value is -5", id="negative"),
        pytest.param({"id": "mine-1"}, "mine.csv:3: id 'mine-1' was given at mine.csv:2", id="id-twice"),
    ],
)
def test_a_wrong_cell_is_refused_with_its_line(aiinfra, mine, change, words):
    assert words in aiinfra("validate", mine(ROW, {**ROW, "id": "mine-2", **change})).message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "mine.csv:1: no column id", id="empty"),
        pytest.param(",".join(ROW).encode() + b"\n", "mine.csv: has no rows", id="header-alone"),
        pytest.param("id,source\nMüller,x".encode("latin-1"), "UTF-8", id="not-utf-8"),
        pytest.param(
            ",".join(c for c in ROW if c != "unit").encode(), "mine.csv:1: no column unit", id="missing-column"
        ),
        pytest.param(
            (",".join(ROW) + "\n" + ",".join(ROW.values()) + ",too,many\n").encode(),
            "mine.csv:2: more or fewer cells",
            id="extra-cells",
        ),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(aiinfra, tmp_path, content, words):
    (tmp_path / "mine.csv").write_bytes(content)
    assert words in aiinfra("validate", str(tmp_path / "mine.csv")).message


@pytest.mark.parametrize("name", [".", "nothing-there.csv"], ids=["a-folder", "no-such-file"])
def test_what_is_no_file_is_refused(aiinfra, tmp_path, name):
    assert "cannot be read" in aiinfra("validate", str(tmp_path / name)).message


def test_fitting_to_ones_own_rows(aiinfra, mine):
    table = mine(*({**ROW, "id": f"mine-{n}", "micro_batch": str(n)} for n in (2, 4, 8, 16)))
    ours, own = (aiinfra("validate", table, "--no-cross", "--json", *o).json for o in ((), ("--fit",)))
    assert own["pooled"]["iteration_time"]["mape"] < ours["pooled"]["iteration_time"]["mape"]
    assert own["parameters"] != ours["parameters"]
    assert own["fitted_on"] == [f"mine-{n}" for n in (2, 4, 8, 16)]
    assert ours["fitted_on"] == []
    nothing = aiinfra("validate", mine({**ROW, "accelerator": "Abacus"}), "--fit")
    assert nothing.message.startswith("no row to fit on; mine.csv:2: ")


def test_a_broken_catalog_of_one_s_own_ends_it_instead_of_leaving_every_row_out(aiinfra, mine, tmp_path, monkeypatch):
    folder = tmp_path / "my data"
    folder.mkdir()
    head = (data_folder() / "links.csv").read_text().splitlines()[0]
    cells = dict.fromkeys(head.split(","), "") | {"key": "my-link", "field": "bandwidth_oneway", "value": "fast"}
    cells |= {"unit": "GB/s", "scope": "per_device", "source_url": "https://example.org", "source_date": "2026"}
    (folder / "links.csv").write_text(head + "\n" + ",".join((cells | {"checked_on": "never"}).values()) + "\n")
    monkeypatch.setenv("AIINFRA_DATA", str(folder))
    said = aiinfra("validate", mine(), "--no-cross")
    assert said.code != 0
    assert "links.csv:2: " in said.err
    assert "fast" in said.err
