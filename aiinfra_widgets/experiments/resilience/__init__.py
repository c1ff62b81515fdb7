"""What fails, and what it costs: a training loop under failures, beside what Young, Daly and the renewal argument say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...experiment import Curve, Experiment, Observed, Spec
from ...machine.profile import Machine
from ...quantities import Prediction, Quantity, Value
from ...texts import N_
from .spec import ResilienceSpec
from .vocabulary import QUANTITIES, SHARES, STRETCHES


class Resilience(Experiment):
    """Training that nodes fail under."""

    name: ClassVar[str] = "resilience"
    title: ClassVar[str] = "Failures and goodput"
    spec: ClassVar[type[Spec]] = ResilienceSpec
    program: ClassVar[str] = "aiinfra_widgets.experiments.resilience.measure:Trainer"
    tick: ClassVar[str] = "window"
    compared: ClassVar[tuple[str, ...]] = (
        *SHARES, "job_mtbf_s", "checkpoint_cost_s", "restart_time_s", "energy_per_useful_hour_j", "cost_per_useful_hour_usd",
        "resilience_cost_usd",
    )  # fmt: skip
    # The useful part is compared first and stacked first, so that the line of its prediction lies at its edge.
    parts: ClassVar[tuple[str, ...]] = SHARES
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("interval_s", "training_goodput_frac"), Curve("nodes", "training_goodput_frac"),
    )  # fmt: skip
    settle_ticks: ClassVar[int] = 0
    min_ticks: ClassVar[int] = 20
    live_series: ClassVar[tuple[str, ...]] = ("steps_kept", "training_goodput_frac", "loss")
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    records: ClassVar[Mapping[str, tuple[str, ...]]] = {"stretches": STRETCHES}

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """See `predict.predict`."""
        from .predict import predict

        assert isinstance(spec, ResilienceSpec)
        return predict(spec, machine, **over)

    def sweep(self, spec: Spec, machine: Machine, curve: Curve) -> Sequence[float]:
        """Return intervals from far below to far above the best one, or node counts."""
        from ...models.reliability import optimal_interval_s

        assert isinstance(spec, ResilienceSpec)
        if curve.swept != "interval_s":
            return super().sweep(spec, machine, curve)
        best = float(optimal_interval_s(spec.checkpoint_cost_s, spec.job_mtbf_s))
        low, high = min(best / 12, spec.interval_s), max(best * 12, spec.interval_s)
        return [low * (high / low) ** (i / 60) for i in range(61)]

    def reference_curves(self, spec: Spec, machine: Machine, curve: Curve, values: Sequence[float]) -> dict[str, Any]:
        """Return goodput as Young's first order sees it, over intervals."""
        from .predict import young_goodput

        assert isinstance(spec, ResilienceSpec)
        return {N_("Young, first order"): young_goodput(spec, values)} if curve.swept == "interval_s" else {}

    def distil(self, spec: Spec, machine: Machine, observed: Observed) -> dict[str, Value]:
        """See `distil.distil`."""
        from .distil import distil

        return distil(observed)

    def derive(self, spec: Spec, machine: Machine, measured: Mapping[str, Value], elapsed_s: float) -> dict[str, Value]:
        """Return the generic bill of the segment so far, and that of a useful hour."""
        from ...bill import bill as bill_of
        from .bill import bill

        assert isinstance(spec, ResilienceSpec)
        goodput, busy = measured.get("training_goodput_frac"), measured.get("busy_processors")
        if goodput is None or not goodput.value or busy is None or elapsed_s <= 0:
            return {}
        counted = measured.get("energy_j")
        joule = counted.value if counted is not None and counted.method == "measured" else None
        price = spec.price_usd_per_node_hour
        whole = {"nodes": spec.nodes, "wall_s": elapsed_s, "cpu_s": busy.value * elapsed_s, "counter_j": joule}
        return {
            **bill_of(machine, region=spec.region, price_usd_per_node_hour=price, **whole),
            **bill(spec, machine, spec.nodes, goodput.value, busy.value, joule and joule / elapsed_s),
        }

    def explain(self, spec: Spec, machine: Machine, predicted: Prediction, measured: Mapping[str, Value]) -> list[str]:
        """Name what only this experiment knows: costs that were not what was assumed."""
        from .explain import explain

        assert isinstance(spec, ResilienceSpec)
        return explain(spec, predicted, measured)
