"""What the lab's own instrumentation costs a training step: microseconds per call times calls per step, and by experiment.

One process, one rank. Blocks of steps with everything that the runtime does at a boundary alternate with blocks without it.

    mpiexec -n 1 python -m mpi4py tests/bench/bench_overhead.py     (or plain python)
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

STEPS, BLOCKS = 40, 20


def main() -> None:
    """Print the cost of each call, their sum per step, and the difference that steps show."""
    with tempfile.TemporaryDirectory() as folder:
        boundary, advance, calls = build(Path(folder))
        for name, call in calls.items():
            median, mean = cost_us(call, advance)
            print(f"{name}: median {median:.1f} us, mean {mean:.1f} us a call right after a step, once per step")
        plain: list[float] = []
        full: list[float] = []
        for _ in range(BLOCKS):
            plain += block(advance)
            full += block(lambda: boundary(advance()))
        step, extra = np.median(plain), np.median(full) - np.median(plain)
        ratios = [
            np.median(full[i : i + STEPS]) / np.median(plain[i : i + STEPS]) - 1 for i in range(0, len(plain), STEPS)
        ]
        low, high = np.percentile(ratios, (25, 75))
        print(
            f"step {step * 1e3:.2f} ms without, {(step + extra) * 1e3:.2f} ms with: {extra / step:+.2%} "
            f"(by block {low:+.2%} to {high:+.2%}; {len(plain)} steps each, alternating)"
        )


def build(folder: Path) -> tuple[Callable, Callable, dict[str, Callable]]:
    """Return (what happens at a boundary, one step, the single calls of a boundary)."""
    from mpi4py import MPI

    from aiinfra_widgets.experiment import experiment
    from aiinfra_widgets.experiments.training.measure import Trainer
    from aiinfra_widgets.experiments.training.spec import TrainingSpec
    from aiinfra_widgets.machine.devices import found
    from aiinfra_widgets.ranks.controller import Controller
    from aiinfra_widgets.ranks.node import Node
    from aiinfra_widgets.runs import layout
    from aiinfra_widgets.runs.writer import EventWriter, RecordWriter, SampleWriter

    spec = TrainingSpec.make(
        {
            "workload": "synthetic",
            "width": 512,
            "global_batch": 64,
            "steps": 10**6,
            "learning_rate": 1e-4,
            "checkpoint_every_s": 0.0,
        }
    )
    machine = found()
    run = layout.create(folder / "runs", "training", spec, machine)
    event, samples = EventWriter(run, 0, 0), SampleWriter(run, 0, 0)
    controller = Controller(run, experiment("training"), machine, event)
    node = Node(MPI.COMM_WORLD, machine, folder, event, run, RecordWriter(run, 0, 0, experiment("training").records))
    node.comm = MPI.COMM_SELF
    program = Trainer(spec, node)
    program.join(spec)
    last = [dict(program.advance() or {})]

    def record() -> None:
        samples(
            program.tick,
            1,
            0,
            {**last[0], "runtime_time_s": 1e-5, "cpu_time_s": time.process_time(), "memory_bytes": 1e8},
        )

    def decide() -> None:
        controller.decide(program.tick, spec, [0], lambda: [0])

    def boundary(sample: dict[str, float]) -> None:
        last[0] = sample
        record()
        decide()

    return boundary, program.advance, {"a sample, formatted and written": record, "a look for requests": decide}


def cost_us(call: Callable, between: Callable, repeats: int = 300) -> tuple[float, float]:
    """Median of a call when a step has just gone through the cache, and the mean without the highest percent (preemptions)."""
    times = []
    for _ in range(repeats):
        between()
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    kept = np.sort(times)[: -max(1, repeats // 100)]
    return float(np.median(times)) * 1e6, float(np.mean(kept)) * 1e6


def block(step: Callable) -> list[float]:
    """Time STEPS steps one by one."""
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    main()
