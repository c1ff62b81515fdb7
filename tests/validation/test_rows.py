"""Reading published rows: what a user's file may look like, and what is refused with its line."""

from __future__ import annotations

import csv
import io
import re

import pytest

from aiinfra_widgets.errors import DataError
from aiinfra_widgets.validation import rows as published
from aiinfra_widgets.validation.rows import COLUMNS, NEEDED, NUMBERS, UNITS, read, shipped

ROW = {
    "id": "mine-1", "source": "My lab", "kind": "perf", "model": "GPT-7.5B", "layers": "36", "hidden": "4096",
    "heads": "32", "seq": "2048", "vocab": "51200", "global_batch": "512", "micro_batch": "4",
    "accelerator": "A100-SXM4-80GB", "n_accel": "128", "tp": "4", "pp": "1", "dp": "32", "recompute": "full",
    "precision": "fp16", "metric": "hw_tflops_per_accel", "value": "142", "unit": "TFLOP/s",
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def save(*rows, columns=None, encoding="utf-8", end="\n"):
        text = io.StringIO()
        table = csv.DictWriter(text, columns or list(ROW), extrasaction="ignore", lineterminator=end)
        table.writeheader()
        table.writerows(rows or [ROW])
        path = tmp_path / "mine.csv"
        path.write_bytes(text.getvalue().encode(encoding))
        return path

    return save


def test_the_shipped_rows_are_read_and_each_says_where_it_is():
    found = read(shipped())
    assert len(found) >= 480
    lines = shipped().read_text(encoding="utf-8").splitlines()
    for row in found[:: len(found) // 20]:
        file, line = row.where.split(":")
        assert file == "published.csv"
        assert row["id"] in next(csv.reader([lines[int(line) - 1]]))
        assert set(row.cells) == set(COLUMNS)
    assert [row["id"] for row in found] == list(dict.fromkeys(row["id"] for row in found))


def test_a_row_gives_numbers_and_none_for_what_was_not_published(write):
    [row] = read(write({**ROW, "layers": "", "heads": "nan"}))
    assert row.where == "mine.csv:2"
    assert row.value == 142
    assert row.number("n_accel") == 128
    assert row.number("layers") is None
    assert row.number("heads") is None
    assert row.number("vpp") is None  # a column that the file does not have
    assert row["notes"] == ""


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"columns": list(reversed(ROW))}, id="columns-in-another-order"),
        pytest.param({"encoding": "utf-8-sig"}, id="byte-order-mark"),
        pytest.param({"end": "\r\n"}, id="windows-line-ends"),
        pytest.param({"columns": [*ROW, "my own remark"]}, id="a-column-of-ones-own"),
        pytest.param({"columns": NEEDED}, id="only-the-needed-columns"),
    ],
)
def test_files_as_programs_write_them(write, form):
    [row] = read(write({**ROW, "my own remark": "x"}, **form))
    assert (row["id"], row.value, row["unit"]) == ("mine-1", 142, "TFLOP/s")


def test_text_with_commas_line_breaks_and_letters_of_any_language(write):
    table = [{**ROW, "source": "Müller, 2024\nsecond line"}, {**ROW, "id": "試行-2"}]
    first, second = read(write(*table))
    assert first["source"] == "Müller, 2024\nsecond line"
    assert second["id"] == "試行-2"
    assert second.where == "mine.csv:4"  # the line on which the row ends


def test_spaces_around_a_cell_do_not_matter(write):
    [row] = read(write({**ROW, "accelerator": " A100-SXM4-80GB ", "value": " 142 "}))
    assert row["accelerator"] == "A100-SXM4-80GB"
    assert row.value == 142


