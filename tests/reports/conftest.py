"""Small real notebooks, and a page opened in a real Chromium with everything it asks for written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--mute-audio", "--force-color-profile=srgb"),
]
PARAMETERS = """\
workload = "digits-mlp"  # which net
nodes = 2  # ranks
lr: float = 1e-3  # learning rate
overlap = False
"""
Cells = list[Any]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a notebook: a string is code, ("md", text) markdown, (tag, code) tagged code."""

    def build(*cells: str | tuple[str, str], name: str = "lab.ipynb", parameters: str = PARAMETERS) -> Path:
        made = [new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
        for cell in cells:
            if isinstance(cell, str):
                made.append(new_code_cell(cell))
            elif cell[0] == "md":
                made.append(new_markdown_cell(cell[1]))
            else:
                made.append(new_code_cell(cell[1], metadata={"tags": [cell[0]]}))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=made), path)
        return path

    return build


@dataclass
class Visit:
    """One page as the browser saw it."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def visit(chromium: str) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens a file in Chromium and waits until its figures are drawn."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)

        def open_page(path: Path, scheme: str = "light") -> Visit:
            page = browser.new_context(viewport={"width": 1100, "height": 900}, color_scheme=scheme).new_page()
            seen = Visit(page)
            page.on("request", lambda r: seen.requests.append(r.url))
            page.on("pageerror", lambda e: seen.complaints.append(str(e)))
            page.on("console", lambda m: seen.complaints.append(m.text) if m.type in {"error", "warning"} else None)
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready]", state="attached", timeout=30_000)
            return seen

        yield open_page
        browser.close()
