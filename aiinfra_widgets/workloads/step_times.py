"""A training step's parts as functions of size, from a machine's calibration. Neither torch nor a clock is needed.

# n nodes, b samples of one node, P parameters
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..machine.profile import Machine
from ..models import MeasuredAllreduce
from ..models.grid import TimeGrid
from ..models.links import MeasuredLink, hierarchical_allreduce_time_s
from .calibrated import Which
from .facts import Optimizer, perceptron
from .layer_times import LayerTimes


class StepTimes(LayerTimes):
    """What a training step is made of, as functions of size.

    Args:
        machine, which: See `Calibrated`.
        algorithm: Of the all-reduce; "hierarchical" on several hosts goes by their links, all else by the library's.
    """

    def __init__(self, machine: Machine, which: Which = "median", algorithm: str = "mpi") -> None:
        super().__init__(machine, which)
        self.algorithm = algorithm

    @cached_property
    def glue_s(self) -> float:
        """Seconds of a step that no operation by itself accounts for: a tiny net's whole step, less the sum of its parts."""
        whole = self.machine.need("step")[0]
        layers = perceptron(*whole.at["widths"])
        parts = self.forward_backward_s(layers, "classification", float(whole.at["batch"]))
        parts += self.update_s(sum(layer.params for layer in layers), 1.0) + self.tail_s(1.0)
        return max(float(getattr(whole, self.which) - parts), 0.0)

    def gather_s(self, row: float, b: Any) -> Any:
        """Return seconds to fetch b rows of `row` numbers."""
        return self._gather.time_s(row, b)

    @cached_property
    def _gather(self) -> TimeGrid:
        return self.grid("gather", "row", "batch")

    def update_s(self, params: int, n: Any, optimizer: Optimizer = "sgd") -> Any:
        """Return seconds to clear gradients and update, while n ranks do the same.

        Args:
            params: Numbers that this rank updates.
            n: Ranks.
            optimizer: Stochastic gradient descent with momentum, or AdamW.
        """
        return self.grid("update", "params", "ranks", optimizer=optimizer).time_s(np.maximum(params, 1), n)

    def tail_s(self, n: Any) -> Any:
        """Return seconds of bookkeeping on the buffer's tail."""
        return self.grid("tail", "ranks").time_s(n)

    def runtime_s(self) -> float:
        """Return the lab's own seconds between two steps."""
        return self.one("runtime")

    @cached_property
    def _allreduce(self) -> MeasuredAllreduce:
        rows = self.machine.need("allreduce")
        return MeasuredAllreduce.from_points((p.at["bytes"], p.at["ranks"], getattr(p, self.which)) for p in rows)

    def allreduce_s(self, size_bytes: Any, n: Any) -> Any:
        """Return seconds of one all-reduce among n ranks that arrive together."""
        if self.algorithm == "hierarchical" and self.machine.hosts:
            return self._hierarchical_s(size_bytes, np.asarray(n))
        return np.where(np.asarray(n) > 1, self._allreduce.time_s(size_bytes, np.maximum(n, 2)), 0.0)

    def _hierarchical_s(self, size_bytes: Any, n: Any) -> Any:
        """By the calibrated links, one stage after the other; ranks of a host that share its cores take turns inside it."""
        hosts, most = self.machine.spread(np.maximum(n, 1))
        # Hosts with one slot each have no inside, and then nothing passes there.
        between, within = self._between, self._within if np.max(most) > 1 else self._between
        turns = self.shared_core_factor(most)
        sum_s_per_byte = self.copy_s(1, 1)
        inside_s = hierarchical_allreduce_time_s(size_bytes, 1, most, within, between, sum_s_per_byte)
        across_s = hierarchical_allreduce_time_s(size_bytes, hosts, 1, within, between, sum_s_per_byte)
        return np.where(n > 1, turns * inside_s + across_s, 0.0)

    @cached_property
    def _between(self) -> MeasuredLink:
        return self.link("between")

    @cached_property
    def _within(self) -> MeasuredLink:
        return self.link("within")

    def reduce_scatter_s(self, size_bytes: Any, n: Any) -> Any:
        """Return seconds of one reduce-scatter among n ranks that arrive together; the whole array has `size_bytes`."""
        return self._message_s("reduce_scatter", size_bytes, n)

    def all_gather_s(self, size_bytes: Any, n: Any) -> Any:
        """Return seconds of one all-gather among n ranks that arrive together; the whole array has `size_bytes`."""
        return self._message_s("all_gather", size_bytes, n)

    def all_to_all_s(self, size_bytes: Any, n: Any) -> Any:
        """Return seconds of one all-to-all among n ranks that arrive together; each has `size_bytes` for all, itself included."""
        return self._message_s("all_to_all", size_bytes, n)

    def send_s(self, size_bytes: Any, n: Any) -> Any:
        """Return seconds until a message of `size_bytes` is with a neighbour, while n ranks send or receive in pairs."""
        return self._message_s("send", size_bytes, n)

    def hand_over_s(self, alone_s: Any, size_bytes: Any, n: Any) -> Any:
        """Return seconds from the end of a rank's arithmetic until a neighbour that waits for its message goes on.

        Args:
            alone_s: What each of them computes in between, on a core of its own.
            size_bytes: Of the message.
            n: Ranks on this machine that hand over in pairs.
        """
        n = np.maximum(n, 2)
        base_s = self._lockstep_base.time_s(alone_s) * self.shared_core_factor(np.minimum(n, self.machine.cores))
        hop_s = self.grid("relay", "ranks", "alone_s").time_s(n, alone_s)
        return np.maximum(hop_s - base_s, 0.0) + self.send_s(size_bytes, n)

    def _message_s(self, name: str, size_bytes: Any, n: Any) -> Any:
        if name not in self._messages:
            self._messages[name] = self.grid(name, "ranks", "bytes")
        time_s = self._messages[name].time_s(np.maximum(n, 2), np.maximum(size_bytes, 1))
        return np.where(np.asarray(n) > 1, time_s, 0.0)[()]

    @cached_property
    def _messages(self) -> dict[str, TimeGrid]:
        return {}

    def copy_s(self, size_bytes: float, n: int) -> float:
        """Return seconds in which a rank copies so much of its own memory while n ranks do the same.

        As long as the probe, a sum of two arrays into one of them, takes for arrays of that size: a processor fetches what it is about
        to overwrite, so both move three times the size.
        """
        return float(3 * size_bytes * self._memory_byte_s.time_s(n))

    @cached_property
    def _memory_byte_s(self) -> TimeGrid:
        rate = {"q25": "q75", "q75": "q25"}.get(self.which, self.which)  # short times are high rates
        points = [(p.at, 1 / getattr(p, rate)) for p in self.machine.need("memory")]
        return TimeGrid.from_points(("ranks",), points)

    def shared_core_factor(self, n: Any) -> Any:
        """Return how much longer arithmetic takes while n ranks compute at once: 1 up to the cores, about n / cores beyond."""
        grid = self.grid("shared_cores", "ranks")
        return np.maximum(grid.time_s(n) / grid.time_s(1), 1.0)

    def lockstep(self, n: Any, alone_s: Any, size_bytes: Any) -> tuple[Any, Any, Any]:
        """Return what n ranks on this machine's cores, or on the profile's hosts, make of `alone_s` of arithmetic and an all-reduce.

        Returns:
            (arithmetic as a multiple of `alone_s`, seconds of the mean rank's wait, seconds of communication).
        """
        if self.machine.hosts:
            return self._lockstep_of_hosts(n, alone_s, size_bytes)
        base_s = self._lockstep_base.time_s(alone_s)
        probed = np.clip(size_bytes, *self._probed_bytes)
        found = {}
        for part in ("compute", "wait", "comm"):
            rows = [p for p in self.machine.need("lockstep", part=part) if p.at["ranks"] > 1]
            points = [(p.at, max(getattr(p, self.which), 1e-7)) for p in rows]
            grid = TimeGrid.from_points(("ranks", "alone_s", "bytes"), points)
            found[part] = grid.time_s(np.maximum(n, 2), alone_s, probed)
        shared = np.asarray(n) > 1
        more_s = self._allreduce.time_s(size_bytes, np.maximum(n, 2)) - self._allreduce.time_s(probed, np.maximum(n, 2))
        return (
            np.where(shared, np.maximum(found["compute"] / base_s, 1.0), 1.0),
            np.where(shared, found["wait"], 0.0),
            np.where(shared, found["comm"] + np.maximum(more_s, 0.0), 0.0),
        )

    def _lockstep_of_hosts(self, n: Any, alone_s: Any, size_bytes: Any) -> tuple[Any, Any, Any]:
        """The same on several hosts: each shares its own cores among its ranks, has its own speed, and waits for the slowest."""
        ranks = self.machine.ranks_on_hosts(n)
        speeds = np.array([h.speed_at(self.which) for h in self.machine.hosts])
        # Ranks beyond those that calibration shared cores among take turns like the most that it did.
        times = np.where(ranks > 0, self.shared_core_factor(np.maximum(ranks, 1)) / speeds, 0.0)
        mean = (times * ranks).sum(-1) / np.maximum(ranks.sum(-1), 1)
        wait_s = (times.max(-1) - mean) * np.asarray(alone_s)
        return mean, np.where(np.asarray(n) > 1, wait_s, 0.0), self.allreduce_s(size_bytes, n)

    @cached_property
    def _lockstep_base(self) -> TimeGrid:
        """Seconds that the probes' arithmetic really takes on one rank, by what it was meant to take."""
        median = StepTimes(self.machine) if self.which != "median" else self
        return median.grid("lockstep", "alone_s", ranks=1, part="compute")

    @cached_property
    def _probed_bytes(self) -> tuple[float, float]:
        sizes = [p.at["bytes"] for p in self.machine.need("lockstep", part="comm") if p.at["ranks"] > 1]
        return float(min(sizes)), float(max(sizes))
