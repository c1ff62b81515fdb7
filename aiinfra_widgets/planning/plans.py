"""All valid plans of a model on a number of ranks, as arrays; and a clear word where one explicit plan is wrong.

The rules are stated once, as data: the enumeration keeps what they allow, and `check_plan` says which one a plan breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from math import gcd
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import ModelInputError
from ..models._check import need
from ..models.transformer.architecture import Transformer
from ..models.transformer.plan import RECOMPUTE, SCHEDULES, Plan

Columns = dict[str, Any]
#: What a plan has that is not searched over, unless the caller says otherwise: as large jobs are run today.
USUAL = Plan(flash_attention=True, overlap_grad_reduce=True, overlap_pipeline=True)


@dataclass(frozen=True, slots=True)
class PlanSpace:
    """Which plans are considered: for each choice the values to try, where None means every one that fits.

    Where a choice makes no difference, only one value of it is tried: no schedule but the first without a pipeline, no
    sequence parallelism without tensor parallelism, no ZeRO stage but the lowest with one replica.

    Attributes:
        tp_sizes, pp_sizes, cp_sizes, ep_sizes, micro_batch_sizes: As in `Plan`.
        interleaves: Chunks per stage for the schedule "interleaved"; every one from 2 that divides, where None.
        zero_stages, sequence_parallel, recomputes, schedules: As in `Plan`.
        tp_across_nodes: Tensor parallelism may leave the node.
        base: Everything else of a plan: precision, attention, what overlaps.

    Raises:
        ModelInputError: A choice without a value, or a size that is not whole and positive.
    """

    tp_sizes: Sequence[int] | None = None
    pp_sizes: Sequence[int] | None = None
    cp_sizes: Sequence[int] | None = None
    ep_sizes: Sequence[int] | None = None
    micro_batch_sizes: Sequence[int] | None = None
    interleaves: Sequence[int] | None = None
    zero_stages: Sequence[int] = (0, 1, 2, 3)
    sequence_parallel: Sequence[bool] = (True, False)
    recomputes: Sequence[str] = RECOMPUTE
    schedules: Sequence[str] = SCHEDULES
    tp_across_nodes: bool = False
    base: Plan = USUAL

    def __post_init__(self) -> None:
        for name in self.__slots__:
            values = getattr(self, name)
            if name in {"tp_across_nodes", "base"} or values is None:
                continue
            if isinstance(values, str) or not len(values):
                raise ModelInputError(f"{name} must be a list with at least one value, got {values!r}")
            if name.endswith("_sizes") or name == "interleaves":
                need(name, np.asarray(values), 1, whole=True)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a plan must obey.

    Attributes:
        fields: The fields of a plan that it is about.
        holds: (model, plan or columns, devices per node) -> True for each plan that obeys.
        says: (model, plan, devices per node) -> what is wrong with one plan, what is allowed, and the next step.
    """

    fields: tuple[str, ...]
    holds: Callable[[Transformer, Any, int], Any]
    says: Callable[[Transformer, Any, int], str]


