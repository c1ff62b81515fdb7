"""Asking something of a run. Anyone may ask; the run's controller decides, and says so in its events."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ControlError, SpecError, near
from ..experiment import Spec, Verb, experiment
from .layout import RunDir, keep_predictions, write_json

#: A request is a few hundred bytes; more is something else.
MOST_BYTES = 2**20
#: A request for a later moment than this many seconds is a mistake.
MOST_AFTER_S = 1e7


@dataclass(frozen=True, slots=True)
class Request:
    """One request: live fields to set, or a verb to carry out.

    Attributes:
        id: Sorts by time of asking.
        by: Who asked: "lab", "cli", "schedule", "chaos", "autoscaler" ...
        changes: Live Spec fields and their new values.
        verb: A verb of the experiment, or "".
        arguments: Of the verb.
        at_tick: Not before this tick; None is "as soon as possible".
        after_s: Not before so many seconds of this launch of the run; None is at once.
    """

    id: str
    by: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    verb: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    at_tick: int | None = None
    asked_at_s: float = 0.0
    after_s: float | None = None

    @property
    def scheduled(self) -> bool:
        """Whether it was asked for a certain moment, and not for now."""
        return self.at_tick is not None or self.after_s is not None

    def ready(self, tick: int, since_s: float) -> bool:
        """Whether its moment has come: `tick` ticks are done, and the launch is `since_s` seconds old."""
        return (self.at_tick is None or self.at_tick <= tick) and (self.after_s is None or self.after_s <= since_s)


def ask(
    run: RunDir,
    spec: Spec,
    changes: Mapping[str, Any] | None = None,
    *,
    verb: str = "",
    arguments: Mapping[str, Any] | None = None,
    by: str = "lab",
    at_tick: int | None = None,
    after_s: float | None = None,
    predicted: bool = True,
) -> Request:
    """Validate a request, keep the prediction of what it leads to, and put it into the inbox.

    Args:
        run: The run.
        spec: The run's Spec as it is now (the reader knows it).
        changes: Live fields to set.
        verb, arguments: Something to do to the run.
        by: Who asks.
        at_tick: Earliest tick.
        after_s: Earliest second of this launch of the run.
        predicted: Keep the prediction; a rank that asks leaves it to what was foreseen, for predicting would hold it up.

    Raises:
        ControlError: Not a live field, unknown verb, or nothing asked.
        SpecError: A value that is not allowed.
    """
    exp = experiment(run.read_manifest()["experiment"])
    if not changes and not verb:
        raise ControlError("nothing was asked: give live fields to change, or a verb")
    plain: dict[str, Any] = {}
    if changes:
        then = spec.changed(changes)
        plain = {name: getattr(then, name) for name in changes}
        if predicted:
            keep_predictions(run, then)
    args: dict[str, Any] = {}
    if verb:
        verbs = exp.all_verbs()
        if verb not in verbs:
            raise ControlError(f"{exp.name} cannot {verb!r}; {near(verb, verbs)}")
        args = arguments_of(verbs[verb], arguments or {})
    stamp = f"{time.time_ns():020d}-{secrets.token_hex(2)}"
    request = Request(stamp, by, plain, verb, args, at_tick, time.time(), after_s)
    write_json(run.inbox / f"{request.id}.json", asdict(request))
    return request


def pending(run: RunDir) -> list[Request]:
    """Return the requests in the inbox, oldest first; what is not a request is left for the controller to refuse."""
    found = []
    for path in sorted(run.inbox.glob("[0-9]*.json")):
        with contextlib.suppress(ControlError):
            found.append(read(path))
    return found


def parse(data: Any) -> Request:
    """Read one request written by anyone.

    Raises:
        ControlError: It is not of the form.
    """
    try:
        known = {k: data[k] for k in Request.__dataclass_fields__ if k in data}
        request = Request(**known)
        if (
            not isinstance(request.changes, dict)
            or not isinstance(request.arguments, dict)
            or not isinstance(request.verb, str)
        ):
            raise TypeError("changes and arguments are objects, verb is text")
        if not isinstance(request.id, str) or not isinstance(request.by, str):
            raise TypeError("id and by are text")
        if request.at_tick is not None and (not isinstance(request.at_tick, int) or isinstance(request.at_tick, bool)):
            raise TypeError("at_tick is a whole number")
        if request.after_s is not None and (
            isinstance(request.after_s, bool) or not 0 <= request.after_s <= MOST_AFTER_S
        ):
            raise TypeError(f"after_s is a number from 0 to {MOST_AFTER_S:g}")
    except (TypeError, KeyError, AttributeError) as error:
        raise ControlError(f"not a request: {error}") from error
    return request


def read(path: Path) -> Request:
    """Read one file of the inbox, where anyone may put anything.

    Raises:
        ControlError: Not a request: no regular file, too large, no JSON, not of the form.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ControlError("not a request: no regular file")
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ControlError(f"not a request: larger than {MOST_BYTES} bytes")
        return parse(json.loads(text))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ControlError):
            raise
        raise ControlError(f"not a request: {getattr(error, 'strerror', None) or error}") from error


def discard(run: RunDir) -> list[str]:
    """Put aside what was asked of a run "as soon as possible" and never decided, before it is resumed; return the ids.

    A `stop` that the last incarnation could not take any more would otherwise end the next one at its first boundary.
    What was asked for a certain tick stays.
    """
    found = []
    for path in sorted(run.inbox.glob("[!.]*.json")):
        with contextlib.suppress(ControlError):
            if read(path).scheduled:
                continue
        path.replace(run.taken / path.name)
        found.append(path.stem)
    return found


def wait_decided(
    decided: Callable[[], Mapping[str, Any] | None], timeout_s: float = 10.0, pause_s: float = 0.01
) -> Mapping[str, Any] | None:
    """Poll `decided` until it returns the controller's answer; None when the time is up."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        answer = decided()
        if answer is not None:
            return answer
        time.sleep(pause_s)
    return None


def arguments_of(verb: Verb, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked arguments of a verb, defaults filled in.

    Raises:
        ControlError: What is wrong with which of them.
    """
    try:
        return verb.arguments.make(given).model_dump()
    except SpecError as error:
        raise ControlError(f"{verb.name}: {error}") from error
