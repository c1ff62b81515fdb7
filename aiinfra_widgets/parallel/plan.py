"""How one training job is distributed: every choice in one place, and which choices go together. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ModelInputError
from ..models.rank_grid import RankGrid

SCHEDULES = ("gpipe", "1f1b", "interleaved")
PRECISIONS = ("float32", "bf16", "float64")
COMPRESSIONS = ("none", "fp16", "bf16", "top-k", "powersgd")
ENGINES = ("lab", "torch-ddp", "torch-fsdp2", "torch-tensor", "torch-pipelining")
TRANSPORTS = ("auto", "mpi", "nccl")
REDUNDANCIES = ("checkpoint", "neighbour")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job is distributed.

    Attributes:
        grid: Degrees of data, tensor, pipeline and context parallelism.
        zero_stage: 0 nothing is sharded over the replicas; 1 optimiser state, 2 gradients too, 3 parameters too.
        sequence_parallel: Tokens are shared over the tp ranks where layers are not cut.
        schedule, num_microbatches, chunks: Of the pipeline; `chunks` model chunks per stage (interleaved).
        recompute: Activations are computed again in backward instead of kept.
        precision: Of the arithmetic; float32 weights are kept with bf16.
        compression, top_k_frac, powersgd_rank: Of the gradients on their way, with error feedback where something is lost.
        average_every, outer_momentum: Steps between two averages of the replicas; 1 sums gradients at every step. With outer
            momentum the averages are taken as DiLoCo does.
        overlap, bucket_bytes: Gradients are summed while backward goes on.
        algorithm: How an all-reduce is done.
        engine: Who carries it out: the lab, or one of torch's own as a reference.
        transport: Between GPUs: NCCL, or MPI through host memory.
        compile: torch.compile on every part.
        redundancy: What a dead rank's share of the state is restored from: the last checkpoint, or a neighbour's memory.
        mirror_every: Steps between two copies into it.
    """

    grid: RankGrid = field(default_factory=RankGrid)
    zero_stage: int = 0
    sequence_parallel: bool = False
    schedule: str = "1f1b"
    num_microbatches: int = 1
    chunks: int = 1
    recompute: bool = False
    precision: str = "float32"
    compression: str = "none"
    top_k_frac: float = 0.01
    powersgd_rank: int = 2
    average_every: int = 1
    outer_momentum: float = 0.0
    overlap: bool = False
    bucket_bytes: int = 2**20
    algorithm: str = "mpi"
    engine: str = "lab"
    transport: str = "auto"
    compile: bool = False
    redundancy: str = "checkpoint"
    mirror_every: int = 10

    @property
    def mirrors(self) -> bool:
        """Whether ranks keep copies of the state; plain replicas are copies of each other anyway."""
        return self.redundancy == "neighbour" and not self.is_plain

    @property
    def is_plain(self) -> bool:
        """Whether it is data parallelism with summed float32 gradients and nothing else: the flat engine does that best."""
        g = self.grid
        plain_grid = g.tp_size == g.pp_size == g.cp_size == 1
        plain = self.zero_stage == 0 and self.num_microbatches == 1 and self.precision == "float32"
        summed = self.compression == "none" and self.average_every == 1
        return plain_grid and plain and summed and self.engine == "lab" and not (self.recompute or self.compile)

    def check(self) -> None:
        """Refuse choices that do not go together, whatever the net.

        Raises:
            ModelInputError: What was chosen, what is allowed, what to do.
        """
        for problem in self._problems():
            raise ModelInputError(problem)

    def _problems(self) -> list[str]:
        g, found = self.grid, []
        if self.sequence_parallel and g.tp_size == 1:
            found.append(
                "sequence_parallel: shares tokens over the tp ranks, and tp_size is 1; raise tp_size, or switch it off"
            )
        if self.schedule == "interleaved":
            if self.chunks < 2 or g.pp_size < 2:
                found.append(
                    f"schedule: interleaved needs pp_size and chunks of 2 or more, got pp_size {g.pp_size} and chunks {self.chunks}; "
                    "use 1f1b, or raise them"
                )
            elif self.num_microbatches % g.pp_size:
                found.append(
                    f"num_microbatches: got {self.num_microbatches}; interleaved needs a multiple of pp_size {g.pp_size}"
                )
        elif self.chunks > 1:
            found.append(
                f"chunks: got {self.chunks}; only the schedule interleaved has several chunks per stage; use 1"
            )
        if self.compression != "none" and (self.zero_stage or self.average_every > 1):
            found.append(
                f"compression: {self.compression} works on gradients that every replica sums; use zero_stage 0 and average_every 1"
            )
        if self.average_every > 1 and self.zero_stage:
            found.append(
                f"average_every: got {self.average_every}; replicas that drift need whole states; use zero_stage 0"
            )
        if self.outer_momentum and self.average_every == 1:
            found.append("outer_momentum: acts on the averages of replicas that drift; use average_every above 1, or 0")
        if self.overlap and (self.zero_stage or self.compression != "none" or self.average_every > 1):
            found.append(
                "overlap: hides the plain sum of gradients; use zero_stage 0, no compression and average_every 1"
            )
        if self.redundancy == "neighbour":
            found += self._mirror_problems()
        return found

    def _mirror_problems(self) -> list[str]:
        found, way = [], "use redundancy checkpoint"
        if self.grid.world_size == 1:
            found.append(f"redundancy: 1 node has no neighbour to keep a copy; {way}, or 2 nodes or more")
        if self.engine != "lab":
            found.append(f"redundancy: {self.engine} is torch's own and keeps no copies; {way}, or engine lab")
        if self.average_every > 1:
            found.append(f"redundancy: replicas that drift hold a state of their own each; {way}, or average_every 1")
        return found
