"""Tensor storage of every rank under a plan, counted as the engines count it, and whether a plan fits a machine's memory.

# P trained numbers of the whole net
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import AdmissionError
from ...machine.limits import RANK_BYTES, RESERVED_BYTES
from ...machine.profile import Machine
from ...models.rank_grid import share
from ...models.rank_memory import RankMemory, activation_bytes, rank_memory
from ...models.schedules import in_flight, order
from ...parallel.plan import Plan
from ...quantities import show
from ...workloads import catalog
from ...workloads.facts import FLOAT_BYTES, INDEX_BYTES, Layer, Optimizer, WorkloadFacts
from .predict_net import PartLayers, loss_of, stages_of
from .spec import TrainingSpec

#: Tensors that an optimiser keeps beside the parameters.
STATE_TENSORS = {"sgd": 1, "adamw": 2}


@dataclass(frozen=True, slots=True)
class StageMemory:
    """One rank, the fullest of its pipeline stage.

    Attributes:
        held: What the plan's store holds, and what comes and goes.
        compression_bytes: What compression left out and keeps for the next step.
        outer_bytes: What DiLoCo's outer step keeps.
        mirror_bytes: Copies of its own and its neighbour's share of the state, of two generations.
    """

    held: RankMemory
    compression_bytes: int = 0
    outer_bytes: int = 0
    mirror_bytes: int = 0

    @property
    def steady_bytes(self) -> int:
        """What is held between two steps."""
        return self.held.held_bytes + self.compression_bytes + self.outer_bytes + self.mirror_bytes

    @property
    def peak_bytes(self) -> float:
        """All of it at once."""
        return self.held.peak_bytes + self.compression_bytes + self.outer_bytes + self.mirror_bytes


def memory(spec: TrainingSpec, facts: WorkloadFacts, plan: Plan) -> list[StageMemory]:
    """Return the memory of each pipeline stage's fullest rank.

    Args:
        spec: Optimiser and batch.
        facts: At the size that is asked.
        plan: How the net is distributed.

    Valid when: float32 or float64 throughout; under bf16 weights, gradients and state are float32, too.
    Off by: exact for what is held and what comes and goes; of copies under tensor parallelism, the other tp ranks are taken to
        stand for biases behind a row cut, too. Activations are those that autograd keeps between forward and
        backward by the facts; temporary tensors inside an operation are left out.
    """
    pp, element = plan.grid.pp_size, 8 if plan.precision == "float64" else FLOAT_BYTES
    virtual, mirrors = stages_of(facts, plan), _mirror_numbers(facts, plan)
    found = []
    for stage in range(pp):
        chunks = [virtual[c * pp + stage] for c in range(plan.chunks)]
        sizes = [params(part.local(plan)) for chunk in chunks for part in chunk]
        held = rank_memory(
            sizes,
            zero_stage=plan.zero_stage,
            data_size=plan.grid.dp_size * plan.grid.cp_size,
            element_bytes=element,
            state_tensors=STATE_TENSORS[rule(spec)],
            activations_bytes=_activations(spec, facts, plan, chunks, stage) * element / FLOAT_BYTES,
        )
        outer = 2 * sum(sizes) * element if plan.outer_momentum else 0
        copies = 2 * mirrors[stage] * number_bytes(spec, plan)
        found.append(StageMemory(held, _kept_errors(plan, chunks, sum(sizes)) * element, outer, copies))
    return found


def process_bytes(spec: TrainingSpec, facts: WorkloadFacts, plan: Plan) -> float:
    """Return what the fullest rank's process needs: its libraries, the data, the net as it was drawn, its share, activations.

    Every rank draws the whole net, and holds the whole state while it is handed over: at the start and at a checkpoint.
    """
    element = 8 if plan.precision == "float64" else FLOAT_BYTES
    drawn = sum(layer.params + layer.fixed_params for layer in facts.layers())
    whole = (1 + STATE_TENSORS[rule(spec)]) * facts.params * element
    samples = facts.train_samples + facts.test_samples
    data = samples * (math.prod(facts.sample_shape) + 1) * sample_number_bytes(facts)
    held = facts.params * element if plan.is_plain else drawn * FLOAT_BYTES
    most = 0.0
    for stage in memory(spec, facts, plan):
        passing = stage.peak_bytes - stage.steady_bytes
        most = max(most, stage.steady_bytes + max(passing, 0 if plan.is_plain else whole))
    return RANK_BYTES + data + held + most


def admit(spec: TrainingSpec, machine: Machine) -> None:
    """Refuse a plan that does not fit the machine's memory, before anything is started.

    Raises:
        AdmissionError: With the figures and what would help.
        ModelInputError: More stages or ranks than the net can be cut into.
    """
    plan = spec.plan(spec.nodes)
    facts = catalog.facts(spec.workload).sized(spec.width, spec.depth)
    if spec.device != "cpu" and machine.gpus:
        stages_of(facts, plan)
        return
    each = process_bytes(spec, facts, plan)
    free = machine.memory_bytes - RESERVED_BYTES
    if spec.nodes * each > free:
        ways = "a smaller width or depth, fewer nodes, or a smaller global_batch"
        if plan.num_microbatches == 1 or not plan.recompute:
            ways += ", more micro-batches, recompute"
        raise AdmissionError(
            f"memory: {spec.nodes} nodes of {show('B', each)} need {show('B', spec.nodes * each)}; "
            f"this machine has {show('B', free)} to give; use {ways}"
        )


def rule(spec: TrainingSpec) -> Optimizer:
    """Return the optimiser as calibration names it."""
    return "adamw" if spec.rule == "adamw" else "sgd"


def params(layers: Sequence[Layer]) -> int:
    """Return the trained numbers of some layers."""
    return sum(layer.params for layer in layers)


def sample_number_bytes(facts: WorkloadFacts) -> int:
    """Return the size of one number of a sample: tokens, counts and ids are whole numbers of 8 bytes."""
    return INDEX_BYTES if facts.task == "language" or facts.family == "clicks" else FLOAT_BYTES


def _activations(
    spec: TrainingSpec, facts: WorkloadFacts, plan: Plan, chunks: Sequence[Sequence[PartLayers]], stage: int
) -> float:
    """Return bytes of one rank of a stage; each of its chunks counts alike."""
    grid = plan.grid
    micro = math.ceil(math.ceil(spec.global_batch / grid.dp_size) / plan.num_microbatches)
    stated = any(layer.kept_bytes for layer in facts.layers())
    kept, inputs = [], []
    for chunk in chunks:
        for i, part in enumerate(chunk):
            layers = part.local(plan)
            first = i == 0
            kept.append(micro * sum(_kept_bytes(layer, stated, first and j == 0) for j, layer in enumerate(layers)))
            inputs.append(float(micro * layers[0].in_elements * FLOAT_BYTES))
    loss = loss_of(facts, plan) if stage == grid.pp_size - 1 else None
    if loss is not None:
        kept[-1] += micro * (loss.kept_bytes if stated else loss.in_elements * FLOAT_BYTES + INDEX_BYTES)
    passes = in_flight(order(plan.schedule, grid.pp_size, plan.num_microbatches, stage, plan.chunks))
    alive = max(1, math.ceil(passes / len(chunks)))
    return activation_bytes(kept, num_in_flight=alive, input_bytes=inputs if plan.recompute else None)


def _kept_bytes(layer: Layer, stated: bool, first: bool) -> int:
    """Return what autograd keeps of a layer per sample. Plain rows keep a stage's input, rectified numbers, and places of maxima."""
    received = layer.in_elements * FLOAT_BYTES if first else 0
    if stated:
        return max(layer.kept_bytes, 0)
    if layer.kind in {"activation", "pool"}:
        return received + layer.out_elements * (FLOAT_BYTES + (INDEX_BYTES if layer.kind == "pool" else 0))
    return received


