"""A server: takes what the desk sends, serves it, answers; asleep while there is nothing to do."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import numpy as np
from mpi4py import MPI

from ...ranks.node import Node
from . import wire
from .measure_services import Answer, Continuous, Demand, Service, make_service
from .spec import ServingSpec
from .windows import SAMPLE

#: Nobody looks for a message more often; a wake-up takes some 60 us more.
POLL_S = 1e-4


class ServerRole:
    """One server's side of the conversation."""

    def __init__(self, spec: ServingSpec, node: Node, clock: np.ndarray, service: Service | Continuous) -> None:
        self.node, self.clock, self.spec, self.service = node, clock, spec, service
        self._busy_s = 0.0
        self._since_s = time.monotonic()

    def join(self, spec: ServingSpec) -> None:
        """Take up a changed Spec; a service that may hold requests of a desk that is gone is made anew."""
        slow = spec.slow_node == self.node.rank - 1
        same = (spec.batching == "continuous") == (self.spec.batching == "continuous")
        if same and not getattr(self.service, "active", 0):
            self.service.configure(spec, slow)
        else:
            self.service = make_service(spec, self.node.cache, slow)
        self.spec = spec
        self._busy_s, self._since_s = 0.0, time.monotonic()

    def window(self) -> dict[str, float] | None:
        """Serve until the desk says that the window is over; None when the load is."""
        comm, status = self.node.comm, MPI.Status()
        while True:
            if comm.Iprobe(0, MPI.ANY_TAG, status):
                message = np.empty(status.Get_count(MPI.DOUBLE))
                comm.Recv(message, 0, status.Get_tag())
                if status.Get_tag() == wire.WINDOW_END:
                    return self._window_end(message)
                self._take(message.reshape(-1, len(wire.TICKET)))
            elif self._step():
                continue
            else:
                time.sleep(POLL_S)

    def _window_end(self, message: np.ndarray) -> dict[str, float] | None:
        verdict, over, self.clock[0] = message
        self.node.verdict = int(verdict)
        if verdict:
            while self._step():
                pass
            self.node.comm.Send(np.empty(0), 0, wire.READY)
        now = time.monotonic()
        busy = min(self._busy_s / max(now - self._since_s, 1e-9), 1.0)
        self._busy_s, self._since_s = 0.0, now
        return None if over else {**SAMPLE, "utilization_frac": busy}

    def _take(self, rows: np.ndarray) -> None:
        demands = [Demand(int(number), size, arrived_s) for number, size, arrived_s, _ in rows]
        service = self.service
        if hasattr(service, "add"):
            for demand in demands:
                service.add(demand)
            return
        self._answer(service.serve(demands, ready_s=float(rows[0, 3])))

    def _step(self) -> bool:
        """Do one iteration of a service that works on several requests at once; whether there was one to do."""
        if not getattr(self.service, "active", 0):
            return False
        begun_s = time.monotonic()
        self._answer(self.service.step(), begun_s)  # type: ignore[union-attr]
        return True

    def _answer(self, answers: Iterable[Answer], begun_s: float = math.nan) -> None:
        rows = np.array([(a.id, a.started_s, a.ended_s, a.first_token_s) for a in answers], float)
        if begun_s != begun_s:
            self._busy_s += float(rows[:, 2].max() - max(rows[:, 1].min(), self._since_s))
        else:
            self._busy_s += time.monotonic() - begun_s
        if rows.size:
            self.node.comm.Send(rows, 0, wire.DONE)
