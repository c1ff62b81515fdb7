"""Serving on real ranks: rank 0 is the desk, the others are servers. They talk in four kinds of message, never in a collective.

A window is one tick. The desk ends it by a message to each server, which carries the boundary's verdict with it; a server
reads it when it is done with what came before. So nobody ever waits for a busy server, and idle ranks sleep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ...errors import ControlError
from ...experiment import Spec
from ...ranks.node import Arrays, Node, Program
from .measure_desk import DeskRole
from .measure_server import ServerRole
from .measure_services import make_service
from .spec import ServingSpec


class Serving(Program):
    """One rank's part: the desk on the first of the active ranks, a server on every other."""

    agrees: ClassVar[bool] = True

    def __init__(self, spec: Spec, node: Node) -> None:
        assert isinstance(spec, ServingSpec)
        self.spec, self.node, self.tick = spec, node, 0
        #: Seconds of load so far without pauses, requests so far, how many have no outcome: what a rank that becomes the desk needs.
        self.known = np.zeros(3)
        self.role: DeskRole | ServerRole | None = None
        #: Loaded before the run begins, also on a rank that idles: a server that comes must not keep its first request waiting.
        self.service = make_service(spec, node.cache, slow=False)

    def state(self) -> Arrays:
        """How far the load is. Who waits at the desk is no state: they are lost with it, and it is said how many."""
        return {"known": self.known}

    def join(self, spec: Spec) -> None:
        """Take up a changed Spec, or another set of ranks."""
        assert isinstance(spec, ServingSpec)
        self.spec = spec
        if not isinstance(self.role, DeskRole if self.node.rank == 0 else ServerRole):
            if self.node.rank == 0:
                self.role = DeskRole(spec, self.node, self.known, takes_over=self.role is not None)
            else:
                self.role = ServerRole(spec, self.node, self.known, self.service)
        self.role.join(spec)

    def advance(self) -> Mapping[str, float] | None:
        """One window."""
        assert self.role is not None
        found = self.role.window()
        if found is not None:
            self.tick += 1
        return found

    def accept(self, spec: Spec) -> None:
        """Refuse another rate for a trace, which has its own.

        Raises:
            ControlError: With what would change the load.
        """
        assert isinstance(spec, ServingSpec)
        if spec.arrivals == "trace" and spec.arrival_rate_per_s != self.spec.arrival_rate_per_s:
            raise ControlError(
                f"arrival_rate_per_s: got {spec.arrival_rate_per_s:g}, but a trace goes at its own pace; "
                "start a run with arrivals=poisson, or with another trace"
            )

    def accept_verb(self, spec: Spec, verb: str, arguments: Mapping[str, Any]) -> None:
        """Refuse to kill a server that there is not, and the last one.

        Raises:
            ControlError: With the positions that there are.
        """
        if verb != "kill":
            return
        assert isinstance(spec, ServingSpec)
        if arguments["server"] >= spec.nodes:
            raise ControlError(
                f"kill: server is {arguments['server']}; allowed: 0 to {spec.nodes - 1}, for {spec.nodes} at work"
            )
        if spec.nodes == 1:
            raise ControlError(
                "kill: server 0 is the only one, and nobody would be left to answer; allowed from 2 servers on; ask for nodes=2 first"
            )

    def act(self, verb: str, arguments: Mapping[str, Any]) -> None:
        """Kill a server for real, with the next that it is told: it dies with a request in its hands, and says nothing."""
        if self.node.controller:
            self.node.event("killed", server=arguments["server"], tick=self.tick)
        if isinstance(self.role, ServerRole) and self.node.rank == arguments["server"] + 1:
            self.role.doomed = True

    def close(self) -> None:
        """Write down what is still waiting."""
        if isinstance(self.role, DeskRole):
            self.role.close()
