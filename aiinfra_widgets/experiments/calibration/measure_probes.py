"""What a probe is, the list of all of them, and how operations are timed.

Each probe times one operation as a training step uses it; nothing here knows a workload. Operations of a net are timed
through autograd, forward and backward apart, because that is how they are used; the cost of calling backward at all is a
probe of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn

#: Does the operation once; seconds, one number for each of the probe's parts.
Once = Callable[[], tuple[float, ...]]
Setup = Callable[[MPI.Intracomm], Once]

#: What a step does with an operation of its net, each timed by itself.
BOTH_WAYS = ("forward", "backward")
PIXELS = 8
ELEMENTS = (2**6, 2**11, 2**15, 2**18, 2**21)


@dataclass(frozen=True)
class Probe:
    """One point.

    Attributes:
        name, at, unit, how: As in the machine profile.
        setup: Builds the operation on the ranks that take part and returns a function that does it once and says how
            many seconds it took.
        ranks: How many run it at the same time.
        members: Which do, where it is not the first `ranks` of them.
        work: Divided by the time where the unit is a rate; 0 where the unit is "s".
        parts: Names of what `setup`'s function times, where that is more than one thing.
        least: Repeats in one round, however long they take.
        warm_up: Whether the first repeat is not counted; False where `setup`'s function warms up by itself.
    """

    name: str
    at: Mapping[str, Any]
    setup: Setup
    ranks: int = 1
    unit: str = "s"
    work: float = 0.0
    how: str = ""
    parts: tuple[str, ...] = ("",)
    least: int = 3
    warm_up: bool = True
    members: tuple[int, ...] = ()

    @property
    def who(self) -> tuple[int, ...]:
        """The ranks that take part."""
        return self.members or tuple(range(self.ranks))

    def figure(self, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Turn seconds into the probe's unit."""
        return self.work / times if self.work else times


def timed(operation: Callable[[], Any]) -> Once:
    """Time an operation in a loop of its own."""

    def once() -> tuple[float, ...]:
        begun = time.perf_counter()
        operation()
        return (time.perf_counter() - begun,)

    return once


def after_work(operation: Callable[[], Any]) -> Once:
    """Time an operation whose code and data are no longer in the cache, because a step's arithmetic came before it."""
    work = unit_of_work()

    def once() -> tuple[float, ...]:
        for _ in range(3):
            work()
        begun = time.perf_counter()
        operation()
        return (time.perf_counter() - begun,)

    return once


def both_ways(operation: Callable[[Tensor], Tensor], x: Tensor) -> Once:
    """Time forward and backward of an operation, with the gradient of its input if `x` wants one, until all is freed."""
    seed = torch.ones_like(operation(x).detach())

    def once() -> tuple[float, ...]:
        begun = time.perf_counter()
        y = operation(x)
        between = time.perf_counter()
        y.backward(seed)
        del y
        x.grad = None
        return between - begun, time.perf_counter() - between

    return once


def unit_of_work() -> Callable[[], None]:
    """Return some 50 us of a net's arithmetic, forward and backward."""
    net, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), torch.rand(16, 64)
    return lambda: net(x).sum().backward()
