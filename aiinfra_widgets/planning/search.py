"""The best plan of a training job under limits of memory, time, money and carbon; the Pareto front; and what stands in the way.

Step time and memory depend on the plan and the device alone, so they are computed once per plan and device, in blocks that
fit the processor's cache. Prices, regions and grids then only multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from math import ceil, inf
from typing import Any

import numpy as np

from ..errors import ModelInputError
from ..models._check import need
from ..models.cost import rented_cost_usd
from ..models.energy import embodied_gco2e, energy_j, facility_energy_j, operational_gco2e
from ..models.power import device_power_w
from ..models.transformer.architecture import Transformer
from ..models.transformer.cluster import Cluster
from ..models.transformer.memory import memory_per_rank
from ..models.transformer.plan import Plan
from ..models.transformer.step import predict_step
from .binding import CONSTRAINTS, Binding, Dead, bindings, dead_end
from .offers import Choice, Limits, Offer
from .pareto import nondominated
from .plans import PlanSpace, plan_blocks

OBJECTIVES = ("time_s", "cost_usd", "carbon_gco2e")
#: Plans that need more than this many times the memory are counted, not timed: nobody would buy that much.
NEAR_MEMORY_RATIO = 2.0
#: Plans predicted in one call: their arrays stay in the processor's cache.
BLOCK_ROWS = 2**15
#: Fields of a plan that differ within a block of plans; the other fields are shared by the block.
_NUMBERS = (
    *("dp_size", "tp_size", "pp_size", "cp_size", "ep_size", "micro_batch_size", "global_batch_size", "interleave"),
    *("zero_stage", "sequence_parallel"),
)
#: Columns that decide time, money and carbon.
_DECIDES = ("num_nodes", "memory_bytes", "step_time_s", "matrix_frac", "memory_frac", "communication_frac")
_SHARED = tuple(f.name for f in fields(Plan) if f.name not in _NUMBERS)


@dataclass(frozen=True)
class SearchResult:
    """What a search found. All its numbers are modelled, none is measured.

    Attributes:
        objectives: Of OBJECTIVES, those that can be predicted for every offer.
        steps: Steps of the job.
        num_layouts: Ways to spread the job over nodes of one kind that were considered.
        num_plans: The same, each counted once per offer.
        num_feasible: Of these, within all limits.
        table: One row per plan and offer that needs at most NEAR_MEMORY_RATIO times the memory: arrays of one length
            (OBJECTIVES, memory_bytes, step_time_s, offer, num_nodes, feasible).
        best: By objective, the row of the best plan; empty when there is none.
        front: Rows on the Pareto front over the objectives, the quickest first.
        binding: By objective, the limits whose relaxation would improve it, the most effective first.
        dead_end: Why no plan is left, else None.
        notes: Numbers of nodes that no plan suits, and why.
    """

    model: Transformer
    offers: Sequence[Offer]
    objectives: tuple[str, ...]
    steps: int
    num_layouts: int
    num_plans: int
    num_feasible: int
    table: dict[str, Any]
    best: dict[str, int]
    front: Any
    binding: dict[str, tuple[Binding, ...]]
    dead_end: Dead | None
    notes: tuple[str, ...]
    _plans: dict[str, Any] = field(repr=False)

    def why(self, objective: str) -> list[str]:
        """Return in words what keeps `objective` from being better, or why no plan is left."""
        if self.dead_end:
            return [str(self.dead_end)]
        told = [str(b) for b in self.binding[objective]] or ["no limit binds: no plan considered is better"]
        best = self.choice(self.best[objective])
        if best.num_nodes == max(best.offer.node_counts):
            told.append(
                f"the number of nodes may bind: it takes all {best.num_nodes} on offer; search with more to see"
            )
        return told

    def choice(self, row: int) -> Choice:
        """Return a row of `table` with its plan."""
        at = self.table["plan"][row]
        numbers = {n: self._plans[n][at].item() for n in _NUMBERS}
        shared = dict(zip(_SHARED, self._plans["shared"][self._plans["word"][at]], strict=True))

        def known(name: str) -> float | None:
            value = float(self.table[name][row])
            return None if np.isnan(value) else value

        return Choice(
            Plan(**numbers, **shared),
            self.offers[int(self.table["offer"][row])],
            int(self.table["num_nodes"][row]),
            float(self.table["memory_bytes"][row]),
            float(self.table["step_time_s"][row]),
            float(self._plans["mfu"][at]),
            float(self.table["time_s"][row]),
            known("cost_usd"),
            known("energy_j"),
            known("carbon_gco2e"),
        )


def search(
    model: Transformer,
    offers: Offer | Sequence[Offer],
    global_batch_size: int,
    *,
    tokens: float | None = None,
    steps: int | None = None,
    limits: Limits | None = None,
    space: PlanSpace | None = None,
    predict: Callable[..., Any] = predict_step,
    memory: Callable[..., Any] = memory_per_rank,
) -> SearchResult:
    """Find the best plans of one training job, and what limits them.

    Args:
        model: What is trained; plain numbers.
        offers: Nodes that can be had; offers of the same cluster share its predictions.
        global_batch_size: Sequences per step.
        tokens, steps: How long to train: one of the two.
        limits: Memory, deadline, budget, carbon.
        space: Which plans are considered. Precision comes with the offer.
        predict: (model, plan, cluster) -> what `predict_step` returns.
        memory: (model, plan) -> what `memory_per_rank` returns.

    Raises:
        ModelInputError: Both or neither of tokens and steps, a limit on what an offer does not let be known, not one valid plan.

    Valid when: all nodes are equal and none fails; the time to train is steps times the step time.
    Off by: as the models of step and memory are; no start-up, checkpoints or restarts.
    Source: enumeration; nothing is left out by a heuristic but plans beyond NEAR_MEMORY_RATIO.
    """
    offers = [offers] if isinstance(offers, Offer) else list(offers)
    limits, space = limits or Limits(), space or PlanSpace()
    num_steps = _steps(model, global_batch_size, tokens, steps)
    objectives = _objectives(offers, limits)
    plans = _Plans(model, global_batch_size, space, limits, predict, memory)
    table = _table(plans, offers, num_steps)
    limit = _limit_of(table, offers, limits)
    within = {c: (table[c] <= limit[c]) | (limit[c] == inf) for c in CONSTRAINTS}
    table["feasible"] = np.logical_and.reduce(list(within.values()))
    feasible = np.flatnonzero(table["feasible"])
    best = {o: int(feasible[np.argmin(table[o][feasible])]) for o in objectives} if len(feasible) else {}
    return SearchResult(
        model,
        offers,
        objectives,
        num_steps,
        plans.layouts,
        plans.considered,
        len(feasible),
        table,
        best,
        _front(feasible, [table[o] for o in objectives]),
        {o: bindings(o, row, table, within, limit) for o, row in best.items()},
        None if len(feasible) else dead_end(table, within, limit, plans.considered),
        tuple(dict.fromkeys(f"{nodes} nodes left out: {error}" for nodes, error in plans.skipped)),
        plans.whole(),
    )


def _table(plans: _Plans, offers: Sequence[Offer], steps: int) -> dict[str, Any]:
    """Return one row per plan and offer; offers of one cluster share what is predicted for it."""
    parts = []
    for cluster, precision in dict.fromkeys((o.cluster, o.precision) for o in offers):
        members = [i for i, o in enumerate(offers) if (o.cluster, o.precision) == (cluster, precision)]
        counts = sorted({int(n) for i in members for n in offers[i].node_counts})
        seen = plans.predict_all(cluster, precision, counts, [offers[i].node_counts for i in members])
        parts += [_placed(i, offers[i], seen, steps) for i in members]
    if not plans.considered:
        raise plans.skipped[0][1] if plans.skipped else ModelInputError("no offer, so no plan; give at least one")
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def _limit_of(table: dict[str, Any], offers: Sequence[Offer], limits: Limits) -> dict[str, Any]:
    """Return each constraint's limit: one number, or for memory one per row, as devices differ."""
    memory = [limits.memory_bytes or float(o.cluster.accelerator.memory_bytes) for o in offers]
    return {
        "memory_bytes": np.asarray(memory)[table["offer"]],
        "time_s": limits.deadline_s,
        "cost_usd": limits.budget_usd,
        "carbon_gco2e": limits.carbon_gco2e,
    }