def matrices(layers: Sequence[Layer], rank: int) -> list[tuple[int, int]]:
    """Return (rows, columns) of the gradients that PowerSGD of this rank makes smaller; see `parallel.powersgd`."""
    found = []
    for layer in layers:
        d = layer.dims
        match layer.kind:
            case "linear":
                shape = d["out"], d["in"]
            case "conv":
                shape = d["out_channels"], d["in_channels"] * d["kernel"] ** 2
            case "embedding":
                shape = d["vocab"], d["width"]
            case _:
                continue
        rows, columns = round(shape[0]), round(shape[1])
        if layer.params and rank * (rows + columns) < rows * columns:
            found.append((rows, columns))
    return found


def sends_copies(plan: Plan) -> bool:
    """Whether a neighbour gets copies: not where a replica holds the same anyway."""
    grid = plan.grid
    return plan.mirrors and grid.world_size > 1 and (plan.zero_stage > 0 or grid.dp_size * grid.cp_size == 1)


def number_bytes(spec: TrainingSpec, plan: Plan) -> int:
    """Return the bytes of one parameter in the whole state: itself, and what the optimiser keeps of it."""
    return (1 + STATE_TENSORS[rule(spec)]) * (8 if plan.precision == "float64" else FLOAT_BYTES)


def stood_for(plan: Plan, parts: Sequence[PartLayers], data_rank: int, *, first: bool = True) -> int:
    """Return the parameters of some parts that a rank stands for; `first` of the tp ranks, for what is whole on each of them."""
    sizes = [params([c.local(plan) for c in part.layers if first or c.how != "whole"]) for part in parts]
    if not plan.zero_stage:
        return sum(sizes)
    cut = [sum(sizes)] if plan.zero_stage == 1 else sizes
    slices = [share(size, plan.grid.dp_size * plan.grid.cp_size, data_rank) for size in cut]
    return sum(s.stop - s.start for s in slices)


def _mirror_numbers(facts: WorkloadFacts, plan: Plan) -> list[int]:
    """Return the parameters of which the fullest rank of each pipeline stage keeps a copy."""
    grid, found, own = plan.grid, [0] * plan.grid.pp_size, []
    if not plan.mirrors:
        return found
    virtual = stages_of(facts, plan)
    for rank in range(grid.world_size):
        place = grid.place(rank)
        parts = [part for c in range(plan.chunks) for part in virtual[c * grid.pp_size + place["pp"]]]
        own.append(stood_for(plan, parts, grid.group(rank, "dp", "cp").index(rank), first=place["tp"] == 0))
    for rank, numbers in enumerate(own):
        stage = grid.place(rank)["pp"]
        found[stage] = max(found[stage], numbers + (own[rank - 1] if sends_copies(plan) else 0))
    return found


def _kept_errors(plan: Plan, chunks: Sequence[Sequence[PartLayers]], size: int) -> int:
    """Return the numbers that error feedback, and PowerSGD's warm start, keep."""
    if plan.compression == "top-k":
        return size
    if plan.compression != "powersgd":
        return 0
    layers = [layer for chunk in chunks for part in chunk for layer in part.local(plan)]
    return size + sum(columns * plan.powersgd_rank for _, columns in matrices(layers, plan.powersgd_rank))
