"""How a lab says things: a count of what a field counts, a value with its unit, what changed between two Specs. Pure text."""

from __future__ import annotations

from typing import Any

from ..experiment import Experiment, Knob, Spec
from ..faults import KINDS
from ..quantities import show
from ..runs.control import Request
from ..texts import ENGLISH, language, tr


def counted(label: str, count: int) -> str:
    """Return `2 nodes` of the label "Nodes", `1 node` for one; a word in capitals keeps them."""
    noun = lowered(label)
    if count == 1 and language() == ENGLISH:
        noun = noun.removesuffix("s")
    return tr("{count} {things}", count=count, things=noun)


def lowered(label: str) -> str:
    """Return a label inside a sentence: in small letters, but for words such as GPU or MiB."""
    return " ".join(w if w[1:] != w[1:].lower() else w.lower() for w in label.split())


def plural(word: str) -> str:
    """Return the plural of what one tick is called (its English name), in the reader's language."""
    return tr(english_plural(word))


def english_plural(word: str) -> str:
    """Return the English plural of a regular noun."""
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def said(knob: Knob, value: Any) -> str:
    """Return a field with its value: `2 nodes`, `Learning rate 0.01`, `Overlap on`."""
    if knob.name == "nodes":
        return counted(knob.label, value)
    return with_label(knob, value)


def with_label(knob: Knob, value: Any) -> str:
    """Return `Learning rate 0.01`, `Overlap on`."""
    return f"{knob.label} {valued(knob, value)}"


def valued(knob: Knob, value: Any) -> str:
    """Return a field's value alone: `0.01`, `on`."""
    return tr("on" if value else "off") if isinstance(value, bool) else amount(knob.unit, value)


def amount(unit: str, value: Any) -> str:
    """Return a value with its unit, as a person reads it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if unit.startswith("1/"):
        return f"{value:.4g}{unit[1:]}"
    if unit:
        return show(unit, value)
    return str(value) if isinstance(value, int) else f"{value:g}"


def difference(before: Spec | None, after: Spec) -> str:
    """Say what changed between two Specs: `2 nodes`, `Learning rate 0.01`; the node count where nothing did."""
    knobs = type(after).knobs()
    changed = [n for n in knobs if before is not None and getattr(before, n) != getattr(after, n)]
    words = [said(knobs[n], getattr(after, n)) for n in changed or ["nodes"]]
    return ", ".join(words[:2]) + (" ..." if len(words) > 2 else "")


def verb_word(verb: str) -> str:
    """Return the name of a verb for people: `Add nodes` of add_nodes."""
    return tr(verb.replace("_", " ").replace("-", " ").capitalize())


def asked_text(exp: Experiment, request: Request) -> str:
    """Return what a request asks for: `Learning rate 0.01`, or `Send (Length 2 s, Priority 2)`."""
    knobs = exp.spec.knobs()
    parts = [with_label(knobs[n], v) for n, v in request.changes.items()]
    if request.verb:
        arguments = exp.all_verbs()[request.verb].arguments.knobs()
        kind = KINDS.get(str(request.arguments.get("kind"))) if request.verb == "fault" else None
        used = {
            n: v for n, v in request.arguments.items() if kind is None or n in kind.uses or (n == "node" and v >= 0)
        }
        with_ = ", ".join(with_label(arguments[n], v) for n, v in used.items())
        parts.append((tr(kind.label) if kind else verb_word(request.verb)) + (f" ({with_})" if with_ else ""))
    return ", ".join(parts)
