"""A sweep as one job array of Slurm: a task for each point, side by side as the cluster has room.

A task runs the repeats of its point one after the other, inside its own allocation, and writes a journal of its own, so that every file
keeps one writer. A task that Slurm starts again, and a sweep that is resumed, do what is left. The last task writes the table.

`python -m aiinfra_widgets.research.array DIR NETWORK` is what a task does; which point is told by SLURM_ARRAY_TASK_ID.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from ..errors import ControlError
from ..launch import slurm
from ..launch.allocation import Allocation, inside
from ..launch.slurm import SlurmRequest
from ..runs.layout import write_json
from . import folder as folders
from .sweeps import Progress, Runner, Sweep
from .table import write_tables

#: How often the journals are looked at, and how often Slurm is asked whether the array still goes on.
LOOK_S, ASK_S = 0.5, 5.0


def command(request: SlurmRequest, path: Path, points: list[int], ranks: int, job: list[str]) -> list[str]:
    """Return the argv of sbatch for the array; pure.

    Args:
        request: What is asked of Slurm for each task.
        path: The sweep's folder, which the cluster's nodes share.
        points: Numbers of the points, each a task.
        ranks: Of the largest point.
        job: Argv of a task.
    """
    return [
        "sbatch", "--parsable", f"--job-name=aiinfra-{path.name}", f"--array={','.join(map(str, points))}", *request.options(ranks),
        "--requeue", "--open-mode=append", f"--output={path / 'logs' / '%a.log'}", f"--chdir={path}",
        f"--export={','.join(slurm.kept())}", str(path / "batch.sh"), *job,
    ]  # fmt: skip


def submit(sweep: Sweep, request: SlurmRequest, *, retry: bool = False) -> str:
    """Hand what is left of a sweep to Slurm as one array, and return the job's number; "" where nothing is left.

    Raises:
        ControlError: An array of this sweep still goes on.
        AdmissionError, LaunchError: Slurm refuses it.
    """
    ended = {t for t, e in sweep.ends().items() if e.state == "done" or not retry}
    left = [t for t in sweep.trials if t.index not in ended]
    if not left:
        return ""
    if job := going(sweep):
        raise ControlError(f"job {job} of Slurm still works on the sweep {sweep.path}; wait for it, or: scancel {job}")
    ranks = max(t.spec.ranks for t in left)
    request.admit(ranks)
    folders.keep_predictions(sweep.folder, sweep.experiment, sweep.trials, sweep.machine)
    (sweep.path / "logs").mkdir(exist_ok=True, mode=0o700)
    slurm.write_script(sweep.path)
    task = [
        sys.executable,
        "-m",
        "aiinfra_widgets.research.array",
        str(sweep.path),
        request.network,
        *["--retry"] * retry,
    ]
    points = sorted({t.point for t in left})
    job = slurm.run(command(request, sweep.path, points, ranks, task), ranks).partition(";")[0]
    write_json(sweep.path / "array.json", {"job": job, "points": points})
    return job


def going(sweep: Sweep) -> str:
    """Return the number of the array that still works on a sweep, "" where none does."""
    try:
        job = str(json.loads((sweep.path / "array.json").read_text())["job"])
    except (OSError, ValueError, KeyError):
        return ""
    return "" if slurm.queue(job).over else job


def follow(sweep: Sweep, progress: Progress) -> None:
    """Wait until the array is over, saying how many trials have ended; leaving it does not end the array."""
    total, asked_s, job = len(sweep.trials), -ASK_S, "-"
    while job:
        if time.monotonic() - asked_s >= ASK_S:
            job, asked_s = going(sweep), time.monotonic()
        done = len(sweep.ends())
        said = slurm.queue(job) if job and not done else None
        progress(
            done, total, f"job {job} of Slurm" + (f" is {said.state.lower()} {said.reason}".rstrip() if said else "")
        )
        time.sleep(LOOK_S if not said else ASK_S)
        if done == total:
            break
    write_tables(sweep)


def task(path: Path, point: int, *, network: str = "", retry: bool = False) -> None:
    """Run what is left of one point, in the allocation that this process is in.

    Raises:
        ControlError: Another process works on this point.
        StorageError: The disk is full; resume it later.
    """
    sweep = Sweep(path)
    with folders.alone(sweep.folder, f".lock-{point}"):
        done = {t for t, e in sweep.ends().items() if e.state == "done" or not retry}
        left = [t for t in sweep.trials if t.point == point and t.index not in done]
        if left:
            journal = folders.Journal(sweep.folder.journal_of(point))
            Runner(sweep, lambda *_: None, place=Allocation(network, inside()), journal=journal).run(left)
    if len(sweep.ends()) == len(sweep.trials):
        with folders.alone(sweep.folder):
            write_tables(sweep)


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # scancel: the trial is stopped, and run again by a resume
    task(Path(sys.argv[1]), int(os.environ["SLURM_ARRAY_TASK_ID"]), network=sys.argv[2], retry="--retry" in sys.argv)
