"""What every lab's page has, for the tests that drive one: buttons, the chip, the commitment, the table of segments."""

from __future__ import annotations

from pathlib import Path

from lab_driver import Page

SETTINGS = Path("labs") / ".jupyter"


def press(page: Page, text: str) -> None:
    page.page.locator(".aiinfra-lab button", has_text=text).first.click()


def chip(page: Page) -> str:
    return str(page.page.locator(".aiinfra-chip").first.inner_text())


def commit(page: Page, guess: str = "8") -> None:
    page.page.wait_for_selector(".aiinfra-live[data-ready]", timeout=60_000)
    page.page.fill(".aiinfra-guess input", guess)
    press(page, "Commit")
    page.page.wait_for_selector(".aiinfra-reveal .aiinfra-big")


def whole_lab(page: Page, to: Path) -> None:
    """Keep a picture of the whole screen of the lab, however high."""
    lab = page.page.locator(".aiinfra-lab").first
    height = lab.bounding_box()["height"]
    page.page.set_viewport_size({"width": 1400, "height": int(height + 260)})
    page.page.wait_for_timeout(500)
    lab.screenshot(path=to)
    page.page.set_viewport_size({"width": 1400, "height": 1000})


def no_overflow(page: Page) -> list[str]:
    """Return what sticks out of the lab to the right, or is cut off inside a control."""
    found: list[str] = page.page.evaluate(
        """() => { const lab = document.querySelector('.aiinfra-lab'), edge = lab.getBoundingClientRect().right + 1;
            return [...lab.querySelectorAll('*')].filter(e => e.offsetParent && e.getBoundingClientRect().right > edge)
              .map(e => e.className || e.tagName).slice(0, 5) }"""
    )
    return found


def segments(page: Page) -> int:
    return int(page.page.locator(".aiinfra-table-box").first.locator("tbody tr").count())