DEGREE_RULES = (
    Rule(
        ("tp_size",),
        lambda m, p, _: (m.heads % p.tp_size == 0) & (m.kv_heads % p.tp_size == 0),
        lambda m, p, _: (
            f"tp_size {_int(p.tp_size)} must divide the {_int(m.heads)} heads and the {_int(m.kv_heads)} "
            f"heads of keys and values; take tp_size from {_listed(divisors(gcd(_int(m.heads), _int(m.kv_heads))))}"
        ),
    ),
    Rule(
        ("pp_size",),
        lambda m, p, _: m.layers % p.pp_size == 0,
        lambda m, p, _: (
            f"pp_size {_int(p.pp_size)} must divide the {_int(m.layers)} layers; "
            f"take pp_size from {_listed(divisors(m.layers))}"
        ),
    ),
    Rule(
        ("cp_size",),
        lambda m, p, _: (p.cp_size == 1) | (m.seq_len % (2 * p.cp_size) == 0),
        lambda m, p, _: (
            f"cp_size {_int(p.cp_size)} must divide half of the {_int(m.seq_len)} tokens of a sequence, "
            f"because each rank takes an early and a late piece; take cp_size from {_listed(divisors(m.seq_len // 2))}"
        ),
    ),
    Rule(
        ("ep_size", "dp_size", "cp_size"),
        lambda m, p, _: (m.experts % p.ep_size == 0) & (p.dp_size * p.cp_size % p.ep_size == 0),
        lambda m, p, _: (
            f"ep_size {_int(p.ep_size)} must divide the {_int(m.experts)} experts and dp_size({_int(p.dp_size)}) * "
            f"cp_size({_int(p.cp_size)}), whose ranks it groups; "
            f"take ep_size from {_listed(divisors(gcd(_int(m.experts), _int(p.dp_size * p.cp_size))))}"
        ),
    ),
)
NODE_RULE = Rule(
    ("tp_size",),
    lambda m, p, per_node: per_node % p.tp_size == 0,
    lambda m, p, per_node: (
        f"tp_size {_int(p.tp_size)} must divide the {per_node} devices of a node, or its traffic leaves "
        f"the node; take tp_size from {_listed(divisors(per_node))}, or allow it with tp_across_nodes"
    ),
)
BATCH_RULE = Rule(
    ("micro_batch_size", "dp_size", "global_batch_size"),
    lambda m, p, _: p.global_batch_size % (p.dp_size * p.micro_batch_size) == 0,
    lambda m, p, _: (
        f"micro_batch_size({_int(p.micro_batch_size)}) * dp_size({_int(p.dp_size)}) must divide "
        f"global_batch_size({_int(p.global_batch_size)}); change the batch, or the degree of data parallelism"
    ),
)
PIPELINE_RULES = (
    Rule(
        ("pp_size", "interleave"),
        # A pp_size that does not divide the layers is told by its own rule.
        lambda m, p, _: (m.layers % (p.pp_size * p.interleave) == 0) | (m.layers % p.pp_size != 0),
        lambda m, p, _: (
            f"pp_size({_int(p.pp_size)}) * interleave({_int(p.interleave)}) must divide the {_int(m.layers)} layers; "
            f"take interleave from {_listed(divisors(_int(m.layers) // _int(p.pp_size)))}"
        ),
    ),
    Rule(
        ("interleave", "schedule", "pp_size"),
        lambda m, p, _: (p.interleave == 1) | ((np.asarray(p.schedule) == "interleaved") & (p.pp_size > 1)),
        lambda m, p, _: (
            f"interleave {_int(p.interleave)} needs the schedule 'interleaved' and pp_size above 1, "
            f"got {str(p.schedule)!r} and pp_size({_int(p.pp_size)}); set interleave to 1 or change these"
        ),
    ),
    Rule(
        ("interleave", "pp_size", "num_microbatches"),
        lambda m, p, _: (p.interleave == 1) | (p.num_microbatches % p.pp_size == 0),
        lambda m, p, _: (
            f"num_microbatches({_int(p.num_microbatches)}) must be a multiple of pp_size({_int(p.pp_size)}) when "
            f"stages are interleaved; change micro_batch_size, dp_size or the batch, or set interleave to 1"
        ),
    ),
)


def check_plan(
    model: Transformer,
    plan: Plan,
    world_size: int | None = None,
    per_node: int | None = None,
    tp_across_nodes: bool = False,
) -> None:
    """Refuse one explicit plan that cannot run.

    Args:
        model: Its shape; plain numbers.
        plan: One plan; plain numbers and words.
        world_size: Ranks that there are. None: as many as the plan takes.
        per_node: Devices of a node. None: tensor parallelism is not held to a node.
        tp_across_nodes: Tensor parallelism may leave the node.

    Raises:
        ModelInputError: Each rule that it breaks, with the next step; and every factor of the plan.
    """
    problems = []
    ranks = _int(plan.world_size)
    if world_size is not None and ranks != world_size:
        others = _int(plan.tp_size * plan.pp_size * plan.cp_size)
        step = (
            f"set dp_size to {world_size // others}"
            if world_size % others == 0
            else f"choose degrees whose product is {world_size}"
        )
        problems.append(f"the degrees make {ranks} ranks, but there are {world_size}; {step}")
    rules = (*DEGREE_RULES, *([NODE_RULE] if per_node and not tp_across_nodes else []), BATCH_RULE, *PIPELINE_RULES)
    node = per_node or 0
    problems += [rule.says(model, plan, node) for rule in rules if not np.all(rule.holds(model, plan, node))]
    if problems:
        raise ModelInputError("\n".join([*problems, f"the plan: {factors(plan, world_size)}"]))


