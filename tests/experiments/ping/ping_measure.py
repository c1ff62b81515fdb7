"""What the ranks do."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from aiinfra_widgets.experiment import Spec
from aiinfra_widgets.ranks.node import Arrays, Node, Program

TRIPS = 50


class PingPong(Program):
    """The first rank sends, the last answers; those between look on."""

    def __init__(self, spec: Spec, node: Node) -> None:
        self.node, self.spec, self.tick = node, spec, 0

    def state(self) -> Arrays:
        """Nothing is worth keeping."""
        return {}

    def join(self, spec: Spec) -> None:
        """Take up another length."""
        self.spec, self.message = spec, np.zeros(spec.size_bytes, np.uint8)  # type: ignore[attr-defined]

    def advance(self) -> Mapping[str, float] | None:
        """Fifty round trips; their mean."""
        if self.tick >= self.spec.rounds:  # type: ignore[attr-defined]
            return None
        comm, last = self.node.comm, self.node.size - 1
        comm.Barrier()
        begun_s = time.perf_counter()
        for _ in range(TRIPS):
            if self.node.rank == 0:
                comm.Send(self.message, last)
                comm.Recv(self.message, last)
            elif self.node.rank == last:
                comm.Recv(self.message, 0)
                comm.Send(self.message, 0)
        self.tick += 1
        first = self.node.rank == 0
        return {"round_trip_s": (time.perf_counter() - begun_s) / TRIPS if first else float("nan")}
