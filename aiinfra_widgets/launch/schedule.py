"""What a person types to ask something of a run: "nodes=1", "submit size=4", and beforehand "step=200 nodes=1"."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import SpecError
from ..experiment import Experiment, Spec
from ..faults import Timed
from ..runs import control
from ..runs.control import arguments_of


@dataclass(frozen=True, slots=True)
class Change:
    """One scripted change: at which tick, which fields, or which verb with which arguments."""

    at_tick: int
    fields: dict[str, Any] = field(default_factory=dict)
    verb: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Words:
    """What was typed, sorted: texts as they are, for the Spec and the verb to read. `at_tick` "" says nothing of when."""

    fields: dict[str, str]
    verb: str
    arguments: dict[str, str]
    at_tick: str


def read_words(exp: Experiment, words: Iterable[str], whole: str) -> Words:
    """Sort `key=value ... VERB key=value ...`: a pair that names an argument of the verb is the verb's, any other a live field.

    A pair before the verb that could be either is the field's.

    Args:
        exp: Names the tick, the fields and the verbs.
        words: As typed.
        whole: How messages name all of it.

    Raises:
        SpecError: A word that is neither, two verbs, or a name twice with different values.
    """
    fields: dict[str, str] = {}
    arguments: dict[str, str] = {}
    verb = at_tick = ""
    words = list(words)
    verbs = [w for w in words if "=" not in w]
    if len(verbs) > 1 and all(v in exp.all_verbs() for v in verbs):
        raise SpecError(f"{whole}: {' and '.join(verbs)} are two verbs; ask for one after the other")
    known = exp.all_verbs()[verbs[0]].arguments.knobs() if verbs and verbs[0] in exp.all_verbs() else {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            if word not in exp.all_verbs():
                raise SpecError(f"{whole}: {word!r} is neither key=value nor one of {', '.join(exp.all_verbs())}")
            verb = word
            continue
        if key == exp.tick and key not in known:
            at_tick = value
            continue
        mine = arguments if key in known and (verb or key not in exp.spec.knobs()) else fields
        if mine.setdefault(key, value) != value:
            raise SpecError(f"{whole}: {key}: got {mine[key]!r} and {value!r}; give it once")
    return Words(fields, verb, arguments, at_tick)


def parse_changes(exp: Experiment, spec: Spec, texts: Iterable[str]) -> list[Change]:
    """Read changes and check them against the Spec, one after another, before anything runs.

    Args:
        exp: The experiment.
        spec: At the start.
        texts: Each `TICK_NAME=N key=value ...`, or `TICK_NAME=N VERB argument=value ...`.

    Raises:
        SpecError, ControlError: What is wrong with which change.
    """
    found = []
    for text in texts:
        try:
            typed = shlex.split(text)
        except ValueError as error:
            raise SpecError(f"change {text!r}: cannot be read ({error}); write it as {exp.tick}=N key=value") from error
        words = read_words(exp, typed, f"change {text!r}")
        if not words.at_tick.isdecimal():
            raise SpecError(
                f'change {text!r}: it must say when, as {exp.tick}=N; for example: "{exp.tick}=200 nodes=1"'
            )
        then = spec.changed(words.fields) if words.fields else spec
        if not words.fields and not words.verb:
            raise SpecError(f"change {text!r}: it says when, but not what; add a live field or a verb")
        given = arguments_of(exp.all_verbs()[words.verb], words.arguments) if words.verb else {}
        fields = {k: getattr(then, k) for k in words.fields}
        found.append(Change(int(words.at_tick), fields, words.verb, given))
        spec = then
    return sorted(found, key=lambda c: c.at_tick)


def room_for(spec: Spec, changes: Iterable[Change], room: int | None) -> int:
    """Return how many ranks to hold: what was asked, else the largest node count that is written down."""
    most = max([spec.nodes, *(c.fields.get("nodes", 1) for c in changes)])
    return room if room is not None else most + spec.coordinators


def ask_all(session: Any, reader: Any, changes: Iterable[Change]) -> None:
    """Put every change into the run's inbox, each with its tick; the prediction of each is kept before it happens."""
    spec = reader.spec
    for change in changes:
        if "nodes" in change.fields:
            session.admit(change.fields["nodes"] + spec.coordinators, session.pool)
        control.ask(
            reader.run, spec, change.fields or None, verb=change.verb, arguments=change.arguments, by="schedule",
            at_tick=change.at_tick,
        )  # fmt: skip
        spec = spec.changed(change.fields) if change.fields else spec


def ask_faults(session: Any, reader: Any, faults: Iterable[Timed]) -> None:
    """Put faults into the run's inbox, each with its second; the ranks carry them out, whoever has left by then."""
    for timed in faults:
        session.ask(reader, verb="fault", arguments=timed.fault.model_dump(), by="chaos", after_s=timed.after_s)


def ask_now(session: Any, reader: Any, words: Sequence[str], *, wait_s: float, by: str = "cli") -> dict[str, Any]:
    """Ask something of a run that goes on, and wait for the controller's decision.

    Args:
        session: Of whoever asks.
        reader: Of the run.
        words: As for `read_words`; with `TICK_NAME=N` it is asked for that tick, and not waited for.
        wait_s: Longest time to wait.
        by: Who asks, for the record.

    Returns:
        Plain JSON types: `run`, `request`, `asked` (the words), `kind` ("applied", "refused", or "asked" where it is not decided
        yet), `tick`, `cost_s` and `reason`, `answer_s` (from asking until the answer was seen here), None where they do not apply.

    Raises:
        SpecError, ControlError, AdmissionError: What is wrong with it; nothing was asked then.
    """
    said = " ".join(words)
    typed = read_words(reader.experiment, words, repr(said))
    if typed.at_tick and not typed.at_tick.isdecimal():
        raise SpecError(f"{said!r}: got {typed.at_tick!r}; {reader.experiment.tick} is a whole number from 0")
    at_tick = int(typed.at_tick) if typed.at_tick else None
    begun_s = time.monotonic()
    request = session.ask(
        reader, typed.fields or None, verb=typed.verb, by=by, arguments=typed.arguments or None, at_tick=at_tick
    )

    def decided() -> Any:
        reader.poll_events()
        return reader.answer(request.id)

    answer = (control.wait_decided(decided, wait_s) if at_tick is None else None) or {"kind": "asked"}
    took_s = time.monotonic() - begun_s if answer["kind"] != "asked" else None
    about = {"run": reader.run.id, "request": request.id, "asked": said, "answer_s": took_s}
    return {**about, **{k: answer.get(k) for k in ("kind", "tick", "cost_s", "reason")}}