def factors(plan: Plan, world_size: int | None = None) -> str:
    """Return every factor of one plan, spelled out.

    Args:
        plan: One plan.
        world_size: Ranks that there are. None: as many as the plan takes.
    """
    there = _int(plan.world_size) if world_size is None else world_size
    sign = "==" if _int(plan.world_size) == there else "!="
    degrees = " * ".join(
        f"{name}({_int(getattr(plan, name))})" for name in ("dp_size", "tp_size", "pp_size", "cp_size")
    )
    batch = " * ".join(
        f"{name}({_int(getattr(plan, name))})" for name in ("micro_batch_size", "num_microbatches", "dp_size")
    )
    return (
        f"{degrees} {sign} world_size({there}), ep_size({_int(plan.ep_size)}) within dp_size * cp_size, "
        f"{batch} == global_batch_size({_int(plan.global_batch_size)}), interleave({_int(plan.interleave)})"
    )


def enumerate_plans(
    model: Transformer,
    world_sizes: int | Sequence[int],
    global_batch_size: int,
    per_node: int = 8,
    space: PlanSpace | None = None,
) -> Plan:
    """Return every valid plan as one `Plan` whose fields are arrays of one length.

    Args, Raises: As `plan_blocks`.
    """
    blocks = list(plan_blocks(model, world_sizes, global_batch_size, per_node, space))
    whole = {}
    for field in fields(Plan):
        parts = [np.broadcast_to(getattr(b, field.name), np.shape(b.dp_size)) for b in blocks]
        whole[field.name] = np.concatenate(parts)
    return Plan(**whole)


def plan_blocks(
    model: Transformer,
    world_sizes: int | Sequence[int],
    global_batch_size: int,
    per_node: int = 8,
    space: PlanSpace | None = None,
    rows: int = 2**30,
) -> Iterator[Plan]:
    """Yield every valid plan once, in blocks: within a block the numbers are arrays, the words and switches plain values.

    Args:
        model: The shape; plain numbers.
        world_sizes: Numbers of ranks to plan for.
        global_batch_size: Sequences per step.
        per_node: Devices of a node, which bounds tensor parallelism.
        space: Which plans are considered. None: all.
        rows: Longest block.

    Raises:
        ModelInputError: A number that is not whole and positive, or not one valid plan: with the rule that left none.
    """
    space = space or PlanSpace()
    sizes = np.atleast_1d(world_sizes)
    for name, value in (("world_sizes", sizes), ("global_batch_size", global_batch_size), ("per_node", per_node)):
        need(name, value, 1, whole=True)
    problem = None
    found = False
    for size in sizes.tolist():
        try:
            numbers = _numbers(model, int(size), int(global_batch_size), int(per_node), space)
        except ModelInputError as error:
            problem = problem or error
            continue
        for block in _worded(model, numbers, space):
            found = True
            count = len(block["dp_size"])
            for start in range(0, count, rows):
                yield replace(space.base, **{k: v[start : start + rows] if np.ndim(v) else v for k, v in block.items()})
    if not found:
        raise problem or ModelInputError(
            f"no plan of {_listed(sizes.tolist())} ranks: the pipeline's rules leave none; "
            "allow another schedule, or give interleaves that divide layers / pp_size"
        )


