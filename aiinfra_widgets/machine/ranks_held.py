"""Which ranks of this user are up on this machine, read from the processes: whoever started them, in whichever folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: How the command lines of these begin, after the interpreter (`launch.pool`, `launch.local`, `kernels.mpi`).
SUPERVISOR = ("-m", "aiinfra_widgets.launch.supervisor")
RANK = ("-m", "mpi4py", "-m", "aiinfra_widgets.ranks")
KERNEL_RANK = ("-m", "mpi4py", "-m", "aiinfra_widgets.kernels.mpi.rank")


@dataclass(frozen=True, slots=True)
class Held:
    """Ranks that are up, or about to be.

    Attributes:
        ranks: How many.
        what: For people: the run that has them, or that they are kept warm.
        pool: Their pool's folder, None for those of a kernel.
    """

    ranks: int
    what: str
    pool: Path | None = None


def held(but: Path | None = None, *, older: bool = False) -> list[Held]:
    """Return what holds ranks of this user, pool by pool, without the pool `but` and without the pool that this process serves.

    A pool counts with its full size from the moment its supervisor lives, so two that are started at the same time see each
    other; `older` leaves out the pools of supervisors that are younger than this process.
    """
    left_out = {but.resolve()} if but is not None else set()
    pools: dict[Path, int] = {}
    orphans: dict[Path, int] = {}
    kernel_ranks = 0
    this = psutil.Process()
    me, mine_s = {p.pid for p in _line_of(this)}, (this.create_time(), this.pid)
    for pid, born_s, words in _of_this_user():
        if words[1:3] == SUPERVISOR and len(words) >= 5:
            pool = Path(words[3])
            if pid in me or (older and (born_s, pid) > mine_s):
                left_out.add(pool.resolve())
            pools[pool] = _size(pool, int(words[4]) if words[4].isdecimal() else 0)
        elif words[1:5] == RANK and len(words) >= 6:
            orphans[Path(words[5])] = orphans.get(Path(words[5]), 0) + 1
        elif words[1:5] == KERNEL_RANK and not _parent(pid) & me:
            kernel_ranks += 1  # not those beside this one: a kernel that asks for another number begins anew with it
    found = [Held(size, _what(pool), pool) for pool, size in {**orphans, **pools}.items()]
    if kernel_ranks:
        found.append(Held(kernel_ranks, "kernels of Python (MPI)"))
    return [h for h in found if h.ranks and (h.pool is None or h.pool.resolve() not in left_out)]


def _of_this_user() -> Iterator[tuple[int, float, tuple[str, ...]]]:
    """Yield number, birth and command line of every process of this user."""
    mine = os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real == mine and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid, process.create_time(), tuple(process.cmdline())


def _line_of(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [process, *process.parents()]
    return [process]


def _parent(pid: int) -> set[int]:
    with contextlib.suppress(psutil.Error):
        return {psutil.Process(pid).ppid()}
    return set()


def _state(pool: Path) -> dict[str, object]:
    try:
        data = json.loads((pool / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _size(pool: Path, asked: int) -> int:
    """Return the ranks of a pool: of its present generation, else what it was started for; none where they are down."""
    state = _state(pool)
    size = state.get("size")
    if state.get("phase") in {"down", "closed"}:
        return 0
    return size if isinstance(size, int) and size > 0 else asked


def _what(pool: Path) -> str:
    run = _state(pool).get("run")
    return f"run {Path(run).name}" if isinstance(run, str) else "a kernel or command that keeps them warm"
