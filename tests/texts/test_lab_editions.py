"""A lab in another language is the same lab: equal code, cell by cell; other words, and one cell that chooses the language."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from aiinfra_widgets import texts

LABS = Path(__file__).resolve().parents[2] / "labs"
EDITIONS = sorted(LABS.glob("*/[0-9][0-9]_*.ipynb"))
CHINESE = re.compile(r"[\u4e00-\u9fff]")
#: The cell that only editions have: it chooses the language.
OWN = "language"


def cells(path: Path) -> list[Any]:
    return list(nbformat.read(path, as_version=4).cells)


def code(source: str, *, words: bool) -> str:
    """Return what a cell does: without comments, and where `words` is false without the texts that it prints."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not words and isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            for part in ast.walk(node):
                if (
                    isinstance(part, ast.Constant)
                    and isinstance(part.value, str)
                    and (" " in part.value or CHINESE.search(part.value))
                ):
                    part.value = ""
                if isinstance(part, ast.JoinedStr):
                    part.values = [v for v in part.values if not isinstance(v, ast.Constant)]
    return ast.dump(tree)


def runs(cell: Any) -> str | None:
    """Return the code of a code cell, or of an instructor's solution, whose words follow a rule."""
    if cell.cell_type == "code":
        return str(cell.source)
    return str(cell.source).partition("\n---\n")[0] if cell.cell_type == "raw" else None


def test_there_is_a_chinese_edition_of_the_first_lab() -> None:
    assert LABS / "zh_CN" / "01_training_scaling.ipynb" in EDITIONS


@pytest.mark.parametrize("path", EDITIONS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_edition_does_what_the_lab_does(path: Path) -> None:
    english, own = cells(LABS / path.name), [c for c in cells(path) if c.id != OWN]
    assert [(c.id, c.cell_type, c.metadata) for c in own] == [(c.id, c.cell_type, c.metadata) for c in english]
    for ours, theirs in zip(own, english, strict=True):
        source, wanted = runs(ours), runs(theirs)
        if source is not None and wanted is not None:
            printed = ours.id == "results"
            assert code(source, words=not printed) == code(wanted, words=not printed), ours.id


@pytest.mark.parametrize("path", EDITIONS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_edition_speaks_its_language(path: Path) -> None:
    language = path.parent.name
    assert language in texts.languages()
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["aiinfra"]["language"] == language
    assert (
        notebook.metadata["aiinfra"]["experiment"]
        == nbformat.read(LABS / path.name, as_version=4).metadata["aiinfra"]["experiment"]
    )
    chosen = next(c.source for c in notebook.cells if c.id == OWN)
    assert f'texts.use("{language}")' in chosen
    code_cells = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.id for c in code_cells].index(OWN) < [c.id for c in code_cells].index("lab")
    for cell in notebook.cells:
        if cell.cell_type in {"markdown", "raw"}:
            assert CHINESE.search(cell.source.partition("\n---\n")[2] or cell.source), f"{cell.id} is not translated"
        comments = re.findall(r"(?:^|  )# (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "code" else []
        assert all(CHINESE.search(c) for c in comments), comments


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("x = 1  # 一", "x = 1  # one", True),
        ("x = 2", "x = 1", False),
        ('x = "两"', 'x = "two"', False),
        ("print(f'完成 {x}')", "print(f'done {x}')", True),
        ("print(f'完成 {y}')", "print(f'done {x}')", False),
    ],
)
def test_a_planted_difference_is_found(ours: str, theirs: str, same: bool) -> None:
    assert (code(ours, words=False) == code(theirs, words=False)) is same
