"""Gate: the page of every lab's report opens in Chromium with the network off, is below 10 MB, and its figures answer the mouse."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.browser

REPO = Path(__file__).resolve().parents[2]
MAX_BYTES = 10_000_000
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
#: One without ranks is made in `make test`; the others take their time.
QUICK = "04_scale_out"
#: Points at which the mouse rests on a figure, across and down.
ACROSS, DOWN = 14, 7
TOOLTIP = ".bk-tooltip:visible, .bk-Tooltip:visible"
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
WORDS = "(e) => [...(e.shadowRoot || e).children].filter((c) => !/STYLE|LINK/.test(c.tagName)).map((c) => c.innerText).join(' ')"


def labs_tests() -> ModuleType:
    """The module that knows with which parameters each lab is quick."""
    spec = importlib.util.spec_from_file_location("labs_tests", REPO / "tests" / "labs" / "test_labs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LABS = labs_tests()


def answers_the_mouse(page: Any, box: dict[str, float]) -> str:
    """Rest the mouse on many points of a figure until it says something; return what."""
    for row in range(DOWN):
        for column in range(ACROSS):
            page.mouse.move(
                box["x"] + box["width"] * (column + 0.5) / ACROSS, box["y"] + box["height"] * (row + 0.5) / DOWN
            )
            page.evaluate(TWO_FRAMES)
            if page.locator(TOOLTIP).count():
                return str(page.locator(TOOLTIP).first.evaluate(WORDS)).strip()
    return ""


@pytest.mark.parametrize(
    "lab",
    [pytest.param(p, id=p.stem, marks=() if p.stem == QUICK else pytest.mark.slow) for p in LABS.LABS],
)
def test_a_labs_page_works_with_the_network_off(
    lab: Path, profile: Path, tmp_path: Path, chromium: str, artifacts: Path
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    given = {**LABS.QUICK, **LABS.ANSWERED}[lab.stem]
    done = LABS.aiinfra("report", str(lab), *LABS.parameters(given), "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    path = tmp_path / "out" / f"{lab.stem}.html"
    assert path.stat().st_size < MAX_BYTES
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True).new_page()
        requests: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda r: requests.append(r.url))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("console", lambda m: complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
        figures = page.locator("figure.r-figure")
        assert figures.count() > 0
        assert page.locator("figure.r-live").count() == figures.count()  # each was drawn
        said = []
        for i in range(figures.count()):
            figures.nth(i).scroll_into_view_if_needed()
            box = figures.nth(i).bounding_box()
            assert box
            assert box["width"] > 200
            assert box["height"] > 100
            said.append(answers_the_mouse(page, box))
            if said[-1]:
                break
        page.screenshot(path=artifacts / f"report-{lab.stem}.png", full_page=True)
        assert any(said), f"none of {len(said)} figures answered the mouse"
        assert (requests, complaints) == ([path.as_uri()], [])
        browser.close()
