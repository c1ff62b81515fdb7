"""The learner's own words on why prediction and measurement differ: a small field below the comparison."""

from __future__ import annotations

from html import escape

import ipywidgets as ipw

from ..course import ledger
from ..errors import ControlError, LabError
from ..texts import told, tr
from . import cards
from .state import LabState, Look


def explain(state: LabState, text: str) -> None:
    """Write `text` into the ledger, to the prediction that belongs to the run that is shown.

    Raises:
        ControlError: No prediction was committed for it, nothing ran yet, no words or too many.
        StorageError: The ledger cannot be written.
    """
    with state.lock:
        entry = state.entry() if state.reader is not None else ""
        if not entry:
            raise ControlError("there is nothing to explain yet; commit a prediction, and run")
        ledger.explain(entry, text)


class Explanation:
    """A text field, a button and what became of it. Shown once a run with a committed prediction has ended."""

    def __init__(self, state: LabState) -> None:
        self._state = state
        self.text = ipw.Textarea(placeholder=tr("I expected ... because ... In fact ..."), rows=2)
        self.text.add_class("aiinfra-explain-text")
        self.button = ipw.Button(description=tr("Keep"), tooltip=tr("Write it into the ledger, beside your prediction"))
        self.button.add_class("aiinfra-button")
        self.button.on_click(lambda _: self._keep())
        self.said = cards.html("explain-say")
        ask = cards.html("explain-ask")
        question = tr("Why do your prediction and the measurement differ? Your own words, for the ledger.")
        cards.put(ask, f"<p class='aiinfra-question'>{escape(question)}</p>")
        self.root = cards.box("explain", [ask, self.text, cards.box("explain-row", [self.button, self.said])])
        cards.show(self.root, False)

    def draw(self, look: Look) -> None:
        """Show the field where there is something to explain."""
        cards.show(self.root, look.guess is not None and look.phase == "ended" and bool(look.comparisons))

    def _keep(self) -> None:
        try:
            explain(self._state, self.text.value)
            said, how = tr("Kept in your ledger. You may say it again; your latest words count."), "good"
        except LabError as error:
            said, how = told(str(error)), "bad"
        cards.put(self.said, f'<span class="aiinfra-say aiinfra-say-{how}" role="status">{escape(said)}</span>')
