"""What may be asked of a scheduler, and of its stream of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import field_validator, model_validator

from ...experiment import Fields, Spec, knob
from ...knobs import NODES

POLICIES = (
    "fifo", "priority", "sjf", "srtf", "easy", "fair_share", "drf", "gang", "elastic", "deadline", "carbon", "price",
)  # fmt: skip
WORKLOADS = ("net-10-5-2", "digits-perceptron", "digits-cnn")


class SchedulingSpec(Spec):
    """A stream of training jobs on `nodes` nodes, with one rank more that decides who gets them."""

    coordinators: ClassVar[int] = 1

    nodes: int = knob(
        4, "Nodes: MPI ranks that train jobs.",
        label="Nodes", ge=NODES.low, le=NODES.high, live=True, group="System",
    )  # fmt: skip
    policy: str = knob("fifo", "Who gets the nodes.", choices=POLICIES, live=True, group="System")
    ageing_per_s: float = knob(
        0.0, "Policy priority: points that a job gains for each second of waiting; 0 lets the unimportant starve.",
        label="Ageing", unit="1/s", ge=0.0, le=100.0, live=True, group="System",
    )  # fmt: skip
    quantum_s: float = knob(
        1.0, "Policy gang: how long a gang has the nodes before the next one does.",
        unit="s", ge=0.05, le=3600.0, live=True, group="System",
    )  # fmt: skip
    jobs: int = knob(
        20, "Jobs in the stream; more can be submitted while it runs.", ge=1, le=2000, log=True, group="Load"
    )
    offered_load: float = knob(
        1.2,
        "Work that arrives, as a share of what the nodes can do.",
        label="Offered load",
        ge=0.05,
        le=5.0,
        group="Load",
    )
    mean_work_s: float = knob(
        1.5,
        "Mean run time of a job on the nodes that it demands.",
        unit="s",
        ge=0.05,
        le=3600.0,
        log=True,
        group="Load",
    )
    work_scv: float = knob(
        2.0,
        "Variability of the run times: variance over squared mean.",
        label="Work variability",
        ge=0.0,
        le=20.0,
        group="Load",
    )
    most_demand: int = knob(
        2, "The widest job demands so many nodes (1, 2, 4 ... up to it).", ge=1, le=256, group="Load"
    )
    elastic_frac: float = knob(
        0.5, "Share of the jobs that can run on half or twice their nodes.", ge=0.0, le=1.0, group="Load"
    )
    users: int = knob(3, "Users who submit; the first submits most.", ge=1, le=50, group="Load")
    estimate_factor: float = knob(
        1.0, "Users say that their jobs take up to so many times longer than they do.", ge=1.0, le=20.0, group="Load"
    )
    deadline_factor: float = knob(
        8.0,
        "A job is due so many times its run time after it was submitted; 0 sets no deadlines.",
        ge=0.0,
        le=1000.0,
        group="Load",
    )
    trace_file: str = knob(
        "",
        "Jobs from a file instead: Standard Workload Format (.swf), or CSV in the manner of Philly and Helios.",
        group="Load",
    )
    trace_speedup: float = knob(
        1000.0, "Seconds of the trace that pass in one second of the run.", ge=1.0, le=1e7, log=True, group="Load"
    )
    workload: str = knob("digits-perceptron", "What every job trains.", choices=WORKLOADS, group="Work")
    batch: int = knob(32, "Samples of one node in one step.", ge=1, le=512, group="Work")
    step_s: float = knob(
        0.02, "A step takes at least so long (injected: it stands for an accelerator's time).",
        label="Step", unit="s", ge=0.001, le=10.0, group="Work",
    )  # fmt: skip
    save_every_s: float = knob(
        1.0, "Seconds between two checkpoints that a job writes by itself.", unit="s", ge=0.05, le=3600.0, group="Work"
    )
    hour_s: float = knob(
        2.0,
        "Seconds of the run that stand for one hour of the day, for prices and carbon.",
        unit="s",
        ge=0.01,
        le=3600.0,
        group="Bill",
    )
    window_s: float = knob(
        0.1, "Time over which live figures are averaged; one tick.", unit="s", ge=0.02, le=10.0, group="Run"
    )
    open_s: float = knob(
        0.0,
        "Seconds to stay open for jobs that you submit after the stream is done.",
        unit="s",
        ge=0.0,
        le=86400.0,
        group="Run",
    )
    checkpoint_every_s: float = knob(
        10.0, "Seconds between two checkpoints of the whole run, for which every job rests a moment; 0 writes none.",
        unit="s", ge=0.0, le=3600.0, group="Run",
    )  # fmt: skip
    region: str = knob("World", "Country or region whose grid gives the carbon.", group="Bill")
    price_usd_per_node_hour: float = knob(
        0.0425, "What one node costs for an hour (assumed; default: one of two vCPUs of a general-purpose cloud machine).",
        unit="USD", ge=0.0, le=1000.0, group="Bill",
    )  # fmt: skip

    @field_validator("trace_file")
    @classmethod
    def _from_anywhere(cls, name: str) -> str:
        """Ranks may have been started in another folder."""
        return str(Path(name).expanduser().absolute()) if name else ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.mean_work_s < 2 * self.step_s:
            raise ValueError(
                f"mean_work_s: got {self.mean_work_s:g} s with steps of {self.step_s:g} s; a job needs two steps on average; "
                "shorter steps, or more work"
            )
        return self


class Submit(Fields):
    """A job to submit."""

    nodes: int = knob(1, "Nodes that it demands, all at once.", ge=1, le=256)
    work_s: float = knob(2.0, "Run time on those nodes.", unit="s", ge=0.02, le=86400.0)
    priority: float = knob(0.0, "Higher goes first, under the policy priority.", ge=-1000.0, le=1000.0)
    due_in_s: float = knob(
        0.0, "Seconds from now by which it must be done; 0 sets no deadline.", unit="s", ge=-86400.0, le=86400.0
    )
    after: int = knob(0, "The job that must be done before this one starts; 0 for none.", ge=0, le=10_000_000)


class Which(Fields):
    """One job."""

    job: int = knob(1, "Its number.", ge=1, le=10_000_000)


class SetPriority(Fields):
    """One job and its new priority."""

    job: int = knob(1, "Its number.", ge=1, le=10_000_000)
    priority: float = knob(10.0, "Higher goes first, under the policy priority.", ge=-1000.0, le=1000.0)


class Break(Fields):
    """Which node dies."""

    node: int = knob(1, "Number of the node, as in the timeline.", ge=1, le=100_000)
