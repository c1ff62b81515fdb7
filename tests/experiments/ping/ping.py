"""Ping: how long a message takes to another rank and back. The small experiment that docs/adding-an-experiment.md builds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from aiinfra_widgets.experiment import Curve, Experiment, Spec, knob
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.quantities import Prediction, Quantity, Value

#: Assumed: shared memory of a laptop.
LATENCY_S, BYTES_PER_S = 2e-6, 2e9


class PingSpec(Spec):
    """Every rank but the first sends the message back."""

    nodes: int = knob(2, "Ranks; the first sends to the last.", label="Ranks", ge=2, le=64, live=True)
    size_bytes: int = knob(1024, "Length of the message.", unit="B", ge=8, le=2**24, live=True, log=True)
    rounds: int = knob(200, "Ticks after which the run is done.", ge=1, le=100_000)


class Ping(Experiment):
    """One tick is fifty round trips."""

    name: ClassVar[str] = "ping"
    title: ClassVar[str] = "Ping"
    spec: ClassVar[type[Spec]] = PingSpec
    program: ClassVar[str] = "ping_measure:PingPong"
    tick: ClassVar[str] = "round"
    compared: ClassVar[tuple[str, ...]] = ("round_trip_s",)
    curves: ClassVar[tuple[Curve, ...]] = (Curve("size_bytes", "round_trip_s"),)
    live_series: ClassVar[tuple[str, ...]] = ("round_trip_s",)
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("round_trip_s", "Round trip", "s", "From sending a message until it is back.", "lower", combine="max"),
    )

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """Latency and size over bandwidth, twice."""
        size = np.asarray(over.get("size_bytes", spec.size_bytes), float)  # type: ignore[attr-defined]
        trip = 2 * (LATENCY_S + size / BYTES_PER_S)
        how = f"{LATENCY_S * 1e6:g} us and {BYTES_PER_S / 1e9:g} GB/s one way"
        return Prediction({"round_trip_s": Value("round_trip_s", trip[()], trip / 2, trip * 4, "assumed", how)})
