"""What may be asked of a data-parallel training run."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ...errors import LabError
from ...experiment import Spec, knob
from ...workloads import catalog

WORKLOADS = tuple(catalog.names())
ALGORITHMS = ("mpi", "ring", "tree", "recursive-doubling")


class TrainingSpec(Spec):
    """Synchronous data-parallel training by stochastic gradient descent: same seed, same loss curve on any number of nodes."""

    workload: str = knob("digits-cnn", "What is trained, on which data.", choices=WORKLOADS, group="Work")
    width: int = knob(
        512,
        "Width of the synthetic net's square layers; decides the size of the gradient.",
        ge=64,
        le=4096,
        log=True,
        group="Work",
    )
    depth: int = knob(4, "Number of square layers of the synthetic net.", ge=1, le=16, group="Work")
    data_dir: str = knob(
        "",
        "Folder with train.npz and test.npz (arrays x and y) for dense-100-64-1; empty: made here from the seed.",
        group="Work",
    )
    global_batch: int = knob(
        256,
        "Samples per step over all nodes; each node takes its share.",
        ge=1,
        le=65536,
        live=True,
        log=True,
        group="Work",
    )
    steps: int = knob(2000, "Steps after which the run is done.", ge=1, le=10_000_000, log=True, group="Run")
    learning_rate: float = knob(
        0.05, "Step length of gradient descent.", ge=1e-6, le=10.0, live=True, log=True, group="Work"
    )
    momentum: float = knob(0.9, "Share of the last step that is kept.", ge=0.0, le=0.999, group="Work")
    threads_per_node: int = knob(1, "Threads of one node; with 1, one node is one core.", ge=1, le=128, group="System")
    device: str = knob(
        "cpu",
        "Where a node computes; auto takes a GPU where there is one.",
        choices=("cpu", "cuda", "auto"),
        group="System",
    )
    algorithm: str = knob(
        "mpi",
        "How gradients are summed: the library's own way, or one that is written out here.",
        choices=ALGORITHMS,
        live=True,
        group="System",
    )
    overlap: bool = knob(
        False,
        "Sum gradients while the backward pass still computes (helps on a network, costs on one machine).",
        live=True,
        group="System",
    )
    bucket_bytes: int = knob(
        2**20,
        "Size at which a bucket of gradients is sent while backward goes on; smaller buckets start earlier and cost more messages.",
        unit="B",
        ge=2**8,
        le=2**28,
        live=True,
        log=True,
        group="System",
    )
    slow_node: int = knob(
        -1, "Position of the node that is slowed down; -1 slows none.", ge=-1, le=511, live=True, group="Load"
    )
    slow_factor: float = knob(
        2.0,
        "How many times longer the slow node's arithmetic takes (injected).",
        ge=1.0,
        le=20.0,
        live=True,
        group="Load",
    )
    link_latency_s: float = knob(
        0.0, "Delay put on every message between nodes (injected).", unit="s", ge=0.0, le=0.1, live=True, group="Load"
    )
    link_bandwidth_bytes_per_s: float = knob(
        0.0,
        "Cap on the rate of every message between nodes (injected); 0 is no cap.",
        unit="B/s",
        ge=0.0,
        le=1e12,
        live=True,
        group="Load",
    )
    evaluate_every: int = knob(
        100, "Steps between two looks at held-out data; 0 is never.", ge=0, le=1_000_000, group="Run"
    )
    checkpoint_every_s: float = knob(
        5.0, "Seconds between two checkpoints; 0 writes one only when asked.", unit="s", ge=0.0, le=86400.0, group="Run"
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

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        facts = catalog.facts(self.workload)
        try:
            facts.sized(self.width, self.depth)
        except LabError as error:
            raise ValueError(str(error)) from error
        if not self.data_dir and self.global_batch > facts.train_samples:
            raise ValueError(
                f"global_batch: got {self.global_batch}; {self.workload} has {facts.train_samples} training samples; choose at most that"
            )
        if self.nodes > self.global_batch:
            raise ValueError(
                f"nodes: got {self.nodes}; with global_batch {self.global_batch} some would have no sample; fewer nodes, or a larger batch"
            )
        if self.slow_node >= self.nodes and self.slow_node > 0:
            raise ValueError(
                f"slow_node: got {self.slow_node}; with {self.nodes} nodes allowed: -1 (none) to {self.nodes - 1}"
            )
        return self
