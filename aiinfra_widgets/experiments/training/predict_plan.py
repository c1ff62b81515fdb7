"""A step under any plan, from calibration alone: what each stage computes and sends, put together by the pipeline's schedule.

The arithmetic of a rank and its collectives are counted from the net's facts, timed by calibration, and - where ranks share
layers or replicas without a pipeline - stretched as the lockstep probes say: ranks that meet at every collective wait for the
last one. With a pipeline, a simulation of the schedule says who waits for whom. Nothing is fitted to any run.

# n nodes, m micro-batches, b samples of a replica
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...machine.profile import Machine
from ...models.schedule_simulation import SimulatedStep, simulate
from ...workloads.facts import Layer, WorkloadFacts
from ...workloads.facts import linear as dense
from ...workloads.step_times import StepTimes
from .predict_calls import Collective, Link, collectives, hidden_bytes, mirror_calls, mirrored_bytes, sent_bytes
from .predict_memory import matrices, params, rule, sample_number_bytes
from .predict_net import PartLayers, loss_of, stages_of
from .predict_timeline import lockstep, pipeline
from .spec import TrainingSpec

FLOAT_BYTES = 4
#: Numbers of a rank's notes in the exchange at the end of a step, before the ranks have agreed on more.
NOTES = 64
#: What a step's notes cost in Python, as multiples of the bookkeeping that calibration probes ("tail"; timed side by side): once
#: to write and split them, and for each call that they tell of.
NOTES_TAILS, CALL_TAILS = 2.0, 0.27
PARTS = (
    "data_time_s", "compute_time_s", "exposed_comm_time_s", "straggler_wait_time_s", "bubble_time_s", "injected_time_s",
    "engine_time_s", "runtime_time_s",
)  # fmt: skip


@dataclass(slots=True)
class Pass:
    """One micro-batch through one virtual stage, one way, on one rank; seconds.

    Attributes:
        arithmetic_s: On a core of its own.
        comm_s: In collectives, among ranks that arrive together.
        wait_s: For the last rank to arrive at them.
        link_s: Injected into messages and collectives.
    """

    arithmetic_s: float = 0.0
    comm_s: float = 0.0
    wait_s: float = 0.0
    link_s: float = 0.0

    @property
    def time_s(self) -> float:
        """All of it."""
        return self.arithmetic_s + self.comm_s + self.wait_s + self.link_s


@dataclass(slots=True)
class VirtualStage:
    """What one virtual stage does in a step.

    Attributes:
        forward, backward: Of one micro-batch.
        once_s: Arithmetic of compression behind the last backward pass.
        calls: Its collectives.
        update_numbers: Of each piece that the optimiser updates.
        sends_bytes: To the next virtual stage, one micro-batch forward; as much comes back.
    """

    forward: Pass
    backward: Pass
    once_s: float
    calls: list[Collective]
    update_numbers: list[float] = field(default_factory=list)
    sends_bytes: float = 0.0


@dataclass(slots=True)
class Step:
    """One step of one plan: the parts of the mean rank, and what is drawn.

    Attributes:
        parts: By quantity; they add up to step_time_s.
        sent_bytes: Of all ranks.
        bars: What each rank does when, as the record of a measured step: the predicted timeline.
    """

    parts: dict[str, float]
    sent_bytes: float
    bars: dict[str, list[float]]


def swept(
    spec: TrainingSpec, facts: WorkloadFacts, rates: StepTimes, machine: Machine, over: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return one step of `spec.plan`, or one for each value of a sweep, and the timeline of the first.

    Args:
        spec, facts: What is asked, and of which net.
        rates, machine: Calibration.
        over: Spec fields as arrays that broadcast together; empty is the Spec itself.

    Returns:
        (parts, samples_per_s and sent_bytes by quantity: numbers, or arrays of the broadcast shape with NaN where the degrees do
        not divide the nodes or a replica would have no sample; the bars of the timeline).

    Raises:
        ModelInputError: Not calibrated, or a net that cannot be cut so.
    """
    grids = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in over.values())) if over else []
    shape = grids[0].shape if grids else ()
    found: list[dict[str, float]] = []
    bars: dict[str, list[float]] = {}
    for at in range(math.prod(shape)):
        changes = {k: _plain(spec, k, float(g.flat[at])) for k, g in zip(over, grids, strict=True)}
        then = spec.model_copy(update=changes)
        inner = then.tp_size * then.pp_size * then.cp_size
        samples = then.global_batch // max(then.nodes // inner, 1)
        if then.nodes % inner or samples < then.num_microbatches:
            found.append({})
            continue
        one = _Model(then, facts, rates, machine).step()
        step_s = sum(one.parts.values())
        rate = then.global_batch / step_s
        found.append({"step_time_s": step_s, **one.parts, "samples_per_s": rate, "sent_bytes": one.sent_bytes})
        bars = bars or one.bars
    names = next((row for row in found if row), dict.fromkeys(("step_time_s", *PARTS, "samples_per_s", "sent_bytes")))
    values = {name: np.array([row.get(name, np.nan) for row in found]).reshape(shape) for name in names}
    return values, bars


