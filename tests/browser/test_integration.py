"""The lab inside JupyterLab: cards that open a copy of a lab, and the sidebar of runs, without a notebook and with one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab_driver import JupyterLab, Page
from lab_driver import chromium as window
from lab_page import SETTINGS

CARD = ".jp-LauncherCard[data-category='AI infrastructure lab']"
OPEN = "() => window.jupyterapp.shell.currentWidget?.context?.path ?? ''"
AIINFRA = str(Path(sys.executable).parent / "aiinfra")


def enter(page: Page) -> None:
    """Open JupyterLab with nothing but the launcher."""
    page.page.goto(f"{page.lab.url}/lab/workspaces/empty?reset&token={page.lab.token}")
    page.page.wait_for_selector(".jp-LauncherCard", timeout=60_000)


def click_card(page: Page, title: str) -> None:
    """Click a card in a launcher that stands in front."""
    page.command("launcher:create")
    page.page.locator(f"{CARD}:visible", has_text=title).first.click()


def opened(page: Page, path: str) -> None:
    page.until(f"{path} is open", lambda: page.page.evaluate(OPEN) == path, 60)


def clean(page: Page) -> None:
    assert page.external == []
    assert page.failed == []
    assert page.errors == []


@pytest.mark.timeout(240)
def test_cards_open_a_copy_and_never_write_over_one(chromium: str, lab_home: Path, repo: Path, artifacts: Path) -> None:
    root = lab_home / "mine"
    root.mkdir()
    copy = root / "aiinfra-labs" / "01_training_scaling.ipynb"
    with JupyterLab(root, lab_home) as server, window(chromium, server) as page:
        enter(page)
        labs = sorted((repo / "labs").glob("[0-9][0-9]_*.ipynb"))
        page.until("a card for each lab", lambda: page.page.locator(CARD).count() == len(labs))
        assert "what a second node really buys" in page.page.locator(CARD).first.inner_text()
        assert first_in_sight(page)
        page.page.screenshot(path=artifacts / "integration-1-launcher-light.png")

        click_card(page, "1. Training")
        opened(page, "aiinfra-labs/01_training_scaling.ipynb")
        assert json.loads(copy.read_text())["cells"] == json.loads(labs[0].read_text())["cells"]
        mine = json.loads(copy.read_text())
        mine["cells"][0]["source"] = ["# My own words"]
        copy.write_text(json.dumps(mine))

        click_card(page, "1. Training")
        opened(page, "aiinfra-labs/01_training_scaling.ipynb")
        assert json.loads(copy.read_text())["cells"][0]["source"] == ["# My own words"]

        fresh = {"name": labs[0].name, "fresh": True}
        page.page.evaluate("args => window.jupyterapp.commands.execute('aiinfra:open-lab', args)", fresh)
        opened(page, "aiinfra-labs/01_training_scaling-1.ipynb")
        assert json.loads(copy.read_text())["cells"][0]["source"] == ["# My own words"]
        second = json.loads((copy.parent / "01_training_scaling-1.ipynb").read_text())
        assert second["cells"] == json.loads(labs[0].read_text())["cells"]
        clean(page)


def first_in_sight(page: Page) -> bool:
    """Whether the labs are drawn above JupyterLab's own sections."""
    tops = page.page.evaluate(
        "card => [...document.querySelectorAll('.jp-Launcher-section')].map(s => "
        "[s.getBoundingClientRect().top, !!s.querySelector(card)]).sort((a, b) => a[0] - b[0])",
        CARD,
    )
    return bool(tops and tops[0][1])


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_where_the_labs_themselves_are_open_a_card_opens_the_lab(chromium: str, lab_home: Path, repo: Path) -> None:
    """`make lab`: no copy is made of what is the person's own already."""
    root = lab_home / "labs"
    root.mkdir()
    for notebook in (repo / "labs").glob("0[12]_*.ipynb"):
        (root / notebook.name).write_bytes(notebook.read_bytes())
    server = JupyterLab(root, lab_home, config=repo / SETTINGS)
    server.env["AIINFRA_LABS"] = str(root)
    with server, window(chromium, server) as page:
        enter(page)
        page.until("two cards", lambda: page.page.locator(CARD).count() == 2)
        click_card(page, "2. Response")
        opened(page, "02_response_time.ipynb")
        assert not (root / "aiinfra-labs").exists()
        clean(page)


