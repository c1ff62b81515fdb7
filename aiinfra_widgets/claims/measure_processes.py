"""Measures what several processes of this machine do together: chunks of work, pipelines of stages, cores that are held."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import numpy as np

from ..texts import N_
from .claim import Evidence
from .measure_link import transfer_s
from .rig import Clock, Worker, cores, pipeline, timed, workers
from .worker import BLOCK, compute

#: Computing and transfer: how the two are done.
WAYS = (N_("one after the other"), N_("overlapped"))
#: About how long is computed in that.
WORK_S = 0.06
#: Rounds of the worker's hash in one task; measured, not assumed, how long that takes.
ROUNDS = 60
TASKS, NODE_COUNTS = 24, (1, 2, 4)
#: Micro-batches of the pipelines, and how long all of them take on one node.
MICRO_BATCHES, SERIAL_S = 8, 0.32
STAGES = (1, 2, 4, 8)


def measure_chunks(budget_s: float) -> Evidence:
    """Time the same tasks on one, two and four processes, within about `budget_s` seconds."""
    clock, found = Clock(), {count: list[float]() for count in NODE_COUNTS}
    with workers("chunks", max(NODE_COUNTS)) as crew:
        warm_s = _together(crew[:1], [TASKS])
        times = int(np.clip(0.6 * budget_s / (2.5 * warm_s), 3, 15))
        tasks_s = []
        for _ in range(times):  # in turn, so that a neighbour who comes or goes meets all of them
            took = {count: _together(crew[:count], [TASKS // count] * count) for count in NODE_COUNTS}
            tasks_s.append(took[1] / TASKS)
            for count in NODE_COUNTS:
                found[count].append(took[1] / took[count])
    task_s = float(np.median(tasks_s))
    points = [timed(count, ratios) for count, ratios in found.items()]
    method = (
        f"{TASKS} tasks of {task_s * 1e3:.3g} ms (hashing) shared out to 1, 2 and 4 processes in turn, {times} times; this machine gives "
        f"them {cores()} cores. The figure shows N t / T as the article defines it, with the t of one process."
    )
    rig = {"tasks": float(TASKS), "task_s": task_s, "k": 4.0, "cores": float(cores())}
    return clock.evidence(points, rig, method)


def _together(crew: list[Worker], shares: list[int]) -> float:
    begun = time.perf_counter()
    for worker, share in zip(crew, shares, strict=True):
        worker.tell(share, ROUNDS)
    for worker in crew:
        worker.hear()
    return time.perf_counter() - begun


def _hold_s(stages: int) -> float:
    return SERIAL_S / (MICRO_BATCHES * stages)


def pipelines_s(stages: int, replicas: int, times: int) -> list[float]:
    """Send the micro-batches through `replicas` pipelines of so many stages, and return how long each of `times` rounds took."""
    found = []
    with ExitStack() as stack:
        chains = [stack.enter_context(pipeline(stages, _hold_s(stages))) for _ in range(replicas)]
        share = MICRO_BATCHES // replicas
        for _ in range(times):
            begun = time.perf_counter()
            for first, _ in chains:
                for _ in range(share):
                    first.tell(1)
            for _, last in chains:
                for _ in range(share):
                    last.hear()
            found.append(time.perf_counter() - begun)
    return found


def measure_pipeline(budget_s: float) -> Evidence:
    """Time a pipeline of one to eight stages, relative to one, within about `budget_s` seconds."""
    return _pipelines(budget_s, 1)


def measure_hybrid(budget_s: float) -> Evidence:
    """Time two pipelines side by side, of one to four stages each, relative to one node, within about `budget_s` seconds."""
    return _pipelines(budget_s, 2)


def _pipelines(budget_s: float, replicas: int) -> Evidence:
    clock = Clock()
    times = int(np.clip(0.5 * budget_s / (2.2 * SERIAL_S), 3, 9))
    alone = pipelines_s(1, 1, times)
    one = float(np.median(alone))
    points = [timed(1, [t / one for t in alone], judged=False)]
    for nodes in STAGES[1:]:
        stages = nodes // replicas
        points.append(timed(nodes, [t / one for t in pipelines_s(stages, replicas, times)]))
    shape = "a chain of processes" if replicas == 1 else f"{replicas} chains of processes side by side"
    method = (
        f"{MICRO_BATCHES} micro-batches go through {shape}, {times} times. A stage holds each for its share of {SERIAL_S * 1e3:.0f} ms by "
        "sleeping, as a host does that waits for its accelerator, so there may be more stages than cores; passing on is real."
    )
    rig = {"serial_s": one, "k": 1.0, "micro_batches": float(MICRO_BATCHES)}
    if replicas > 1:
        rig["replicas"] = float(replicas)
    return clock.evidence(points, rig, method)


def measure_held_cores(budget_s: float) -> Evidence:
    """Hold every core with a process that computes a share of the time, within about `budget_s` seconds."""
    clock, shares = Clock(), (0.1, 0.25, 0.5)
    each, have = max(0.3, budget_s / len(shares) - 0.2), cores()
    points = []
    with workers("duty", have) as crew:
        for share in shares:
            for worker in crew:
                worker.tell(share, each)
            answers = [worker.hear() for worker in crew]
            points.append(
                timed(share, [used / wall for used, wall in answers], interval=N_("quartiles over processes"))
            )
    method = (
        f"{have} processes hold the {have} cores that there are, so all is allocated. Each computes 10, 25 or 50 % of the "
        f"time for {each:.2g} s; the operating system says how much processor time they used."
    )
    return clock.evidence(points, {"allocated": float(have), "available": float(have)}, method)


def measure_overlap(budget_s: float) -> Evidence:
    """Compute and transfer, one after the other and side by side, within about `budget_s` seconds."""
    clock, rate, shares = Clock(), 1.25e7, (0.5, 0.75, 1.0, 1.5)
    rounds = max(1, round(WORK_S / min(_hashing_s(100) for _ in range(3)) * 100))
    work_s = float(np.median([_hashing_s(rounds) for _ in range(5)]))
    turn_s = work_s * sum(1 + (1 + s) + max(1, s) for s in shares)
    times = int(np.clip((0.9 * budget_s - 6 * work_s) / turn_s, 3, 15))
    found = {(way, share): list[float]() for way in range(len(WAYS)) for share in shares}
    for _ in range(times):
        for share in shares:
            alone = _hashing_s(rounds)  # anew each time: a neighbour may have come or gone
            for way in range(len(WAYS)):
                both = _both_s(rounds, int(share * work_s * rate), rate, overlap=bool(way))
                found[way, share].append(alone / both)
    points = [
        timed(share * work_s, ratios, setting={"overlap": way}, label=WAYS[way])
        for (way, share), ratios in found.items()
    ]
    method = (
        f"{work_s * 1e3:.0f} ms of computing ({rounds * len(BLOCK) / 1e6:.0f} MB hashed) and a transfer at 100 Mbit/s, {times} times each "
        "way: first one, then the other; and both at once, in two threads. R is the computing time alone over the time of both."
    )
    return clock.evidence(points, {"train_s": work_s / 2, "infer_s": work_s / 2, "overlap": 1.0}, method)


def _hashing_s(rounds: int) -> float:
    begun = time.perf_counter()
    compute(rounds)
    return time.perf_counter() - begun


def _both_s(rounds: int, size_bytes: int, rate_bytes_per_s: float, *, overlap: bool) -> float:
    begun = time.perf_counter()
    sender = threading.Thread(target=transfer_s, args=(size_bytes, rate_bytes_per_s), daemon=True)
    if overlap:
        sender.start()
    compute(rounds)
    if not overlap:
        sender.start()
    sender.join()
    return time.perf_counter() - begun
