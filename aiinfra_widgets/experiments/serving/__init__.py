"""Response time under load: a real service with a real open-loop load, beside what queueing theory says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ...experiment import Companion, Curve, Experiment, Observed, Spec, Verb
from ...machine.profile import Machine
from ...quantities import Prediction, Quantity, Value
from .spec import Kill, ServingSpec
from .vocabulary import QUANTITIES, REQUESTS


class Serving(Experiment):
    """Servers under an open-loop load."""

    name: ClassVar[str] = "serving"
    title: ClassVar[str] = "Response time under load"
    spec: ClassVar[type[Spec]] = ServingSpec
    program: ClassVar[str] = "aiinfra_widgets.experiments.serving.measure:Serving"
    tick: ClassVar[str] = "window"
    compared: ClassVar[tuple[str, ...]] = (
        "mean_response_s", "p50_response_s", "p95_response_s", "p99_response_s", "utilization_frac", "queue_length",
        "completed_per_s", "slo_goodput_per_s", "failed_frac", "energy_per_request_j", "cost_per_million_requests_usd",
    )  # fmt: skip
    parts: ClassVar[tuple[str, ...]] = ("mean_wait_s", "mean_service_s", "dispatch_time_s")
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("arrival_rate_per_s", "mean_response_s"), Curve("arrival_rate_per_s", "p99_response_s"),
        Curve("arrival_rate_per_s", "utilization_frac"), Curve("arrival_rate_per_s", "queue_length"),
    )  # fmt: skip
    settle_ticks: ClassVar[int] = 10
    min_ticks: ClassVar[int] = 20
    live_series: ClassVar[tuple[str, ...]] = ("p95_response_s", "queue_length", "utilization_frac")
    verbs: ClassVar[tuple[Verb, ...]] = (
        Verb("kill", "Kill a server for real (SIGKILL); what it had goes to the others.", Kill),
    )
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    records: ClassVar[Mapping[str, tuple[str, ...]]] = {"requests": REQUESTS}

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """See `predict.predict`."""
        from .predict import predict

        assert isinstance(spec, ServingSpec)
        return predict(spec, machine, **over)

    def sweep(self, spec: Spec, machine: Machine, curve: Curve) -> Sequence[float]:
        """Return loads from nearly none to a little beyond what the servers can do."""
        from .predict import sweep

        assert isinstance(spec, ServingSpec)
        return sweep(spec, machine)

    def reference_curves(self, spec: Spec, machine: Machine, curve: Curve, values: Sequence[float]) -> dict[str, Any]:
        """Return other theories of the mean response time, among them the articles' T = C / L."""
        from .predict import references

        assert isinstance(spec, ServingSpec)
        return references(spec, machine, curve.quantity, values)

    def foreseen(self, spec: Spec) -> Iterable[Spec]:
        """Return one server less, which a death leaves, and every number that the autoscaler may choose."""
        assert isinstance(spec, ServingSpec)
        most = spec.most_servers if spec.autoscaler != "none" else 0
        for nodes in sorted({spec.nodes - 1, *range(1, most + 1)} - {0, spec.nodes}):
            slow = spec.slow_node if spec.slow_node < nodes else -1
            yield spec.changed({"nodes": nodes, "slow_node": slow})

    def companions(self, spec: Spec) -> tuple[Companion, ...]:
        """Return the web front, where requests come from there."""
        assert isinstance(spec, ServingSpec)
        front = Companion("front", "aiinfra_widgets.experiments.serving.front")
        return (front,) if spec.arrivals == "http" else ()

    def distil(self, spec: Spec, machine: Machine, observed: Observed) -> dict[str, Value]:
        """See `distil.distil`."""
        from .distil import distil

        assert isinstance(spec, ServingSpec)
        return distil(spec, observed)

    def derive(self, spec: Spec, machine: Machine, measured: Mapping[str, Value], elapsed_s: float) -> dict[str, Value]:
        """Return the bill of the segment so far, and for each answer."""
        from .bill import bill

        assert isinstance(spec, ServingSpec)
        rate, cpu = measured.get("completed_per_s"), measured.get("cpu_time_s")
        if rate is None or not rate.value or elapsed_s <= 0:
            return {}
        cpu_s = (cpu.value if cpu is not None and cpu.value is not None else 0.0) * elapsed_s / spec.window_s
        counted = measured.get("energy_j")
        joule = counted.value if counted is not None and counted.method == "measured" else None
        return bill(spec, machine, spec.nodes, rate.value, cpu_s / elapsed_s, elapsed_s, joule)

    def explain(self, spec: Spec, machine: Machine, predicted: Prediction, measured: Mapping[str, Value]) -> list[str]:
        """Name what only this experiment knows: a generator that was late, a load that was not the one asked for."""
        from .explain import explain

        assert isinstance(spec, ServingSpec)
        return explain(spec, machine, predicted, measured)
