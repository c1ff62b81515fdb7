"""Step time of the lab's data-parallel trainer against torch DistributedDataParallel (gloo), in alternation in one script.

Same module, batch, threads, optimiser and data; 2 ranks. One line per gradient size: medians and the ratio.

    python tests/bench/bench_ddp.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = (("synthetic", 512, 64, "4 MB"), ("synthetic", 2048, 64, "64 MB"), ("digits-cnn", 64, 64, "20 kB"))


def main() -> None:
    """Start the ranks, or be one."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ranks", type=int, default=2)
    arguments.add_argument("--steps", type=int, default=25, help="steps of each side in one turn")
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.rank:
        be_a_rank(given.steps, given.turns)
        return
    from aiinfra_widgets.launch import local

    argv = local.command(given.ranks, [], local.mpiexec())
    at = argv.index("aiinfra_widgets.ranks") - 1
    script = [str(Path(__file__).resolve()), "--rank", "--steps", str(given.steps), "--turns", str(given.turns)]
    subprocess.run([*argv[:at], *script], env=local.environment(os.environ, 1), check=True)


def be_a_rank(steps: int, turns: int) -> None:
    """Run every case."""
    import socket

    import torch
    import torch.distributed as dist
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = world.bcast(free.getsockname()[1])
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=world.rank, world_size=world.size)
    for case in CASES:
        one_case(world, *case, steps, turns)
    dist.destroy_process_group()


def one_case(world, workload: str, width: int, batch: int, label: str, steps: int, turns: int) -> None:
    """Alternate blocks of steps of either side; collect every step's wall time on the slowest rank."""
    import numpy as np
    from mpi4py import MPI

    ours, theirs = our_step(world, workload, width, batch), ddp_step(workload, width, batch)
    times: dict[str, list[float]] = {"lab": [], "ddp": []}
    for _ in range(turns):
        for name, step in (("lab", ours), ("ddp", theirs)):
            for i in range(steps + 3):
                world.Barrier()
                begun = MPI.Wtime()
                step()
                taken = world.allreduce(MPI.Wtime() - begun, op=MPI.MAX)
                if i >= 3:
                    times[name].append(taken)
    if world.rank == 0:
        lab, ddp = np.median(times["lab"]), np.median(times["ddp"])
        ratios = [
            np.median(times["lab"][k : k + steps]) / np.median(times["ddp"][k : k + steps])
            for k in range(0, turns * steps, steps)
        ]
        print(
            f"step on {world.size} ranks, gradient {label}: lab {lab * 1e3:.2f} ms, DDP {ddp * 1e3:.2f} ms, "
            f"ratio {lab / ddp:.2f} (by turn {min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def our_step(world, workload: str, width: int, batch: int):
    """Return one step of the lab's own programme, sampling and control included."""
    from aiinfra_widgets.experiments.training.measure import DataParallel
    from aiinfra_widgets.experiments.training.spec import TrainingSpec
    from aiinfra_widgets.machine.devices import found
    from aiinfra_widgets.ranks.node import Node

    asked = {"workload": workload, "width": width, "global_batch": batch, "nodes": world.size}
    spec = TrainingSpec.make({**asked, "steps": 10**6, "learning_rate": 1e-4})
    node = Node(world, found(), Path(tempfile.gettempdir()) / "aiinfra-bench", lambda *a, **k: None)
    node.comm = world
    program = DataParallel(spec, node)
    program.join(spec)
    return program.advance


def ddp_step(workload: str, width: int, batch: int):
    """Return the same step by torch's own means: DDP, SGD with momentum, the rank's share of the batch."""
    import torch
    import torch.distributed as dist

    from aiinfra_widgets.workloads import nets

    work = nets.load(workload, seed=0, width=width, depth=4, cache=Path(tempfile.gettempdir()) / "aiinfra-bench")
    net = torch.nn.parallel.DistributedDataParallel(work.module)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    (x, y), at = work.train, [0]
    share = batch // dist.get_world_size()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        at[0] = (at[0] + batch) % (len(x) - batch)
        begin = at[0] + share * dist.get_rank()
        index = order[begin : begin + share]
        optimiser.zero_grad(set_to_none=True)
        loss = work.loss_sum(net(x[index]), y[index]) / share
        loss.backward()
        optimiser.step()

    return step


if __name__ == "__main__":
    sys.exit(main())
