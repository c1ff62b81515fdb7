"""What may be asked of a run under failures: the work, the failures, what is done about them, the bill."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ...experiment import Spec, knob
from ...knobs import NODES
from ...workloads import catalog

#: Nets of a few thousand to a million numbers, whose steps take milliseconds.
WORKLOADS = ("digits-perceptron", "digits-cnn", "net-10-5-2", "linear-regression")
RESTART, IN_PLACE = "restart", "in-place"


class ResilienceSpec(Spec):
    """A data-parallel training loop under failures that are drawn from the seed; the same seed brings the same failures."""

    nodes: int = knob(
        2,
        "Number of MPI ranks that train; any failing node stops the whole job, so more nodes fail more often.",
        ge=NODES.low,
        le=NODES.high,
        live=True,
        group="System",
    )
    mtbf_s: float = knob(
        6.0,
        "Mean time between failures of one node, accelerated: real nodes fail once in years, and nobody waits that long.",
        label="Node fails once in",
        unit="s",
        ge=0.2,
        le=1e9,
        live=True,
        log=True,
        group="Failures",
    )
    recovery: str = knob(
        RESTART,
        "restart: every node loads the last checkpoint; in-place: the survivors keep their state and hand it to the node that failed.",
        choices=(RESTART, IN_PLACE),
        live=True,
        group="Resilience",
    )
    interval_s: float = knob(
        2.0,
        "Seconds of work between two checkpoints.",
        label="Work between checkpoints",
        unit="s",
        ge=0.02,
        le=86400.0,
        live=True,
        log=True,
        group="Resilience",
    )
    checkpoint_cost_s: float = knob(
        0.05,
        "For how long a checkpoint stops the work: it is really written, and what is left of this time stands for slower storage.",
        label="A checkpoint takes",
        unit="s",
        ge=0.001,
        le=60.0,
        live=True,
        log=True,
        group="Resilience",
    )
    restart_time_s: float = knob(
        0.2,
        "Time of a restart: the checkpoint is really read and verified, and what is left stands for starting a larger job.",
        label="A restart takes",
        unit="s",
        ge=0.001,
        le=60.0,
        live=True,
        log=True,
        group="Resilience",
    )
    takeover_time_s: float = knob(
        0.02,
        "In place: time until the survivors go on; the state is really handed over, and what is left stands for agreeing.",
        label="Survivors go on after",
        unit="s",
        ge=0.001,
        le=60.0,
        live=True,
        log=True,
        group="Resilience",
    )
    detection_time_s: float = knob(
        0.1,
        "Time until a failure is noticed (a timeout): everybody waits, and nobody knows.",
        label="Noticed after",
        unit="s",
        ge=0.0,
        le=60.0,
        live=True,
        group="Resilience",
    )
    workload: str = knob("digits-perceptron", "What is trained, on which data.", choices=WORKLOADS, group="Work")
    global_batch: int = knob(64, "Samples per step over all nodes.", ge=1, le=1024, log=True, group="Work")
    duration_s: float = knob(
        40.0,
        "Seconds after which the run is done.",
        label="Run for",
        unit="s",
        ge=0.5,
        le=86400.0,
        log=True,
        group="Run",
    )
    steps: int = knob(
        0,
        "Training steps after which the run is done before its time; 0: only the time counts.",
        ge=0,
        le=10_000_000,
        log=True,
        group="Run",
    )
    checkpoints_kept: int = knob(
        2, "How many of the newest checkpoints stay on disk; the older ones are removed.", ge=1, le=100, group="Run"
    )
    region: str = knob("World", "Country or region whose grid's yearly average gives the carbon.", group="Bill")
    price_usd_per_node_hour: float = knob(
        0.0425,
        "What one node costs for an hour (assumed; default: one of two vCPUs of a general-purpose cloud machine).",
        unit="USD",
        ge=0.0,
        le=1000.0,
        group="Bill",
    )

    @property
    def job_mtbf_s(self) -> float:
        """Mean time between failures of the job, which any failing node stops."""
        return self.mtbf_s / self.nodes

    @property
    def hands_over(self) -> bool:
        """Whether survivors go on with the state that they hold; of a single node nobody survives, so it is started again."""
        return self.recovery == IN_PLACE and self.nodes > 1

    @property
    def recovery_time_s(self) -> float:
        """Time from noticing a failure until work goes on, by the way of recovery."""
        return self.takeover_time_s if self.hands_over else self.restart_time_s

    @property
    def rate(self) -> float:
        """The workload's own learning rate."""
        return catalog.facts(self.workload).default_lr

    @model_validator(mode="after")
    def _a_sample_for_each(self) -> Self:
        if self.nodes > self.global_batch:
            raise ValueError(
                f"nodes: got {self.nodes}; with global_batch {self.global_batch} some would have no sample; "
                "use fewer nodes, or a larger batch"
            )
        return self
