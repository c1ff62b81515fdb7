"""Lab 04 as a person uses it: guess, drag, ask for what cannot be, search, take a plan; in light and dark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_driver import JupyterLab, Page, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS, no_overflow, press, whole_lab

NOTEBOOK = "04_scale_out.ipynb"


def move(page: Page, label: str, presses: int) -> None:
    """Move the slider called `label` by the arrow keys."""
    slider = page.page.locator(f".aiinfra-card-2 .noUi-handle[aria-label='{label}']").first
    slider.focus()
    for _ in range(abs(presses)):
        page.page.keyboard.press("ArrowRight" if presses > 0 else "ArrowLeft")


def chosen(page: Page) -> str:
    """Return what stands above the last bar: the step time of the choice, or what it needs."""
    return str(page.points("totals")[0]["text"][-1])


def guessed(page: Page, guess: str) -> None:
    page.page.wait_for_selector(".aiinfra-live[data-ready]", state="attached", timeout=60_000)
    page.page.fill(".aiinfra-guess input", guess)
    press(page, "Commit")
    page.page.wait_for_selector(".aiinfra-reveal .aiinfra-big")
    page.until("the figures", lambda: any(s["at"] for s in page.points("totals")))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_guess_drag_search_and_take_a_plan(
    chromium: str, lab_home: Path, notebooks: Path, repo: Path, artifacts: Path
) -> None:
    with JupyterLab(notebooks, lab_home, config=repo / SETTINGS) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        p.wait_for_selector(".aiinfra-live[data-ready]", state="attached", timeout=60_000)
        assert p.locator(".aiinfra-counts").first.is_visible() is False, "no answer before the guess"
        p.fill(".aiinfra-guess input", "much")
        press(page, "Commit")
        p.wait_for_selector(".aiinfra-say-bad")
        guessed(page, "30")
        ledger = [json.loads(line) for line in (lab_home / "lab" / "ledger.jsonl").read_text().splitlines()]
        assert [(e["lab"], e["value"]) for e in ledger] == [("scale_out", 0.3)]
        whole_lab(page, artifacts / "lab04-1-revealed-light.png")
        assert no_overflow(page) == []

        before = chosen(page)
        move(page, "Accelerators", -2)
        page.until("a longer step on fewer accelerators", lambda: chosen(page) != before)
        move(page, "Accelerators", -9)
        page.until("too few of them", lambda: chosen(page) == "needs 128")
        move(page, "Accelerators", 12)
        page.until("enough again", lambda: chosen(page).endswith("s"))

        press(page, "Search plans")
        p.wait_for_selector(".aiinfra-choice")
        told = p.locator(".aiinfra-choice .aiinfra-spec").first.inner_text()
        p.locator(".aiinfra-choice button").first.click()
        page.until("the plan's own step time", lambda: chosen(page) in told)
        p.locator(".aiinfra-card-2 .jupyter-widget-Collapse-header").first.click()
        whole_lab(page, artifacts / "lab04-2-searched-light.png")
        assert no_overflow(page) == []
        assert (page.external, page.failed, page.errors) == ([], [], [])
    assert left_running(lab_home / "lab") == []


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_what_cannot_be_is_told_beside_greyed_figures_in_the_dark(
    chromium: str, lab_home: Path, notebooks: Path, repo: Path, artifacts: Path
) -> None:
    with JupyterLab(notebooks, lab_home, dark=True, config=repo / SETTINGS) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        guessed(page, "5 %")
        before = chosen(page)
        move(page, "Tensor parallel", 3)
        page.until("another plan", lambda: chosen(page) != before)
        last = chosen(page)
        p.locator(".aiinfra-card-2 select").first.select_option("gpt-2-xl")
        p.wait_for_selector(".aiinfra-card-2 .aiinfra-problem")
        assert "tp_size 64 must divide the 25 heads" in p.locator(".aiinfra-card-2 .aiinfra-problem").inner_text()
        assert p.locator(".aiinfra-stale .aiinfra-live").count() == 1
        assert chosen(page) == last, "the last plan that can run is still drawn"
        whole_lab(page, artifacts / "lab04-3-problem-dark.png")
        move(page, "Tensor parallel", -6)
        move(page, "Pipeline stages", -4)
        p.wait_for_selector(".aiinfra-card-2 .aiinfra-problem", state="detached")
        assert p.locator(".aiinfra-stale").count() == 0
        whole_lab(page, artifacts / "lab04-4-small-dark.png")
        assert no_overflow(page) == []
        assert (page.external, page.failed, page.errors) == ([], [], [])
    assert left_running(lab_home / "lab") == []
