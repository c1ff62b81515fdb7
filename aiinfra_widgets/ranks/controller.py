"""Deciding: the controller takes requests from the inbox at a boundary and turns them into one plan, or refuses with a reason."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import ControlError, LabError, near
from ..experiment import Experiment, Spec
from ..machine.limits import admit, admit_relaunch
from ..machine.profile import Machine
from ..runs.control import Request, arguments_of, read
from ..runs.layout import RunDir
from ..runs.writer import EventWriter

#: The inbox is looked at no more often than this: listing it takes some 50 us.
LOOK_S = 0.04
#: Cause of a segment in which spare nodes have taken the place of dead ones.
SPARE = "spare"


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
    cause: str = ""
    regroup: list[int] = field(default_factory=list)
    faults: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    calm: list[str] = field(default_factory=list)
    going: list[tuple[str, dict[str, Any], float]] = field(default_factory=list)


class Accepts(Protocol):
    """What only the programme can see to be impossible, it refuses by raising a LabError."""

    def accept(self, spec: Spec) -> None:
        """See `node.Program`."""

    def accept_verb(self, spec: Spec, verb: str, arguments: Mapping[str, Any]) -> None:
        """See `node.Program`."""


class Breaks(Protocol):
    """Faults: what can be done, and what is over; see `chaos.Chaos`."""

    def accept(self, spec: Spec, given: Mapping[str, Any], members: Sequence[int]) -> dict[str, Any]:
        """Return the arguments of a fault, or raise a ControlError."""

    def over(self, now: float) -> list[str]:
        """Return the requests whose time is up."""


class Controller:
    """Lives on the first active node; a new one takes over from the files when that node dies."""

    def __init__(
        self,
        run: RunDir,
        exp: Experiment,
        machine: Machine,
        event: EventWriter,
        program: Accepts | None = None,
        chaos: Breaks | None = None,
        writing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.run, self.exp, self.machine, self.event, self.program = run, exp, machine, event, program
        self.chaos, self._born_s = chaos, time.monotonic()
        self._writing = writing  # whether the checkpoint before is still on its way to the disk
        self.paused = False
        #: Nodes that there were before some died: as many are asked for once, of the spare ones. 0: nothing is missing.
        self.missing = 0
        self._waiting: dict[str, Request] = {}
        self._decided: list[str] = []
        self._looked_s = self._quiet_until_s = 0.0
        self._checkpointed_s, self._checkpointed_tick = time.monotonic(), -1

    def decide(self, tick: int, spec: Spec, members: list[int], alive: Callable[[], list[int]]) -> Plan | None:
        """Return a plan, or None where there is nothing to do at this boundary.

        Args:
            tick: Ticks done.
            spec: As it is now.
            members: Active nodes.
            alive: Returns every live node of the pool; asked only when there is something to decide.
        """
        now = time.monotonic()
        if now < self._quiet_until_s:  # most boundaries end here, in cold code: keep it short
            return None
        every = float(getattr(spec, "checkpoint_every_s", 0.0))
        # Never twice of one tick: where writing takes longer than `every`, nothing else would ever be done.
        due = every > 0 and now - self._checkpointed_s >= every and tick != self._checkpointed_tick
        late = due and self._writing()
        due = due and not late  # a slow disk makes checkpoints rare, and holds up no tick
        if now - self._looked_s >= LOOK_S:
            self._look(now, tick)
        ready = [n for n, r in self._waiting.items() if r.ready(tick, now - self._born_s)]
        over = self.chaos.over(now) if self.chaos else []
        if not ready and not due and not over and not self.missing:
            if not self._waiting:
                look_s = self._looked_s + LOOK_S
                self._quiet_until_s = min(look_s, self._checkpointed_s + every) if every > 0 and not late else look_s
            return None
        plan = Plan(spec.model_dump(), members, now, paused=self.paused, checkpoint=due, calm=over)
        for name in ready:
            request = self._waiting[name]
            try:
                spec = self._take(request, plan, spec, alive())
                self._decided.append(name)
            except LabError as error:
                self._refuse(name, request.id, tick, str(error))
        spec = self._restore(plan, spec, alive)
        if not self._decided and not due and not over and not plan.cause:
            return None
        plan.spec = spec.model_dump()
        if plan.checkpoint:
            self._checkpointed_s, self._checkpointed_tick = now, tick
        return plan

    def _restore(self, plan: Plan, spec: Spec, alive: Callable[[], list[int]]) -> Spec:
        """Let spare nodes take the place of dead ones, once, unless somebody asked for another node count."""
        missing, self.missing = self.missing, 0
        asked = any("nodes" in self._waiting[name].changes for name in self._decided)
        if not missing or asked or plan.relaunch or plan.end:
            return spec
        there = alive()
        nodes = min(missing, len(there) - spec.coordinators)
        if nodes <= spec.nodes:
            return spec
        plan.members, plan.cause = there[: nodes + spec.coordinators], SPARE
        return spec.changed({"nodes": nodes})

    def settled(self, paused: bool) -> None:
        """The plan was carried out: what it answers leaves the inbox."""
        self.paused = paused
        for name in self._decided:
            self._leave(name)
        self._decided.clear()

    def again(self, paused: bool) -> None:
        """A node died, so the plan that was decided may name it: forget it and decide anew, from the same files."""
        self.paused = paused
        self._decided.clear()

    def refuse_rest(self, tick: int, *, scheduled: bool) -> None:
        """The run ends: refuse what is left in the inbox; `scheduled` also what waits for a later tick."""
        self._look(time.monotonic(), tick)
        for name, request in list(self._waiting.items()):
            if scheduled or not request.scheduled:
                self._refuse(name, request.id, tick, "the run ended before it could be done")

    def _look(self, now: float, tick: int) -> None:
        """Read what is new in the inbox. A file stays there until it is decided, for whoever controls the run by then."""
        self._looked_s = now
        for name in sorted(os.listdir(self.run.inbox)):
            if name.startswith(".") or not name.endswith(".json") or name in self._waiting:
                continue
            try:
                self._waiting[name] = read(self.run.inbox / name)
            except ControlError as error:
                self._refuse(name, name.removesuffix(".json"), tick, f"{name}: {error}")

    def _refuse(self, name: str, request: str, tick: int, reason: str) -> None:
        self.event("refused", request=request, tick=tick, reason=reason)
        self._leave(name)

    def _leave(self, name: str) -> None:
        self._waiting.pop(name, None)
        with contextlib.suppress(FileNotFoundError):
            (self.run.inbox / name).replace(self.run.taken / name)

    def _take(self, request: Request, plan: Plan, spec: Spec, alive: list[int]) -> Spec:
        """Put one request into the plan; raises where it must be refused, and then leaves the plan as it was."""
        if request.verb and request.verb not in self.exp.all_verbs():
            raise ControlError(f"{self.exp.name} cannot {request.verb!r}; {near(request.verb, self.exp.all_verbs())}")
        if not request.changes and not request.verb:
            raise ControlError("nothing was asked: give live fields to change, or a verb")
        then = spec.changed(request.changes) if request.changes else spec
        if then.ranks > len(alive):
            admit(then.ranks, self.machine)
            admit_relaunch(then.ranks)
        if request.changes:
            self.exp.admit(then, self.machine)
        if self.program:
            self.program.accept(then)
        own = request.verb in {v.name for v in self.exp.verbs}
        arguments = arguments_of(self.exp.all_verbs()[request.verb], request.arguments) if own else request.arguments
        if own and self.program:
            self.program.accept_verb(then, request.verb, arguments)
        fault = (
            self.chaos.accept(then, request.arguments, plan.members) if request.verb == "fault" and self.chaos else {}
        )
        if then.ranks > len(alive):
            plan.relaunch = then.nodes
        elif then.ranks != len(plan.members):
            plan.members, plan.relaunch = alive[: then.ranks], 0
        else:
            plan.relaunch = 0
        match request.verb:
            case "":
                pass
            case "pause":
                plan.paused = True
            case "resume":
                plan.paused = False
            case "checkpoint":
                plan.checkpoint = True
            case "stop" if request.arguments.get("requeue") is True:
                plan.relaunch = then.nodes  # a scheduler ends this start of the job; the next one goes on
            case "stop":
                plan.end = "interrupted" if request.arguments.get("orphaned") is True else "stopped"
                plan.message = str(request.arguments.get("why", "")) or f"stopped by {request.by}"
            case "fault":
                plan.faults.append((request.id, fault))
            case verb:
                plan.verbs.append((verb, dict(arguments)))
        plan.requests.append(request.id)
        return then
