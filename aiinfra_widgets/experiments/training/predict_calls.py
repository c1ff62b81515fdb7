"""Every collective of a step under a plan: which kind, how large, among how many ranks, in which pass, how often.

# B samples of one micro-batch, T tokens, t those of a context-parallel rank, D width, n ranks of a group
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...machine.profile import Machine
from ...models import (
    recursive_doubling_allreduce_time_s,
    ring_allreduce_time_s,
    tree_allreduce_time_s,
)
from ...models.links import hierarchical_allreduce_time_s
from ...models.measured import AlphaBeta
from ...parallel.plan import Plan
from ...workloads.facts import FLOAT_BYTES, Layer, WorkloadFacts
from ...workloads.step_times import StepTimes
from .predict_memory import matrices, number_bytes, params, sends_copies, stood_for
from .predict_net import PartLayers, loss_of, stages_of
from .spec import TrainingSpec

Kind = Literal["all_reduce", "reduce_scatter", "all_gather", "all_to_all"]
#: In which pass of a micro-batch, or once a step: behind the last backward pass, or with the update.
When = Literal["forward", "backward", "sync", "update"]
InjectedAllreduce = Callable[[Any, Any, Any, Any], Any]
_INJECTED: dict[str, InjectedAllreduce] = {
    "mpi": ring_allreduce_time_s, "ring": ring_allreduce_time_s, "tree": tree_allreduce_time_s,
    "recursive-doubling": recursive_doubling_allreduce_time_s,
}  # fmt: skip
#: A sleep of t takes this much longer before the rank runs again; the injected delays are sleeps.
SLEEP_OVERHEAD_S = 8e-5


def injected_allreduce(algorithm: str, machine: Machine) -> InjectedAllreduce:
    """Return seconds that the injected link adds to an all-reduce, by (bytes, ranks, bytes per second, seconds per message)."""
    if algorithm != "hierarchical":
        return _INJECTED[algorithm]

    def stages_s(size_bytes: Any, n: Any, rate: Any, message_s: Any) -> Any:
        line = AlphaBeta(message_s, 1 / rate)
        return hierarchical_allreduce_time_s(size_bytes, *machine.spread(n), line, line)

    return stages_s


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective of a rank.

    Attributes:
        kind, when: What, and in which pass.
        size_bytes: Of the whole array.
        ranks: That take part.
        times: In one such pass, or in one step; below 1 where it is not done in every step.
        again: Recomputation does it once more, if it is of the forward pass.
        copied_bytes: Copied within a rank's own memory first.
    """

    kind: Kind
    when: When
    size_bytes: float
    ranks: int
    times: float = 1.0
    again: bool = True
    copied_bytes: float = 0.0

    def in_a_step(self, num_microbatches: int) -> float:
        """Return how often it is done in a step."""
        return self.times * (num_microbatches if self.when in {"forward", "backward"} else 1)

    def time_s(self, rates: StepTimes) -> float:
        """Return the seconds it takes among ranks that arrive together, each with a core of its own."""
        measured = {
            "all_reduce": rates.allreduce_s, "reduce_scatter": rates.reduce_scatter_s,
            "all_gather": rates.all_gather_s, "all_to_all": rates.all_to_all_s,
        }  # fmt: skip
        copy_s = rates.copy_s(self.copied_bytes, self.ranks) if self.copied_bytes else 0.0
        return float(measured[self.kind](self.size_bytes, self.ranks)) + copy_s

    @property
    def sent_bytes(self) -> float:
        """What one rank hands to the network, as the engine counts it."""
        share = (self.ranks - 1) / self.ranks * self.size_bytes
        return 2 * share if self.kind == "all_reduce" else share

    def injected_s(self, link: Link) -> float:
        """Return what the injected link adds: every message on the longest path waits; all-to-all counts as one."""
        if self.kind == "all_to_all":
            return link.message_s(self.sent_bytes)
        if self.kind == "all_reduce":
            return link.all_reduce_s(self.size_bytes, self.ranks)
        return (self.ranks - 1) * link.message_s(self.size_bytes / self.ranks)


