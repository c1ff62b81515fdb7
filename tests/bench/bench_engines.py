"""Step time of the lab's engines against torch's own (DDP, FSDP2, tensor parallel, pipelining), in alternation in one script.

Same net, batch, threads, optimiser, data and order; 2 ranks, gloo for torch and MPI for the lab. Both sides are engines behind the
same interface, with the loss of every step told to all ranks. One line per plan: medians over the steps of all turns, of the
slowest rank, and the ratio. The losses of both sides must agree, or the line says so.

    python tests/bench/bench_engines.py [--width=512] [--depth=4] [--batch=64] [--steps=20] [--turns=5] [--only=ddp]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

#: Label, torch's engine, the axis that it distributes over, further fields of the plan, and the issue's gate for the ratio.
CASES = (
    ("ddp", "torch-ddp", "dp", {}, 0.7),
    ("fsdp2", "torch-fsdp2", "dp", {"zero_stage": 3}, 1.1),
    ("tensor", "torch-tensor", "tp", {}, 1.1),
    ("gpipe", "torch-pipelining", "pp", {"schedule": "gpipe", "num_microbatches": 4}, 1.1),
    ("1f1b", "torch-pipelining", "pp", {"schedule": "1f1b", "num_microbatches": 4}, 1.1),
    ("interleaved", "torch-pipelining", "pp", {"schedule": "interleaved", "chunks": 2, "num_microbatches": 4}, 1.1),
)
WARM_UP, RATE, TOLERANCE = 3, 0.01, 1e-4


def main() -> None:
    """Start the ranks, or be one."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--ranks", type=int, default=2)
    asked.add_argument("--width", type=int, default=512)
    asked.add_argument("--depth", type=int, default=4)
    asked.add_argument("--batch", type=int, default=64)
    asked.add_argument("--steps", type=int, default=20, help="steps of each side in one turn")
    asked.add_argument("--turns", type=int, default=5)
    asked.add_argument("--only", default="", help="one of " + ", ".join(case[0] for case in CASES))
    asked.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.rank:
        be_a_rank(given)
        return
    from aiinfra_widgets.launch import local

    argv = local.command(given.ranks, [], local.mpiexec())
    at = argv.index("aiinfra_widgets.ranks") - 1
    script = [str(Path(__file__).resolve()), "--rank", *sys.argv[1:]]
    subprocess.run([*argv[:at], *script], env=local.environment(os.environ, 1), check=True)


def be_a_rank(given: argparse.Namespace) -> None:
    """Run every case."""
    import torch
    from mpi4py import MPI

    from aiinfra_widgets.models.rank_grid import RankGrid
    from aiinfra_widgets.parallel.plan import Plan

    world = MPI.COMM_WORLD
    torch.set_num_threads(1)
    for label, engine, axis, more, gate in CASES:
        if given.only in {"", label}:
            grid = RankGrid(**{f"{axis}_size": world.size})
            one_case(world, label, Plan(grid, **more), Plan(grid, engine=engine, **more), gate, given)


def one_case(world, label: str, ours, theirs, gate: float, given: argparse.Namespace) -> None:
    """Alternate blocks of steps of either side; collect every step's wall time on the slowest rank."""
    import numpy as np

    engines = {"lab": make(world, ours, given), "torch": make(world, theirs, given)}
    times: dict[str, list[float]] = {name: [] for name in engines}
    losses: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(given.turns):
        for name, step in engines.items():
            block, told = timed(world, step[0], given.steps)
            times[name] += block
            losses[name] += told
    for _, close in engines.values():
        close()
    if world.rank:
        return
    lab, torch_s = (float(np.median(times[name])) for name in ("lab", "torch"))
    blocks = {name: np.median(np.reshape(found, (given.turns, -1)), axis=1) for name, found in times.items()}
    ratios = blocks["lab"] / blocks["torch"]
    apart = max(abs(a / b - 1) for a, b in zip(losses["lab"], losses["torch"], strict=True))
    verdict = "holds" if lab / torch_s <= gate else "MISSED"
    print(
        f"step on {world.size} ranks, {label}: lab {lab * 1e3:.2f} ms, torch {torch_s * 1e3:.2f} ms, ratio {lab / torch_s:.2f} "
        f"(by turn {ratios.min():.2f} to {ratios.max():.2f}; gate {gate}: {verdict})"
        + ("" if apart < TOLERANCE else f"; LOSSES DIFFER by {apart:.1e}"),
        flush=True,
    )


def timed(world, step, steps: int) -> tuple[list[float], list[float]]:
    """Return the slowest rank's time and the loss of every step, without those that warm up."""
    from mpi4py import MPI

    times, losses = [], []
    for i in range(steps + WARM_UP):
        world.Barrier()
        begun = MPI.Wtime()
        loss = step()
        taken = world.allreduce(MPI.Wtime() - begun, op=MPI.MAX)
        if i >= WARM_UP:
            times.append(taken)
            losses.append(loss)
    return times, losses


def make(world, plan, given: argparse.Namespace):
    """Return (one step that returns its loss, how to close the engine)."""
    import torch

    from aiinfra_widgets.parallel.engine import Ask, Job
    from aiinfra_widgets.parallel.engines import make_engine
    from aiinfra_widgets.parallel.flat_engine import FlatEngine
    from aiinfra_widgets.parallel.layout import Layout
    from aiinfra_widgets.parallel.optimizer import Sgd
    from aiinfra_widgets.ranks.link import InjectedLink
    from aiinfra_widgets.workloads import nets

    cache = Path(tempfile.gettempdir()) / "aiinfra-bench"
    work = nets.load("synthetic", seed=0, width=given.width, depth=given.depth, cache=cache)
    layout, optimizer = Layout.of(work.module), Sgd(0.9)
    job = Job(work, layout, optimizer, torch.device("cpu"), torch.float32, InjectedLink(), work.train)
    if plan.is_plain:  # the lab's programme keeps this engine for plain data parallelism
        flat = FlatEngine(job, world.size)
        flat.join(plan, world)
        engine = flat
    else:
        engine = make_engine(job, plan, world)
        state = layout.empty(optimizer.state_names)
        state["parameters"] = layout.flatten(work.module)
        engine.load(state)
    order = torch.randperm(len(work.train[0]), generator=torch.Generator().manual_seed(0))
    taken = [0]

    def step() -> float:
        at = taken[0] * given.batch % (len(order) - given.batch)
        taken[0] += 1
        return engine.step(Ask(order[at : at + given.batch], taken[0], RATE)).loss

    return step, engine.close


if __name__ == "__main__":
    sys.exit(main())
