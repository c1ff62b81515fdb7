"""A notebook as a page, without a browser: its blocks, and what several pages of one lab show of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from bokeh.document import Document

from aiinfra_widgets.app.book import Book
from aiinfra_widgets.app.charts import PAPERS, Everyone, Sheet
from aiinfra_widgets.app.stage import AppStage
from aiinfra_widgets.errors import DataError
from aiinfra_widgets.widgets import notebook

LAB = "from aiinfra_widgets import Lab\nlab = Lab('training', nodes=1, workload='digits-cnn')\nlab"


@pytest.fixture
def stage() -> Iterator[AppStage]:
    made = AppStage()
    yield made
    for room in made.rooms:
        room.state.close()
    notebook.stage = None


def book(path: Path, *cells: str) -> Book:
    made = [
        nbformat.v4.new_markdown_cell(c[3:]) if c.startswith("md:") else nbformat.v4.new_code_cell(c) for c in cells
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path / "lab.ipynb")
    return Book(path / "lab.ipynb")


def test_text_labs_outputs_and_failures_stand_where_their_cells_are(tmp_path: Path, stage: AppStage) -> None:
    made = book(
        tmp_path, "md:# A title\n<script>alert(1)</script>", LAB, "print('a < b')", "1 / 0",
        "import pandas as pd\npd.DataFrame({'x': [1]})", "lab.show('comparison', 'sent_bytes')",
    )  # fmt: skip
    assert made.title == "A title"
    blocks = made.run(stage)
    kinds = [b.part.name if b.part else b.kind for b in blocks]
    assert kinds == ["text", "root", "output", "problem", "output", "comparison"]
    assert "<script" not in blocks[0].html
    assert "a &lt; b" in blocks[2].html
    assert "ZeroDivisionError" in blocks[3].html
    assert "<table" in blocks[4].html
    assert stage.rooms[0].watching == ("sent_bytes",)


def test_a_comparison_that_no_cell_shows_stands_behind_the_lab(tmp_path: Path, stage: AppStage) -> None:
    blocks = book(tmp_path, LAB, "lab").run(stage)
    assert [b.part.name for b in blocks if b.part] == ["root", "comparison"]


def test_a_lab_that_fails_says_why(tmp_path: Path, stage: AppStage) -> None:
    with pytest.raises(DataError, match=r"no lab to show.*nodes: got 0"):
        book(tmp_path, LAB.replace("nodes=1", "nodes=0")).run(stage)


def test_two_pages_share_one_lab(tmp_path: Path, stage: AppStage) -> None:
    book(tmp_path, LAB).run(stage)
    [room] = stage.rooms
    projector, laptop = Document(), Document()
    one, two = room.open(projector, "dark"), room.open(laptop, "light")

    def tick(document: Document) -> None:
        for callback in list(document.session_callbacks):
            document.remove_next_tick_callback(callback)
            callback.callback()

    one.setup["nodes"].control.value = 2
    one.setup["nodes"].control.param.trigger("value_throttled")
    one.guess.value = "eight"
    one.act("commit")
    assert "cannot read" in one.parts["guess_say"].object
    assert two.buttons["run"].disabled
    one.guess.value = "8"
    one.act("commit")
    tick(laptop)
    assert not two.buttons["run"].disabled, "what one page commits, the other sees"
    assert "8 ms" in two.parts["reveal"].object
    assert "hidden" in two.asking.css_classes
    two.act("again")
    tick(projector)
    assert "hidden" not in one.asking.css_classes


def test_a_page_that_is_opened_late_has_what_came_before_and_none_twice(tmp_path: Path, stage: AppStage) -> None:
    book(tmp_path, LAB).run(stage)
    [room] = stage.rooms
    name = room.shown.series[0]
    sink: Everyone = room.everyone
    sink.put(name, "series", {"tick": [1.0], "value": [5.0]}, seen=True)
    early = room.open(Document(), "light")
    sink.append(name, "series", {"tick": [2.0], "value": [6.0]}, {"tick": [1.0, 2.0], "value": [5.0, 6.0]})
    sink.append(name, "series", {"tick": [3.0], "value": [7.0]}, {"tick": [1.0, 2.0, 3.0], "value": [5.0, 6.0, 7.0]})
    late = room.open(Document(), "light")
    sheets: list[Sheet] = [early.sheet, late.sheet]
    for sheet in sheets:
        sheet.draw()
        assert list(sheet.cards[name].sources["series"].data["tick"]) == [1.0, 2.0, 3.0]
    assert PAPERS["dark"].paper != PAPERS["light"].paper
