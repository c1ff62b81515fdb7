"""Controls made from the Spec: one field per knob, with its range, unit and help; a wrong value says so in place."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Protocol

import ipywidgets as ipw

from ..errors import SpecError
from ..experiment import Knob
from ..texts import told, tr
from .words import amount

#: A range of whole numbers with more values than this is typed, not dragged.
SLIDER_VALUES = 64
#: Units that people type with a prefix; other units stand beside the slider.
TYPED = {
    "B": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
    "B/s": ((1e9, "GB/s"), (1e6, "MB/s")),
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
}
#: Stops of a logarithmic slider in each decade.
COARSE, FINE = (1, 2, 5), (1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)
LIVE_SIGN = "\u25cf"  # a dot behind the label: may change while the run goes on

Changed = Callable[["Field", Any], None]


def typed(knob: Knob, value: Any) -> str:
    """Return `value` as a person would type it, exactly: `4 MiB`, `2 ms`, `0.05`; `Knob.parse` reads it back."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not knob.unit:
        return f"{value:.12g}" if isinstance(value, float) else str(value)
    for scale, unit in TYPED.get(knob.unit, ()):
        if value and abs(value) >= scale and float(f"{value / scale:.6g}") * scale == value:
            return f"{value / scale:.6g} {unit}"
    return f"{value:.12g}"


def steps(low: float, high: float, *values: float, whole: bool) -> list[float]:
    """Return the stops of a logarithmic slider: powers of two for whole numbers up to 2^16, else per decade 1, 2, 5 or finer.

    Args:
        low, high: The range; a low end of 0 begins at 0.
        values: That must be among them.
        whole: Of a whole number.
    """
    start = max(low, 1 if whole else high * 1e-9)
    if whole and high <= 2**16:
        stops = [2.0**i for i in range(17)]
    else:
        decades = range(math.floor(math.log10(start)), math.ceil(math.log10(high)) + 1)
        stops = [float(f"{m}e{d}") for d in decades for m in (COARSE if whole else FINE)]
    found = {s for s in stops if low <= s <= high} | {low, high, *values}
    return [int(s) for s in sorted(found)] if whole else sorted(found)


def slid(value: Any) -> Any:
    """Return the number that a person meant: sliders add up steps in the browser, and get to 0.9000000000000001."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def control_of(knob: Knob, high: float | None) -> str:
    """Return how a knob is set whose range ends at `high`: switch, list, stops (a slider over them), whole, slider or text."""
    if knob.kind in {"bool", "choice"}:
        return "switch" if knob.kind == "bool" else "list"
    if knob.kind not in {"int", "float"} or knob.low is None or high is None:
        return "text"
    if knob.log and knob.unit not in TYPED:
        return "stops"
    if knob.kind == "int":
        return "whole" if high - knob.low <= SLIDER_VALUES else "text"
    return "text" if knob.unit else "slider"


def stop_text(knob: Knob, value: float) -> str:
    """Return what a stop of a logarithmic slider is called."""
    return amount(knob.unit, value) if knob.unit or abs(value) < 1e6 else f"{value:.0e}"


def stride(knob: Knob, low: float, high: float) -> float:
    """Return the step of a slider: the knob's own, else about a fiftieth of the range, fine enough to come back to the default."""
    if knob.step:
        return knob.step
    coarse = 10.0 ** math.floor(math.log10((high - low) / 50))
    for step in (coarse, coarse / 10, coarse / 100):
        places = (float(knob.default) - low) / step
        if math.isclose(places, round(places), abs_tol=1e-6):
            return step
    return coarse


class Control(Protocol):
    """One field of the Spec as a control, with a line for messages under it."""

    knob: Knob

    def set(self, value: Any) -> None:
        """Show a value without telling anybody."""

    def value(self) -> Any:
        """Return the value in the Spec's type.

        Raises:
            SpecError: What was typed cannot be read.
        """

    def say(self, text: str, kind: str = "") -> None:
        """Show a message; kind is "", "wait", "good" or "bad"."""

    def lock(self, locked: bool) -> None:
        """Make it read-only, or give it back."""


