"""An experiment that is nothing like training, for tests of the generic parts: a desk sends carriers on errands that are slept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from aiinfra_widgets.experiment import Curve, Experiment, Fields, Observed, Spec, Timeline, Verb, knob
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.quantities import Prediction, Quantity, Value


class ErrandsSpec(Spec):
    """One rank more than `nodes` hands out the errands."""

    coordinators: ClassVar[int] = 1

    nodes: int = knob(1, "Ranks that carry.", label="Carriers", ge=1, le=16, live=True, group="System")
    errands_per_s: float = knob(
        2.0, "Errands that come in.", label="Load", unit="1/s", ge=0.1, le=50.0, live=True, log=True, group="Load"
    )
    errand_s: float = knob(0.3, "Length of an errand.", unit="s", ge=0.01, le=5.0, live=True, group="Load")
    ticks: int = knob(200, "Ticks of a twentieth of a second.", ge=1, le=100_000, group="Run")


class Send(Fields):
    """What an extra errand takes."""

    length_s: float = knob(0.5, "How long it takes.", unit="s", ge=0.01, le=5.0)
    priority: int = knob(0, "Larger goes first.", ge=0, le=9)
    fragile: bool = knob(False, "Handle with care.")


class Drop(Fields):
    """Which errand to forget."""

    errand: int = knob(0, "Its number.", ge=0, le=10**6)


class Errands(Experiment):
    """Declarations only; `errands_measure` does the work."""

    name: ClassVar[str] = "errands"
    title: ClassVar[str] = "Errands"
    spec: ClassVar[type[Spec]] = ErrandsSpec
    program: ClassVar[str] = "errands_measure:Desk"
    tick: ClassVar[str] = "watch"
    compared: ClassVar[tuple[str, ...]] = ("errand_response_s", "errands_done_per_s", "carrier_busy_frac")
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("errands_per_s", "errand_response_s"),
        Curve("nodes", "errands_most_per_s", relative=True),
    )
    live_series: ClassVar[tuple[str, ...]] = ("errand_wait_s", "carrier_busy_frac", "errands_waiting")
    verbs: ClassVar[tuple[Verb, ...]] = (
        Verb("send", "Send an extra errand.", Send),
        Verb("drop", "Forget an errand that waits.", Drop),
        Verb("whistle", "Call everybody."),
    )
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("errand_response_s", "Response time", "s", "From coming in until it is done.", "lower"),
        Quantity("errand_wait_s", "Wait", "s", "From coming in until somebody goes.", "lower"),
        Quantity("errands_done_per_s", "Errands done", "errands/s", "Done per second.", "higher"),
        Quantity("errands_most_per_s", "Capacity", "errands/s", "Most that can be done per second.", "higher"),
        Quantity("carrier_busy_frac", "Busy", "frac", "Share of the time a carrier is on its way.", "neither"),
        Quantity("errands_waiting", "Waiting", "1", "Errands that nobody carries yet.", "neither", combine="max"),
        Quantity("energy_per_errand_j", "Energy per errand", "J", "Energy over errands done.", "lower"),
    )
    records: ClassVar[Mapping[str, tuple[str, ...]]] = {"trips": ("carrier", "errand", "begin_s", "end_s", "came_s")}
    timeline: ClassVar[Timeline | None] = Timeline(
        "trips", "carrier", "errand", "begin_s", "end_s", "Carrier", "Errand"
    )
    settle_ticks: ClassVar[int] = 5
    min_ticks: ClassVar[int] = 20

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """A queue with equal errands that come at equal distances, and its plan: who goes when."""
        asked = {**spec.model_dump(), **over}
        n, rate, length = (np.asarray(asked[k], float) for k in ("nodes", "errands_per_s", "errand_s"))
        busy = rate * length / n
        with np.errstate(divide="ignore"):
            response = np.where(busy < 1, length / np.maximum(1 - busy, 1e-9), np.inf)
        found = {
            "errand_response_s": Value("errand_response_s", response, length + 0 * busy, 1.3 * response),
            "errands_done_per_s": Value("errands_done_per_s", np.minimum(rate, n / length)),
            "errands_most_per_s": Value("errands_most_per_s", n / length * 0.97 ** (n - 1)),
            "carrier_busy_frac": Value("carrier_busy_frac", np.minimum(busy, 1.0)),
        }
        if over:
            return Prediction(found, model="errands 1")
        plain = {k: Value(k, float(v.value), v.low, v.high) for k, v in found.items()}
        return Prediction(plain, model="errands 1", extra={"trips": self._plan(asked)})

    @staticmethod
    def _plan(asked: Mapping[str, Any]) -> dict[str, list[float]]:
        free = dict.fromkeys(range(1, asked["nodes"] + 1), 0.0)
        rows = []
        for i in range(int(asked["ticks"] * 0.05 * asked["errands_per_s"])):
            carrier = min(free, key=lambda c: (free[c], c))
            begin = max(free[carrier], i / asked["errands_per_s"])
            free[carrier] = begin + asked["errand_s"]
            rows.append((carrier, i, begin, free[carrier], i / asked["errands_per_s"]))
        return {name: [row[k] for row in rows] for k, name in enumerate(Errands.records["trips"])}

    def reference_curves(self, spec: Spec, machine: Machine, curve: Curve, values: Sequence[float]) -> dict[str, Any]:
        """Without a queue, and with a worse one."""
        at = np.asarray(values, float)
        if curve.relative:
            return {"ideal": at / spec.errand_s}  # type: ignore[attr-defined]
        model = self.predict(spec, machine, errands_per_s=at)["errand_response_s"]
        return {"no queue": np.full(at.shape, spec.errand_s), "twice the queue": 2 * model}  # type: ignore[attr-defined]

    def distil(self, spec: Spec, machine: Machine, observed: Observed) -> dict[str, Value]:
        """Response time from the trips that have ended."""
        done = observed.records["trips"].dropna(subset=["end_s"])
        if done.empty:
            return {}
        low, mean, high = np.percentile(done["end_s"] - done["came_s"], (25, 50, 75))
        rate = len(done) / max(observed.ended_s - observed.begun_s, 0.05)
        return {
            "errand_response_s": Value(
                "errand_response_s", float(mean), float(low), float(high), "measured", n=len(done)
            ),
            "errands_done_per_s": Value("errands_done_per_s", rate, method="measured", n=len(done)),
            "errands_most_per_s": Value("errands_most_per_s", spec.nodes / spec.errand_s, method="measured"),  # type: ignore[attr-defined]
        }

    def derive(self, spec: Spec, machine: Machine, measured: Mapping[str, Value], elapsed_s: float) -> dict[str, Value]:
        """Energy by an assumed power."""
        joule = 5.0 * spec.nodes * elapsed_s
        each = Value(
            "energy_per_errand_j", joule / max(elapsed_s, 1e-9) / spec.errands_per_s, method="assumed", how="5 W each"
        )  # type: ignore[attr-defined]
        return {"energy_j": Value("energy_j", joule, method="assumed", how="5 W each"), "energy_per_errand_j": each}