@pytest.mark.timeout(280)
@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["light", "dark"])
def test_the_sidebar_shows_and_steers_a_run_of_a_terminal(
    chromium: str, calibrated_home: Path, repo: Path, artifacts: Path, dark: bool
) -> None:
    root = calibrated_home / "mine"
    root.mkdir()
    name = "dark" if dark else "light"
    with (
        JupyterLab(root, calibrated_home, dark=dark, config=repo / SETTINGS) as server,
        window(chromium, server) as page,
    ):
        p = page.page
        asked: list[str] = []
        p.on("request", lambda r: asked.append(r.url) if "/aiinfra/runs" in r.url else None)
        enter(page)
        p.wait_for_timeout(1500)
        assert asked == [], "nobody looks, so nobody asks"
        p.locator(".jp-SideBar [data-id='aiinfra-runs']").click()
        p.wait_for_selector(".aiinfra-runs-note strong:visible", timeout=30_000)
        assert "Nothing runs" in p.locator(".aiinfra-runs").inner_text()

        argv = [
            AIINFRA,
            "run",
            "training",
            "--nodes",
            "1",
            "--room",
            "2",
            "--set",
            "steps=1000000",
            "--note",
            "terminal",
        ]
        run = subprocess.Popen(argv, env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            p.wait_for_selector(".aiinfra-run[data-state=running]", timeout=120_000)
            card = p.locator(".aiinfra-run").first
            assert "terminal" in card.locator(".aiinfra-run-about").inner_text()
            page.until("the cost so far", lambda: "Energy" in card.inner_text() and "Cost" in card.inner_text(), 60)
            before = step(page)
            page.until("it moves on", lambda: step(page) > before, 30)

            card.locator("button[aria-label='One node more']").click()
            p.wait_for_selector(".aiinfra-run-answer[data-kind=good]", timeout=60_000)
            assert re.match(r"Done at step \d+\.", card.locator(".aiinfra-run-answer").inner_text())
            page.until("two nodes", lambda: card.locator(".aiinfra-run-count").inner_text() == "2", 30)
            p.screenshot(path=artifacts / f"integration-2-sidebar-{name}.png")

            card.locator("button", has_text="Pause").click()
            p.wait_for_selector(".aiinfra-run[data-state=paused]", timeout=60_000)
            card.locator("button", has_text="Continue").click()
            p.wait_for_selector(".aiinfra-run[data-state=running]", timeout=60_000)
            card.locator("button", has_text="Stop").click()
            p.wait_for_selector(".aiinfra-run[data-state=stopped]", timeout=60_000)
            assert run.wait(60) == 0
        finally:
            run.kill()
            run.wait()
        [folder] = (calibrated_home / "lab" / "runs").iterdir()
        requests = [json.loads(f.read_text())["by"] for f in (folder / "control" / "done").iterdir()]
        assert requests == ["sidebar"] * 4
        assert "stopped by sidebar" in p.locator(".aiinfra-run").first.inner_text()
        p.locator(".aiinfra-run button", has_text="Open folder").click()
        p.wait_for_selector(".jp-DirListing-item:has-text('run.json')", timeout=30_000)
        assert (root / "aiinfra-runs").resolve() == folder.parent
        p.wait_for_timeout(1500)
        many = len(asked)
        p.wait_for_timeout(2500)
        assert len(asked) == many, "the sidebar is hidden, so it rests"
        clean(page)


def step(page: Page) -> int:
    found = re.search(r"step (\d+)", page.page.locator(".aiinfra-run-about").first.inner_text())
    return int(found[1]) if found else 0


@pytest.mark.timeout(240)
def test_a_refusal_is_shown_with_its_reason(chromium: str, calibrated_home: Path, repo: Path, artifacts: Path) -> None:
    """Three nodes where the administrator allows two ranks: asked by the sidebar, refused before anything is started."""
    root = calibrated_home / "mine"
    root.mkdir()
    quota = calibrated_home / "limits.toml"
    server = JupyterLab(root, calibrated_home, config=repo / SETTINGS)
    server.env["AIINFRA_LIMITS"] = str(quota)
    argv = [AIINFRA, "run", "training", "--nodes", "2", "--room", "2", "--set", "steps=1000000"]
    run = subprocess.Popen(argv, env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with server, window(chromium, server) as page:
            p = page.page
            enter(page)
            p.locator(".jp-SideBar [data-id='aiinfra-runs']").click()
            p.wait_for_selector(".aiinfra-run[data-state=running]", timeout=120_000)
            quota.write_text("max_ranks_per_user = 2\n")
            p.locator(".aiinfra-run button[aria-label='One node more']").click()
            p.wait_for_selector(".aiinfra-run-answer[data-kind=bad]", timeout=60_000)
            said = p.locator(".aiinfra-run-answer").first.inner_text()
            assert said.startswith("Refused: nodes: got 3")
            assert "max_ranks_per_user = 2, set by the administrator" in said
            page.until("no more is offered", lambda: p.locator("button[aria-label='One node more']").is_disabled())
            p.screenshot(path=artifacts / "integration-3-refused-light.png")
            p.locator(".aiinfra-run button", has_text="Stop").click()
            p.wait_for_selector(".aiinfra-run[data-state=stopped]", timeout=60_000)
            clean(page)
        assert run.wait(60) == 0
    finally:
        run.kill()
        run.wait()
