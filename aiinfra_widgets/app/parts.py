"""Pieces that a page is laid out with. Their looks are in static/app.css; each lies in a shadow root of its own, so each names it."""

from __future__ import annotations

from typing import Any

import panel

#: Panel's own hints make its widgets untyped functions.
pn: Any = panel
#: Served by `serve`: the style sheet of the lab's widgets, and ours after it.
STYLE = "/style.css"
WIDE = {"sizing_mode": "stretch_width", "margin": 0}


def html(text: str = "", *classes: str) -> Any:
    """Return a text; `put` changes it."""
    return pn.pane.HTML(_wrapped(text), css_classes=list(classes), stylesheets=[STYLE], **WIDE)


def _wrapped(text: str) -> str:
    return f'<div class="aiinfra-lab">{text}</div>' if text else ""


def put(pane: Any, text: str) -> None:
    """Change a text where it differs: an equal one would be sent and drawn again."""
    if pane.object != _wrapped(text):
        pane.object = _wrapped(text)


def column(name: str, *children: Any, **more: Any) -> Any:
    """Return children below each other, of the class `name`."""
    return pn.Column(*children, css_classes=[name], stylesheets=[STYLE], **WIDE, **more)


def show(item: Any, yes: bool) -> None:
    """Show or hide by a class: what lays out a grid would win over Bokeh's own way."""
    classes = [c for c in item.css_classes if c != "hidden"] + ([] if yes else ["hidden"])
    if item.css_classes != classes:
        item.css_classes = classes


def card(number: str, title: str, *children: Any) -> Any:
    """Return a numbered card."""
    head = html(f'<h3 class="card-title"><span class="aiinfra-number">{number}</span>{title}</h3>')
    return column("card", head, *children)


def button(text: str, tip: str, press: Any, *, first: bool = False) -> Any:
    """Return a button that calls `press`."""
    found = pn.widgets.Button(
        label=text, description=tip or None, color="primary" if first else "default", stylesheets=[STYLE],
        css_classes=["press"], margin=0,
    )  # fmt: skip
    found.on_click(lambda _: press())
    return found
