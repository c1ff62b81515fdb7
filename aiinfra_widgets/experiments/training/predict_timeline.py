"""The predicted step as bars of every rank, in the columns of the record that a measured one is written to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...models.kinds import COMMUNICATION, UPDATE, WAITING
from ...models.schedule_simulation import NONE, Interval, SimulatedStep, simulate
from ...parallel.plan import Plan
from .spec import TrainingSpec

COLUMNS = ("rank", "kind", "microbatch", "start_s", "end_s")


def lockstep(
    spec: TrainingSpec, parts: Mapping[str, float], passes: tuple[float, float], update_s: float, slow_s: float
) -> dict[str, list[float]]:
    """Return the bars of ranks that all do the same: passes, then one wait, the communication, the update.

    Args:
        spec: Plan and slow node.
        parts: Seconds of the mean rank, by quantity.
        passes: Seconds of all forward and of all backward passes, at any scale.
        update_s: Of the compute time, what is the update.
        slow_s: How much longer the passes of the slow node take.
    """
    plan, n = spec.plan(spec.nodes), spec.nodes
    m = plan.num_microbatches
    scale = max(parts["compute_time_s"] - update_s, 0.0) / max(sum(passes), 1e-12) / m
    comm_s = parts["exposed_comm_time_s"] + max(parts["injected_time_s"] - slow_s / n, 0.0)
    # The slow node is waited for; what is left is how ranks differ by chance.
    jitter_s = max(parts["straggler_wait_time_s"] - slow_s * (n - 1) / n, 0.0)
    bars: list[Interval] = []
    for rank in range(n):
        slow = bool(slow_s) and rank == spec.slow_node
        longer = scale * (spec.slow_factor if slow else 1.0)
        times = ([seconds * longer] for seconds in passes)
        sim = simulate(plan.schedule, m, *times, data_s=parts["data_time_s"])
        mine = [i._replace(rank=rank) for i in sim.intervals]
        wait_s = jitter_s + (0.0 if slow else slow_s)
        for kind, seconds in ((WAITING, wait_s), (COMMUNICATION, comm_s), (UPDATE, update_s)):
            mine.append(Interval(rank, kind, NONE, NONE, mine[-1].end_s, mine[-1].end_s + seconds))
        bars += mine
    return _columns(bars)


def pipeline(plan: Plan, sim: SimulatedStep) -> dict[str, list[float]]:
    """Return the bars of every rank of a pipeline: each does what its stage does."""
    by_stage: dict[int, list[Interval]] = {}
    for interval in sim.intervals:
        by_stage.setdefault(interval.rank, []).append(interval)
    ranks = range(plan.grid.world_size)
    return _columns(i._replace(rank=r) for r in ranks for i in by_stage[plan.grid.place(r)["pp"]])


def _columns(bars: Iterable[Interval]) -> dict[str, list[float]]:
    kept = [bar for bar in bars if bar.end_s > bar.start_s]
    return {name: [getattr(bar, name) for bar in kept] for name in COLUMNS}
