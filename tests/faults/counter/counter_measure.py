"""What the ranks do."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping

import numpy as np
from counter import numbers_at

from aiinfra_widgets.experiment import Spec
from aiinfra_widgets.ranks.node import Arrays, Node, Program


class Counting(Program):
    """Adds one to all numbers, on every rank."""

    def __init__(self, spec: Spec, node: Node) -> None:
        self.node, self.spec, self.tick = node, spec, 0
        if node.id == spec.narrow:  # type: ignore[attr-defined]
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
        self.held = numbers_at(0, spec.numbers)  # type: ignore[attr-defined]
        self.sharded_checkpoints = spec.shards  # type: ignore[attr-defined, misc]

    def state(self) -> Arrays:
        """See `numbers_at`."""
        return self.held

    def join(self, spec: Spec) -> None:
        """Take up another Spec."""
        self.spec = spec

    def advance(self) -> Mapping[str, float] | None:
        """One step, which no rank does alone."""
        if self.tick >= self.spec.steps:  # type: ignore[attr-defined]
            return None
        begun_s = time.perf_counter()
        self.node.comm.Barrier()
        time.sleep(0.001)  # the ranks share the cores with those who watch
        for sign, array in zip((1, [1, -1], 1), self.held.values(), strict=True):
            array += np.asarray(sign, array.dtype)
        self.tick += 1
        return {"count_time_s": time.perf_counter() - begun_s}
