"""Cards and copies of labs: what the launcher says, and that nothing a person wrote is ever written over."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager, LargeFileManager

from aiinfra_widgets.errors import UnknownNameError
from aiinfra_widgets.jupyter.notebooks import FOLDER, cards, labs_folder, open_copy

FIRST = "01_training_scaling.ipynb"


def notebook(text: str) -> str:
    cell = {"cell_type": "markdown", "id": "one", "metadata": {}, "source": text.splitlines(keepends=True)}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_every_lab_has_a_card_with_title_sentence_and_minutes(repo: Path) -> None:
    found = cards()
    assert [c.name for c in found] == sorted(p.name for p in (repo / "labs").glob("[0-9][0-9]_*.ipynb"))
    assert all(c.title[0].isdigit() and c.sentence.endswith((".", "?")) and "minutes" in c.minutes for c in found)


def test_a_courses_own_notebooks_take_the_place_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "01_mine.ipynb").write_text(notebook("# Ours\n\n**Ziel** Eins und\nzwei. **Zeit** 5 Minuten.\n\nMehr."))
    (tmp_path / "02_plain.ipynb").write_text(notebook("# Plain\n\nOne paragraph."))
    (tmp_path / "03_broken.ipynb").write_text("{")
    monkeypatch.setenv("AIINFRA_LABS", str(tmp_path))
    assert [(c.title, c.sentence, c.minutes) for c in cards()] == [
        ("Ours", "Eins und zwei.", "5 Minuten"),
        ("Plain", "One paragraph.", ""),
    ]


@pytest.fixture(params=[LargeFileManager, AsyncLargeFileManager], ids=["sync", "async"])
def contents(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Jupyter Server's own ways to keep files: what it calls may or may not be a coroutine."""
    return request.param(root_dir=str(tmp_path))


def copied(contents: Any, root: Path, *, fresh: bool = False) -> dict[str, Any]:
    return asyncio.run(open_copy(contents, root, FIRST, fresh=fresh))


def test_a_copy_is_made_once_and_never_written_over(contents: Any, tmp_path: Path) -> None:
    assert copied(contents, tmp_path) == {"path": f"{FOLDER}/{FIRST}", "made": True}
    mine = tmp_path / FOLDER / FIRST
    folder = labs_folder()
    assert folder is not None
    assert json.loads(mine.read_text())["cells"] == json.loads((folder / FIRST).read_text())["cells"]
    mine.write_text("mine")
    assert copied(contents, tmp_path) == {"path": f"{FOLDER}/{FIRST}", "made": False}
    assert copied(contents, tmp_path, fresh=True) == {"path": f"{FOLDER}/01_training_scaling-1.ipynb", "made": True}
    assert copied(contents, tmp_path, fresh=True)["path"] == f"{FOLDER}/01_training_scaling-2.ipynb"
    assert mine.read_text() == "mine"


def test_the_first_copy_of_a_fresh_start_has_the_plain_name(contents: Any, tmp_path: Path) -> None:
    assert copied(contents, tmp_path, fresh=True)["path"] == f"{FOLDER}/{FIRST}"


def test_where_the_labs_are_the_folder_no_copy_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FIRST).write_text(notebook("# 1"))
    monkeypatch.setenv("AIINFRA_LABS", str(tmp_path))
    contents = LargeFileManager(root_dir=str(tmp_path))
    assert copied(contents, tmp_path) == {"path": FIRST, "made": False}
    assert copied(contents, tmp_path, fresh=True) == {"path": f"{FOLDER}/{FIRST}", "made": True}


@pytest.mark.parametrize("name", ["../run.json", "01_training", "", "/etc/passwd"])
def test_only_a_lab_can_be_asked_for(contents: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownNameError, match="no lab"):
        asyncio.run(open_copy(contents, tmp_path, name))
    assert not (tmp_path / FOLDER).exists()
