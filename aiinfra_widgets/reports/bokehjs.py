"""Figures in a report: BokehJS from the installed package, once per file, and the figures as data.

Contract with everything that shows a figure headless: the output carries `FIGURE_MIME` with the dictionary that
`bokeh.embed.json_item(figure)` returns, and `text/plain` that says in words what the figure shows.
Bokeh itself is not imported here; only its script files are read.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ReportError

FIGURE_MIME = "application/vnd.aiinfra.bokeh+json"
CLASS = re.compile(r"export declare (?:abstract )?class (\w+)")


def is_figure(item: Any) -> bool:
    """Whether `item` has the shape of a `json_item`."""
    return isinstance(item, Mapping) and isinstance(item.get("doc"), Mapping) and isinstance(item.get("root_id"), str)


def as_json(item: Mapping[str, Any]) -> str:
    """Return a figure as JSON that cannot end the script element it stands in."""
    text = json.dumps({**item, "target_id": None}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def scripts_for(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the text of the BokehJS files that these figures need, in order; none for no figure.

    Raises:
        ReportError: Bokeh is not installed, or without its scripts.
    """
    names: set[str] = set()
    webgl = formulas = False
    any_item = False
    for item in items:
        any_item = True
        for key, value in _walk(item["doc"]):
            if key == "name" and isinstance(value, str):
                names.add(value)
            webgl |= key == "output_backend" and value == "webgl"
            formulas |= isinstance(value, str) and ("$$" in value or "\\(" in value)
    if not any_item:
        return []
    wanted = ["bokeh"]
    wanted += ["bokeh-gl"] if webgl else []
    wanted += ["bokeh-mathjax"] if formulas or names & {"TeX", "MathML", "Ascii"} else []
    tables = bool(names & _classes("models/widgets/tables"))
    wanted += ["bokeh-widgets"] if tables or names & _classes("models/widgets") else []
    wanted += ["bokeh-tables"] if tables else []
    return [_script(name) for name in wanted]


@cache
def _static() -> Path:
    found = importlib.util.find_spec("bokeh")
    folder = Path(found.origin).parent / "server" / "static" / "js" if found and found.origin else None
    if folder is None or not folder.is_dir():
        raise ReportError("the scripts of bokeh are not installed; interactive figures need: pip install bokeh")
    return folder


@cache
def _script(name: str) -> str:
    text = (_static() / f"{name}.min.js").read_text(encoding="utf-8").replace("\r\n", "\n")
    return re.sub(r"</(script)", r"<\\/\1", text, flags=re.IGNORECASE)


@cache
def _classes(folder: str) -> frozenset[str]:
    """Return the models that the files in `folder` declare; they need a script of their own."""
    files = (_static() / "lib" / folder).rglob("*.d.ts")
    return frozenset(name for file in files for name in CLASS.findall(file.read_text(encoding="utf-8")))


def _walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for k, v in node.items():
            yield from _walk(v, str(k))
    elif isinstance(node, list):
        for v in node:
            yield from _walk(v, key)
    else:
        yield key, node
