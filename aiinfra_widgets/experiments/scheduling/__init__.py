"""Who gets the nodes: real training jobs on real ranks, under the same scheduler that a simulation predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...experiment import Experiment, Observed, Spec, Timeline, Verb
from ...machine.profile import Machine
from ...quantities import Prediction, Quantity, Value
from .spec import Break, SchedulingSpec, SetPriority, Submit, Which
from .vocabulary import INTERVALS, JOBS, METERS, QUANTITIES


class Scheduling(Experiment):
    """A stream of jobs and a policy."""

    name: ClassVar[str] = "scheduling"
    title: ClassVar[str] = "Scheduling"
    spec: ClassVar[type[Spec]] = SchedulingSpec
    program: ClassVar[str] = "aiinfra_widgets.experiments.scheduling.measure:Scheduling"
    tick: ClassVar[str] = "window"
    compared: ClassVar[tuple[str, ...]] = (
        "mean_wait_s", "p95_wait_s", "mean_turnaround_s", "mean_slowdown", "makespan_s", "utilization_frac", "fairness_frac",
        "jobs_ended", "jobs_done", "jobs_late", "energy_j", "cost_usd", "operational_gco2e",
    )  # fmt: skip
    settle_ticks: ClassVar[int] = 0
    min_ticks: ClassVar[int] = 10
    live_series: ClassVar[tuple[str, ...]] = ("waiting_jobs", "running_jobs", "utilization_frac")
    verbs: ClassVar[tuple[Verb, ...]] = (
        Verb("submit", "Submit a job.", Submit), Verb("cancel", "Withdraw a job.", Which),
        Verb("end", "End a job by force.", Which), Verb("priority", "Change a job's priority.", SetPriority),
        Verb("break", "Break a node for real (SIGKILL); its job goes on elsewhere.", Break),
    )  # fmt: skip
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    records: ClassVar[Mapping[str, tuple[str, ...]]] = {"intervals": INTERVALS, "jobs": JOBS, "meters": METERS}
    timeline: ClassVar[Timeline | None] = Timeline("intervals", "node", "job", "start_s", "end_s", "Node", "Job")

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """See `predict.predict`."""
        from .predict import predict

        assert isinstance(spec, SchedulingSpec)
        return predict(spec, machine, **over)

    def distil(self, spec: Spec, machine: Machine, observed: Observed) -> dict[str, Value]:
        """See `distil.distil`."""
        from .distil import distil

        assert isinstance(spec, SchedulingSpec)
        return distil(spec, machine, observed)

    def incomparable(self, predicted: Prediction, measured: Mapping[str, Value]) -> str:
        """A segment in which not the whole stream ended is a part of what was predicted, or more than that."""
        ended, expected = measured.get("jobs_ended"), predicted.get("jobs_ended")
        if ended is None or ended.value is None or expected is None or ended.value == expected:
            return ""
        part = f"{ended.value:.0f} jobs ended in this segment"
        return f"{part}; the prediction is of the whole stream of {expected:.0f}, from an empty machine, so the two are not compared."
