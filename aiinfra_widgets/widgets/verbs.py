"""Asking a verb of an experiment with its arguments, whatever draws the form: ipywidgets in a notebook, Panel in the app."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import LabError, SpecError
from ..experiment import Verb
from ..texts import tr
from .controls import Control, blame, plain_reason
from .state import Asked

Ask = Callable[[str, Mapping[str, Any]], Asked]


class VerbForm:
    """The part of a form that knows no widgets. A renderer makes `fields`, and says how the line below them is changed.

    Args:
        verb: What is asked.
        ask: Asks it; raises what is wrong with it.
    """

    fields: Mapping[str, Control]

    def __init__(self, verb: Verb, ask: Ask) -> None:
        self.verb, self._ask, self._asked = verb, ask, ""

    def say(self, text: str, kind: str = "") -> None:
        """Show a line under the button; kind as for a `Control`."""
        raise NotImplementedError

    def submit(self) -> None:
        """Ask with the values as they are; what is wrong is said under its field, or under the button."""
        self.say("")
        values: dict[str, Any] = {}
        for name, field in self.fields.items():
            try:
                values[name] = field.value()
                field.say("")
            except SpecError as error:
                field.say(plain_reason(name, str(error)), "bad")
        if len(values) < len(self.fields):
            return
        try:
            self._asked = self._ask(self.verb.name, values).id
            self.say(tr("Asked ..."), "wait")
        except LabError as error:
            self.say(blame(self.fields, str(error).removeprefix(f"{self.verb.name}: ")), "bad")

    def answer(self, asked: Sequence[Asked], tick: str) -> None:
        """Show what became of the last request, once that is known."""
        found = next((a for a in asked if a.id == self._asked and a.answer), None)
        if found is not None:
            self._asked = ""
            result = found.result(tick)
            self.say(result[:1].upper() + result[1:], "bad" if found.refused else "good")
