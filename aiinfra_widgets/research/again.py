"""What was changed in a run, at which tick: so that it can be run again by somebody who was not there."""

from __future__ import annotations

from ..errors import ControlError
from ..launch.schedule import Change
from ..runs import control
from ..runs.reader import RunReader


def changes_of(reader: RunReader) -> list[Change]:
    """Return the requests that a run carried out, each with the tick at which it did.

    What the run asked of itself (an autoscaler) is left out: it will ask again. So is what nobody can ask for (a rank that died).
    """
    reader.poll()
    ticks = {
        e["request"]: int(e["tick"]) for e in reader.kind("applied") if e.get("request") and e.get("tick") is not None
    }
    found = []
    for path in sorted(reader.run.taken.glob("[0-9]*.json")):
        try:
            request = control.read(path)
        except ControlError:
            continue
        if request.id in ticks and request.by not in {"autoscaler", "interrupt", "sweep"}:
            found.append(Change(ticks[request.id], dict(request.changes), request.verb, dict(request.arguments)))
    return sorted(found, key=lambda c: c.at_tick)