@pytest.mark.parametrize("column", NEEDED)
def test_a_missing_column_is_named_with_the_line(write, column):
    with pytest.raises(DataError, match=rf"^mine\.csv:1: no column {column}; needed are id, source, kind"):
        read(write(columns=[c for c in ROW if c != column]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"unit": "TFLOPS/s"}, "unit 'TFLOPS/s' is not known; did you mean 'TFLOP/s'", id="unknown-unit"),
        pytest.param({"unit": "furlong"}, "unit 'furlong' is not known; ", id="no-unit-at-all"),
        pytest.param({"unit": ""}, "unit is empty", id="empty-unit"),
        pytest.param({"value": ""}, "value is empty", id="empty-value"),
        pytest.param({"value": "fast"}, "value is 'fast', which is no number", id="text-for-a-value"),
        pytest.param({"value": "1,234"}, "value is '1,234', which is no number", id="thousands-comma"),
        pytest.param({"value": "-5"}, "value is -5; a published value is finite and not below zero", id="negative"),
        pytest.param({"value": "nan"}, "value is nan; a published value is finite", id="not-a-number"),
        pytest.param({"value": "inf"}, "value is inf; a published value is finite", id="infinite"),
        pytest.param({"tp": "0"}, "tp is 0; it is a whole number from 1", id="tp-0"),
        pytest.param({"tp": "1.5"}, "tp is 1.5; it is a whole number from 1", id="tp-1.5"),
        pytest.param({"tp": "four"}, "tp is 'four', which is no number", id="text-for-a-number"),
        pytest.param(
            {"n_accel": "-8"}, "n_accel is -8; a published value is finite and not below zero", id="negative-devices"
        ),
        pytest.param({"layers": "inf"}, "layers is inf", id="infinite-layers"),
        pytest.param({"params": "-1"}, "params is -1", id="negative-parameters"),
        pytest.param({"id": ""}, "id is empty; every value has an id", id="no-id"),
        pytest.param({"source": "  "}, "source is empty; every value has an id, a source", id="no-source"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line(write, change, words):
    with pytest.raises(DataError, match=rf"^mine\.csv:3: {re.escape(words)}"):
        read(write(ROW, {**ROW, "id": "mine-2", **change}, columns=[*ROW, "params"]))


def test_an_id_that_was_there_before_is_named_with_both_lines(write):
    with pytest.raises(DataError, match=r"^mine\.csv:4: id 'mine-1' was given at mine\.csv:2; ids are unique"):
        read(write(ROW, {**ROW, "id": "mine-2"}, ROW))


@pytest.mark.parametrize(
    ("tail", "line"), [(",TFLOP/s,too,many\n", 2), ("\n", 2), (',"open quote\n', None)], ids=["more", "fewer", "quote"]
)
def test_lines_of_another_length_than_the_header(write, tail, line):
    path = write()
    path.write_text(path.read_text().removesuffix(",TFLOP/s\n") + tail)
    with pytest.raises(DataError) as refused:
        read(path)
    assert f"mine.csv:{line}: more or fewer cells" in str(refused.value) if line else "mine.csv:2" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "mine.csv:1: no column id", id="empty"),
        pytest.param(b"\n\n", "mine.csv:1: no column id", id="blank-lines"),
        pytest.param(",".join(ROW).encode(), "mine.csv: has no rows; give at least one", id="header-alone"),
        pytest.param("id,source\nMüller,x".encode("latin-1"), "cannot be read", id="not-utf-8"),
        pytest.param(",".join(ROW).encode("utf-16"), "cannot be read", id="utf-16"),
        pytest.param(b"PK\x03\x04\x14\x00\x06\x00", "mine.csv", id="a-spreadsheet"),
        pytest.param("; ".join(ROW).encode(), "mine.csv:1: no column id", id="semicolons"),
    ],
)
def test_files_that_are_no_rows(tmp_path, content, words):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read(path)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["", "nothing-there.csv"], ids=["a-folder", "no-such-file"])
def test_what_is_no_file(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be read .*give a CSV file in UTF-8"):
        read(tmp_path / name)


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_taken_and_may_carry_a_remark(write, unit):
    assert read(write({**ROW, "unit": f"{unit} (as printed)"}))[0]["unit"] == f"{unit} (as printed)"


def test_every_column_of_numbers_is_a_column():
    assert set(NUMBERS) < set(COLUMNS)
    assert set(NEEDED) < set(COLUMNS)
    assert set(published.LEAST) == set(NUMBERS)