@dataclass(frozen=True, slots=True)
class Link:
    """The injected link: latency, bandwidth (0 is no cap), and how an all-reduce passes it."""

    latency_s: float
    bandwidth_bytes_per_s: float
    allreduce: InjectedAllreduce

    @classmethod
    def of(cls, spec: TrainingSpec, machine: Machine) -> Link:
        """Return the link that a run injects."""
        return cls(spec.link_latency_s, spec.link_bandwidth_bytes_per_s, injected_allreduce(spec.algorithm, machine))

    @property
    def active(self) -> bool:
        """Whether anything is injected."""
        return self.latency_s > 0 or self.bandwidth_bytes_per_s > 0

    def message_s(self, size_bytes: float) -> float:
        """Return the seconds that one message waits."""
        if not self.active:
            return 0.0
        cap = size_bytes / self.bandwidth_bytes_per_s if self.bandwidth_bytes_per_s else 0.0
        return self.latency_s + SLEEP_OVERHEAD_S + cap

    def all_reduce_s(self, size_bytes: float, ranks: int) -> float:
        """Return the seconds that an all-reduce waits."""
        if not self.active or ranks == 1:
            return 0.0
        rate = self.bandwidth_bytes_per_s or float("inf")
        return float(self.allreduce(size_bytes, ranks, rate, self.latency_s + SLEEP_OVERHEAD_S))


def collectives(
    facts: WorkloadFacts, plan: Plan, parts: Sequence[PartLayers], micro: float, *, last: bool
) -> list[Collective]:
    """Return what one rank of a virtual stage takes part in.

    Args:
        facts, plan: What is trained, and how it is distributed.
        parts: Of the virtual stage.
        micro: Samples of one micro-batch.
        last: Whether the stage has the loss.
    """
    found: list[Collective] = []
    grid = plan.grid
    if grid.tp_size > 1:
        found += [c for part in parts for c in _tensor(plan, part, micro)]
    if grid.cp_size > 1:
        found += _context(plan, parts, micro)
    if plan.recompute:  # forward once more, but for the loss
        found += [replace(c, when="backward") for c in found if c.when == "forward" and c.again]
    if last and grid.tp_size > 1 and facts.task == "language":
        tokens = micro * loss_of(facts, plan).dims["rows"]
        found += [Collective("all_reduce", "forward", k * FLOAT_BYTES * tokens, grid.tp_size) for k in (1, 2)]
    return [c for c in (*found, *_replicas(plan, parts)) if c.ranks > 1 and c.size_bytes > 0]


def sent_bytes(facts: WorkloadFacts, plan: Plan, global_batch: int) -> float:
    """Return the bytes that all ranks hand to the network in a step; of a local SGD, on average over the steps."""
    grid, m = plan.grid, plan.num_microbatches
    micro, virtual = global_batch / grid.dp_size / m, stages_of(facts, plan)
    each = 0.0
    for index, parts in enumerate(virtual):
        last = index == len(virtual) - 1
        calls = collectives(facts, plan, parts, micro, last=last)
        each += sum(call.sent_bytes * call.in_a_step(m) for call in calls)
        if not last:  # the activations, and their gradients back
            each += 2 * m * hidden_bytes(plan, parts, micro)
    return each * grid.world_size / grid.pp_size


def mirrored_bytes(spec: TrainingSpec, facts: WorkloadFacts, plan: Plan) -> float:
    """Return the bytes of copies that all ranks send to neighbours in a step, on average: each number of the state once a copy."""
    return number_bytes(spec, plan) * facts.params / plan.mirror_every if sends_copies(plan) else 0.0


def mirror_calls(spec: TrainingSpec, plan: Plan, parts: Sequence[PartLayers]) -> list[Collective]:
    """Return what copying the share of one virtual stage into a neighbour's memory costs a rank.

    All n ranks hand a share S to the next one at a time: one of the n - 1 rounds of an all-gather of n S, which is calibrated.

    Before that each copies the share within its own memory, which takes as long again.

    Off by: low where ranks share cores, for a round by itself takes more turns than one of several; replicas that send nothing copy,
    too, and that is left out.
    """
    n, numbers = plan.grid.world_size, stood_for(plan, parts, plan.grid.dp_size * plan.grid.cp_size - 1)
    if not sends_copies(plan) or not numbers:
        return []
    share_bytes = float(numbers * number_bytes(spec, plan))
    times = 1 / (plan.mirror_every * (n - 1))
    return [Collective("all_gather", "update", n * share_bytes, n, times, copied_bytes=(n - 1) * share_bytes)]


def hidden_bytes(plan: Plan, parts: Sequence[PartLayers], micro: float) -> float:
    """Return the size of what a virtual stage hands to the next one, of one micro-batch."""
    return micro * FLOAT_BYTES * parts[-1].layers[-1].local(plan).out_elements


