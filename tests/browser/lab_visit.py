"""What a person does in a lab, whichever it is, each step checked: for the tests that go through all of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lab_controls import Control, button, controls, kernel_state, open_folds, operate, refusals, shown
from lab_driver import Page
from lab_page import chip, no_overflow, segments, whole_lab

#: Where waiting stops, in seconds; a busy machine may take its time.
LONG = 300.0
FAILED_CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')
    .flatMap(c => c.model.outputs.toJSON()).filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)"""
THEME = "t => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab ' + t })"
RESTART = "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()"


class Visit:
    """A lab, opened and run.

    Args:
        page: On its server.
        lab: Name of the notebook, without its ending.
        artifacts: Where pictures are kept.
    """

    def __init__(self, page: Page, lab: str, artifacts: Path) -> None:
        self.page, self.lab, self.artifacts = page, lab, artifacts
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.unseen: list[str] = []
        self.controls = False  # whether the lab has any
        self._begun = time.monotonic()
        page.page.set_default_timeout(1000 * LONG)

    def say(self, what: str) -> None:
        """Print what has been done so far, with the seconds since the beginning; pytest shows it where a test fails."""
        print(f"{time.monotonic() - self._begun:7.1f} s  {self.lab}: {what}", flush=True)

    def open(self) -> None:
        """Open the notebook and run every cell."""
        self.page.open(f"{self.lab}.ipynb")
        self.run_all()

    def run_all(self) -> None:
        """Run every cell; none may fail, and the screen must be there."""
        self.page.run_all()
        assert self.page.page.evaluate(FAILED_CELLS) == []
        self.say("all cells run")
        self.controls = self.to_widget()

    def to_widget(self, number: int = 0) -> bool:
        """Bring a cell that shows widgets into sight, the lab's own by default; whether there is one of this number."""
        if not self.page.to_widget(number):
            return False
        self.page.page.wait_for_selector(".aiinfra-lab")
        if number == 0:
            self.page.until("its controls", lambda: controls(self.page, on=False), LONG)
        return True

    def press(self, *labels: str) -> None:
        """Press the first button in sight with one of these words, as soon as it can be pressed."""
        found = self.page.until(f"a button {' or '.join(labels)}", lambda: button(self.page, *labels), LONG)
        found.at(self.page).click()

    def has(self, label: str) -> bool:
        """Whether there is a button of this word in sight, to be pressed now or not."""
        return any(c.label == label for c in controls(self.page, "button", on=False))

    def until(self, what: str, holds: Any) -> Any:
        """Wait until something holds, say so, and return it."""
        found = self.page.until(f"{self.lab}: {what}", holds, LONG)
        self.say(what)
        return found

    def picture(self, what: str) -> None:
        """Keep a picture of the lab in the dark and in the light."""
        for theme in ("Dark", "Light"):
            self.page.page.evaluate(THEME, theme)
            self.page.page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {theme}']", state="attached")
            path = self.artifacts / f"lab{self.lab[:2]}-{what}-{theme.lower()}.png"
            if self.controls:
                whole_lab(self.page, path)
            else:
                self.page.page.screenshot(path=path)
        self.say(f"picture: {what}")

    # --- fields -------------------------------------------------------------------------------------------------
    def try_each(self, found: list[Control], *, effect: bool = False, answered: bool = False) -> None:
        """Operate fields one after the other, and put each back: the kernel takes each up, or a reason is shown.

        Args:
            found: Which.
            effect: It is noted where nothing that is shown changes.
            answered: The run answers each change, with the tick that it took effect at.
        """
        for control in found:
            what = f"{control.kind} {control.label or control.knob!r} on card {control.card}"
            if self._try(control, what, effect, answered):
                self.accepted.append(what)
            else:
                self.refused.append(what)

    def _try(self, control: Control, what: str, effect: bool, answered: bool) -> bool:
        page = self.page
        before, screen, already = kernel_state(page), shown(page), refusals(page)
        undo = operate(page, control)

        def outcome() -> str:
            if kernel_state(page) != before:
                return "taken up"
            new = [r for r in refusals(page) if r not in already]
            return "refused: " + "; ".join(new) if new else ""

        became = self.until_said(what, outcome)
        taken = became == "taken up"
        if taken and answered:
            good = page.page.locator(f".aiinfra-card-2 .aiinfra-knob-{control.knob} .aiinfra-say-good")
            page.until(f"an answer under {what}", good.count, LONG)
        if taken and effect:
            try:
                page.until("something to change", lambda: shown(page) != screen, 5)
            except AssertionError:
                self.unseen.append(what)
        page.until(f"{what} to be operated again", lambda: control.number in {c.number for c in controls(page)}, LONG)
        undo()
        page.until(f"{what} to be as before", lambda: kernel_state(page) == before, LONG)
        return taken

    def until_said(self, what: str, outcome: Any) -> str:
        """Wait for an outcome in words, and print it."""
        became = str(self.page.until(f"{self.lab}: {what}, taken up or refused", outcome, LONG))
        self.say(f"{what}: {became}")
        return became

    # --- steps --------------------------------------------------------------------------------------------------
    def commit(self, *labels: str) -> None:
        """Commit a prediction, by number or by verdict; the lab's own is shown after it, and the ledger has one more."""
        before = len(self.ledger())
        for guess in (c for c in controls(self.page, "text") if c.guess):
            guess.at(self.page).fill("40")
        self.press(*(labels or ("Commit", "It holds")))
        self.until("an entry in the ledger", lambda: len(self.ledger()) == before + 1)
        self.until("the answer", self.page.page.locator(".aiinfra-reveal .aiinfra-big").count)

    def ledger(self, kind: str = "prediction") -> list[dict[str, Any]]:
        """Return the lines of one kind in the ledger."""
        path = self.page.lab.home / "lab" / "ledger.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [e for e in map(json.loads, lines) if e["kind"] == kind]

    def first_tick(self) -> float | None:
        """Return the first tick that the figures of the run show, None where there is none yet."""
        found = [min(s["tick"]) for s in self.page.points("series") + self.page.points("bars") if s.get("tick")]
        return min(found) if found else None

    def chip(self, word: str) -> bool:
        """Whether the lab says that it is in this state."""
        return word in chip(self.page)

    def history(self) -> tuple[int, bool]:
        """Return what must come back: how many segments there are, and whether the figures begin where the run did.

        A long series is thinned: its first point stands for the first ticks, the more the longer the run is.
        """
        found = [s["tick"] for s in self.page.points("series") + self.page.points("bars") if s.get("tick")]
        begins = bool(found) and min(map(min, found)) <= 8 + max(map(max, found)) / 50
        return segments(self.page), begins

    def reload(self) -> None:
        """Reload the page, as it was saved."""
        self.page.command("docmanager:save")
        self.page.page.reload()
        self.page.connected()
        self.to_widget()
        self.say("reloaded")

    def restart(self) -> None:
        """Restart the kernel and run every cell again."""
        self.page.page.evaluate(RESTART)
        self.page.connected()
        self.say("kernel restarted")
        self.run_all()

    def open_folds(self) -> None:
        """Open what is folded."""
        while open_folds(self.page):
            self.page.page.wait_for_timeout(300)

    def clean(self) -> None:
        """Most fields were taken up and seen; nothing went wrong in the page, and nothing was asked of anybody else."""
        self.say(f"{len(self.accepted)} taken up, {len(self.refused)} refused {self.refused}, unseen {self.unseen}")
        assert len(self.accepted) >= len(self.refused)
        assert len(self.unseen) <= len(self.accepted) / 4, self.unseen
        assert not self.controls or no_overflow(self.page) == []
        found = {"external": self.page.external, "failed": self.page.failed, "errors": self.page.errors}
        assert not any(found.values()), found