class Field:
    """One knob as a control with a line for messages.

    Args:
        knob: What it sets.
        value: Now.
        changed: Called with the field and the new value, in the Spec's type, when a person changes it.
        most: A tighter upper end than the Spec's, such as what this machine takes.
        marked: Show which fields are live.
    """

    def __init__(
        self, knob: Knob, value: Any, changed: Changed, *, most: float | None = None, marked: bool = True
    ) -> None:
        self.knob, self._changed = knob, changed
        self._silent = 0  # the thread that sets the control by itself, which tells nobody
        self._most = min(x for x in (most, knob.high) if x is not None) if knob.high is not None or most else None
        self.control = self._make(value)
        self.control.description = knob.label + (f" {LIVE_SIGN}" if marked and knob.live else "")
        self.control.tooltip = knob.help + (
            " " + tr("Allowed: {allowed}.", allowed=told(knob.allowed)) if knob.kind != "bool" else ""
        )
        self.control.add_class("aiinfra-control")
        self.message = ipw.HTML(layout={"display": "none"})
        self.message.add_class("aiinfra-message")
        self._known = self.control.value  # a value beyond this one came from a person, and was not handled yet
        self.control.observe(self._moved, "value")
        self.widget = ipw.VBox([self.control, self.message])
        self.widget.add_class("aiinfra-field")
        # A stable name for style sheets and tests, whatever the language.
        self.widget.add_class(f"aiinfra-knob-{knob.name}")

    def _make(self, value: Any) -> ipw.Widget:
        k, low, high = self.knob, self.knob.low or 0.0, self._most or 0.0
        late = {"continuous_update": False}
        match control_of(k, self._most):
            case "switch":
                return ipw.Checkbox(value=value, indent=False)
            case "list":
                return ipw.Dropdown(options=list(k.choices), value=value)
            case "stops":
                stops = steps(low, high, value, whole=k.kind == "int")
                return ipw.SelectionSlider(options=[(stop_text(k, s), s) for s in stops], value=value, **late)
            case "whole":
                return ipw.IntSlider(
                    min=int(low), max=max(int(high), value), value=value, step=int(k.step or 1), **late
                )
            case "slider":
                step = stride(k, low, high)
                return ipw.FloatSlider(min=low, max=high, value=value, step=step, readout_format=".3g", **late)
        return ipw.Text(value=typed(k, value), **late)

    @property
    def is_text(self) -> bool:
        """Whether the value is typed."""
        return isinstance(self.control, ipw.Text)

    def value(self) -> Any:
        """Return the value in the Spec's type.

        Raises:
            SpecError: What was typed cannot be read.
        """
        return self.knob.parse(self.control.value) if self.is_text else slid(self.control.value)

    def set(self, value: Any) -> None:
        """Show `value` without telling anybody."""
        shown = typed(self.knob, value) if self.is_text else value
        # The follower of a run draws in a thread of its own: it must not undo what a person moved in this very moment.
        if self.control.value == shown or self.control.value != self._known:
            return
        self._silent = threading.get_ident()
        try:
            if isinstance(self.control, ipw.SelectionSlider) and value not in [v for _, v in self.control.options]:
                self.control.options = sorted(
                    [*self.control.options, (stop_text(self.knob, value), value)], key=lambda o: float(o[1])
                )
            if isinstance(self.control, ipw.IntSlider) and value > self.control.max:
                self.control.max = value
            self.control.value = shown
            self._known = shown
        finally:
            self._silent = 0

    def say(self, text: str, kind: str = "") -> None:
        """Show a message under the control; kind is "", "wait", "good" or "bad"."""
        html = f'<span class="aiinfra-say aiinfra-say-{kind}" role="status">{escape(text)}</span>' if text else ""
        if self.message.value != html:
            self.message.value = html
            self.message.layout.display = "" if text else "none"

    def lock(self, locked: bool) -> None:
        """Make it read-only, or give it back."""
        self.control.disabled = locked

    def _moved(self, change: Any) -> None:
        if self._silent == threading.get_ident():
            return
        try:
            value = self.value()
            self.say("")
            self._changed(self, value)
        except SpecError as error:
            self.say(plain_reason(self.knob.name, str(error)), "bad")
        finally:
            self._known = change["new"]


def plain_reason(name: str, text: str) -> str:
    """Return an error's text without the field's own name before it, since it stands under the field."""
    head = re.compile(rf"{re.escape(name)}(: |\uff1a)")  # the second is the colon of Chinese texts
    return tr("; ").join(head.sub("", told(line), count=1) for line in text.splitlines() if line.strip())


def blame(fields: Mapping[str, Control], text: str) -> str:
    """Show each line of a SpecError under the field that it names, fields by their labels; return the lines that name none."""
    rest = []
    labels = {n: f.knob.label for n, f in fields.items() if "_" in n}
    for line in text.splitlines():
        name = line.partition(":")[0]
        said = told(line)
        start = len(name) if said.startswith(name) else 0
        line = said[:start] + re.sub(r"\w+", lambda word: labels.get(word[0], word[0]), said[start:], flags=re.ASCII)
        if name in fields:
            fields[name].say(plain_reason(name, line), "bad")
        else:
            rest.append(line)
    return "\n".join(rest)


def grouped(title: str, fields: Mapping[str, Field]) -> ipw.Widget:
    """Return one fold with the fields under the headings of their knobs; an empty box where there are none."""
    groups: dict[str, list[ipw.Widget]] = {}
    for field in fields.values():
        groups.setdefault(field.knob.group or tr("Other"), []).append(field.widget)
    if not groups:
        return ipw.VBox([])
    inside = []
    for heading, members in groups.items():
        box = ipw.VBox([ipw.HTML(f"<h4>{escape(heading)}</h4>"), *members])
        box.add_class("aiinfra-group")
        inside.append(box)
    fold = ipw.Accordion(children=[ipw.VBox(inside)], titles=(title,), selected_index=None)
    fold.add_class("aiinfra-fold")
    return fold