def _front(rows: Any, values: list[Any]) -> Any:
    """Return the rows that no other beats, the quickest first; of equal ones the first."""
    points = np.column_stack([v[rows] for v in values])
    on = np.flatnonzero(nondominated(points))
    return rows[on[np.unique(points[on], axis=0, return_index=True)[1]]]


class _Plans:
    """Every plan that is near enough in memory, with its step time: collected block by block, read as arrays."""

    def __init__(
        self, model: Transformer, batch: int, space: PlanSpace, limits: Limits, predict: Any, memory: Any
    ) -> None:
        self.model, self.batch, self.space, self.limits = model, batch, space, limits
        self._predict, self._memory = predict, memory
        self.layouts = self.considered = 0
        self.skipped: list[tuple[int, ModelInputError]] = []
        self._blocks: list[dict[str, Any]] = []
        self._shared: dict[tuple[Any, ...], int] = {}

    def predict_all(
        self, cluster: Cluster, precision: str, counts: Iterable[int], offered: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Predict every plan on `counts` nodes of one cluster; return what decides its time, money and carbon.

        `offered` holds the node counts of each offer of that cluster, to count every plan once per offer. Where memory
        lets none through, the plan that needs least of it is predicted alone: it is the nearest miss.
        """
        first, per_node = len(self._blocks), int(cluster.per_node)
        limit = NEAR_MEMORY_RATIO * (self.limits.memory_bytes or float(cluster.accelerator.memory_bytes))
        least: tuple[float, Plan | None] = (inf, None)
        for nodes in counts:
            space = replace(self.space, base=replace(self.space.base, precision=precision))
            times = sum(nodes in w for w in offered)
            try:
                blocks = list(plan_blocks(self.model, nodes * per_node, self.batch, per_node, space, BLOCK_ROWS))
            except ModelInputError as error:
                self.skipped.append((nodes, error))
                continue
            for plan in blocks:
                need_bytes = np.asarray(self._memory(self.model, plan).total_bytes, dtype=float)
                self.layouts += len(need_bytes)
                self.considered += times * len(need_bytes)
                near = need_bytes <= limit
                if near.any():
                    self._add(_taken(plan, near), need_bytes[near], cluster, nodes)
                elif need_bytes.min() < least[0]:
                    at = np.arange(len(need_bytes)) == need_bytes.argmin()
                    least, least_nodes = (float(need_bytes.min()), _taken(plan, at)), nodes
        if len(self._blocks) == first and least[1] is not None:
            self._add(least[1], np.array([least[0]]), cluster, least_nodes)
        return self._columns(first)

    def _add(self, plan: Plan, need_bytes: Any, cluster: Cluster, nodes: int) -> None:
        step = self._predict(self.model, plan, cluster)
        size, total = need_bytes.shape, step.step_time_s
        working = (step.compute_time_s + step.optimizer_time_s) / total
        matrix = np.minimum(step.hfu / cluster.accelerator.achievable_frac, working)
        shared = tuple(getattr(plan, n) for n in _SHARED)
        block = {n: np.broadcast_to(getattr(plan, n), size) for n in _NUMBERS}
        block = {n: v.astype(bool if v.dtype == bool else np.int32) for n, v in block.items()}
        block["word"] = np.full(size, self._shared.setdefault(shared, len(self._shared)), dtype=np.int16)
        block["num_nodes"] = np.full(size, nodes, dtype=np.int32)
        block["memory_bytes"] = need_bytes
        block |= {n: np.broadcast_to(np.asarray(v, dtype=float), size) for n, v in {
            "step_time_s": total, "mfu": step.mfu, "matrix_frac": matrix, "memory_frac": working - matrix,
            "communication_frac": step.exposed_comm_time_s / total,
        }.items()}  # fmt: skip
        self._blocks.append(block)

    def _columns(self, first: int) -> dict[str, Any]:
        """Return what decides time, money and carbon of the plans from block `first` on, and their numbers."""
        found = {n: np.concatenate([b[n] for b in self._blocks[first:]] or [np.empty(0)]) for n in _DECIDES}
        start = sum(len(b["word"]) for b in self._blocks[:first])
        return found | {"plan": np.arange(start, start + len(found["num_nodes"]), dtype=np.int32)}

    def whole(self) -> dict[str, Any]:
        """Return the plans as arrays, and their words by number."""
        return {n: np.concatenate([b[n] for b in self._blocks]) for n in (*_NUMBERS, "word", "mfu")} | {
            "shared": list(self._shared)
        }


def _taken(plan: Plan, mask: Any) -> Plan:
    """Return the plans of a block that `mask` picks."""
    return (
        plan
        if mask.all()
        else replace(plan, **{n: getattr(plan, n)[mask] for n in _NUMBERS if np.ndim(getattr(plan, n))})
    )


def _placed(index: int, offer: Offer, seen: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return one row per plan on this offer's nodes: what the whole job takes there."""
    here = np.isin(seen["num_nodes"], np.asarray(offer.node_counts))
    row = {k: v if here.all() else v[here] for k, v in seen.items()}
    nodes, shares = row["num_nodes"], [row.pop(f"{k}_frac") for k in ("matrix", "memory", "communication")]
    row["time_s"] = steps * row["step_time_s"]
    unknown = np.full(len(nodes), np.nan)
    row["cost_usd"] = rented_cost_usd(nodes, row["time_s"], offer.price_usd_per_node_hour) if offer.priced else unknown
    row["energy_j"] = row["carbon_gco2e"] = unknown
    if offer.metered:
        watts = offer.cluster.per_node * device_power_w(offer.idle_w, offer.rated_w, *shares) + offer.host_w_per_node
        row["energy_j"] = facility_energy_j(energy_j(nodes * watts, row["time_s"]), offer.pue)
        made = nodes * embodied_gco2e(offer.embodied_gco2e_per_node, row["time_s"], offer.lifetime_s)
        row["carbon_gco2e"] = operational_gco2e(row["energy_j"], offer.carbon_intensity_gco2e_per_kwh) + made
    row["offer"] = np.full(len(nodes), index, dtype=np.int16)
    return row


def _steps(model: Transformer, batch: int, tokens: float | None, steps: int | None) -> int:
    if (tokens is None) == (steps is None):
        raise ModelInputError(f"give either tokens or steps to train; got tokens={tokens}, steps={steps}")
    if steps is not None:
        need("steps", steps, 1, whole=True)
        return int(steps)
    need("tokens", tokens, above=True)
    need("global_batch_size", batch, 1, whole=True)
    return ceil(tokens / (batch * int(model.seq_len)))  # type: ignore[operator]


def _objectives(offers: Sequence[Offer], limits: Limits) -> tuple[str, ...]:
    """Return what can be predicted for every offer; refuse a limit on what cannot."""
    for limited, known, what in (
        (limits.budget_usd, "priced", "budget_usd is set, but {} has no price; give price_usd_per_node_hour, or leave the offer out"),
        (limits.carbon_gco2e, "metered", "carbon_gco2e is set, but {} lacks power or grid; give idle_w, rated_w and "
         "carbon_intensity_gco2e_per_kwh"),
    ):  # fmt: skip
        lacking = [o.name for o in offers if not getattr(o, known)]
        if limited < inf and lacking:
            raise ModelInputError(what.format(", ".join(lacking)))
    can = {"time_s": True, "cost_usd": all(o.priced for o in offers), "carbon_gco2e": all(o.metered for o in offers)}
    return tuple(o for o in OBJECTIVES if can[o])
