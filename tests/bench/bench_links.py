"""Links between hosts: calibrated, then predicted and measured again at other sizes, shaped and not. Prints lines; asserts nothing.

    python tests/bench/bench_links.py [--seconds 20]

Three hosts are made as namespaces (root; tests/cluster/netns.py). The model is the calibrated table; the plain alpha-beta line of the
same points is printed beside it. A hierarchical all-reduce is predicted from the two links and measured, beside the library's own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "cluster"))

import netns  # noqa: E402

from aiinfra_widgets.launch import local  # noqa: E402
from aiinfra_widgets.launch.calibrate import calibrate, calibrate_hosts  # noqa: E402
from aiinfra_widgets.launch.hosts import Hosts, hostfile  # noqa: E402
from aiinfra_widgets.launch.processes import die_with_parent  # noqa: E402
from aiinfra_widgets.launch.session import this_machine  # noqa: E402
from aiinfra_widgets.machine.profile import Machine  # noqa: E402
from aiinfra_widgets.models.links import MeasuredLink  # noqa: E402
from aiinfra_widgets.workloads.step_times import StepTimes  # noqa: E402

#: Between the sizes of calibration and beyond them.
SIZES = (8, 3 * 2**10, 3 * 2**14, 3 * 2**16, 2**20, 3 * 2**19, 3 * 2**20, 6 * 2**20, 2**24)
WIRES: dict[str, dict[str, float]] = {
    "plain": {},
    "tbf 1 Gbit/s": {"rate_bit_per_s": 1e9},
    "tbf 100 Mbit/s": {"rate_bit_per_s": 1e8},
    "wire 2 ms, 100 Mbit/s": {"delay_s": 2e-3, "rate_bit_per_s": 1e8},
}
#: What the ranks do: ping-pong medians between the first two hosts, then the all-reduce, hierarchical and by the library.
PROGRAM = """\
import json, os, sys, time
import numpy as np
from mpi4py import MPI
from aiinfra_widgets.ranks.collectives import allreduce
from aiinfra_widgets.ranks.link import InjectedLink
LINK = InjectedLink()
world, sizes = MPI.COMM_WORLD, json.loads(sys.argv[1])
inside = world.Split_type(MPI.COMM_TYPE_SHARED)
first = np.array([inside.size])
world.Bcast(first, 0)
other = int(first[0])  # the first rank on the second host
def asleep():  # the cores are for those that are timed
    request = world.Ibarrier()
    while not request.Test():
        time.sleep(0.002)
def median(comm, once, repeats):
    times = []
    for _ in range(repeats):
        comm.Barrier()
        begun = time.perf_counter()
        once()
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]
two = world.Create_group(world.Get_group().Incl([0, other])) if world.rank in (0, other) else None
def ping(a):
    if two.rank == 0: two.Send(a, 1); two.Recv(a, 1)
    else: two.Recv(a, 0); two.Send(a, 0)
for size in sizes:
    a, x, one_way_s = np.zeros(size, np.uint8), np.zeros(max(size // 4, 2), np.float32), 0.0
    if two:
        one_way_s = median(two, lambda: ping(a), 5 if size >= 2**20 else 41) / 2
    asleep()
    both = [median(world, lambda: allreduce(world, x, LINK, how), 7) for how in ("hierarchical", "mpi")] if size <= 2**22 else None
    if world.rank == 0: print("ROW", json.dumps([size, one_way_s, both]), flush=True)
asleep()
os._exit(0)
"""


def measured(place: Hosts, folder: Path) -> list[tuple[int, float, list[float] | None]]:
    """Return (bytes, one way in s, all-reduce in s hierarchical and by the library) as these hosts do it now."""
    launcher = local.mpiexec()
    hostfile(folder).write_text("".join(f"{n} slots={s}\n" for n, s in zip(place.names, place.slots, strict=True)))
    program = folder / "program.py"
    program.write_text(PROGRAM)
    size = sum(place.slots)
    argv = [str(launcher), "--bind-to", "none", "--mca", "pml", "ob1", *place.mpiexec(size, folder), "-n", str(size)]
    env = local.environment(os.environ, 1, keep=place.keeps)
    done = subprocess.run(
        [*argv, sys.executable, "-m", "mpi4py", str(program), json.dumps(SIZES)],
        env=env, capture_output=True, text=True, check=False, timeout=600, preexec_fn=die_with_parent(signal.SIGTERM),
    )  # fmt: skip
    rows = [tuple(json.loads(line[4:])) for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if not rows:
        raise SystemExit(f"no answer: {done.stderr[-800:]}")
    return rows


def report(title: str, place: Hosts, folder: Path, seconds: float, base: Machine) -> None:
    """Calibrate, measure again, and print one line a size."""
    machine, _ = calibrate_hosts(place, seconds, base=base)
    hierarchical, library = (StepTimes(machine, algorithm=how) for how in ("hierarchical", "mpi"))
    between, within = library.link("between"), library.link("within")
    print(f"{title}: between hosts {_told(between)}; within {_told(within)}")
    n = sum(place.slots)
    for size, one_way_s, both in measured(place, folder):
        model_s, line_s = float(between.time_s(size)), float(between.line.time_s(size))
        told = f"  {size:>9} B  one way {_against(one_way_s, model_s)}  line {line_s * 1e3:9.3f} ({line_s / one_way_s - 1:+.0%})"
        for times, took_s in zip((hierarchical, library), both or (), strict=False):
            told += f"  | {times.algorithm} {_against(took_s, float(times.allreduce_s(size, n)))}"
        print(told, flush=True)


def _against(measured_s: float, model_s: float) -> str:
    return f"{measured_s * 1e3:9.3f} ms  model {model_s * 1e3:9.3f} ({model_s / measured_s - 1:+.0%})"


def _told(found: MeasuredLink) -> str:
    return f"{found.times_s[0] * 1e6:.0f} us, {found.bandwidth_oneway_bytes_per_s / 1e6:.0f} MB/s"


def main() -> None:
    """Go through the wires."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", default="", help="beginning of a wire's title")
    asked = parser.parse_args()
    if why := netns.missing():
        raise SystemExit(why)
    base = this_machine()
    base = base if base.calibrated else calibrate(25.0)[0]
    for title, wire in WIRES.items():
        if not title.startswith(asked.only):
            continue
        with tempfile.TemporaryDirectory(prefix="aibench-") as folder, netns.Hosts(Path(folder), **wire) as hosts:  # type: ignore[arg-type]
            given = {
                "file": str(hosts.hostfile(2, 1, 1)),
                "network": hosts.network,
                "ssh_config": str(hosts.ssh_config),
            }
            report(title, Hosts.parse(given), Path(folder), asked.seconds, base)


if __name__ == "__main__":
    main()
