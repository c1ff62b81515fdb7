"""Deciding: the controller takes requests from the inbox at a boundary and turns them into one plan, or refuses with a reason."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import ControlError, LabError
from ..experiment import Experiment, Spec
from ..machine.limits import admit
from ..machine.profile import Machine
from ..runs.control import Request, parse
from ..runs.layout import RunDir
from ..runs.writer import EventWriter

#: The inbox is looked at no more often than this: listing it takes some 50 us, so 0.25 percent at worst.
LOOK_S = 0.02


@dataclass
class Plan:
    """What every active node does at this boundary. Plain JSON types, because it is broadcast."""

    spec: dict[str, Any]
    members: list[int]
    decided_s: float
    requests: list[str] = field(default_factory=list)
    verbs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    paused: bool = False
    checkpoint: bool = False
    end: str = ""
    message: str = ""
    relaunch: int = 0


class Controller:
    """Lives on the first active node; a new one takes over from the files when that node dies."""

    def __init__(self, run: RunDir, exp: Experiment, machine: Machine, event: EventWriter) -> None:
        self.run, self.exp, self.machine, self.event = run, exp, machine, event
        self.paused = False
        self._waiting: list[Request] = []
        self._looked_s = 0.0
        self._checkpointed_s = time.monotonic()

    def decide(self, tick: int, spec: Spec, members: list[int], alive: Callable[[], list[int]]) -> Plan | None:
        """Return a plan, or None where there is nothing to do at this boundary.

        Args:
            tick: Ticks done.
            spec: As it is now.
            members: Active nodes.
            alive: Returns every live node of the pool; asked only when there is something to decide.
        """
        now = time.monotonic()
        every = float(getattr(spec, "checkpoint_every_s", 0.0))
        due = every > 0 and now - self._checkpointed_s >= every
        if now - self._looked_s < LOOK_S and not due and not self._waiting:
            return None
        self._look(now)
        ready = [r for r in self._waiting if r.at_tick is None or r.at_tick <= tick]
        if not ready and not due:
            return None
        self._waiting = [r for r in self._waiting if r not in ready]
        plan = Plan(spec.model_dump(), members, now, paused=self.paused, checkpoint=due)
        for request in ready:
            try:
                spec = self._take(request, plan, spec, alive())
            except LabError as error:
                self.event("refused", request=request.id, tick=tick, reason=str(error))
        plan.spec = spec.model_dump()
        self.paused = plan.paused
        if plan.checkpoint:
            self._checkpointed_s = now
        return plan if ready or due else None

    def _look(self, now: float) -> None:
        self._looked_s = now
        for name in sorted(os.listdir(self.run.inbox)):
            if name.startswith(".") or not name.endswith(".json"):
                continue
            path = self.run.inbox / name
            try:
                self._waiting.append(parse(json.loads(path.read_text())))
            except (ValueError, ControlError) as error:
                self.event("refused", request=path.stem, reason=f"{name}: {error}")
            path.replace(self.run.taken / name)

    def _take(self, request: Request, plan: Plan, spec: Spec, alive: list[int]) -> Spec:
        """Put one request into the plan; raises where it must be refused, and then leaves the plan as it was."""
        then = spec.changed(request.changes) if request.changes else spec
        if then.nodes > len(alive):
            admit(then.nodes, self.machine)
            plan.relaunch = then.nodes
        elif then.nodes != len(plan.members):
            plan.members, plan.relaunch = alive[: then.nodes], 0
        match request.verb:
            case "":
                pass
            case "pause":
                plan.paused = True
            case "resume":
                plan.paused = False
            case "checkpoint":
                plan.checkpoint = True
            case "stop":
                plan.end, plan.message = "stopped", str(request.arguments.get("why", "")) or f"stopped by {request.by}"
            case verb if verb in self.exp.all_verbs():
                plan.verbs.append((verb, dict(request.arguments)))
            case verb:
                raise ControlError(f"{self.exp.name} cannot {verb!r}")
        plan.requests.append(request.id)
        return then
