"""Lab 01 as a person uses it: run all, commit, run, change the nodes, compare, reload, stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab_driver import JupyterLab, Page, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS, chip, commit, no_overflow, press, segments, whole_lab

NOTEBOOK = "01_training_scaling.ipynb"


def step_points(page: Page) -> dict[str, list[Any]]:
    return next((s for s in page.points("series") if "step_time_s" in s), {"tick": []})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_predict_run_change_compare_reload_stop(
    chromium: str, calibrated_home: Path, notebooks: Path, repo: Path, artifacts: Path
) -> None:
    lab_home = calibrated_home
    with JupyterLab(notebooks, lab_home, config=repo / SETTINGS) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        p.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
        whole_lab(page, artifacts / "lab01-1-predict-light.png")
        assert p.locator(".aiinfra-toolbar button", has_text="Run").first.is_disabled(), (
            "Run is open before the commitment"
        )

        p.fill(".aiinfra-guess input", "minus one")
        press(page, "Commit")
        p.wait_for_selector(".aiinfra-guess-say .aiinfra-say-bad")
        commit(page)
        ledger = [json.loads(line) for line in (lab_home / "lab" / "ledger.jsonl").read_text().splitlines()]
        assert [(e["question"], e["value"]) for e in ledger] == [("step_time_s", 0.008)]
        assert "ms" in p.locator(".aiinfra-reveal").first.inner_text().split("Model")[1], (
            "the model's number is revealed"
        )

        press(page, "Run")
        page.until("20 steps in the figure", lambda: len(step_points(page)["tick"]) > 20, 90)
        page.until("a settled segment", lambda: segments(page) == 1)
        before = len(step_points(page)["tick"])
        page.until("more points", lambda: len(step_points(page)["tick"]) > before)

        slider = p.locator(".aiinfra-card-2 .noUi-handle").first
        assert slider.get_attribute("aria-label") == "Nodes"
        slider.focus()
        p.keyboard.press("ArrowRight")
        said = p.locator(".aiinfra-card-2 .aiinfra-say-good").first
        said.wait_for(timeout=20_000)
        assert said.inner_text().startswith("Since step")
        assert "took" in said.inner_text()
        page.until("the new segment's row", lambda: segments(page) == 2)
        first_row = p.locator(".aiinfra-table-box").first.locator("tbody tr").first
        page.until("its measurement", lambda: "ms" in first_row.inner_text() and "2 nodes" in first_row.inner_text())
        page.until("its comparison", lambda: "%" in first_row.inner_text())
        page.until("two measured points", lambda: any(len(s["at"]) >= 2 for s in page.points("points") if "at" in s))
        p.wait_for_timeout(1500)
        p.screenshot(path=artifacts / "lab01-2-running-light.png")
        whole_lab(page, artifacts / "lab01-3-compared-light.png")
        assert no_overflow(page) == []

        ticks = step_points(page)["tick"]
        assert ticks == sorted(ticks), "points out of order"
        assert len(set(ticks)) == len(ticks), "points twice"

        page.command("docmanager:save")
        p.reload()
        page.connected()
        p.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
        restored = page.until("history after a reload", lambda: step_points(page)["tick"], 20)
        assert restored[0] <= ticks[0] + 1, "the beginning of the run is gone after a reload"
        assert restored[-1] >= ticks[-1]

        press(page, "Stop")
        page.until("stopped", lambda: "stopped" in chip(page), 20)
        p.wait_for_timeout(500)
        whole_lab(page, artifacts / "lab01-4-stopped-light.png")
        assert page.external == []
        assert page.failed == []
        assert page.errors == []
    assert left_running(lab_home / "lab") == [], "JupyterLab has ended, and ranks are left"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_kernel_leaves_a_run_that_a_new_one_takes_over(
    chromium: str, lab_home: Path, notebooks: Path, repo: Path, artifacts: Path
) -> None:
    import os
    import signal

    with JupyterLab(notebooks, lab_home, dark=True, config=repo / SETTINGS) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        commit(page)
        press(page, "Run")
        page.until("20 steps in the figure", lambda: len(step_points(page)["tick"]) > 20, 90)
        [kernel] = server.kernel_pids()
        os.kill(kernel, signal.SIGKILL)
        page.until("Jupyter's new kernel", lambda: [k for k in server.kernel_pids() if k != kernel], 30)
        p.wait_for_timeout(2000)
        page.connected()
        p.locator(".jp-Dialog button", has_text="Ok").first.click()  # JupyterLab says that the kernel died
        page.run_all()
        p.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
        page.until("the run is taken over", lambda: "running" in chip(page), 20)
        assert "taken it over" in p.locator(".aiinfra-head").first.inner_text()
        restored = page.until("its history", lambda: step_points(page)["tick"], 20)
        assert restored[0] <= 2
        whole_lab(page, artifacts / "lab01-5-taken-over-dark.png")
        p.screenshot(path=artifacts / "lab01-6-running-dark.png")
        press(page, "Stop")
        page.until("stopped", lambda: "stopped" in chip(page), 20)
        assert page.external == []
    assert left_running(lab_home / "lab") == []
