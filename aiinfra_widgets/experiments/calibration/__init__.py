"""Calibration: what this machine can do, measured in a minute on real ranks. An experiment, since it needs ranks.

It probes operations over sizes and neighbours, never a workload of the lab: what it writes is the machine profile that
every prediction is made from.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from ...errors import ModelInputError
from ...experiment import Experiment, Spec, knob
from ...machine.profile import Machine
from ...quantities import Prediction


class CalibrationSpec(Spec):
    """`nodes` is the largest number of ranks that is probed."""

    seconds: float = knob(40.0, "Time for all probes together.", unit="s", ge=1.0, le=600.0, group="Run")
    rounds: int = knob(
        3,
        "How often the list of probes is gone through, so that a short disturbance spoils one round.",
        ge=1,
        le=20,
        group="Run",
    )
    only: Literal["all", "links"] = knob(
        "all",
        "Everything, or only what passes between ranks, within a host and between hosts, and how fast each host is.",
        group="Run",
    )


class Calibration(Experiment):
    """One tick is one probe; the results are events of kind "probe"."""

    name: ClassVar[str] = "calibration"
    title: ClassVar[str] = "Calibration of this machine"
    spec: ClassVar[type[Spec]] = CalibrationSpec
    program: ClassVar[str] = "aiinfra_widgets.experiments.calibration.measure:Probes"
    tick: ClassVar[str] = "probe"
    compared: ClassVar[tuple[str, ...]] = ()
    settle_ticks: ClassVar[int] = 0
    min_ticks: ClassVar[int] = 1

    def predict(self, spec: Spec, machine: Machine, **over: Any) -> Prediction:
        """Refuse: calibration is what predictions are made from.

        Raises:
            ModelInputError: Always.
        """
        raise ModelInputError("calibration is not predicted: it is what predictions are made from")
