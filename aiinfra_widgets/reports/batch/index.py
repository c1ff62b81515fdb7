"""`index.html`: a batch on one page, made from `batch.json` alone, in the look of the reports. No script, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...quantities import show
from ..common import PAGE, moment, seconds
from ..results import write_text

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
KINDS = {"html": "Report", "pdf": "PDF", "ipynb": "Notebook", "results": "Results", "log": "Log"}
#: Seconds after which a browser looks at the page again while the batch is being made.
REFRESH_S = 10
#: Key results that are shown before a reader asks for more.
SHOWN = 3
MAX_ERROR_CHARS = 300


def write_index(data: Mapping[str, Any], path: Path) -> Path:
    """Write the page of a batch.

    Args:
        data: What `batch.json` holds.
        path: Replaced atomically.

    Raises:
        StorageError: It cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(moment=moment, seconds=seconds, first_line=_first_line, value=_value, href=quote)
    environment.globals.update(amount=_amount, strip=_strip, off=_off)
    style = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "index.css"))
    page = environment.get_template("index.html.j2").render(
        batch=data,
        kinds=KINDS,
        shown=SHOWN,
        policy=POLICY,
        refresh=REFRESH_S if data["status"] == "running" else None,
        style=Markup(style),  # noqa: S704  # our own files
        took_s=sum(r["duration_s"] or 0.0 for r in data["reports"]),
        changed=[r for r in data["reports"] if r["changes"]],
        failed=[r for r in data["reports"] if r["status"] == "failed"],
    )
    write_text(path, page)
    return path


def _first_line(text: str | None) -> str:
    line = next((line.strip() for line in (text or "").splitlines() if line.strip()), "")
    return line if len(line) <= MAX_ERROR_CHARS else line[: MAX_ERROR_CHARS - 1] + "…"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _amount(row: Mapping[str, Any], side: str) -> str:
    return "–" if row[side] is None else show(str(row["unit"] or "1"), row[side])


def _off(row: Mapping[str, Any]) -> str:
    """How far the prediction is off, of what was measured."""
    return "" if row["relative_error"] is None else f"{row['relative_error'] * 100:+.0f} %"


def _strip(row: Mapping[str, Any]) -> Markup:
    """Draw a key result on a line of its own scale: a stroke where it was predicted, a point with whiskers where it was measured."""
    known = [row[k] for k in ("predicted", "measured", "low", "high") if row[k] is not None]
    if row["predicted"] is None or row["measured"] is None or not max(map(abs, known)):
        return Markup("")
    low, high = min(known), max(known)
    room = (high - low) * 0.08 or abs(high) * 0.5 or 1.0
    low, high = low - room, high + room

    def at(value: float) -> str:
        return f"{2 + 96 * (value - low) / (high - low):.1f}"

    whisker = Markup("")
    if row["low"] is not None and row["high"] is not None:
        whisker = Markup('<line class="i-whisker" x1="{}" x2="{}" y1="8" y2="8"/>').format(
            at(row["low"]), at(row["high"])
        )
    return Markup(
        '<svg class="i-strip" viewBox="0 0 100 16" role="img" aria-label="predicted {}, measured {}"><line class="i-rail" x1="0" '
        'x2="100" y1="8" y2="8"/><line class="i-predicted" x1="{p}" x2="{p}" y1="1.5" y2="14.5"/>{}<circle class="i-measured" '
        'cx="{m}" cy="8" r="3.2"/></svg>'
    ).format(
        _amount(row, "predicted"), _amount(row, "measured"), whisker, p=at(row["predicted"]), m=at(row["measured"])
    )
