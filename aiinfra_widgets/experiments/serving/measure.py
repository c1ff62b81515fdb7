"""Serving on real ranks: rank 0 is the desk, the others are servers. They talk in four kinds of message, never in a collective.

A window is one tick. The desk ends it by a message to each server, which carries the boundary's verdict with it; a server
reads it when it is done with what came before. So nobody ever waits for a busy server, and idle ranks sleep.
"""

from __future__ import annotations

import os
import signal
import time
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
        #: Seconds of load so far, without pauses; every rank knows it, so that any of them can become the desk.
        self.clock = np.zeros(1)
        self.role: DeskRole | ServerRole | None = None
        #: Loaded before the run begins, also on a rank that idles: a server that comes must not keep its first request waiting.
        self.service = make_service(spec, node.cache, slow=False)

    def state(self) -> Arrays:
        """The clock; what waits at the desk is not state: it is asked for again."""
        return {"clock_s": self.clock}

    def join(self, spec: Spec) -> None:
        """Take up a changed Spec, or another set of ranks."""
        assert isinstance(spec, ServingSpec)
        self.spec = spec
        if not isinstance(self.role, DeskRole if self.node.rank == 0 else ServerRole):
            desk = self.node.rank == 0
            self.role = (
                DeskRole(spec, self.node, self.clock) if desk else ServerRole(spec, self.node, self.clock, self.service)
            )
        self.role.join(spec)

    def advance(self) -> Mapping[str, float] | None:
        """One window."""
        assert self.role is not None
        found = self.role.window()
        if found is not None:
            self.tick += 1
        return found

    def accept_verb(self, spec: Spec, verb: str, arguments: Mapping[str, Any]) -> None:
        """Refuse to kill a server that there is not.

        Raises:
            ControlError: With the positions that there are.
        """
        if verb == "kill" and arguments["server"] >= spec.nodes:
            raise ControlError(f"kill: server is {arguments['server']}; allowed: 0 to {spec.nodes - 1}")

    def act(self, verb: str, arguments: Mapping[str, Any]) -> None:
        """Kill a server, at once and for real: it gets no time to say anything."""
        if self.node.controller:
            self.node.event("killed", server=arguments["server"], tick=self.tick)
            time.sleep(0.05)  # the event is on disk before the rank is gone
        if self.node.rank == arguments["server"] + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Write down what is still waiting."""
        if isinstance(self.role, DeskRole):
            self.role.close()
