"""Lab 07 as a person uses it: run all, commit, run, other micro-batches by keyboard, another schedule, the timeline, the setups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab_driver import JupyterLab, Page, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS, chip, commit, no_overflow, press, segments, whole_lab

NOTEBOOK = "07_pipeline.ipynb"
#: Different colours in the pixels of every canvas of the timeline: an empty frame has text and rules only.
COLOURS = """cs => { const seen = new Set();
    for (const c of cs) { const d = c.getContext('2d')?.getImageData(0, 0, c.width, c.height).data ?? [];
      for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200 && Math.max(d[i], d[i+1], d[i+2]) - Math.min(d[i], d[i+1], d[i+2]) > 60)
        seen.add(d[i] + ',' + d[i+1] + ',' + d[i+2]) }
    return seen.size }"""


def bars(page: Page) -> dict[str, list[Any]]:
    """Return the measured bars of the timeline."""
    return next((s for s in page.points("bars") if "detail" in s), {"lane": [], "detail": []})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_micro_batches_change_the_timeline_and_become_a_segment(
    chromium: str, calibrated_home: Path, notebooks: Path, repo: Path, artifacts: Path
) -> None:
    lab_home = calibrated_home
    with JupyterLab(notebooks, lab_home, config=repo / SETTINGS) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        p.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
        commit(page, "40")
        press(page, "Run")
        page.until(
            "a traced step of both stages", lambda: set(bars(page)["lane"]) and len(set(bars(page)["lane"])) == 2, 90
        )
        assert p.locator(".aiinfra-chart-timeline canvas").evaluate_all(COLOURS) >= 3, "nothing is drawn"
        assert set(bars(page)["detail"]) <= {"0", "none"}, "one micro-batch"
        page.until("a settled segment", lambda: segments(page) == 1)

        field = p.locator(".aiinfra-card-2 .aiinfra-field", has_text="Micro-batches").first
        field.locator(".noUi-handle").focus()
        p.keyboard.press("ArrowRight")
        p.keyboard.press("ArrowRight")  # 1, 2, 4
        said = field.locator(".aiinfra-say-good")
        said.wait_for(timeout=20_000)
        assert said.inner_text().startswith("Since step")
        page.until("four micro-batches in the timeline", lambda: {"0", "1", "2", "3"} <= set(bars(page)["detail"]), 60)
        first_row = p.locator(".aiinfra-table-box").first.locator("tbody tr").first
        page.until(
            "its comparison", lambda: "Micro-batches 4" in first_row.inner_text() and "%" in first_row.inner_text(), 60
        )

        p.locator(".aiinfra-card-2 select").first.select_option("interleaved")  # refused alone: it needs two chunks
        p.locator(".aiinfra-card-2 .aiinfra-say-bad", has_text="Pipeline stages").wait_for(timeout=10_000)
        chunks = p.locator('.aiinfra-card-2 .noUi-handle[aria-label="Chunks"]')
        chunks.focus()
        p.keyboard.press("ArrowRight")
        page.until("both at once", lambda: "interleaved, Chunks 2" in first_row.inner_text(), 30)
        p.screenshot(path=artifacts / "lab07-1-running-light.png")
        whole_lab(page, artifacts / "lab07-2-compared-light.png")
        assert no_overflow(page) == []

        press(page, "Stop")
        page.until("stopped", lambda: "stopped" in chip(page), 20)
        assert page.external == []
        assert page.failed == []
        assert page.errors == []
    assert left_running(lab_home / "lab") == [], "JupyterLab has ended, and ranks are left"
