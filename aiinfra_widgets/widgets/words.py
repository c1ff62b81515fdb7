"""How a lab says things: a count of what a field counts, a value with its unit, what changed between two Specs. Pure text."""

from __future__ import annotations

from typing import Any

from ..experiment import Knob, Spec
from ..quantities import show


def counted(label: str, count: int) -> str:
    """Return `2 servers` of the label "Servers", `1 server` for one; a word in capitals keeps them."""
    noun = lowered(label)
    return f"{count} {noun.removesuffix('s') if count == 1 else noun}"


def lowered(label: str) -> str:
    """Return a label inside a sentence: in small letters, but for words such as GPU or MiB."""
    return " ".join(w if w[1:] != w[1:].lower() else w.lower() for w in label.split())


def plural(word: str) -> str:
    """Return the plural of what one tick is called."""
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def said(knob: Knob, value: Any) -> str:
    """Return a field with its value: `2 nodes`, `Learning rate 0.01`, `Overlap on`."""
    if knob.name == "nodes":
        return counted(knob.label, value)
    if isinstance(value, bool):
        return f"{knob.label} {'on' if value else 'off'}"
    return f"{knob.label} {amount(knob.unit, value)}"


def amount(unit: str, value: Any) -> str:
    """Return a value with its unit, as a person reads it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return show(unit, value) if unit else f"{value:g}"


def difference(before: Spec | None, after: Spec) -> str:
    """Say what changed between two Specs: `2 nodes`, `Learning rate 0.01`; the node count where nothing did."""
    knobs = type(after).knobs()
    changed = [n for n in knobs if before is not None and getattr(before, n) != getattr(after, n)]
    words = [said(knobs[n], getattr(after, n)) for n in changed or ["nodes"]]
    return ", ".join(words[:2]) + (" ..." if len(words) > 2 else "")
