"""A million jobs on a hundred thousand accelerators: how long the simulation takes, and how much memory.

Run alone: python tests/bench/bench_schedule.py [--jobs 1000000] [--nodes 12500] [--load 0.8] [--policies fifo,sjf,easy]

Each policy runs in a process of its own, one after the other, so that its peak memory is its own. Policies other than fifo,
sjf and easy get a stream of --others jobs, on a machine that is smaller in the same ratio. The widest job takes up to a sixth
of the machine. Utilisation is until the last job comes.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time

from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.hourly import HourlyTrace
from aiinfra_widgets.experiments.scheduling.metrics import Tally, metrics
from aiinfra_widgets.experiments.scheduling.policies import POLICIES, make_policy
from aiinfra_widgets.experiments.scheduling.simulate import Change, simulate
from aiinfra_widgets.experiments.scheduling.synthetic import Synthetic

SLOTS = 8
FAST = ("fifo", "sjf", "easy")


def options(name: str) -> dict[str, object]:
    """Return what a policy needs to be made; the shape of the day is made up, its hours are not looked at here."""
    day = HourlyTrace([300 + 20 * abs(12 - hour) for hour in range(24)])
    return {"carbon": {"trace": day}, "price": {"trace": day}, "gang": {"quantum_s": 600.0}}.get(name, {})


def run(name: str, num_jobs: int, nodes: int, load: float) -> None:
    widest = 2 ** int(math.log2(max(1, nodes * SLOTS / 6)))
    stream = Synthetic(num_jobs, nodes * SLOTS, load, SLOTS, widest, max_s=4 * 3600.0, overestimate=3.0)
    tally, utilization = Tally(), []
    last_s = num_jobs / stream.arrival_rate_per_s  # until then jobs come; afterwards the machine runs empty
    look = Change(last_s, lambda scheduler, now_s: utilization.append(scheduler.meters.utilization_frac))
    began, began_cpu = time.perf_counter(), time.process_time()
    found = simulate(
        iter(stream),
        Cluster(nodes, SLOTS),
        make_policy(name, **options(name)),
        record=False,
        on_end=tally.note,
        changes=[look],
    )
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    figures = metrics(tally, found.meters)
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lost = num_jobs - sum(found.num_by_state.values())
    print(
        f"{name}: {num_jobs} jobs on {nodes * SLOTS} accelerators, load {load:g}: {took_s:.1f} s "
        f"({cpu_s:.1f} s of processor, {cpu_s / num_jobs * 1e6:.1f} µs a job), {memory_mib:.0f} MiB; "
        f"mean wait {figures['mean_wait_s']:.1f} s, p95 {figures['p95_wait_s']:.1f} s, "
        f"slowdown {figures['mean_slowdown']:.3f}, utilisation {utilization[0]:.3f}, "
        f"fairness {figures['fairness_frac']:.3f}, lost {lost}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--others", type=int, default=50_000, help="jobs for the policies that are not made for scale")
    parser.add_argument("--nodes", type=int, default=12_500)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--policies", default=",".join([*FAST, *(p for p in POLICIES if p not in FAST)]))
    parser.add_argument("--one", action="store_true", help="run the one policy here")
    asked = parser.parse_args()
    for name in asked.policies.split(","):
        if asked.one:
            run(name, asked.jobs, asked.nodes, asked.load)
            continue
        jobs = asked.jobs if name in FAST else min(asked.jobs, asked.others)
        nodes = max(1, asked.nodes * jobs // asked.jobs)
        size = [f"--jobs={jobs}", f"--nodes={nodes}", f"--load={asked.load}"]
        subprocess.run([sys.executable, __file__, "--one", f"--policies={name}", *size], check=True)


if __name__ == "__main__":
    main()
