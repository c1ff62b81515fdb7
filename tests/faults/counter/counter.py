"""Counter: a state that is a known function of the step, so that a checkpoint shows whether it is exactly a step that was reached."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from aiinfra_widgets.experiment import Experiment, Spec, knob
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.quantities import Prediction, Quantity, Value


def numbers_at(tick: int, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """The state after `tick` steps. Every number is another one, so that a slice in the wrong place shows."""
    return {
        "numbers": np.arange(count) * 0.5 + tick,  # both exact in float64
        "few": np.array([tick, -tick]),  # fewer than there are ranks
        "whole": np.array(tick, np.int32),  # not even a vector
    }


class CounterSpec(Spec):
    """Every rank holds the same numbers and adds one to each in a step."""

    nodes: int = knob(3, "Ranks.", ge=1, le=64, live=True)
    numbers: int = knob(300_001, "Numbers that are counted up; of 8 bytes.", ge=1, le=10**9)
    steps: int = knob(10_000_000, "Steps after which the run is done.", ge=1, le=10_000_000)
    shards: bool = knob(True, "Every rank writes its part of a checkpoint; else the first writes everything.")
    narrow: int = knob(-1, "Node that may write no file of more than 64 KiB; -1: all may.", ge=-1, le=63)
    checkpoint_every_s: float = knob(0.001, "Seconds between two checkpoints.", unit="s", ge=0.0, le=100.0)
    checkpoints_kept: int = knob(20, "How many checkpoints stay on disk.", ge=1, le=100)


class Counter(Experiment):
    """One tick counts once."""

    name: ClassVar[str] = "counter"
    title: ClassVar[str] = "Counter"
    spec: ClassVar[type[Spec]] = CounterSpec
    program: ClassVar[str] = "counter_measure:Counting"
    tick: ClassVar[str] = "step"
    compared: ClassVar[tuple[str, ...]] = ("count_time_s",)
    live_series: ClassVar[tuple[str, ...]] = ("count_time_s",)
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("count_time_s", "Step time", "s", "From one step to the next.", "lower", combine="max"),
    )

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """Nobody asks."""
        return Prediction({"count_time_s": Value("count_time_s", 1e-3, 1e-4, 1e-2, "assumed", "for the tests")})
