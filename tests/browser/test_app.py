"""`aiinfra serve` as people use it: a projector and a laptop look at one run; nobody else gets in; Ctrl-C ends the ranks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab_driver import FLAGS, LOCAL, lab_processes, left_running

LAB = "labs/01_training_scaling.ipynb"
#: The ticks of the step time's figure, wherever in the page it is.
TICKS = """() => (window.Bokeh?.documents ?? []).flatMap(d => [...d._all_models.values()])
    .filter(m => m.type === 'ColumnDataSource' && m.name === 'series' && 'step_time_s' in m.data)
    .map(m => Array.from(m.data.tick))[0] ?? []"""


class Serving:
    """`aiinfra serve` in a process of its own."""

    def __init__(self, home: Path, repo: Path, *words: str) -> None:
        env = {**os.environ, "AIINFRA_HOME": str(home / "lab")}
        self.log = home / "serve.log"
        argv = [str(Path(sys.executable).with_name("aiinfra")), "serve", *(words or (LAB,)), "--no-browser"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(argv, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout
        self.address = next((line.strip() for line in self.process.stdout if line.startswith("http")), "")
        assert self.address, self.log.read_text()

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def serving(lab_home: Path, repo: Path) -> Iterator[Serving]:
    made = Serving(lab_home, repo)
    yield made
    if made.process.poll() is None:
        made.end()


class Visitor:
    """A browser of its own, and everything suspicious that its page did."""

    def __init__(self, context: Any) -> None:
        self.page, self.bad = context.new_page(), list[str]()
        self.page.on("request", lambda r: None if r.url.startswith(LOCAL) else self.bad.append(r.url))
        self.page.on("console", lambda m: self.bad.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.bad.append(str(e)))
        self.page.on("response", lambda r: self.bad.append(f"{r.status} {r.url}") if r.status >= 400 else None)

    def button(self, text: str) -> Any:
        return self.page.get_by_role("button", name=text, exact=True)

    def until(self, what: str, holds: Any, seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := holds():
                return found
            self.page.wait_for_timeout(100)
        raise AssertionError(f"waited {seconds:g} s for: {what}")

    def ticks(self) -> list[float]:
        found: list[float] = self.page.evaluate(TICKS)
        return found

    def says(self, text: str) -> bool:
        return bool(self.page.get_by_text(text).count())


@contextmanager
def browsers(path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))

        def visitor(scheme: str = "light") -> Visitor:
            context = browser.new_context(viewport={"width": 1920, "height": 1080}, color_scheme=scheme)
            context.set_default_timeout(
                120_000
            )  # a page takes 2 s of a core to make, and the core may be shared by many
            return Visitor(context)

        try:
            yield visitor
        finally:
            browser.close()


@pytest.mark.timeout(300)
def test_a_projector_and_a_laptop_see_the_same_run(
    chromium: str, serving: Serving, lab_home: Path, artifacts: Path
) -> None:
    with browsers(chromium) as visitor:
        stranger = visitor()
        refused = stranger.page.goto(serving.address.split("?")[0])
        assert refused.status == 403
        assert "token" in stranger.page.inner_text("body")

        one = visitor()
        one.page.goto(serving.address)
        one.page.wait_for_selector("text=Run and change")
        assert "token" not in one.page.url, "the room could read it from the address bar"
        assert one.button("Run").is_disabled()
        guess = one.page.get_by_role("textbox", name=re.compile("Your prediction")).first
        guess.fill("8")
        guess.press("Enter")
        one.until("the commitment", lambda: one.button("Run").is_enabled())
        one.page.screenshot(path=artifacts / "app-1-light.png", full_page=True)
        one.button("Run").click()
        one.until("20 steps in the figure", lambda: len(one.ticks()) > 20, 180)

        two = visitor("dark")
        two.page.goto(serving.address)
        two.page.wait_for_selector("text=Run and change")
        two.until("the history", lambda: len(two.ticks()) > 20)
        assert two.page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert two.ticks()[0] <= 4  # from the start; each page thins its points when it has too many
        slider = two.page.locator(".noUi-handle:visible").first  # the setup's own are hidden
        slider.focus()
        two.page.keyboard.press("ArrowRight")
        two.until("the answer", lambda: two.page.locator(".aiinfra-say-good").count())
        one.until("2 nodes on the other page", lambda: one.says("2 nodes"))
        ticks = one.ticks()
        assert ticks == sorted(set(ticks)), "points twice or out of order"
        two.page.wait_for_timeout(1500)
        two.page.screenshot(path=artifacts / "app-2-dark.png", full_page=True)
        two.page.locator("body").press("t")
        assert not two.page.locator(".words-text").first.is_visible()
        two.page.screenshot(path=artifacts / "app-3-dark-projector.png")
        one.page.get_by_text("Break something").click()
        one.until("what will happen", lambda: one.says("The process gets SIGKILL"))
        one.button("Break it").click()
        two.until("the death on the other page", lambda: two.says("died"), 30)
        dead_at = max(two.ticks())
        two.until("steps after it", lambda: max(two.ticks()) > dead_at + 5, 30)
        one.page.screenshot(path=artifacts / "app-5-broken-light.png", full_page=True)
        one.button("Stop").click()
        two.until("stopped", lambda: two.says("stopped"), 30)
        one.page.screenshot(path=artifacts / "app-4-light.png", full_page=True)
        assert one.bad == []
        assert two.bad == []
    assert serving.end() == 0
    assert left_running(lab_home / "lab") == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_rank_outlives_the_server(chromium: str, serving: Serving, lab_home: Path, number: int) -> None:
    """Ctrl-C stops a run with a checkpoint; after a kill the supervisor ends what nobody takes over within its grace."""
    with browsers(chromium) as visitor:
        one = visitor()
        one.page.goto(serving.address)
        one.page.get_by_role("textbox", name=re.compile("Your prediction")).first.fill("8")
        one.button("Commit").click()
        one.until("the commitment", lambda: one.button("Run").is_enabled())
        one.button("Run").click()
        one.until("20 steps in the figure", lambda: len(one.ticks()) > 20, 180)
        assert lab_processes(lab_home / "lab")
        code = serving.end(number)
    if number == signal.SIGINT:
        assert code == 0
        assert "stopped" in serving.log.read_text()
        assert list((lab_home / "lab" / "runs").glob("*/checkpoints/LATEST"))
    assert left_running(lab_home / "lab", 100) == []
