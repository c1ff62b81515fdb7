"""The table of a grading: CSV that no spreadsheet runs as formulas, and JSON with every sentence."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import StorageError
from .grading import Result

FORMAT = 1
#: A cell that begins with one of these may be run by a spreadsheet; an apostrophe in front makes it a text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def harmless(value: Any) -> Any:
    """Return a cell that a spreadsheet shows and does not run; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() else " " for c in value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or value.startswith(_FORMULA) else text


def csv_text(results: Sequence[Result]) -> str:
    """Return one line for each submission: learner, lab, status, points, and the points of each exercise."""
    names = list(dict.fromkeys(f"{r.lab}: {m['exercise']}" for r in results for m in r.marks))
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator="\r\n")
    sheet.writerow(["student", "lab", "status", "points", "of", "note", *map(harmless, names)])
    for r in results:
        own = {f"{r.lab}: {m['exercise']}": m["points"] for m in r.marks}
        sheet.writerow(
            [
                harmless(r.student),
                harmless(r.lab),
                r.status,
                r.points,
                r.of,
                harmless(r.note),
                *(own.get(n, "") for n in names),
            ]
        )
    return out.getvalue()


def refuse(folder: Path) -> None:
    """Refuse a folder that holds the grades of another grading.

    Raises:
        StorageError: It does.
    """
    if taken := next(
        (p for p in (folder / "grades.csv", folder / "grades.json", folder / "graded") if p.exists()), None
    ):
        raise StorageError(f"{taken}: is there already; choose another folder with -o")


def save(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write `grades.csv` and `grades.json` and return their paths.

    Raises:
        StorageError: They are there already, or cannot be written.
    """
    text = json.dumps({"format": FORMAT, "results": [r.to_json() for r in results]}, indent=1, ensure_ascii=False)
    # The mark at the beginning makes spreadsheets read UTF-8.
    return [
        write_new(folder / "grades.csv", "\ufeff" + csv_text(results)),
        write_new(folder / "grades.json", text + "\n"),
    ]


def write_new(path: Path, text: str) -> Path:
    """Write a file that is not there yet, and return its path.

    Raises:
        StorageError: It is there, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise StorageError(f"{path}: is there already; choose another with -o") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}); free space or choose -o") from error
    return path
