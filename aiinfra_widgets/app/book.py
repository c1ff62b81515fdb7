"""A notebook as a page: its text as text, its labs as live panels, what its other cells show as tables and figures.

Its cells run once, in order, in the app's own process, so that every page looks at the same labs (see docs/architecture.md).
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import nbformat

from ..errors import DataError
from ..reports.markup import safe_html, safe_markdown, safe_text
from ..texts import tr
from ..widgets import notebook
from .stage import AppStage, Part

#: Cells that a page has no use for: results of an unattended run, exercises, whose answers are typed in a notebook, and what is
#: said of notebooks.
NOTEBOOK_ONLY = {"results", "exercise", "answer", "check", "notebook"}
ADVICE = "aiinfra serve takes a lab, for example labs/01_training_scaling.ipynb"


@dataclass(slots=True)
class Block:
    """One piece of the page.

    Attributes:
        html: Text that does not change, safe; "" for a live one.
        part: Of a lab.
        figure: A Bokeh document as JSON, to be opened on each page.
        kind: text, output, problem or live: how it looks.
    """

    html: str = ""
    part: Part | None = None
    figure: dict[str, Any] = field(default_factory=dict)
    kind: str = "text"


class Book:
    """A notebook that was read.

    Args:
        path: Of the .ipynb.

    Raises:
        DataError: No such file, not a notebook, or no cell that makes a Lab.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; {ADVICE}")
        if path.suffix != ".ipynb":
            raise DataError(
                f"{path}: got a {path.suffix or 'file without an ending'}; allowed: a notebook, .ipynb; {ADVICE}"
            )
        try:
            found = nbformat.read(path, as_version=4)
        except Exception as error:  # nbformat and json raise many kinds
            raise DataError(
                f"{path}: this is not a notebook that can be read ({type(error).__name__}: {error}); {ADVICE}"
            ) from error
        self.path, self.cells = path, found.cells
        self.title = next((t for c in self.cells if (t := _title(c))), path.stem.replace("_", " "))
        if not any(_calls_lab(c.source) for c in self.cells if c.cell_type == "code"):
            other = "; its widgets are for JupyterLab: make lab" if "aiinfra_widgets" in json.dumps(found.cells) else ""
            raise DataError(f"{path}: no cell makes a Lab, so there is nothing to serve{other}; {ADVICE}")

    def run(self, stage: AppStage) -> list[Block]:
        """Run every cell, and return the blocks of the page; a cell that fails says so in its place.

        Raises:
            DataError: No lab came of it.
        """
        notebook.stage = stage
        names: dict[str, Any] = {"__name__": "__main__", "display": stage.show}
        blocks: list[Block] = []
        for number, cell in enumerate(self.cells, 1):
            tags = cell.metadata.get("tags", [])
            if "parameters" in tags and blocks and blocks[-1].kind == "text":
                del blocks[-1]  # it speaks of the settings below it, which a page does not show
            if NOTEBOOK_ONLY & set(tags):
                continue
            if cell.cell_type == "markdown":
                text = safe_markdown(cell.source, self.path.parent, cell.get("attachments"))
                blocks.append(Block(str(text)))
            elif cell.cell_type == "code":
                blocks += self._cell(cell.source, number, names, stage)
        live = [b.part for b in blocks if b.part]
        if not any(p.name == "root" for p in live):
            failed = [_plain(b.html) for b in blocks if b.kind == "problem"]
            why = failed[0] if failed else "the lab is made, but no cell shows it; end a cell with its name"
            raise DataError(f"{self.path}: no lab to show: {why}")
        return _arranged(blocks)

    def _cell(self, source: str, number: int, names: dict[str, Any], stage: AppStage) -> list[Block]:
        """Run one cell; what it shows, in order."""
        printed = io.StringIO()
        problem = []
        try:
            with contextlib.redirect_stdout(printed):
                _execute(source, f"cell {number}", names, stage)
        except Exception as error:  # a notebook may raise anything; the rest of the page is still of use
            text = "".join(traceback.format_exception_only(error)).strip()
            problem = [
                Block(
                    f"<p>{escape(tr('Cell {number} failed:', number=number))}</p><pre>{escape(text)}</pre>",
                    kind="problem",
                )
            ]
        found = [b for item in stage.take() if (b := _block(item))]
        said = printed.getvalue().strip()
        return [*([Block(f"<pre>{safe_text(said)}</pre>", kind="output")] if said else []), *found, *problem]


def _execute(source: str, name: str, names: dict[str, Any], stage: AppStage) -> None:
    """Run Python as a notebook does: the value of a last expression is shown."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)  # noqa: S102  # the user's own notebook, as in Jupyter
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), names)  # noqa: S307
        if value is not None:
            shows = getattr(value, "_ipython_display_", None)
            shows() if shows else stage.show(value)


def _block(item: Any) -> Block | None:
    """Return how something that a cell showed stands on the page."""
    from bokeh.document import Document
    from bokeh.model import Model

    if isinstance(item, Part):
        return Block(part=item, kind="live")
    if isinstance(item, Model):
        document = Document()
        document.add_root(item)
        return Block(figure=_json(document), kind="live")
    if hasattr(item, "_dom_classes"):  # an ipywidget lives in a notebook only
        words = tr("This part works in JupyterLab only: open the notebook there.")
        return Block(f'<p class="aside">{escape(words)}</p>', kind="output")
    html = getattr(item, "_repr_html_", lambda: None)()
    return Block(str(safe_html(html)) if html else f"<pre>{escape(repr(item))}</pre>", kind="output")


def _json(document: Any) -> dict[str, Any]:
    return {**document.to_json()}


def _arranged(blocks: Sequence[Block]) -> list[Block]:
    """Return blocks with each part of a lab once, and a comparison behind the lab where no cell shows it elsewhere."""
    placed: set[tuple[int, str]] = set()
    compared = {id(b.part.room) for b in blocks if b.part and b.part.name == "comparison"}
    found = []
    for block in blocks:
        if block.part is None:
            found.append(block)
            continue
        key = (id(block.part.room), block.part.name)
        if key in placed:
            continue
        placed.add(key)
        found.append(block)
        if block.part.name == "root" and id(block.part.room) not in compared:
            found.append(Block(part=block.part.room.comparison, kind="live"))
    return found


def _title(cell: Any) -> str:
    lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


def _calls_lab(source: str) -> bool:
    """Whether a cell calls `Lab(...)`; a cell that is not plain Python does not."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return False
    calls = (n.func for n in ast.walk(tree) if isinstance(n, ast.Call))
    return any(getattr(f, "id", getattr(f, "attr", "")) == "Lab" for f in calls)


def _plain(html: str) -> str:
    from html import unescape

    import nh3

    return unescape(nh3.clean(html.replace("</p>", " "), tags=set())).strip()
