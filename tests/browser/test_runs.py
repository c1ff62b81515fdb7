"""The run browser as a person uses it: search, tick, compare, delete, put back, open; by keyboard, in light and dark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_access import complaints, tabbed
from lab_driver import JupyterLab, Page, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS, press

from tests.widgets.conftest import Recorded

CELL = "from aiinfra_widgets import Runs\nruns = Runs()\nruns"


def recorded(folder: Path, step_s: float, nodes: int) -> str:
    run = Recorded(folder)
    run.segment(nodes=nodes)
    for i in range(60):
        run.steps(1, step_s * (1 + 0.03 * (i % 3)))
    run.end()
    return run.run.id


def rows(page: Page) -> list[str]:
    return [str(r) for r in page.page.locator(".aiinfra-runs-table tbody tr").all_inner_texts()]


def tick(page: Page, run: str) -> None:
    """By keyboard, as the box of a row is focused and Space pressed."""
    page.page.locator(f"tr[data-run='{run}'] input").focus()
    page.page.keyboard.press("Space")


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.timeout(240)
def test_search_compare_delete_put_back_and_open(
    chromium: str, lab_home: Path, repo: Path, artifacts: Path, dark: bool
) -> None:
    home, theme = lab_home, "dark" if dark else "light"
    folder = home / "lab" / "runs"
    names = [recorded(folder, s, n) for s, n in ((0.010, 1), (0.015, 2), (0.020, 2))]
    (home / "labs").mkdir()
    cell = {"cell_type": "code", "id": "runs", "metadata": {}, "outputs": [], "execution_count": None, "source": CELL}
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    book = {"cells": [cell], "metadata": meta, "nbformat": 4, "nbformat_minor": 5}
    (home / "labs" / "runs.ipynb").write_text(json.dumps(book))
    with (
        JupyterLab(home / "labs", home, dark=dark, config=repo / SETTINGS) as server,
        window(chromium, server) as page,
    ):
        p = page.page
        page.open("runs.ipynb")
        page.run_all()
        page.until("every run read", lambda: len(rows(page)) == 3 and all("ms" in r for r in rows(page)), 60)
        assert complaints(page) == {}
        p.screenshot(path=artifacts / f"runs-1-list-{theme}.png")

        tick(page, names[0])
        tick(page, names[1])
        press(page, "Compare")
        p.wait_for_selector(".aiinfra-pair")
        text = p.locator(".aiinfra-pair").inner_text()
        assert "Nodes" in text
        assert "1.5\u00d7" in text
        assert complaints(page) == {}
        p.locator(".aiinfra-pair").scroll_into_view_if_needed()
        p.screenshot(path=artifacts / f"runs-2-compared-{theme}.png")
        places = tabbed(page)
        assert {"Refresh", "Compare", "Export", "Delete", "Close"} <= {x["what"] for x in places}, "out of reach of Tab"
        assert [x["what"] for x in places if not x["seen"]] == [], "focus that nobody sees"

        press(page, "Delete")
        assert len(rows(page)) == 3, "deleted before it was confirmed"
        press(page, "Move to the trash")
        page.until("one run left", lambda: len(rows(page)) == 1)
        assert sorted(x.name for x in folder.iterdir()) == names[2:]
        press(page, "Put the newest back")
        page.until("two runs", lambda: len(rows(page)) == 2)

        tick(page, names[2])
        press(page, "Open in a lab")
        p.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
        page.until("its figures", lambda: any(len(s.get("tick", [])) > 20 for s in page.points("series")), 30)
        assert "done" in p.locator(".aiinfra-runs-panel .aiinfra-chip").first.inner_text()
        assert complaints(page) == {}
        p.locator(".aiinfra-runs-panel .aiinfra-head").scroll_into_view_if_needed()
        p.screenshot(path=artifacts / f"runs-3-opened-{theme}.png")

        p.locator("[aria-label='Search'], .aiinfra-runs-bar input").first.fill("no such words")
        p.keyboard.press("Enter")
        page.until(
            "an empty list says what to do", lambda: "Use fewer words" in p.locator(".aiinfra-empty").first.inner_text()
        )
        assert page.external == []
        assert page.failed == []
        assert page.errors == []
    assert left_running(home / "lab") == []
