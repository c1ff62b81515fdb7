"""Scheduling on real ranks: rank 0 decides, the others train. Every job has ranks of its own; nobody else waits for it.

A boundary that may change something lets every job rest between two steps, saved. Where ranks or Spec did change, all jobs
are taken from their nodes and handed out again from there: milliseconds, and one rule for a new policy, a node that
leaves and a node that died.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ...errors import ControlError
from ...experiment import Spec
from ...ranks.node import Arrays, Node, Program
from .measure_head import HeadRole
from .measure_task import Trainer
from .measure_worker import WorkerRole
from .spec import SchedulingSpec


class Scheduling(Program):
    """One rank's part: the scheduler on the first of the active ranks, a node on every other."""

    agrees: ClassVar[bool] = True

    def __init__(self, spec: Spec, node: Node) -> None:
        assert isinstance(spec, SchedulingSpec)
        self.spec, self.node, self.tick = spec, node, 0
        #: Seconds of the run so far, without pauses; every rank knows it, so that any of them can become the scheduler.
        self.clock = np.zeros(1)
        self.role: HeadRole | WorkerRole | None = None
        #: Loaded before the run begins, also on a rank that idles: a node that comes can take a job at once.
        self.trainer = Trainer(spec, node)
        self._doomed: list[int] = []

    def state(self) -> Arrays:
        """The clock; the jobs are in files of their own, as they come and go."""
        return {"clock_s": self.clock}

    def join(self, spec: Spec) -> None:
        """Take up a changed Spec, or another set of ranks."""
        assert isinstance(spec, SchedulingSpec)
        self.spec = spec
        head = self.node.rank == 0
        if not isinstance(self.role, HeadRole if head else WorkerRole):
            if isinstance(self.role, WorkerRole):
                self.role.let_go()  # the scheduler died, and this node is the next one
            self.role = (
                HeadRole(spec, self.node, self.clock) if head else WorkerRole(spec, self.node, self.clock, self.trainer)
            )
        self.role.join(spec)

    def advance(self) -> Mapping[str, float] | None:
        """One window."""
        assert self.role is not None
        self._break()
        found = self.role.window()
        if found is not None:
            self.tick += 1
        return found

    def accept_verb(self, spec: Spec, verb: str, arguments: Mapping[str, Any]) -> None:
        """Refuse what cannot be done to a job or a node.

        Raises:
            ControlError: No such job, or it has ended; no such node.
        """
        if verb == "break" and arguments["node"] not in self.node.ids()[1:]:
            raise ControlError(f"break: there is no node {arguments['node']}; there are {self.node.ids()[1:]}")
        if isinstance(self.role, HeadRole):
            self.role.accept(verb, arguments)

    def act(self, verb: str, arguments: Mapping[str, Any]) -> None:
        """Do it to the books, at the scheduler. A node is broken in the next window, when all that was asked with it is done."""
        if verb == "break":
            self._doomed.append(arguments["node"])
        elif isinstance(self.role, HeadRole):
            self.role.act(verb, arguments)

    def _break(self) -> None:
        """Break nodes as asked, by a signal that they cannot catch."""
        doomed, self._doomed = self._doomed, []
        for node in doomed:
            if self.node.controller and node in self.node.ids():
                self.node.event("killed", node=node, tick=self.tick)
            elif self.node.controller:
                self.node.event("not-done", verb="break", reason=f"node {node} had left by then")
            if self.node.id == node:
                os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Write down what is over, and say what is not."""
        if isinstance(self.role, HeadRole):
            self.role.close()
