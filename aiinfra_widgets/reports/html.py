"""One self-contained page from an executed notebook: no network, figures alive, formulas native, nothing hostile.

Two walls: everything from the notebook is sanitised (`markup`), and the page carries a content security policy that
lets only its own scripts run (by their hash) and nothing be fetched. So a figure's JavaScript callbacks do not run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..texts import N_, html_language, speaking, told, tr, trn
from .bokehjs import FIGURE_MIME, as_json, is_figure, scripts_for
from .common import PAGE, moment, seconds
from .engine import EXECUTED, FAILED, is_code, is_marker, status_of
from .markup import code_style, safe_code, safe_html, safe_latex, safe_markdown, safe_text
from .privacy import scrub_data, scrubber
from .results import write_text

PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp")
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")
HEADING = re.compile(r"^#\s+(.+?)\s*#*$", re.MULTILINE)
LABELS = {
    "parameters": N_("default parameters"), "injected-parameters": N_("parameters of this run"), "results": N_("results"),
}  # fmt: skip


def to_html(
    nb: nbformat.NotebookNode,
    path: Path,
    title: str,
    *,
    summary: Mapping[str, Any] | None = None,
    base: Path | None = None,
) -> Path:
    """Write `nb` as one offline page.

    Args:
        nb: An executed notebook; not changed.
        path: Of the page; replaced atomically.
        title: Of the page.
        summary: What `results.json` holds (status, error, parameters, versions); without it there is only a title.
        base: Folder from which pictures that markdown names are embedded.

    Raises:
        StorageError: The page cannot be written.
        ReportError: A figure is there and BokehJS is not.
    """
    scrub = scrubber({"notebook folder": base} if base else None)
    nb = scrub_data(nb, scrub)
    with speaking(str(nb.metadata.get("aiinfra", {}).get("language", ""))):
        page = _page(nb, title, summary, base)
    write_text(path, page)
    return path


def _page(nb: nbformat.NotebookNode, title: str, summary: Mapping[str, Any] | None, base: Path | None) -> str:
    """Return the page, its own words in the language in use."""
    figures: list[Mapping[str, Any]] = []
    cells = _cells(nb, base, figures, title)
    scripts = [*scripts_for(figures), (PAGE / "report.js").read_text(encoding="utf-8")]
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(moment=moment, seconds=seconds, gib=_gib)
    environment.globals.update(tr=tr, trn=trn, told=told)
    return environment.get_template("report.html.j2").render(
        lang=html_language(),
        title=title,
        summary=dict(summary) if summary else None,
        cells=cells,
        has_code=any(c["kind"] == "code" for c in cells),
        policy=_policy(scripts),
        style=Markup((PAGE / "report.css").read_text(encoding="utf-8") + code_style()),  # noqa: S704  # our own files
        scripts=[Markup(s) for s in scripts],  # noqa: S704  # our own and Bokeh's files
    )


def _policy(scripts: list[str]) -> str:
    """Return a content security policy under which only exactly these scripts run and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(s.encode("utf-8")).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _cells(
    nb: nbformat.NotebookNode, base: Path | None, figures: list[Mapping[str, Any]], title: str
) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    number, opening = 0, True
    for cell in nb.cells:
        if is_marker(cell) or not cell.source.strip():
            continue
        if cell.cell_type == "markdown":
            source = _without_title(cell.source, title) if opening else cell.source
            opening = False
            text = safe_markdown(source, base, cell.get("attachments"))
            shown.append({"kind": "markdown", "html": text})
        elif is_code(cell):
            number += 1
            shown.append(_code(cell, number, figures))
    return shown


def heading(nb: nbformat.NotebookNode) -> str:
    """Return the first heading of the first level as plain words, or ""."""
    for cell in nb.cells:
        if cell.cell_type == "markdown" and not is_marker(cell):
            found = HEADING.search(cell.source)
            if found:
                return _words(found[1])
    return ""


def _words(markdown: str) -> str:
    return re.sub(r"[*_`$]", "", markdown)


def _without_title(markdown: str, title: str) -> str:
    """Return markdown without its heading where the page's header says the same."""
    found = HEADING.search(markdown)
    return HEADING.sub("", markdown, count=1) if found and _words(found[1]) == title else markdown


def _code(cell: nbformat.NotebookNode, number: int, figures: list[Mapping[str, Any]]) -> dict[str, Any]:
    status = status_of(cell)
    if "aiinfra" not in cell.metadata and cell.get("execution_count"):
        status = EXECUTED  # run by something else than our engine, which left no evidence but the count
    return {
        "kind": "code",
        "number": number,
        "status": status,
        "open": status == FAILED,
        "label": next((tr(LABELS[t]) for t in cell.metadata.get("tags", []) if t in LABELS), ""),
        "first_line": next((line.strip() for line in cell.source.splitlines() if line.strip()), "")[:100],
        "duration_s": cell.metadata.get("aiinfra", {}).get("seconds"),
        "source": safe_code(cell.source),
        "outputs": [o for o in (_output(out, figures) for out in _merged(cell.outputs)) if o],
    }


def _merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return outputs with the pieces of one stream put together: where the kernel flushed is of no interest."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        same = last is not None and last.output_type == output.output_type == "stream" and last.name == output.name
        if same and last is not None:
            merged[-1] = type(output)({**last, "text": last.text + output.text})
        else:
            merged.append(output)
    return merged


def _output(output: nbformat.NotebookNode, figures: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how one output is shown: the richest form that is safe, down to its plain text."""
    if output.output_type == "stream":
        return {"kind": "stream", "name": output.name, "html": safe_text(output.text.rstrip("\n"))}
    if output.output_type == "error":
        return {"kind": "error", "html": safe_text("\n".join(output.traceback) or f"{output.ename}: {output.evalue}")}
    data = output.get("data", {})
    plain = _joined(data.get("text/plain", ""))
    if is_figure(data.get(FIGURE_MIME)):
        figures.append(data[FIGURE_MIME])
        return {"kind": "figure", "id": f"figure-{len(figures)}", "json": _inert(data[FIGURE_MIME]), "text": plain}
    if "text/html" in data:
        cleaned = safe_html(_joined(data["text/html"]))
        if cleaned.striptags().strip() or "<img" in cleaned:
            return {"kind": "html", "html": cleaned}
    if "text/markdown" in data:
        return {"kind": "html", "html": safe_markdown(_joined(data["text/markdown"]))}
    for mime in PICTURES:
        if mime in data:
            source = _picture(mime, _joined(data[mime]))
            if source:
                return {"kind": "picture", "source": source, "text": plain}
    if "text/latex" in data:
        return {"kind": "html", "html": safe_latex(_joined(data["text/latex"]))}
    if WIDGET_MIME in data:
        return {"kind": "note", "text": tr("An interactive control stands here in the notebook.")}
    return {"kind": "text", "html": safe_text(plain)} if plain.strip() else None


def _inert(item: Mapping[str, Any]) -> Markup:
    return Markup(as_json(item))  # noqa: S704  # as_json leaves no "<" in it


def _picture(mime: str, payload: str) -> str:
    """Return a data address; as the source of an image, an SVG neither runs scripts nor loads anything."""
    if mime == "image/svg+xml":
        payload = base64.b64encode(payload.encode("utf-8")).decode()
    return f"data:{mime};base64,{payload.strip()}" if BASE64.fullmatch(payload) else ""


def _joined(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


def _gib(value: float) -> str:
    return f"{value / 2**30:.1f} GiB"
