"""Pieces that every lab's screen is laid out with; their looks are in the style sheets, by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as ipw


def card(number: str, title: str, children: Sequence[ipw.Widget]) -> ipw.Widget:
    """Return a numbered card."""
    head = ipw.HTML(f'<h3><span class="aiinfra-number">{number}</span>{escape(title)}</h3>')
    found = ipw.VBox([head, *children])
    found.add_class("aiinfra-card")
    found.add_class(f"aiinfra-card-{number}")
    return found


def box(name: str, children: Sequence[ipw.Widget]) -> ipw.Box:
    """Return children below each other, of the class `aiinfra-NAME`."""
    found = ipw.VBox(list(children))
    found.add_class(f"aiinfra-{name}")
    return found


def html(name: str = "") -> ipw.HTML:
    """Return an empty text, of the class `aiinfra-NAME`."""
    found = ipw.HTML()
    if name:
        found.add_class(f"aiinfra-{name}")
    return found


def note(text: str) -> ipw.HTML:
    """Return a remark in small type."""
    return ipw.HTML(f'<p class="aiinfra-note">{escape(text)}</p>')


def button(text: str, tip: str, press: Callable[[], None], style: str = "") -> ipw.Button:
    """Return a button that calls `press`."""
    found = ipw.Button(description=text, tooltip=tip, button_style=style)
    found.add_class("aiinfra-button")
    found.on_click(lambda _: press())
    return found


def put(widget: ipw.HTML, text: str) -> None:
    """Change a text where it differs: an equal one would be sent and drawn again."""
    if widget.value != text:
        widget.value = text


def show(widget: ipw.Widget, yes: bool) -> None:
    """Show or hide by a class: a style would lose against the style sheets' grids."""
    hidden = "aiinfra-hidden" in widget._dom_classes
    if yes and hidden:
        widget.remove_class("aiinfra-hidden")
    elif not yes and not hidden:
        widget.add_class("aiinfra-hidden")