def _tensor(plan: Plan, part: PartLayers, micro: float) -> Iterator[Collective]:
    """Yield the sums before and behind each pair of cut layers, and behind tables."""
    tp, whole = plan.grid.tp_size, Plan(plan.grid)
    again = part.again
    for cut in part.layers:
        layer = cut.layer
        # Between the two layers of a pair every rank has all tokens of its cp rank.
        numbers = micro * FLOAT_BYTES / plan.grid.cp_size
        if cut.how == "columns" and ".lora_b" not in layer.name and layer.needs_input_grad:
            yield from _both(plan, "backward", numbers * layer.in_elements, tp)
        elif cut.how == "rows" and ".lora_a" not in layer.name:
            yield from _both(plan, "forward", numbers * layer.out_elements, tp, again=cut in again)
        elif ".lora_a" in layer.name:  # the adapter's narrow side enters, or leaves
            when: When = "forward" if cut.how == "rows" else "backward"
            yield from _both(plan, when, numbers * layer.out_elements, tp)
        elif cut.how == "table":
            ids = layer.dims["tokens"] * layer.dims["width"]
            yield Collective("all_reduce", "forward", numbers * ids, tp, again=False)
            if plan.sequence_parallel:
                yield Collective("all_gather", "backward", numbers * ids, tp)
    partial = [c.local(whole) for c in part.layers if plan.sequence_parallel and c.layer.kind == "norm"]
    if partial:
        times = plan.num_microbatches if plan.zero_stage >= 2 else 1
        yield Collective("all_reduce", "sync", FLOAT_BYTES * params(partial), tp, times)


def _both(plan: Plan, when: When, size_bytes: float, tp: int, *, again: bool = True) -> Iterator[Collective]:
    """Yield the sum of one pass; with sequence parallel, the half of it that each pass does."""
    if not plan.sequence_parallel:
        yield Collective("all_reduce", when, size_bytes, tp, again=again)
        return
    other: When = "backward" if when == "forward" else "forward"
    yield Collective("reduce_scatter", when, size_bytes, tp, again=again)
    yield Collective("all_gather", other, size_bytes, tp)


def _context(plan: Plan, parts: Sequence[PartLayers], micro: float) -> Iterator[Collective]:
    """Yield the exchange of keys and values in each attention, and of their gradients."""
    whole = Plan(type(plan.grid)(tp_size=plan.grid.tp_size))
    for layer in (c.local(whole) for part in parts for c in part.layers if c.layer.kind == "attention"):
        size = micro * FLOAT_BYTES * 2 * layer.out_elements
        yield Collective("all_gather", "forward", size, plan.grid.cp_size)
        yield Collective("reduce_scatter", "backward", size, plan.grid.cp_size)


def _replicas(plan: Plan, parts: Sequence[PartLayers]) -> Iterator[Collective]:
    """Yield what keeps replicas alike: gradients, shards, averages."""
    units = [params(part.local(plan)) for part in parts]
    size, ranks = FLOAT_BYTES * sum(units), plan.grid.dp_size * plan.grid.cp_size
    if plan.compression != "none":
        yield from _compressed(plan, parts, size, ranks)
    elif plan.average_every > 1:
        yield Collective("all_reduce", "update", size, ranks, 1 / plan.average_every)
        yield Collective("all_reduce", "sync", size, plan.grid.cp_size)
    elif plan.zero_stage == 0:
        yield Collective("all_reduce", "sync", size, ranks)
    elif plan.zero_stage == 1:
        yield Collective("reduce_scatter", "sync", size, ranks)
        yield Collective("all_gather", "update", size, ranks)
    else:
        for unit in (FLOAT_BYTES * u for u in units):
            yield Collective("reduce_scatter", "backward", unit, ranks)
            if plan.zero_stage == 2:
                yield Collective("all_gather", "update", unit, ranks)
            else:
                yield Collective("all_gather", "forward", unit, ranks)
                yield Collective("all_gather", "backward", unit, ranks)


def _compressed(plan: Plan, parts: Sequence[PartLayers], size: float, ranks: int) -> Iterator[Collective]:
    """Yield what a compressed gradient sends; `size` is that of the gradient itself."""
    layers: list[Layer] = [layer for part in parts for layer in part.local(plan)]
    match plan.compression:
        case "fp16" | "bf16":
            if plan.compression == "fp16":  # the ranks agree on a scale
                yield Collective("all_reduce", "sync", FLOAT_BYTES * plan.grid.tp_size, plan.grid.tp_size)
                yield Collective("all_reduce", "sync", FLOAT_BYTES, ranks)
            yield Collective("all_to_all", "sync", size / 2, ranks)
            yield Collective("all_gather", "sync", size / 2, ranks)
        case "top-k":  # values and 32-bit places of every rank
            yield Collective("all_gather", "sync", 2 * plan.top_k_frac * size * ranks, ranks)
        case "powersgd":
            r, small = plan.powersgd_rank, matrices(layers, plan.powersgd_rank)
            plain = size - FLOAT_BYTES * sum(rows * columns for rows, columns in small)
            yield Collective("all_reduce", "sync", FLOAT_BYTES * r * sum(rows for rows, _ in small) + plain, ranks)
            yield Collective("all_reduce", "sync", FLOAT_BYTES * r * sum(columns for _, columns in small), ranks)
