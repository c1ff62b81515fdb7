"""Changes that are written down before a run: "step=200 nodes=1"."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import SpecError
from ..experiment import Experiment, Spec
from ..machine.limits import admit
from ..machine.profile import Machine


@dataclass(frozen=True, slots=True)
class Change:
    """One scripted change: at which tick, which fields or which verb."""

    at_tick: int
    fields: dict[str, Any] = field(default_factory=dict)
    verb: str = ""


def parse_changes(exp: Experiment, spec: Spec, texts: Iterable[str]) -> list[Change]:
    """Read changes and check them against the Spec, one after another, before anything runs.

    Args:
        exp: The experiment.
        spec: At the start.
        texts: Each `TICK_NAME=N key=value ...`, or `TICK_NAME=N VERB`.

    Raises:
        SpecError, ControlError: What is wrong with which change.
    """
    found = []
    for text in texts:
        pairs, verb, at_tick = {}, "", None
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise SpecError(f"change {text!r}: cannot be read ({error}); write it as {exp.tick}=N key=value") from error
        for word in words:
            key, sign, value = word.partition("=")
            if not sign:
                if word not in exp.all_verbs():
                    raise SpecError(
                        f"change {text!r}: {word!r} is neither key=value nor one of {', '.join(exp.all_verbs())}"
                    )
                verb = word
            elif key == exp.tick:
                at_tick = value
            else:
                pairs[key] = value
        if at_tick is None or not at_tick.isdecimal():
            raise SpecError(
                f'change {text!r}: it must say when, as {exp.tick}=N; for example: "{exp.tick}=200 nodes=1"'
            )
        then = spec.changed(pairs) if pairs else spec
        if not pairs and not verb:
            raise SpecError(f"change {text!r}: it says when, but not what; add a live field or a verb")
        found.append(Change(int(at_tick), {k: getattr(then, k) for k in pairs}, verb))
        spec = then
    return sorted(found, key=lambda c: c.at_tick)


def room_for(spec: Spec, changes: Iterable[Change], room: int | None) -> int:
    """Return how many ranks to hold: what was asked, else the largest node count that is written down."""
    most = max([spec.nodes, *(c.fields.get("nodes", 1) for c in changes)])
    return room if room is not None else most + spec.coordinators


def ask_all(session: Any, reader: Any, changes: Iterable[Change]) -> None:
    """Put every change into the run's inbox, each with its tick; the prediction of each is kept before it happens."""
    from ..runs import control

    spec = reader.spec
    machine: Machine = session.machine
    for change in changes:
        if "nodes" in change.fields:
            admit(change.fields["nodes"] + spec.coordinators, machine)
        control.ask(reader.run, spec, change.fields or None, verb=change.verb, by="schedule", at_tick=change.at_tick)
        spec = spec.changed(change.fields) if change.fields else spec
