"""Data-parallel training: predicted from calibration, run on MPI ranks, changed while it runs."""

from __future__ import annotations

from typing import Any, ClassVar

from ...errors import ModelInputError
from ...experiment import Experiment, Spec
from ...machine.profile import Machine
from ...quantities import Prediction
from .spec import TrainingSpec


class Training(Experiment):
    """Synchronous data-parallel training."""

    name: ClassVar[str] = "training"
    title: ClassVar[str] = "Data-parallel training"
    spec: ClassVar[type[Spec]] = TrainingSpec
    program: ClassVar[str] = "aiinfra_widgets.experiments.training.measure:DataParallel"
    compared: ClassVar[tuple[str, ...]] = (
        "step_time_s",
        "compute_time_s",
        "exposed_comm_time_s",
        "straggler_wait_time_s",
        "samples_per_s",
    )
    parts: ClassVar[tuple[str, ...]] = (
        "data_time_s", "compute_time_s", "exposed_comm_time_s", "straggler_wait_time_s", "injected_time_s", "runtime_time_s",
    )  # fmt: skip
    curve: ClassVar[tuple[str, str] | None] = ("nodes", "samples_per_s")
    live_series: ClassVar[tuple[str, ...]] = ("step_time_s", "samples_per_s", "loss")

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """See predict.py."""
        raise ModelInputError("not calibrated: aiinfra calibrate")
