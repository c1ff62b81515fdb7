"""A rank of a pool: comes up, says so, and does one run after another. `python -m aiinfra_widgets.ranks POOL GENERATION SIZE`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
from mpi4py import MPI

from ..errors import LabError
from ..runs.alive import here
from ..runs.home import cache_folder
from .failures import is_loss
from .link import sharpen_sleep
from .node import receive_json, send_json, wait_for
from .runtime import Runtime

ASSIGN = 60


def main(pool: Path, generation: int, size: int) -> None:
    """Serve runs until told to end."""
    world = MPI.COMM_WORLD
    world.Set_errhandler(MPI.ERRORS_RETURN)
    if world.size != size:
        # A launcher of another MPI starts n programmes that each believe to be alone, and reports success.
        raise SystemExit(
            f"asked for {size} ranks, but MPI says {world.size}: mpiexec and mpi4py belong to different MPIs; aiinfra doctor"
        )
    log = pool / "logs" / f"{generation}-{world.rank}.log"
    _redirect(log)  # from here on: what came before is in the launcher's log, which owners are shown
    _die_with_launcher()
    sharpen_sleep()
    import torch  # before "ready": a run must start in milliseconds

    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays: collecting what a run left then takes no time between two runs
    world.Barrier()
    (pool / "ready" / f"{generation}-{world.rank}").write_text(
        json.dumps({"pid": os.getpid(), "host": here(), "at_s": time.time()})
    )
    while (job := _next_job(world, pool, generation)) is not None:
        _redirect(_run_log(job, world.rank))
        _one_run(world, job, pool, generation)
        if world.rank == 0:
            _taken_care_of(pool, job)
        _redirect(log)
        gc.collect()
    sys.stdout.flush()
    if not (pool / f"degraded-{generation}").exists():
        world.Barrier()
    # MPI_Finalize was seen to hang after a failure; everything is on disk by now.
    os._exit(0)


def _one_run(world: MPI.Intracomm, job: dict[str, Any], pool: Path, generation: int) -> None:
    runtime = None
    try:
        runtime = Runtime(world, job, pool, generation, cache_folder())
        runtime.carry()
    except BaseException as error:
        with contextlib.suppress(OSError, LabError):
            if runtime is None:
                _failed_early(job, world.rank, error)
            else:
                runtime.failed(error)
        with contextlib.suppress(OSError):  # the log lies on the same disk
            traceback.print_exc()
            sys.stderr.flush()
        with contextlib.suppress(OSError):  # once a rank has died, Abort leaves some alive: the supervisor ends them
            (pool / f"aborted-{generation}").touch()
        world.Abort(1)


def _failed_early(job: dict[str, Any], rank: int, error: BaseException) -> None:
    """The run could not even be built: a data file that cannot be read, a run directory without space."""
    from ..runs.layout import RunDir
    from ..runs.writer import EventWriter

    run = RunDir(Path(job["run"]))
    with contextlib.suppress(OSError, LabError):
        run.reserve.unlink(missing_ok=True)
        event = EventWriter(run, job["incarnation"], rank)
        event("error", tick=None, message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _next_job(world: MPI.Intracomm, pool: Path, generation: int) -> dict[str, Any] | None:
    """Wait, asleep, for the next run; None when told to end."""
    if world.rank:
        try:
            while (status := wait_for(world, ASSIGN, 0)) is None:
                pass
            job = receive_json(world, status, ASSIGN)
        except MPI.Exception as error:
            if not is_loss(error, world):
                raise
            while True:  # no run comes any more; the supervisor ends this rank, and not before the last one has said how the run ended
                time.sleep(1.0)
    else:
        job = _assigned(pool, generation)
        for rank in range(1, world.size):
            send_json(world, job, rank, ASSIGN)
    return None if job.get("end") else job


def _assigned(pool: Path, generation: int) -> dict[str, Any]:
    done = _assigned.__dict__.setdefault("done", set())
    while True:
        here = [n for n in os.listdir(pool / "assign") if n.startswith(f"{generation}-") and n.endswith(".json")]
        names = sorted(set(here) - done)
        if names:
            done.add(names[0])
            job: dict[str, Any] = json.loads((pool / "assign" / names[0]).read_text())
            return {**job, "assignment": names[0]}
        time.sleep(0.005)


def _taken_care_of(pool: Path, job: dict[str, Any]) -> None:
    """Tell the supervisor that the ranks are free; the run's own folder may have been moved away by now."""
    with contextlib.suppress(OSError):
        (pool / "assign" / job["assignment"]).rename(pool / "assign" / f"{job['assignment']}.done")


def _run_log(job: dict[str, Any], rank: int) -> Path:
    return Path(job["run"]) / "logs" / f"{job['incarnation']}-{rank}.log"


def _redirect(log: Path) -> None:
    """Send standard output and error of this process, and of C code in it, to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)


def _die_with_launcher() -> None:
    """Be killed when mpiexec is (Linux): the second line behind the supervisor."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() == 1 and psutil.Process(1).name() not in {"mpiexec", "prterun", "prted", "orted"}:
        raise SystemExit("mpiexec ended before this rank was up")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
