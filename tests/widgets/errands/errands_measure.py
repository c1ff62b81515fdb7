"""The desk and its carriers on real ranks: the desk decides by the clock, carriers report how busy they were."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from aiinfra_widgets.errors import ControlError
from aiinfra_widgets.ranks.node import Arrays, Node, Program

TICK_S = 0.05


class Desk(Program):
    """Rank 0 of the active nodes is the desk; a tick is one look at the clock."""

    def __init__(self, spec: Any, node: Node) -> None:
        self.spec, self.node, self.tick = spec, node, 0
        self.clock = np.zeros(2)  # seconds of the run, number of the next errand
        self.waiting: list[tuple[int, float, float]] = []
        self.away: dict[int, tuple[int, float, float, float]] = {}

    def state(self) -> Arrays:
        return {"clock": self.clock}

    def join(self, spec: Any) -> None:
        self.spec = spec
        self.away = {c: trip for c, trip in self.away.items() if c < self.node.size}

    def accept_verb(self, spec: Any, verb: str, arguments: Mapping[str, Any]) -> None:
        if verb == "drop" and arguments["errand"] not in [e for e, _, _ in self.waiting]:
            raise ControlError(f"errand {arguments['errand']} does not wait; {len(self.waiting)} wait")

    def act(self, verb: str, arguments: Mapping[str, Any]) -> None:
        if verb == "send":
            self.waiting.append((int(self.clock[1]), float(self.clock[0]), float(arguments["length_s"])))
            self.clock[1] += 1
        elif verb == "drop":
            self.waiting = [w for w in self.waiting if w[0] != arguments["errand"]]

    def advance(self) -> Mapping[str, float] | None:
        if self.tick == self.spec.ticks:
            return None
        time.sleep(TICK_S)
        now = self.clock[0] + TICK_S
        busy = np.zeros(self.node.size)
        found = self._desk(now, busy) if self.node.controller else {}
        self.node.comm.Bcast(busy, 0)
        self.clock[0] = now
        self.tick += 1
        return found or {"carrier_busy_frac": float(busy[self.node.rank])}

    def _desk(self, now: float, busy: Any) -> dict[str, float]:
        due = int(now * self.spec.errands_per_s) - int(self.clock[0] * self.spec.errands_per_s)
        for _ in range(due):
            self.waiting.append((int(self.clock[1]), now, self.spec.errand_s))
            self.clock[1] += 1
        waits = []
        for carrier in range(1, self.node.size):
            if carrier in self.away and self.away[carrier][3] <= now:
                errand, came, begin, _ = self.away.pop(carrier)
                self.node.record("trips", self.node.segment, (carrier, errand, begin, now, came))
            if carrier not in self.away and self.waiting:
                errand, came, length = self.waiting.pop(0)
                self.away[carrier] = (errand, came, now, now + length)
                self.node.record("trips", self.node.segment, (carrier, errand, now, math.nan, came))
                waits.append(now - came)
            busy[carrier] = carrier in self.away
        wait = float(np.mean(waits)) if waits else math.nan
        return {"errand_wait_s": wait, "errands_waiting": float(len(self.waiting))}