def divisors(number: Any) -> list[int]:
    """Return the whole numbers that divide `number`, in order."""
    n = _int(number)
    low = [k for k in range(1, int(n**0.5) + 1) if n % k == 0]
    return sorted({*low, *(n // k for k in low)})


def _numbers(model: Transformer, world_size: int, batch: int, per_node: int, space: PlanSpace) -> Columns:
    """Return degrees, micro-batches, ZeRO stage and sequence parallelism of all plans of one number of ranks."""

    def pick(given: Sequence[int] | None, number: Any) -> list[int]:
        return list(given) if given is not None else [d for d in divisors(number) if world_size % d == 0]

    columns: Columns = _cross(
        {},
        tp_size=pick(space.tp_sizes, gcd(_int(model.heads), _int(model.kv_heads))),
        pp_size=pick(space.pp_sizes, model.layers),
        cp_size=pick(space.cp_sizes, max(_int(model.seq_len) // 2, 1)),
    )
    columns = _keep(columns, world_size % (columns["tp_size"] * columns["pp_size"] * columns["cp_size"]) == 0)
    if not len(columns["tp_size"]):
        raise ModelInputError(
            f"no plan of {world_size} ranks: no tp_size * pp_size * cp_size that is allowed divides {world_size}; "
            f"allow more values, or another number of nodes"
        )
    columns["dp_size"] = world_size // (columns["tp_size"] * columns["pp_size"] * columns["cp_size"])
    columns = _cross(columns, ep_size=divisors(model.experts) if space.ep_sizes is None else space.ep_sizes)
    node = [] if space.tp_across_nodes else [NODE_RULE]
    for rule in (*DEGREE_RULES, *node):
        columns = _obey(model, columns, per_node, rule, world_size)
    columns = _cross(
        columns, micro_batch_size=divisors(batch) if space.micro_batch_sizes is None else space.micro_batch_sizes
    )
    columns["global_batch_size"] = np.full(len(columns["dp_size"]), float(batch))
    columns = _obey(model, columns, per_node, BATCH_RULE, world_size)
    columns = _cross(columns, zero_stage=space.zero_stages, sequence_parallel=space.sequence_parallel)
    same_zero = (columns["dp_size"] * columns["cp_size"] == 1) & (columns["zero_stage"] > min(space.zero_stages))
    same_split = (columns["tp_size"] == 1) & (columns["sequence_parallel"] > min(space.sequence_parallel))
    columns = _keep(columns, ~(same_zero | same_split))
    columns["sequence_parallel"] = columns["sequence_parallel"].astype(bool)
    return columns


def _worded(model: Transformer, numbers: Columns, space: PlanSpace) -> Iterator[Columns]:
    """Yield the same plans once per combination of words, with the interleaving that the schedule allows."""
    plain = next((s for s in space.schedules if s != "interleaved"), space.schedules[0])
    chunks = divisors(model.layers)[1:] if space.interleaves is None else space.interleaves
    ready: dict[str, Columns] = {}
    for schedule, recompute in product(space.schedules, space.recomputes):
        if schedule not in ready:
            piped = numbers if schedule == plain else _keep(numbers, numbers["pp_size"] > 1)
            columns = _cross(piped, interleave=chunks if schedule == "interleaved" else [1])
            if (
                schedule == "interleaved" and schedule == plain
            ):  # the only schedule there is: plans without a pipeline too
                alone = _cross(_keep(numbers, numbers["pp_size"] == 1), interleave=[1])
                columns = {k: np.concatenate([columns[k], alone[k]]) for k in columns}
            for rule in PIPELINE_RULES:
                columns = _keep(columns, rule.holds(model, _seen(columns, schedule), 0))
            ready[schedule] = columns
        if len(ready[schedule]["dp_size"]):
            yield ready[schedule] | {"schedule": schedule, "recompute": recompute}


def _obey(model: Transformer, columns: Columns, per_node: int, rule: Rule, world_size: int) -> Columns:
    left = _keep(columns, rule.holds(model, SimpleNamespace(**columns), per_node))
    if not len(left["dp_size"]):
        first = SimpleNamespace(**{k: v[0] for k, v in columns.items()})
        tried = "; ".join(f"{f} tried: {_listed(np.unique(columns[f]).tolist())}" for f in rule.fields if f in columns)
        raise ModelInputError(
            f"no plan of {world_size} ranks: for example {rule.says(model, first, per_node)} ({tried})"
        )
    return left


def _seen(columns: Columns, schedule: str) -> SimpleNamespace:
    micro = columns["global_batch_size"] // (columns["dp_size"] * columns["micro_batch_size"])
    return SimpleNamespace(**columns, schedule=schedule, num_microbatches=micro)


def _cross(columns: Columns, **axes: Sequence[Any]) -> Columns:
    """Return each row of `columns` with each combination of `axes`."""
    grids = np.meshgrid(*(np.asarray(a, dtype=float) for a in axes.values()), indexing="ij")
    size = grids[0].size
    rows = len(next(iter(columns.values()))) if columns else 1
    return {k: np.repeat(v, size) for k, v in columns.items()} | {
        k: np.tile(g.ravel(), rows) for k, g in zip(axes, grids, strict=True)
    }


def _keep(columns: Columns, mask: Any) -> Columns:
    return {k: v[mask] for k, v in columns.items()}


def _int(number: Any) -> int:
    return int(np.asarray(number))


def _listed(values: Sequence[int]) -> str:
    short = [f"{v:g}" for v in values]
    return ", ".join(short if len(short) <= 12 else [*short[:10], "...", short[-1]])
