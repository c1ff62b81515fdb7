"""Lab 05 as a person uses it: read a claim, type nonsense, commit, measure, look, take the next one; in the light and in the dark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_driver import JupyterLab, Page, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS, chip, no_overflow, press, whole_lab

NOTEBOOK = "05_claims.ipynb"


def choose(page: Page, claim: str) -> None:
    page.page.locator(".aiinfra-card-1 .widget-toggle-button", has_text=claim).first.click()
    page.until(
        f"{claim} is shown", lambda: claim in page.page.locator(".aiinfra-card-1 .mod-active").first.inner_text()
    )


def field(page: Page, label: str, text: str) -> None:
    box = page.page.locator(".aiinfra-card-1 .aiinfra-control", has_text=label).first.locator("input")
    box.fill(text)
    box.press("Enter")


def row(page: Page, claim: str) -> str:
    return str(page.page.locator(".aiinfra-card-3 tbody tr", has_text=claim).first.inner_text())


def measured(page: Page, points: int, source: str = "points") -> bool:
    return any(len(s["value"]) == points for s in page.points(source))


def overlap_and_sum(page: Page, artifacts: Path) -> None:
    """Judge a claim that holds in part, and one that nobody can measure."""
    choose(page, "S2-R")
    press(page, "It holds")
    page.page.locator(".aiinfra-card-2 button", has_text="Measure").first.click()
    page.until("with overlap and without", lambda: measured(page, 4, "more"), 90)
    page.until("the measurement has ended", lambda: "judged" in chip(page), 30)
    page.page.wait_for_timeout(1000)
    whole_lab(page, artifacts / "lab05-2-overlap-light.png")
    choose(page, "S2-P")
    press(page, "It does not")
    page.until("what cannot be added", lambda: "added to" in row(page, "S2-P"))
    assert page.page.locator(".aiinfra-card-2 button", has_text="Measure").first.is_disabled(), "nothing to measure"
    page.page.wait_for_timeout(1000)
    whole_lab(page, artifacts / "lab05-3-sum-light.png")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_claims_are_judged_and_measured(
    chromium: str, lab_home: Path, notebooks: Path, repo: Path, artifacts: Path, dark: bool
) -> None:
    theme = "dark" if dark else "light"
    with JupyterLab(notebooks, lab_home, config=repo / SETTINGS, dark=dark) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        p.wait_for_selector(".aiinfra-card-1 .widget-toggle-button", timeout=60_000)
        styled = "() => getComputedStyle(document.querySelector('.aiinfra-card')).borderTopWidth === '1px'"
        p.wait_for_function(styled, timeout=30_000)  # before there is any figure
        choose(page, "S1-xfer")
        assert "covered" in row(page, "S1-xfer"), "no verdict before the learner has committed"
        assert p.locator(".aiinfra-card-2 button", has_text="Measure").first.is_disabled()

        field(page, "Size S", "10 km")
        said = p.locator(".aiinfra-guess-say").first
        page.until("a length is refused as a size", lambda: "a length" in said.inner_text())
        field(page, "Size S", "5 GB")
        formula = p.locator(".aiinfra-answer .aiinfra-big").first
        page.until("half the size, half the time", lambda: "40 s" in formula.inner_text())
        field(page, "Size S", "10 GB")
        page.until("the printed example", lambda: "80 s" in formula.inner_text())

        press(page, "It does not")
        page.until("the verdict is shown", lambda: "\u2715 refuted" in row(page, "S1-xfer"))
        assert "gives 80 s" in row(page, "S1-xfer")
        p.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
        p.locator(".aiinfra-card-2 button", has_text="Measure").first.click()
        page.until("four sizes", lambda: measured(page, 4), 60)
        page.until("the measurement has ended", lambda: "judged" in chip(page), 30)
        p.wait_for_timeout(1000)
        whole_lab(page, artifacts / f"lab05-1-transfer-{theme}.png")
        assert no_overflow(page) == []

        if not dark:
            overlap_and_sum(page, artifacts)
        assert no_overflow(page) == []
        assert page.external == []
        assert page.failed == []
        assert page.errors == []
    ledger = [json.loads(line) for line in (lab_home / "lab" / "ledger.jsonl").read_text().splitlines()]
    told = [(e["question"], e["value"]) for e in ledger if e["kind"] == "prediction"]
    assert told == [("S1-xfer", 0.0), *([] if dark else [("S2-R", 1.0), ("S2-P", 0.0)])]
    outcomes = [e["measured"] for e in ledger if e["kind"] == "outcome"]
    assert len(outcomes) == (1 if dark else 2), "one for each claim that was measured"
    assert outcomes[0] == 0.0
    assert left_running(lab_home / "lab") == [], "JupyterLab has ended, and something is left"
