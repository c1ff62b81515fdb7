"""Published measurements as a CSV file: one line, one value, one source; read strictly, with file:line in every complaint."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, near
from ..machine.catalog import data_folder

#: Columns that every file has; the others of the shipped file may be missing and count as empty.
NEEDED = ("id", "source", "kind", "model", "accelerator", "n_accel", "metric", "value", "unit")
COLUMNS = (
    *(
        "id",
        "source",
        "source_location",
        "kind",
        "model",
        "params",
        "layers",
        "hidden",
        "heads",
        "seq",
        "vocab",
        "global_batch",
    ),
    *(
        "micro_batch",
        "accelerator",
        "n_accel",
        "tp",
        "pp",
        "dp",
        "cp",
        "zero_stage",
        "recompute",
        "precision",
        "metric",
        "value",
    ),
    *("unit", "notes", "ep", "vpp", "group", "value_origin", "verified", "verified_how"),
)
NUMBERS = (
    *("params", "layers", "hidden", "heads", "seq", "vocab", "global_batch", "micro_batch", "n_accel"),
    *("tp", "pp", "dp", "cp", "ep", "vpp", "zero_stage"),
)
#: Numbers of these columns are counts: whole, and at least this.
LEAST = dict.fromkeys(NUMBERS, 1) | {"zero_stage": 0}
#: First word of a unit that may follow a value; the rest is a remark ("GB (nvidia-smi, incl. CUDA context)").
UNITS = (
    *(
        "s",
        "ms",
        "min",
        "h",
        "tokens/s",
        "images/s",
        "sequences/s",
        "samples/s",
        "FLOP/s",
        "GFLOP/s",
        "TFLOP/s",
        "%",
        "GB",
        "GiB",
    ),
    *("GB/s", "W", "kW", "kWh", "MWh", "J", "J/token", "tCO2e", "kgCO2e", "GPU-h", "TPU-h", "USD", "1"),
)
EMPTY = ("", "nan", "NaN")


@dataclass(frozen=True, slots=True)
class Row:
    """One published value.

    Attributes:
        where: file:line.
        cells: Every column, as text; "" where nothing was published.
    """

    where: str
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def number(self, column: str) -> float | None:
        """Return a number, None where it was not published."""
        text = self.cells[column]
        return None if text in EMPTY else float(text)

    @property
    def value(self) -> float:
        """The published value, in the row's unit."""
        return float(self.cells["value"])


def shipped() -> Path:
    """Return the rows that come with the lab."""
    return data_folder() / "published.csv"


def read(path: Path) -> list[Row]:
    """Read a file of published rows.

    Raises:
        DataError: No such file; a column is missing; a line with a number that is none or out of its range, an unknown
            unit or an id that was there before. With file:line and what is allowed.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            head = table.fieldnames or []
            missing = [c for c in NEEDED if c not in head]
            if missing:
                raise DataError(f"{path.name}:1: no column {', '.join(missing)}; needed are {', '.join(NEEDED)}")
            rows = [_row(f"{path.name}:{table.line_num}", line) for line in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a CSV file in UTF-8") from error
    if not rows:
        raise DataError(f"{path.name}: has no rows; give at least one published value")
    seen: dict[str, str] = {}
    for row in rows:
        if row["id"] in seen:
            raise DataError(f"{row.where}: id {row['id']!r} was given at {seen[row['id']]}; ids are unique")
        seen[row["id"]] = row.where
    return rows


def _row(where: str, line: Mapping[str | None, str | None]) -> Row:
    if None in line or None in line.values():
        raise DataError(f"{where}: more or fewer cells than the header; quote a text that holds a comma")
    cells = dict.fromkeys(COLUMNS, "") | {str(k): str(v).strip() for k, v in line.items()}
    empty = [c for c in ("id", "source", "kind", "metric", "value", "unit") if not cells[c]]
    if empty:
        raise DataError(f"{where}: {', '.join(empty)} is empty; every value has an id, a source, a metric and a unit")
    word = cells["unit"].split()[0].rstrip(",;")
    if word not in UNITS:
        raise DataError(f"{where}: unit {cells['unit']!r} is not known; {near(word, UNITS)}")
    for column in (*NUMBERS, "value"):
        _check_number(where, column, cells[column])
    return Row(where, cells)


def _check_number(where: str, column: str, text: str) -> None:
    if text in EMPTY and column != "value":
        return
    try:
        number = float(text)
    except ValueError as error:
        raise DataError(f"{where}: {column} is {text!r}, which is no number") from error
    if not math.isfinite(number) or number < 0:
        raise DataError(f"{where}: {column} is {text}; a published value is finite and not below zero")
    least = LEAST.get(column)
    if least is not None and (number < least or number != math.floor(number)) and column != "params":
        raise DataError(f"{where}: {column} is {text}; it is a whole number from {least}")
