"""What may be done to a run beyond changing a field: the experiment's own verbs, each with a control for every argument."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets as ipw

from ..experiment import Experiment, Verb
from ..texts import tr
from .controls import Field
from .state import Asked
from .verbs import Ask, VerbForm
from .words import verb_word

#: Up to so many verbs have a button each; more are chosen from a list.
BUTTONS = 3


class Form(VerbForm):
    """One verb: its arguments as controls, a button that asks, and a line for the answer.

    Args:
        verb: With arguments, or without.
        ask: Called with the verb's name and the values; returns what was asked.
    """

    def __init__(self, verb: Verb, ask: Ask) -> None:
        super().__init__(verb, ask)
        knobs = verb.arguments.knobs()
        fields = {n: Field(k, k.default, lambda *_: None, marked=False) for n, k in knobs.items()}
        self.fields = fields
        self.button = ipw.Button(description=label(verb), tooltip=tr(verb.help))
        self.button.add_class("aiinfra-button")
        self.button.on_click(lambda _: self.submit())
        self.message = ipw.HTML()
        help_ = ipw.HTML(f'<p class="aiinfra-note">{escape(tr(verb.help))}</p>')
        self.root = ipw.VBox([help_, *(f.widget for f in fields.values()), self.button, self.message])
        self.root.add_class("aiinfra-form")

    def say(self, text: str, kind: str = "") -> None:
        """Show a line under the button; kind as for a `Field`."""
        html = f'<span class="aiinfra-say aiinfra-say-{kind}" role="status">{escape(text)}</span>' if text else ""
        if self.message.value != html:
            self.message.value = html

    def lock(self, locked: bool) -> None:
        """Make it read-only, or give it back."""
        self.button.disabled = locked
        for field in self.fields.values():
            field.lock(locked)


class Actions:
    """The verbs of an experiment beside its live fields; an empty box where it has none of its own.

    Args:
        exp: Whose verbs.
        ask: As for `Form`.
    """

    def __init__(self, exp: Experiment, ask: Ask) -> None:
        self.forms = {v.name: Form(v, ask) for v in exp.verbs}
        self.buttons: dict[str, ipw.Button] = {}
        self.picker: ipw.Dropdown | None = None
        picker = self._few(exp.verbs) if len(self.forms) <= BUTTONS else self._many(exp.verbs)
        heading = ipw.HTML(f"<h4>{escape(tr('Actions'))}</h4>")
        self.root = ipw.VBox([heading, picker, *(f.root for f in self.forms.values())] if self.forms else [])
        self.root.add_class("aiinfra-actions")
        self.open("" if self.picker is None else self.picker.value)

    def _few(self, verbs: Sequence[Verb]) -> ipw.Widget:
        for verb in verbs:
            button = ipw.Button(
                description=label(verb) + (" ..." if self.forms[verb.name].fields else ""), tooltip=tr(verb.help)
            )
            button.add_class("aiinfra-button")
            button.on_click(lambda _, name=verb.name: self.press(name))
            self.buttons[verb.name] = button
        row = ipw.HBox(list(self.buttons.values()))
        row.add_class("aiinfra-verbs")
        return row

    def _many(self, verbs: Sequence[Verb]) -> ipw.Widget:
        self.picker = ipw.Dropdown(options=[(label(v), v.name) for v in verbs], value=verbs[0].name)
        self.picker.add_class("aiinfra-control")
        self.picker.observe(lambda change: self.open(change["new"]), "value")
        return self.picker

    def press(self, name: str) -> None:
        """A verb's own button: one without arguments is asked for at once, the form of another is opened or closed."""
        form = self.forms[name]
        opened = "aiinfra-hidden" not in form.root._dom_classes
        if form.fields:
            self.open("" if opened else name)
        else:
            self.open(name)
            form.submit()

    def open(self, name: str) -> None:
        """Show one form; "" shows none."""
        for other, form in self.forms.items():
            alone = not form.fields and other in self.buttons  # its button is up there; here is its answer
            form.button.layout.display = "none" if alone else ""
            form.root.add_class("aiinfra-hidden") if other != name else form.root.remove_class("aiinfra-hidden")
        for other, button in self.buttons.items():
            button.add_class("aiinfra-open") if other == name else button.remove_class("aiinfra-open")

    def draw(self, asked: Sequence[Asked], tick: str, *, locked: bool) -> None:
        """Show answers, and whether anything may be asked now."""
        for form in self.forms.values():
            form.answer(asked, tick)
            form.lock(locked)
        for button in self.buttons.values():
            button.disabled = locked
        if self.picker is not None:
            self.picker.disabled = locked


def label(verb: Verb) -> str:
    """Return a verb's name for people."""
    return verb_word(verb.name)
