"""Breaking something on purpose: a kind of fault, a node, what it needs, a button - and a sentence on what will happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as ipw

from ..experiment import COMMON_VERBS, Knob
from ..faults import KINDS
from ..texts import tr
from .controls import Control, Field
from .state import Look
from .verbs import Ask, VerbForm

VERB = next(v for v in COMMON_VERBS if v.name == "fault")
LAST = -1


class Breaking(VerbForm):
    """A fold with the verb `fault` of every experiment.

    Args:
        ask: Called with the verb's name and the values; returns what was asked.
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__(VERB, ask)
        knobs = VERB.arguments.knobs()
        more = {
            n: Field(k, k.default, lambda *_: None, marked=False) for n, k in knobs.items() if n not in {"kind", "node"}
        }
        self.kind = ipw.Dropdown(options=[(tr(k.label), k.name) for k in KINDS.values()], description=tr("What"))
        self.node = ipw.Dropdown(options=self._nodes(()), description=tr("Where"))
        for picker in (self.kind, self.node):
            picker.add_class("aiinfra-control")
        self._more = more
        self.fields: dict[str, Control] = {
            "kind": _Picked(knobs["kind"], self.kind, self.say),
            "node": _Picked(knobs["node"], self.node, self.say),
            **more,
        }
        self.help = ipw.HTML()
        self.button = ipw.Button(
            description=tr("Break it"),
            tooltip=tr("Do it now, for real; only this run is touched"),
            button_style="danger",
        )
        self.button.add_class("aiinfra-button")
        self.button.on_click(lambda _: self.submit())
        self.message = ipw.HTML()
        inside = ipw.VBox(
            [self.kind, self.help, self.node, *(f.widget for f in more.values()), self.button, self.message]
        )
        inside.add_class("aiinfra-form")
        self.root = ipw.Accordion(children=[inside], titles=(tr("Break something"),), selected_index=None)
        self.root.add_class("aiinfra-fold")
        self.kind.observe(lambda _: self._chosen(), "value")
        self._chosen()

    def say(self, text: str, kind: str = "") -> None:
        """Show a line under the button; kind as for a `Field`."""
        html = f'<span class="aiinfra-say aiinfra-say-{kind}" role="status">{escape(text)}</span>' if text else ""
        if self.message.value != html:
            self.message.value = html

    def draw(self, look: Look, tick: str, *, locked: bool) -> None:
        """Show what became of it, and the nodes that are at work now."""
        self.answer(look.asked, tick)
        self.button.disabled = locked
        nodes = self._nodes(look.members)
        if tuple(self.node.options) != tuple(nodes):
            chosen = self.node.value
            self.node.options = nodes
            self.node.value = chosen if chosen in look.members else LAST

    def _chosen(self) -> None:
        kind = KINDS[self.kind.value]
        self.help.value = f'<p class="aiinfra-note">{escape(tr(kind.help))}</p>'
        for name, field in self._more.items():
            field.widget.remove_class("aiinfra-hidden") if name in kind.uses else field.widget.add_class(
                "aiinfra-hidden"
            )

    @staticmethod
    def _nodes(members: Sequence[int]) -> list[tuple[str, int]]:
        return [(tr("the last node at work"), LAST), *((tr("node {number}", number=m), m) for m in members)]


class _Picked:
    """A list to choose from, as a `Control`."""

    def __init__(self, knob: Knob, picker: ipw.Dropdown, say: Callable[[str, str], None]) -> None:
        self.knob = knob
        self._picker, self._say = picker, say

    def set(self, value: Any) -> None:
        self._picker.value = value

    def value(self) -> Any:
        return self._picker.value

    def say(self, text: str, kind: str = "") -> None:
        if text:
            self._say(text, kind)

    def lock(self, locked: bool) -> None:
        self._picker.disabled = locked
