"""A server: takes what the desk sends, serves it, answers; asleep while there is nothing to do."""

from __future__ import annotations

import math
import os
import signal
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
    """One server's side of the conversation.

    Attributes:
        doomed: The next message kills it.
    """

    def __init__(self, spec: ServingSpec, node: Node, known: np.ndarray, service: Service | Continuous) -> None:
        self.node, self.known, self.spec, self.service = node, known, spec, service
        self.doomed = False
        self._busy: list[tuple[float, float]] = []  # begin and end of what was done, as far as no window has counted it
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
        self._busy, self._since_s = [], time.monotonic()

    def window(self) -> dict[str, float] | None:
        """Serve until the desk says that the window is over; None when the load is."""
        comm, status = self.node.comm, MPI.Status()
        while True:
            if comm.Iprobe(0, MPI.ANY_TAG, status):
                message = np.empty(status.Get_count(MPI.DOUBLE))
                comm.Recv(message, 0, status.Get_tag())
                if self.doomed:
                    os.kill(os.getpid(), signal.SIGKILL)
                if status.Get_tag() == wire.WINDOW_END:
                    return self._window_end(message)
                self._take(message.reshape(-1, len(wire.TICKET)))
            elif self._step():
                continue
            else:
                time.sleep(POLL_S)

    def _window_end(self, message: np.ndarray) -> dict[str, float] | None:
        verdict, over, ended_s = message[:3]
        self.known[:] = message[3:]
        self.node.verdict = int(verdict)
        if verdict:
            while self._step():
                pass
            self.node.comm.Send(np.empty(0), 0, wire.READY)
        return None if over else {**SAMPLE, "utilization_frac": self._utilization(ended_s)}

    def _utilization(self, ended_s: float) -> float:
        """Share of the window in which it worked; what reaches beyond its end is left for the next ones."""
        busy_s = sum(max(min(end, ended_s) - max(begin, self._since_s), 0.0) for begin, end in self._busy)
        length_s = max(ended_s - self._since_s, 1e-9)
        self._busy = [(begin, end) for begin, end in self._busy if end > ended_s]
        self._since_s = ended_s
        return min(busy_s / length_s, 1.0)

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
            self._busy.append((float(rows[:, 1].min()), float(rows[:, 2].max())))
        else:
            self._busy.append((begun_s, time.monotonic()))
        if rows.size:
            self.node.comm.Send(rows, 0, wire.DONE)
