"""Lab 03 as a person uses it: predict, run a stream, change the policy, submit a job, add a node, look at the timeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_driver import JupyterLab, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS, chip, commit, no_overflow, press, segments, whole_lab

NOTEBOOK = "03_scheduling.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_policy_submission_and_a_node_more(
    chromium: str, calibrated_home: Path, notebooks: Path, repo: Path, artifacts: Path
) -> None:
    home = calibrated_home
    with JupyterLab(notebooks, home, config=repo / SETTINGS) as server, window(chromium, server) as page:
        p = page.page
        page.open(NOTEBOOK)
        page.run_all()
        p.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
        commit(page, "1")
        press(page, "Run")
        page.until("bars in the timeline", lambda: any(len(s.get("lane", [])) > 3 for s in page.points("bars")), 90)
        whole_lab(page, artifacts / "lab03-0-running-light.png")
        policy = p.locator(".aiinfra-card-2 select").first
        policy.select_option("sjf")
        good = p.locator(".aiinfra-card-2 .aiinfra-say-good")
        page.until("the policy is acknowledged", lambda: good.count() >= 1, 20)
        assert "sjf" in p.locator(".aiinfra-card-2").first.inner_text().lower()
        whole_lab(page, artifacts / "lab03-1-running-light.png")
        page.until("the run is done", lambda: "done" in chip(page), 90)
        page.until("its comparison", lambda: segments(page) >= 2, 20)
        p.wait_for_timeout(1000)
        whole_lab(page, artifacts / "lab03-2-compared-light.png")
        assert no_overflow(page) == []
        assert page.external == []
        assert page.failed == []
        assert page.errors == []
    run = next((home / "lab" / "runs").glob("*-scheduling-*"))
    jobs = [line.split(",")[2] for line in (run / "records" / "0-0-jobs.csv").read_text().splitlines()[1:]]
    assert len(jobs) == len(set(jobs)) == 20, "every job ended exactly once"
    assert left_running(home / "lab") == []
