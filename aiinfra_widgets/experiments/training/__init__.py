"""Training under any plan: predicted from calibration, run on MPI ranks, changed while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...experiment import Curve, Experiment, Spec, Timeline
from ...machine.profile import Machine
from ...models.kinds import KINDS
from ...quantities import Prediction, Value
from ...texts import N_
from .spec import TrainingSpec


class Training(Experiment):
    """Training, distributed over nodes by replicas, layers, stages, sequences or shards."""

    name: ClassVar[str] = "training"
    title: ClassVar[str] = "Training"
    spec: ClassVar[type[Spec]] = TrainingSpec
    program: ClassVar[str] = "aiinfra_widgets.experiments.training.measure:Trainer"
    compared: ClassVar[tuple[str, ...]] = (
        "step_time_s", "compute_time_s", "exposed_comm_time_s", "straggler_wait_time_s", "samples_per_s", "energy_per_step_j",
    )  # fmt: skip
    parts: ClassVar[tuple[str, ...]] = (
        "data_time_s", "compute_time_s", "exposed_comm_time_s", "straggler_wait_time_s", "bubble_time_s", "injected_time_s",
        "engine_time_s", "runtime_time_s",
    )  # fmt: skip
    curves: ClassVar[tuple[Curve, ...]] = (Curve("nodes", "samples_per_s", relative=True),)
    live_series: ClassVar[tuple[str, ...]] = ("step_time_s", "samples_per_s", "loss")
    records: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "operations": ("tick", "rank", "kind", "microbatch", "start_s", "end_s")
    }
    timeline: ClassVar[Timeline | None] = Timeline(
        "operations", lane="rank", label="kind", start="start_s", end="end_s", lanes="Node", bars="Operation",
        frame="tick", kinds=KINDS, detail="microbatch", details="Micro-batch",
    )  # fmt: skip

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """See `predict.predict`."""
        from .predict import predict

        assert isinstance(spec, TrainingSpec)
        return predict(spec, machine, **over)

    def admit(self, spec: Spec, machine: Machine) -> None:
        """Refuse a plan that the net cannot follow, or that does not fit the machine's memory; see `predict_memory.admit`."""
        from .predict_memory import admit

        assert isinstance(spec, TrainingSpec)
        admit(spec, machine)

    def sweep(self, spec: Spec, machine: Machine, curve: Curve) -> Sequence[float]:
        """Return, of node counts, those that the plan's degrees divide."""
        found = super().sweep(spec, machine, curve)
        if curve.swept != "nodes":
            return found
        inner = _inner(spec)
        return [n for n in found if n % inner == 0] or [inner]

    def reference_curves(self, spec: Spec, machine: Machine, curve: Curve, values: Sequence[float]) -> dict[str, Any]:
        """Return throughput over nodes: ideal as in the articles, and Amdahl's with the serial share that was calibrated."""
        import numpy as np

        from ...models import amdahl_speedup

        least = _inner(spec)  # one replica
        one = self.predict(spec, machine, nodes=np.array([float(least)]))
        step = float(one["step_time_s"][0])
        serial = 1 - float(one["compute_time_s"][0]) / step
        base, n = float(one["samples_per_s"][0]), np.asarray(values, dtype=float) / least
        return {N_("ideal"): base * n, N_(f"Amdahl, {serial:.0%} serial"): base * amdahl_speedup(n, serial)}

    def derive(self, spec: Spec, machine: Machine, measured: Mapping[str, Value], elapsed_s: float) -> dict[str, Value]:
        """Return throughput from the measured step time, and the bill of the segment so far."""
        from .bill import bill
        from .rates import rates

        assert isinstance(spec, TrainingSpec)
        step = measured.get("step_time_s")
        if step is None or not step.value:
            return {}
        cpu = measured.get("cpu_time_s")
        cpu_s = cpu.value if cpu is not None and cpu.value is not None else 0.0
        counted = measured.get("energy_j")
        joule = counted.value if counted is not None and counted.method == "measured" else None
        return {
            **rates(spec, step),
            **bill(spec, machine, spec.nodes, step.value, cpu_s, elapsed_s / step.value, joule),
        }

    def explain(self, spec: Spec, machine: Machine, predicted: Prediction, measured: Mapping[str, Value]) -> list[str]:
        """Name other programs on the same cores, where the nodes did not get the processor time that they asked for."""
        step, cpu = measured.get("step_time_s"), measured.get("cpu_time_s")
        injected = measured.get("injected_time_s")
        if step is None or cpu is None or not step.value or cpu.value is None:
            return []
        idle_s = injected.value if injected is not None and injected.value else 0.0
        cores = min(spec.nodes * spec.threads_per_node, machine.cores)  # type: ignore[attr-defined]
        share = cpu.value / max(cores * (step.value - idle_s), 1e-9)
        if share >= UNDISTURBED_FRAC or step.value < predicted["step_time_s"]:
            return []
        return [f"Other programs use these cores: the nodes got {share:.0%} of the processor time that they needed."]


#: Below this share of a core a node was kept from its work by something else; MPI's waiting counts as work.
UNDISTURBED_FRAC = 0.9


def _inner(spec: Spec) -> int:
    """Return the nodes of one replica."""
    assert isinstance(spec, TrainingSpec)
    return spec.tp_size * spec.pp_size * spec.cp_size