def _plain(spec: TrainingSpec, name: str, value: float) -> float:
    return int(value) if isinstance(getattr(spec, name), int) else value


def row_numbers(facts: WorkloadFacts) -> float:
    """Return how many float32 numbers fetching one sample moves; targets of sequences are as long as the inputs."""
    numbers = math.prod(facts.sample_shape) * sample_number_bytes(facts) / FLOAT_BYTES
    return 2 * numbers if facts.task == "language" else numbers


class _Model:
    """The terms of one step; one instance per prediction."""

    def __init__(self, spec: TrainingSpec, facts: WorkloadFacts, rates: StepTimes, machine: Machine) -> None:
        self.spec, self.facts, self.rates = spec, facts, rates
        self.plan, self.cores = spec.plan(spec.nodes), machine.cores
        self.grid, self.n, self.m = self.plan.grid, spec.nodes, self.plan.num_microbatches
        self.samples = spec.global_batch / self.grid.dp_size
        self.micro = max(self.samples / self.m, 1.0)
        self.link = Link.of(spec, machine)
        self.virtual = [self._stage(i, parts) for i, parts in enumerate(stages_of(facts, self.plan))]

    def step(self) -> Step:
        """Put the terms together."""
        return self._lockstep() if self.grid.pp_size == 1 else self._pipeline()

    # --- what a virtual stage does ----------------------------------------------------------------------------------
    def _stage(self, index: int, parts: Sequence[PartLayers]) -> VirtualStage:
        plan, rates, facts = self.plan, self.rates, self.facts
        count = self.grid.pp_size * plan.chunks
        last = index == count - 1
        layers = [layer for part in parts for layer in part.local(plan)]
        whole = [*layers, loss_of(facts, plan)] if last else layers
        # What a step costs beside its operations, each micro-batch anew; spread over the passes.
        glue_s = rates.glue_s / (2 * count)
        forward_s = float(rates.forward_s(whole, self.micro, facts.task)) + glue_s
        backward_s = float(rates.backward_s(whole, self.micro, facts.task)) + glue_s
        if plan.recompute:
            again = [cut.local(plan) for part in parts for cut in part.again]
            backward_s += float(rates.forward_s(again, self.micro, facts.task))
        calls = collectives(facts, plan, parts, self.micro, last=last) + mirror_calls(self.spec, plan, parts)
        receives, sends = self.micro * FLOAT_BYTES * layers[0].in_elements, hidden_bytes(plan, parts, self.micro)
        return VirtualStage(
            Pass(forward_s, link_s=self.link.message_s(receives) if index else 0.0),
            Pass(backward_s, link_s=0.0 if last else self.link.message_s(sends)),
            self._compression_s(layers),
            calls,
            self._updated(parts),
            0.0 if last else sends,
        )

    def _updated(self, parts: Sequence[PartLayers]) -> list[float]:
        units = [params(part.local(self.plan)) for part in parts]
        shared = self.grid.dp_size * self.grid.cp_size if self.plan.zero_stage else 1
        return [u / shared for u in units if u] if self.plan.zero_stage >= 2 else [sum(units) / shared]

    def _compression_s(self, layers: Sequence[Layer]) -> float:
        """Return seconds of arithmetic that compressing costs: passes over the gradient, products with thin matrices."""
        plan, rates = self.plan, self.rates
        size = max(params(layers), 1)
        if plan.compression == "none" or self.grid.dp_size * self.grid.cp_size == 1:
            return 0.0

        def passes(name: str, many: float) -> float:
            return many * float(rates.grid(name, "elements", part="forward").time_s(size))

        match plan.compression:
            case "fp16" | "bf16":  # scale, narrow, sum, widen, copy, scale back
                return passes("add", 6)
            case "top-k":  # rest added and kept, magnitudes, choice, zero; choosing compares, as a pool does
                return passes("add", 4) + passes("pool", 1)
        r, found = plan.powersgd_rank, passes("add", 2)
        for rows, columns in matrices(layers, r):
            thin = [dense("left", columns, r, rows=rows), dense("right", rows, r, rows=columns)]
            thin += 2 * [dense("back", r, columns, rows=rows)]
            thin += 2 * [dense("orthogonal", r, r, rows=rows)]
            found += float(rates.forward_s(thin, 1.0))
        return found

    # --- without a pipeline -------------------------------------------------------------------------------------------
    def _lockstep(self) -> Step:
        """All ranks do the same, and meet at every collective."""
        [stage], rates, n = self.virtual, self.rates, self.n
        alone_s = self.m * (stage.forward.arithmetic_s + stage.backward.arithmetic_s) + stage.once_s
        calls = [*((c, self._times(c)) for c in stage.calls), (self._exchange(), 1.0)] if n > 1 else []
        meetings = sum(times for _, times in calls)
        stretch, wait_s, comm_s, link_s = 1.0, 0.0, 0.0, 0.0
        if calls:
            found = [self._meeting(c, alone_s / max(meetings, 1.0)) for c, _ in calls]
            stretch = sum(x * times for (x, _, _), (_, times) in zip(found, calls, strict=True)) / meetings
            wait_s = sum(w * times for (_, w, _), (_, times) in zip(found, calls, strict=True))
            comm_s = sum(s * times for (_, _, s), (_, times) in zip(found, calls, strict=True))
            link_s = sum(c.injected_s(self.link) * times for c, times in calls[:-1])
        update_s = self._update_s(stage.update_numbers)
        slow_s = self._slow_s(alone_s - stage.once_s) * stretch
        parts = {
            "data_time_s": self._data_s(first=True, last=True) * stretch,
            "compute_time_s": alone_s * stretch + update_s + self._notes_s(meetings),
            "exposed_comm_time_s": comm_s,
            "straggler_wait_time_s": wait_s + slow_s * (n - 1) / n,
            "bubble_time_s": 0.0,
            "injected_time_s": slow_s / n + link_s,
            "engine_time_s": 0.0,
            "runtime_time_s": rates.runtime_s() * stretch,
        }
        passes = stage.forward.arithmetic_s, stage.backward.arithmetic_s
        last_s = update_s + self._notes_s(meetings)
        return Step(
            parts,
            self._sent_bytes(),
            lockstep(self.spec, parts, passes, last_s, slow_s),
        )

    def _meeting(self, call: Collective, alone_s: float) -> tuple[float, float, float]:
        """Return what the lockstep probes say of one collective: (stretch of arithmetic, wait, communication)."""
        size = max(call.size_bytes, 1.0)
        stretch, wait_s, comm_s = (float(x) for x in self.rates.lockstep(self.n, max(alone_s, 1e-7), size))
        # The probes know all-reduces over all ranks; another kind, or a smaller group, is as much shorter as it is by itself.
        ratio = call.time_s(self.rates) / max(float(self.rates.allreduce_s(size, self.n)), 1e-9)
        return stretch, wait_s, comm_s * ratio

    # --- a pipeline -------------------------------------------------------------------------------------------------
    def _pipeline(self) -> Step:
        """Stages wait for each other's messages; the ranks of a stage meet at its collectives."""
        p, n, chunks, rates = self.grid.pp_size, self.n, self.plan.chunks, self.rates
        for stage in self.virtual:
            self._fill(stage)
        table = [[self.virtual[c * p + s] for c in range(chunks)] for s in range(p)]
        slow = self._slow_stage()
        factor = [self.spec.slow_factor if s == slow else 1.0 for s in range(p)]
        # Neighbours slow each other even with a core each; the simulation takes care of ranks beyond the cores.
        beside = float(rates.shared_core_factor(min(n, self.cores)))

        def passes(way: str) -> list[list[float]]:
            found = [[getattr(v, way) for v in row] for row in table]
            return [
                [x.time_s + x.arithmetic_s * (beside * f - 1) for x in row]
                for row, f in zip(found, factor, strict=True)
            ]

        sync = [[sum(self._once(v, "sync", s) for v in row) for s in (False, True)] for row in table]
        update = [[sum(self._once(v, "update", s) for v in row) for s in (False, True)] for row in table]
        last_s = [
            self._update_s([u for v in row for u in v.update_numbers])
            + sum(v.once_s for v in row) * beside
            + self._notes_s(sum(2 * self.m + sum(self._times(c) for c in v.calls) for v in row))
            for row in table
        ]
        sim = simulate(
            self.plan.schedule, self.m, passes("forward"), passes("backward"),
            p2p_s=[self._hand_over_s(v) for v in self.virtual[:-1]],
            cores=self.cores, ranks_per_stage=n // p,
            data_s=[self._data_s(first=s == 0, last=s == p - 1) for s in range(p)],
            sync_s=[sync[s][0] + sync[s][1] + update[s][0] + update[s][1] for s in range(p)],
            update_s=last_s,
        )  # fmt: skip
        link_s = [a[1] + b[1] for a, b in zip(sync, update, strict=True)]
        return self._of_simulation(sim, table, slow, beside, float(np.mean(link_s)), float(np.mean(last_s)))

    def _hand_over_s(self, stage: VirtualStage) -> float:
        """Return seconds until the next virtual stage, which waits, goes on with what this one sends."""
        pass_s = (stage.forward.arithmetic_s + stage.backward.arithmetic_s) / 2
        return float(self.rates.hand_over_s(max(pass_s, 1e-7), max(stage.sends_bytes, 1.0), self.n))

    def _of_simulation(
        self,
        sim: SimulatedStep,
        table: list[list[VirtualStage]],
        slow: int,
        beside: float,
        link_s: float,
        last_s: float,
    ) -> Step:
        """Cut the simulated step of the mean rank into parts; what a pass spent in collectives is no arithmetic.

        Args:
            sim, table: The step, and what each stage did in it.
            slow: The stage of the slow node, or -1.
            beside: How much longer arithmetic takes beside that of the neighbours.
            link_s, last_s: Of the mean stage: injected into its collectives once a step; its update and what comes with it.
        """
        n, per_stage = self.n, self.n // self.grid.pp_size
        everything = [[getattr(v, way) for v in row for way in ("forward", "backward")] for row in table]

        def mean(name: str) -> float:
            return float(np.mean([self.m * sum(getattr(x, name) for x in row) for row in everything]))

        asked_s = mean("arithmetic_s") * beside + mean("comm_s") + mean("wait_s") + mean("link_s")
        slow_s = 0.0
        if slow >= 0:
            slow_s = self.m * sum(x.arithmetic_s for x in everything[slow]) * beside * (self.spec.slow_factor - 1)
        # Ranks that share cores make everything longer alike.
        stretch = max(float(np.mean(sim.compute_time_s)) - last_s, 0.0) / max(asked_s + slow_s * per_stage / n, 1e-12)
        in_passes = {name: mean(name) * stretch for name in ("comm_s", "wait_s", "link_s")}
        slow_s *= stretch
        exchange_s = self._exchange().time_s(self.rates)
        parts = {
            "data_time_s": float(np.mean(sim.data_time_s)),
            "compute_time_s": float(np.mean(sim.compute_time_s)) - sum(in_passes.values()) - slow_s * per_stage / n,
            "exposed_comm_time_s": float(np.mean(sim.exposed_comm_time_s)) + in_passes["comm_s"] + exchange_s - link_s,
            "straggler_wait_time_s": in_passes["wait_s"] + slow_s * (per_stage - 1) / n,
            "bubble_time_s": float(np.mean(sim.bubble_time_s)),
            "injected_time_s": in_passes["link_s"] + link_s + slow_s / n,
            "engine_time_s": 0.0,
            "runtime_time_s": self.rates.runtime_s(),
        }
        return Step(parts, self._sent_bytes(), pipeline(self.plan, sim))

    def _fill(self, stage: VirtualStage) -> None:
        """Give the passes of a virtual stage their collectives."""
        per_stage = min(self.n // self.grid.pp_size, self.cores)
        for way in ("forward", "backward"):
            found: Pass = getattr(stage, way)
            mine = [c for c in stage.calls if c.when == way]
            found.comm_s = sum(c.time_s(self.rates) * c.times for c in mine)
            found.link_s += sum(c.injected_s(self.link) * c.times for c in mine)
            for c in mine if per_stage > 1 else ():
                alone_s = found.arithmetic_s / len(mine)
                found.wait_s += c.times * float(self.rates.lockstep(per_stage, max(alone_s, 1e-7), c.size_bytes)[1])

    def _once(self, stage: VirtualStage, when: str, injected: bool) -> float:
        """Return seconds of the collectives that come once a step: their own, or what is injected."""
        mine = [c for c in stage.calls if c.when == when]
        return sum((c.injected_s(self.link) if injected else c.time_s(self.rates)) * c.times for c in mine)

    def _slow_stage(self) -> int:
        """Return the stage of the slow node, -1 where there is none."""
        return self.grid.place(self.spec.slow_node)["pp"] if 0 <= self.spec.slow_node < self.n else -1

    # --- both ---------------------------------------------------------------------------------------------------------
    def _slow_s(self, arithmetic_s: float) -> float:
        """Return how much longer the slow node's passes take; 0 where there is none."""
        return arithmetic_s * (self.spec.slow_factor - 1) if 0 <= self.spec.slow_node < self.n else 0.0

    def _sent_bytes(self) -> float:
        spec, facts, plan = self.spec, self.facts, self.plan
        return sent_bytes(facts, plan, spec.global_batch) + mirrored_bytes(spec, facts, plan)

    def _times(self, call: Collective) -> float:
        return call.in_a_step(self.m)

    def _notes_s(self, calls: float) -> float:
        """Return seconds of bookkeeping on a step's notes."""
        return (NOTES_TAILS + CALL_TAILS * calls) * float(self.rates.tail_s(min(self.n, self.cores)))

    def _exchange(self) -> Collective:
        """Return the exchange of loss, ballots and notes at the end of every step."""
        posts = 2 * self.m * (self.grid.pp_size > 1) * 3
        met = 2 * sum(self._times(c) for v in self.virtual for c in v.calls) / self.grid.pp_size
        return Collective("all_gather", "update", 8.0 * self.n * max(NOTES, 8 + met + posts), self.n)

    def _data_s(self, *, first: bool, last: bool) -> float:
        """Return seconds to fetch the micro-batches: inputs on the first stage, targets on the last one."""
        row, sequences = row_numbers(self.facts), self.facts.task == "language"
        if not first:
            row = row / 2 if sequences else 1.0
        elif not last and sequences:
            row /= 2
        return self.m * float(self.rates.gather_s(row, self.micro)) if first or last else 0.0

    def _update_s(self, pieces: Iterable[float]) -> float:
        return math.fsum(float(self.rates.update_s(round(p), self.n, optimizer=rule(self.spec))) for p in pieces)
