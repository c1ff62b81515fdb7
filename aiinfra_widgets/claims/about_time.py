"""Claims on the time of a parallel job: a job shared out, pipelines, hybrids, and efficiency."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ModelInputError
from ..models import amdahl_speedup
from .claim import Axes, Claim, Example, Input
from .measure_processes import measure_chunks, measure_hybrid, measure_pipeline
from .measure_training import measure_speedup

#: Node counts of the figures: at least to eight.
MOST_NODES = 8


def _counts(most: Any, step: int = 1) -> Any:
    top = int(max(MOST_NODES, np.ceil(most)))
    return np.unique(np.r_[1, np.arange(step, top + 1, max(step, top // 64))]).astype(float)


SERIAL = Input("serial_frac", "s", "Serial share", "1", "5 %", ours=True, above=False, high=1.0)
MICRO = Input("micro_batches", "m", "Micro-batches", "1", "8", ours=True, low=1, above=False, whole=True)
AMDAHL = Axes(
    "tasks", "Nodes", lambda tasks=1.0, **_: _counts(tasks), "Speed-up", "x",
    says=lambda single_s, tasks, **_: tasks * 1.0,
    right=lambda single_s, tasks, serial_frac, **_: amdahl_speedup(tasks, serial_frac),
)  # fmt: skip


def pipeline_s(serial_s: Any, stages: Any, micro_batches: Any) -> Any:
    """Return how long a pipeline of equal stages takes for work that takes `serial_s` on one node: (m + p - 1) slots of serial / (m p).

    Raises:
        ModelInputError: More stages or micro-batches than there can be: one of them is below 1.

    Valid when: stages are equally long and passing on costs nothing. Off by: too low by the time of passing on.
    Source: Huang et al. 2019 (GPipe): the bubble is (p - 1) / m of the ideal time.
    """
    if np.any(np.asarray(stages) < 1) or np.any(np.asarray(micro_batches) < 1):
        raise ModelInputError(
            f"a pipeline has at least one stage and one micro-batch, got {stages} and {micro_batches}"
        )
    return serial_s * (micro_batches + stages - 1) / (micro_batches * stages)


def hybrid_s(serial_s: Any, nodes: Any, replicas: Any, micro_batches: Any) -> Any:
    """Return the same for `replicas` pipelines side by side, which share nodes and micro-batches evenly."""
    copies = np.minimum(replicas, nodes)
    return pipeline_s(serial_s / copies, nodes / copies, micro_batches / copies)


def _job(symbol: str, text: str) -> Input:
    return Input("single_s", symbol, "Time on one node", "s", text)


TRAIN = Claim(
    id="S1-train",
    source="S1, evolution of AI infrastructure for large-scale training",
    about="Training time on several machines",
    formula="time = single-machine time / parallel tasks",
    latex=r"T = T_1 / N",
    inputs=(
        _job("T1", "24 h"),
        Input("tasks", "N", "Parallel tasks", "1", "4", low=1, above=False, whole=True),
        SERIAL,
    ),
    result="s",
    compute=lambda single_s, tasks: single_s / tasks,
    examples=(Example({"single_s": "24 h", "tasks": "4"}, "6 h"),),
    wrong="A lower bound is called the time. No communication, no serial part, no waiting for the slowest node.",
    right_name="Amdahl's law",
    right=lambda single_s, tasks, serial_frac: single_s / amdahl_speedup(tasks, serial_frac),
    axes=AMDAHL,
    measure=measure_speedup,
)

DATA_PARALLEL = Claim(
    id="S3-DP",
    source="S3, data, model and hybrid parallel training",
    about="Data-parallel training time",
    formula="T_p = T_s / N",
    latex=r"T_p = T_s / N",
    inputs=(_job("T_s", "10 h"), Input("tasks", "N", "Nodes", "1", "4", low=1, above=False, whole=True), SERIAL),
    result="s",
    compute=lambda single_s, tasks: single_s / tasks,
    examples=(Example({"single_s": "10 h", "tasks": "4"}, "2.5 h"),),
    wrong="The same bound again: summing up gradients takes time, and grows with the nodes while their share of the work shrinks.",
    right_name="Amdahl's law",
    right=lambda single_s, tasks, serial_frac: single_s / amdahl_speedup(tasks, serial_frac),
    axes=AMDAHL,
    measure=measure_speedup,
)

MODEL_PARALLEL = Claim(
    id="S3-MP",
    source="S3, data, model and hybrid parallel training",
    about="Model-parallel training time",
    formula="T_p = T_s \u00b7 N / K",
    latex=r"T_p = T_s \cdot N / K",
    inputs=(
        Input("serial_s", "T_s", "Time on one node", "s", "10 h"),
        Input("nodes", "N", "Nodes (stages)", "1", "4", low=1, above=False, whole=True),
        Input("k", "K", "K, not defined usefully", "1", "1"),
        MICRO,
    ),
    result="s",
    compute=lambda serial_s, nodes, k: serial_s * nodes / k,
    examples=(Example({"serial_s": "10 h", "nodes": "4", "k": "1"}, "40 h"),),
    wrong="More nodes make it slower, in proportion. Nothing says what K is, and there are neither stages nor micro-batches in it.",
    right_name="Pipeline of N stages",
    right=lambda serial_s, nodes, k, micro_batches: pipeline_s(serial_s, nodes, micro_batches),
    axes=Axes(
        "nodes", "Nodes", lambda nodes=1.0, **_: _counts(nodes), "Time, relative to one node", "x",
        says=lambda nodes, k, **_: nodes / k,
        right=lambda nodes, micro_batches, **_: pipeline_s(1.0, nodes, micro_batches),
        log=True,
    ),
    measure=measure_pipeline,
)  # fmt: skip

HYBRID = Claim(
    id="S3-HP",
    source="S3, data, model and hybrid parallel training",
    about="Hybrid-parallel training time",
    formula="T_p = T_s \u00b7 N / K",
    latex=r"T_p = T_s \cdot N / K",
    inputs=(
        Input("serial_s", "T_s", "Time on one node", "s", "10 h", ours=True),
        Input("nodes", "N", "Nodes", "1", "4", ours=True, low=1, above=False, whole=True),
        Input("k", "K", "K, not defined usefully", "1", "1", ours=True),
        Input("replicas", "d", "Pipelines side by side", "1", "2", ours=True, low=1, above=False, whole=True),
        MICRO,
    ),
    result="s",
    compute=lambda serial_s, nodes, k: serial_s * nodes / k,
    examples=(),
    wrong="Letter by letter the formula of model parallelism: what the data-parallel half should bring is not in it.",
    right_name="d pipelines of N / d stages",
    right=lambda serial_s, nodes, k, replicas, micro_batches: hybrid_s(serial_s, nodes, replicas, micro_batches),
    axes=Axes(
        "nodes", "Nodes", lambda nodes=1.0, replicas=1.0, **_: _counts(nodes, int(replicas)), "Time, relative to one node", "x",
        says=lambda nodes, k, **_: nodes / k,
        right=lambda nodes, replicas, micro_batches, **_: hybrid_s(1.0, nodes, replicas, micro_batches),
        log=True,
    ),
    measure=measure_hybrid,
)  # fmt: skip


def shared_out(tasks: Any, nodes: Any, cores: Any) -> Any:
    """Return N t / T of N equal tasks on K nodes that have so many cores between them: whole tasks, at most one per core at a time."""
    nodes, cores = np.asarray(nodes, dtype=float), np.asarray(cores, dtype=float)
    return tasks / np.maximum(np.ceil(tasks / nodes), tasks / cores)


EFFICIENCY = Claim(
    id="S4-eta",
    source="S4, evolution of compute infrastructure",
    about="Efficiency of distributed computing",
    formula="\u03b7 = N t / T, distributed T = K N t / k, so \u03b7 = k / K",
    latex=r"\eta = N t / T,\quad T = K N t / k,\quad \eta = k / K",
    inputs=(
        Input("tasks", "N", "Tasks", "1", "1000", low=1, above=False, whole=True),
        Input("task_s", "t", "Time of one task", "s", "1 s"),
        Input("nodes", "K", "Nodes", "1", "4", low=1, above=False, whole=True),
        Input("k", "k", "k, as the example has it", "1", "4"),
        Input("cores", "c", "Cores of all nodes", "1", "4", ours=True, low=1, above=False, whole=True),
    ),
    result="1",
    compute=lambda tasks, task_s, nodes, k: tasks * task_s / (nodes * tasks * task_s / k),
    examples=(
        Example(
            {"tasks": "1000", "task_s": "1 s", "nodes": "4", "k": "4"}, "1",
            "T is 1000 s, so nothing was gained; and yet a larger K is said to raise \u03b7.",
        ),
    ),
    wrong="k and K have changed places: with more nodes the time grows. Four nodes need as long as one, and nobody wonders why.",
    right_name="Whole tasks on the cores that there are",
    right=lambda tasks, task_s, nodes, k, cores: float(shared_out(tasks, nodes, cores)),
    axes=Axes(
        "nodes", "Nodes", lambda nodes=1.0, **_: _counts(nodes), "N t / T", "x",
        says=lambda nodes, k, **_: k / np.asarray(nodes, dtype=float),
        right=lambda tasks, nodes, cores, **_: shared_out(tasks, nodes, cores),
    ),
    measure=measure_chunks,
)  # fmt: skip
