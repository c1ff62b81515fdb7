"""Controls made from a Spec, by Panel: one field per knob with its range, unit and help; a wrong value says so in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import param

from ..errors import SpecError
from ..experiment import COMMON_VERBS, Experiment, Knob, Verb
from ..faults import KINDS
from ..texts import tr
from ..widgets.actions import label
from ..widgets.controls import (
    LIVE_SIGN,
    control_of,
    plain_reason,
    slid,
    steps,
    stop_text,
    stride,
    typed,
)
from ..widgets.state import Asked
from ..widgets.verbs import Ask, VerbForm
from . import parts
from .parts import pn

FAULT = next(v for v in COMMON_VERBS if v.name == "fault")


class Field:
    """One knob as a Panel widget with a line for messages; see `widgets.controls.Control`.

    Args:
        knob: What it sets.
        value: Now.
        changed: Called with the field and the new value, in the Spec's type, when a person changes it.
        most: A tighter upper end than the Spec's, such as what this machine takes.
        marked: Show which fields are live.
    """

    def __init__(
        self,
        knob: Knob,
        value: Any,
        changed: Callable[[Field, Any], None],
        *,
        most: float | None = None,
        marked: bool = True,
    ) -> None:
        self.knob, self._changed, self._silent = knob, changed, False
        self._most = min(x for x in (most, knob.high) if x is not None) if knob.high is not None or most else None
        self.kind = control_of(knob, self._most)
        self._name = knob.label + (f" {LIVE_SIGN}" if marked and knob.live else "")
        self._value, self._said, self._locked = value, ("", ""), False
        self._built: Any = None

    @property
    def widget(self) -> Any:
        """Its place on the page, made when it is asked for: of some sixty fields most stay in a fold that nobody opens."""
        if self._built is None:
            self.control = self._make(self._value, self._name)
            self.control.disabled = self._locked
            self.message = parts.html("", "message")
            #: What tells that a person is done: a slider only when it is let go.
            self._when = "value_throttled" if self.kind in {"stops", "whole", "slider"} else "value"
            self.control.param.watch(self._moved, self._when)
            self._built = parts.column("field", self.control, self.message)
            self._built.css_classes = ["field", f"knob-{self.knob.name}"]
            self.say(*self._said)
        return self._built

    def _make(self, value: Any, name: str) -> Any:
        k, low, high = self.knob, self.knob.low or 0.0, self._most or 0.0
        looks = {"label": name, "stylesheets": [parts.STYLE], **parts.WIDE}
        help_ = k.help + ("" if k.kind == "bool" else " " + tr("Allowed: {allowed}.", allowed=k.allowed))
        match self.kind:
            case "switch":
                return pn.widgets.Checkbox(value=value, **looks)
            case "list":
                return pn.widgets.Select(options=list(k.choices), value=value, description=help_, **looks)
            case "stops":
                stops = steps(low, high, value, whole=k.kind == "int")
                return pn.widgets.DiscreteSlider(options={stop_text(k, s): s for s in stops}, value=value, **looks)
            case "whole":
                end, whole = max(int(high), int(value)), int(k.step or 1)
                return pn.widgets.IntSlider(start=int(low), end=end, value=value, step=whole, **looks)
            case "slider":
                step = stride(k, low, high)
                return pn.widgets.FloatSlider(start=low, end=high, value=value, step=step, format="0[.]000", **looks)
        return pn.widgets.TextInput(value=typed(k, value), description=help_, **looks)

    def value(self) -> Any:
        """Return the value in the Spec's type.

        Raises:
            SpecError: What was typed cannot be read.
        """
        if self._built is None:
            return self._value
        return self.knob.parse(self.control.value) if self.kind == "text" else slid(self.control.value)

    def set(self, value: Any) -> None:
        """Show `value` without telling anybody."""
        self._value = value
        shown = typed(self.knob, value) if self.kind == "text" else value
        if self._built is None or self.control.value == shown:
            return
        self._silent = True
        try:
            if self.kind == "stops" and value not in self.control.values:
                more = {**self.control.options, stop_text(self.knob, value): value}
                self.control.options = dict(sorted(more.items(), key=lambda o: float(o[1])))
            if self.kind == "whole" and value > self.control.end:
                self.control.end = value
            self.control.value = shown
            if self._when == "value_throttled":  # or the same value, asked for again, would be no change
                with param.edit_constant(self.control):
                    self.control.value_throttled = shown
        finally:
            self._silent = False

    def say(self, text: str, kind: str = "") -> None:
        """Show a message under the control; kind is "", "wait", "good" or "bad"."""
        self._said = (text, kind)
        if self._built is not None:
            parts.put(self.message, said(text, kind))
            parts.show(self.message, bool(text))

    def lock(self, locked: bool) -> None:
        """Make it read-only, or give it back."""
        self._locked = locked
        if self._built is not None and self.control.disabled != locked:
            self.control.disabled = locked

    def _moved(self, _: Any) -> None:
        if self._silent:
            return
        try:
            value = self.value()
        except SpecError as error:
            self.say(plain_reason(self.knob.name, str(error)), "bad")
            return
        self.say("")
        self._changed(self, value)


def said(text: str, kind: str) -> str:
    """Return a message as HTML; "" for none."""
    return f'<span class="aiinfra-say aiinfra-say-{kind}" role="status">{escape(text)}</span>' if text else ""


def grouped(title: str, fields: Mapping[str, Field]) -> Any:
    """Return one fold with the fields under the headings of their knobs, made when it is opened first."""
    if not fields:
        return parts.column("none")
    fold = pn.Card(
        title=title, collapsed=True, css_classes=["fold"], header_css_classes=["card-header", "fold-head"],
        stylesheets=[parts.STYLE], **parts.WIDE,
    )  # fmt: skip

    def fill(_: Any) -> None:
        groups: dict[str, list[Any]] = {}
        for field in fields.values() if not fold.objects else ():
            groups.setdefault(field.knob.group or tr("Other"), []).append(field.widget)
        if groups:
            heads = {h: parts.html(f"<h4>{escape(h)}</h4>") for h in groups}
            fold.objects = [parts.column("group", heads[h], *m) for h, m in groups.items()]

    fold.param.watch(fill, "collapsed")
    return fold


class Form(VerbForm):
    """One verb of an experiment: its arguments, a button that asks, and a line for the answer."""

    def __init__(self, verb: Verb, ask: Ask) -> None:
        super().__init__(verb, ask)
        knobs = verb.arguments.knobs()
        self.own = {n: Field(k, k.default, lambda *_: None, marked=False) for n, k in knobs.items()}
        self.fields = dict(self.own)
        self.button = parts.button(label(verb), verb.help, self.submit)
        self.message = parts.html("", "message")
        self.root = parts.column("form", *(f.widget for f in self.own.values()), self.button, self.message)

    def say(self, text: str, kind: str = "") -> None:
        """Show a line under the button; kind as for a `Field`."""
        parts.put(self.message, said(text, kind) if text else "")

    def draw(self, asked: Sequence[Asked], tick: str, *, locked: bool) -> None:
        """Show what became of the last request, once that is known, and whether anything may be asked now."""
        for field in self.fields.values():
            field.lock(locked)
        if self.button.disabled != locked:
            self.button.disabled = locked
        self.answer(asked, tick)


class Breaking(Form):
    """The verb `fault` of every experiment in a fold: a kind, what will happen, and the fields that this kind looks at."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(FAULT, ask)
        inside, picker = self.root, self.own["kind"].widget[0]
        picker.options = {tr(k.label): k.name for k in KINDS.values()}
        self.button.label = tr("Break it")
        self.help = parts.html("", "note")
        inside.insert(1, self.help)
        picker.param.watch(lambda _: self._chosen(), "value")
        self._chosen()
        self.root = pn.Card(
            inside, title=tr("Break something"), collapsed=True, css_classes=["fold", "breaking"],
            header_css_classes=["card-header", "fold-head"], stylesheets=[parts.STYLE], **parts.WIDE,
        )  # fmt: skip

    def _chosen(self) -> None:
        kind = KINDS[self.own["kind"].value()]
        parts.put(self.help, f'<p class="aiinfra-note">{escape(tr(kind.help))}</p>')
        for name, field in self.own.items():
            if name not in {"kind", "node"}:
                parts.show(field.widget, name in kind.uses)


def forms(exp: Experiment, ask: Ask) -> list[Form]:
    """Return a form for each verb that the experiment adds, and last the one that breaks something."""
    return [*(Form(verb, ask) for verb in exp.verbs), Breaking(ask)]
