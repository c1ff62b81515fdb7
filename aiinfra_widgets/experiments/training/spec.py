"""What may be asked of a training run: the work, the plan that distributes it, the load, the bill."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ...errors import LabError, ModelInputError
from ...experiment import Spec, knob
from ...models.rank_grid import RankGrid
from ...parallel.plan import COMPRESSIONS, ENGINES, PRECISIONS, REDUNDANCIES, SCHEDULES, TRANSPORTS, Plan
from ...workloads import catalog
from ...workloads.facts import WorkloadFacts
from ...workloads.language_facts import BASES

WORKLOADS = tuple(catalog.names())
#: A slower link that is not 0 is a slip of the unit: the run would stand still.
SLOWEST_LINK_BYTES_PER_S = 1e6
ALGORITHMS = ("mpi", "ring", "tree", "recursive-doubling", "hierarchical")


class TrainingSpec(Spec):
    """Training of one net: the same seed gives the same loss curve on any number of nodes, however they share the work."""

    workload: str = knob("digits-cnn", "What is trained, on which data.", choices=WORKLOADS, group="Work")
    width: int = knob(
        0,
        "Width of a net whose size is free; 0 is the workload's own.",
        ge=0,
        le=4096,
        log=True,
        group="Work",
    )
    depth: int = knob(
        0, "Number of layers or blocks of a net whose size is free; 0 is the workload's own.", ge=0, le=64, group="Work"
    )
    data_dir: str = knob(
        "",
        "Folder with train.npz and test.npz (arrays x and y) for dense-100-64-1; empty: made here from the seed.",
        group="Work",
    )
    base_run: str = knob(
        "",
        "Id of the run whose trained net adapters are added to (gpt-char-lora); empty: an untrained one.",
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
        0.0,
        "Step length of the optimiser; 0 is the workload's own.",
        ge=0.0,
        le=10.0,
        live=True,
        log=True,
        group="Work",
    )
    optimizer: str = knob(
        "auto",
        "How gradients become new weights; auto is what trains the workload best.",
        choices=("auto", "sgd", "adamw"),
        group="Work",
    )
    weight_decay: float = knob(
        0.0, "Share of a weight that AdamW takes away, times the learning rate.", ge=0.0, le=1.0, group="Work"
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
        "How gradients are summed: the library's own way, or one that is written out here; hierarchical sums on each host first.",
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
    tp_size: int = knob(
        1,
        "Nodes that share each layer (tensor parallel).",
        label="Tensor parallel",
        ge=1,
        le=64,
        live=True,
        group="Plan",
    )
    pp_size: int = knob(
        1, "Stages that share the layers (pipeline).", label="Pipeline stages", ge=1, le=64, live=True, group="Plan"
    )
    cp_size: int = knob(
        1,
        "Nodes that share each sequence (context parallel); language only.",
        label="Context parallel",
        ge=1,
        le=64,
        live=True,
        group="Plan",
    )
    sequence_parallel: bool = knob(
        False, "Between cut layers, nodes that share a layer share its tokens too.", live=True, group="Plan"
    )
    zero_stage: int = knob(
        0,
        "What replicas share instead of repeating: 1 optimiser state, 2 gradients too, 3 parameters too.",
        label="ZeRO stage",
        ge=0,
        le=3,
        live=True,
        group="Plan",
    )
    num_microbatches: int = knob(
        1,
        "Pieces into which a node's batch is cut; a pipeline needs several.",
        label="Micro-batches",
        ge=1,
        le=256,
        live=True,
        log=True,
        group="Plan",
    )
    schedule: str = knob(
        "1f1b", "In which order a stage takes its micro-batches.", choices=SCHEDULES, live=True, group="Plan"
    )
    chunks: int = knob(
        1, "Model chunks per stage; more than 1 only where interleaved.", ge=1, le=8, live=True, group="Plan"
    )
    recompute: bool = knob(
        False, "Compute activations again in backward instead of keeping them.", live=True, group="Plan"
    )
    precision: str = knob(
        "float32",
        "Of the arithmetic; bf16 keeps float32 weights, float64 is for comparing.",
        choices=PRECISIONS,
        group="Plan",
    )
    compression: str = knob(
        "none", "How gradients are made smaller on their way.", choices=COMPRESSIONS, live=True, group="Plan"
    )
    top_k_frac: float = knob(
        0.01,
        "Share of the gradient's numbers that top-k sends.",
        label="Top-k share",
        ge=1e-4,
        le=1.0,
        live=True,
        log=True,
        group="Plan",
    )
    powersgd_rank: int = knob(
        2, "Rank of PowerSGD's approximation.", label="PowerSGD rank", ge=1, le=64, live=True, group="Plan"
    )
    average_every: int = knob(
        1,
        "Steps between two averages of the replicas; 1 sums gradients at every step.",
        ge=1,
        le=1000,
        live=True,
        log=True,
        group="Plan",
    )
    outer_momentum: float = knob(
        0.0, "Above 0, averages are taken as DiLoCo does, with this momentum.", ge=0.0, le=0.99, live=True, group="Plan"
    )
    engine: str = knob(
        "lab",
        "Who carries out the plan: the lab, or one of torch's own engines as a reference.",
        choices=ENGINES,
        live=True,
        group="Plan",
    )
    transport: str = knob("auto", "Between GPUs: NCCL, or MPI through host memory.", choices=TRANSPORTS, group="System")
    compile: bool = knob(False, "Compile every part of the net first (torch.compile).", group="System")
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
    trace_every: int = knob(
        100,
        "Steps between two whose operations are recorded for the timeline; 0 is never.",
        ge=0,
        le=1_000_000,
        group="Run",
    )
    checkpoint_every_s: float = knob(
        5.0, "Seconds between two checkpoints; 0 writes one only when asked.", unit="s", ge=0.0, le=86400.0, group="Run"
    )
    checkpoints_kept: int = knob(
        2, "How many of the newest checkpoints stay on disk; the older ones are removed.", ge=1, le=100, group="Run"
    )
    restarts: int = knob(
        3,
        "How often in a row the run starts again by itself, from its last checkpoint, when its state died with its nodes.",
        ge=0,
        le=100,
        group="Run",
    )
    redundancy: str = knob(
        "checkpoint",
        "Where the state that dead nodes took along comes from: the last checkpoint, or a neighbour's memory, and the run goes on.",
        choices=REDUNDANCIES,
        live=True,
        group="Run",
    )
    mirror_every: int = knob(
        10,
        "Steps between two copies into a neighbour's memory; after a death at most so many are done again.",
        ge=1,
        le=1000,
        live=True,
        log=True,
        group="Run",
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
    def rule(self) -> str:
        """The optimiser's name."""
        return catalog.facts(self.workload).optimizer if self.optimizer == "auto" else self.optimizer

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate or catalog.facts(self.workload).default_lr

    def plan(self, nodes: int) -> Plan:
        """Return how `nodes` nodes share the work.

        Raises:
            ModelInputError: The degrees do not divide the nodes.
        """
        grid = RankGrid.of(nodes, tp_size=self.tp_size, pp_size=self.pp_size, cp_size=self.cp_size)
        same = {name: getattr(self, name) for name in Plan.__dataclass_fields__ if name != "grid"}
        return Plan(grid, **same)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        facts = catalog.facts(self.workload)
        try:
            facts.sized(self.width, self.depth)
            self._plan_fits(facts)
        except LabError as error:
            raise ValueError(str(error)) from error
        if not self.data_dir and self.global_batch > facts.train_samples:
            raise ValueError(
                f"global_batch: got {self.global_batch}; {self.workload} has {facts.train_samples} training samples; choose at most that"
            )
        if 0 < self.link_bandwidth_bytes_per_s < SLOWEST_LINK_BYTES_PER_S:
            raise ValueError(
                f"link_bandwidth_bytes_per_s: got {self.link_bandwidth_bytes_per_s:g}; allowed: 0 (as fast as it is), or 1 MB/s and more: "
                "on a slower link a single step may take minutes, and nothing can be changed within a step"
            )
        if self.slow_node >= self.nodes and self.slow_node > 0:
            raise ValueError(
                f"slow_node: got {self.slow_node}; with {self.nodes} nodes allowed: -1 (none) to {self.nodes - 1}"
            )
        return self

    def _plan_fits(self, facts: WorkloadFacts) -> None:
        """Refuse a plan that the net or the batch cannot follow.

        Raises:
            ModelInputError: What was chosen, what is allowed, what to do.
        """
        plan = self.plan(self.nodes)
        plan.check()
        replicas = plan.grid.dp_size
        if replicas > self.global_batch:
            raise ModelInputError(
                f"nodes: got {self.nodes}; with global_batch {self.global_batch} some would have no sample; fewer nodes, or a larger batch"
            )
        if self.num_microbatches > self.global_batch // replicas:
            raise ModelInputError(
                f"num_microbatches: got {self.num_microbatches}; a replica has {self.global_batch // replicas} samples of the "
                f"global batch of {self.global_batch}; use fewer micro-batches, or a larger batch"
            )
        if self.base_run and self.workload not in BASES:
            raise ModelInputError(
                f"base_run: got {self.base_run!r}, but {self.workload} trains all of its net; leave it empty, or use {', '.join(BASES)}"
            )
        if self.transport == "nccl" and self.device == "cpu":
            raise ModelInputError(
                "transport: nccl moves data between GPUs, and device is cpu; use device=cuda, or transport=auto"
            )
        if self.redundancy == "neighbour" and self.device != "cpu" and self.transport != "mpi":
            raise ModelInputError(
                "redundancy: a death leaves NCCL's groups hanging; use transport=mpi or device=cpu, or redundancy=checkpoint"
            )
        if self.cp_size > 1 and facts.task != "language":
            raise ModelInputError(
                f"cp_size: got {self.cp_size}; {self.workload} has no sequences to share; use 1, or a language workload"
            )
        if self.sequence_parallel and facts.task != "language":
            raise ModelInputError(
                f"sequence_parallel: {self.workload} has no sequences to share; switch it off, or use a language workload"
            )
