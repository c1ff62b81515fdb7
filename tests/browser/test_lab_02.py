"""Lab 02 as a person uses it: predict, offer a load, drag it, add a server, change the rules, kill a server, compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_driver import JupyterLab, Page, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS, chip, commit, no_overflow, press, segments, whole_lab

NOTEBOOK = "02_response_time.ipynb"


def drag(page: Page, label: str, presses: int) -> None:
    """Move the slider called `label` of the run card by the arrow keys."""
    slider = page.page.locator(f".aiinfra-card-2 .noUi-handle[aria-label='{label}']").first
    slider.focus()
    for _ in range(presses):
        page.page.keyboard.press("ArrowRight")


def answers(page: Page) -> int:
    return int(page.page.locator(".aiinfra-card-2 .aiinfra-say-good").count())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_load_servers_dispatch_and_a_killed_server(
    chromium: str, calibrated_home: Path, notebooks: Path, repo: Path, artifacts: Path
) -> None:
    home = calibrated_home
    with JupyterLab(notebooks, home, config=repo / SETTINGS) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        commit(page, "40")
        ledger = [json.loads(line) for line in (home / "lab" / "ledger.jsonl").read_text().splitlines()]
        assert [(e["question"], e["value"]) for e in ledger] == [("mean_response_s", 0.04)]
        revealed = p.locator(".aiinfra-reveal").first.inner_text()
        assert "40.3 ms" in revealed, "M/M/1 at half its capacity, and the way back"

        press(page, "Run")
        page.until("the queue's figure", lambda: any(len(s["tick"]) > 20 for s in page.points("series")), 90)
        page.until("a settled segment", lambda: segments(page) == 1, 60)
        drag(page, "Offered load", 2)
        page.until("the load is acknowledged", lambda: answers(page) >= 1, 20)
        page.until("a segment of the new load", lambda: segments(page) >= 2, 20)
        said = p.locator(".aiinfra-card-2 .aiinfra-say-good").first.inner_text()
        assert said.startswith("Since window"), said
        drag(page, "Servers", 1)
        first_row = p.locator(".aiinfra-table-box").first.locator("tbody tr").first
        page.until("two servers", lambda: "2 servers" in first_row.inner_text(), 30)
        page.until("their comparison", lambda: "%" in first_row.inner_text(), 60)
        p.wait_for_timeout(1000)
        whole_lab(page, artifacts / "lab02-1-compared-light.png")
        assert no_overflow(page) == []

        before = segments(page)
        p.locator(".aiinfra-card-2 button", has_text="Kill ...").first.click()
        p.locator(".aiinfra-form button", has_text="Kill").first.click()
        page.until("a segment after the death", lambda: segments(page) > before, 30)
        whole_lab(page, artifacts / "lab02-2-killed-light.png")
        press(page, "Stop")
        page.until("stopped", lambda: "stopped" in chip(page), 20)
        assert page.external == []
        assert page.failed == []
        assert page.errors == []
    run = next((home / "lab" / "runs").glob("*-serving-*"))
    lines = (run / "records" / "0-0-requests.csv").read_text().splitlines()
    ids = [line.split(",")[2] for line in lines[1:]]
    assert len(ids) == len(set(ids)) > 100, "every request has one outcome"
    assert left_running(home / "lab") == [], "JupyterLab has ended, and ranks are left"
