"""What Jupyter starts: keeps mpiexec with the ranks of the kernel. `python -m aiinfra_widgets.kernels.mpi -f FILE`.

It stays, so that `%ranks 4` can start another number of ranks behind the same connection: for Jupyter, papermill and nbclient the
kernel never ends. `... install --ranks 4` adds a kernel of that many ranks to the list in JupyterLab.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiinfra_widgets.errors import LabError, SpecError
from aiinfra_widgets.launch import local
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.machine.limits import admit

NP_ENV, NP_KEY, NP_DEFAULT = "AIINFRA_NP", "aiinfra_np", 2
#: In the metadata of a notebook: {"aiinfra": {"ranks": 4}}; the server says in this variable which notebook it is.
NOTEBOOK_ENV, NOTEBOOK_KEY = "JPY_SESSION_NAME", "ranks"
#: The command that starts ranks in place of mpiexec; `{n}` is their number. It keeps the scheduler's variables.
LAUNCHER_ENV = "AIINFRA_KERNEL_LAUNCHER"
RANK = "aiinfra_widgets.kernels.mpi.rank"
#: Beside the connection file: the number that `%ranks` asked for, and the request that waits for its answer.
ASKED_SUFFIX = ".ranks"


def rank_count(spec: Path | None, asked: Path | None = None) -> int:
    """Return the number of ranks: what `%ranks` asked for, else AIINFRA_NP, else of the notebook's metadata, else of kernel.json, else 2.

    Raises:
        SpecError: It is not a whole number of at least 1.
    """
    metadata = json.loads((spec / "kernel.json").read_text()).get("metadata", {}) if spec else {}
    by_cell = json.loads(asked.read_text())["ranks"] if asked and asked.exists() else None
    first = (by_cell, os.environ.get(NP_ENV), of_notebook(), metadata.get(NP_KEY), NP_DEFAULT)
    given = str(next(v for v in first if v not in {None, ""}))
    if not given.isdecimal() or int(given) < 1:
        raise SpecError(
            f"ranks: got {given!r}; a whole number from 1; set {NP_ENV}, aiinfra.{NOTEBOOK_KEY} in the notebook's metadata, "
            f"or {NP_KEY} in kernel.json"
        )
    return int(given)


def of_notebook() -> object:
    """Return what the notebook's own metadata say, or None; JupyterLab tells which notebook it is, papermill does not."""
    try:
        metadata = json.loads(Path(os.environ[NOTEBOOK_ENV]).read_text(encoding="utf-8"))["metadata"]
        return metadata["aiinfra"][NOTEBOOK_KEY]
    except (KeyError, TypeError, ValueError, OSError):
        return None


def command(size: int, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the argv that starts the ranks, and their environment.

    Raises:
        LaunchError, AdmissionError: No mpiexec, or more ranks than this machine takes.
    """
    here = found()
    own = {"MPI4PY_RC_FAST_REDUCE": "false", "PYTHONUNBUFFERED": "1"}  # see docs/mpi-kernel.md
    if template := os.environ.get(LAUNCHER_ENV, "").strip():
        words = [w.replace("{n}", str(size)) for w in shlex.split(template)]
        counted = [] if "{n}" in template else ["-n", str(size)]
        return [*words, *counted, sys.executable, "-m", "mpi4py", "-m", RANK, *arguments], {**os.environ, **own}
    admit(size, here)
    argv = local.command(size, arguments, local.mpiexec(), module=RANK)
    return argv, local.environment(os.environ, max(1, here.cores // size), whole=True) | own


def keep(connection_file: str, spec: Path | None) -> int:
    """Start ranks, again with another number whenever a cell asks for it, and return the exit code of the last."""
    asked = Path(connection_file + ASKED_SUFFIX)
    while True:
        size = rank_count(spec, asked)
        watch = [os.environ.get("JPY_PARENT_PID", "0"), str(os.getpid()), socket.gethostname()]
        argv, env = command(size, [connection_file, str(size), *watch])
        code = run(argv, env)
        if not waiting(asked):
            return code


def waiting(asked: Path) -> bool:
    """Whether a cell asked for another number and waits for the new ranks."""
    try:
        return bool(json.loads(asked.read_text()).get("request"))
    except (OSError, ValueError):
        return False


def run(argv: list[str], env: dict[str, str]) -> int:
    """Run a launcher until it ends; what ends this process ends it, too."""
    child = os.fork()  # no thread has been started here
    if child == 0:
        with suppress(BaseException):
            local.clear_session()
            os.execvpe(argv[0], argv, env)  # noqa: S606
        print(
            f"the kernel Python (MPI) cannot start {argv[0]!r}; see {LAUNCHER_ENV} or AIINFRA_MPIEXEC", file=sys.stderr
        )
        os._exit(127)

    def pass_on(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt comes as a message; this one would end every rank
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def install(ranks: int, launcher: str, name: str) -> str:
    """Add a kernel to this user's list, and return its name.

    Args:
        ranks: Its number of ranks.
        launcher: The command in place of mpiexec, or "".
        name: Of the folder; "" makes one.
    """
    import shutil
    import tempfile

    from jupyter_client.kernelspec import KernelSpecManager

    name = name or f"aiinfra-mpi-{ranks}"
    with tempfile.TemporaryDirectory() as folder:
        place = shutil.copytree(Path(__file__).parent / "spec", Path(folder) / name)
        spec = json.loads((place / "kernel.json").read_text())
        spec["argv"][0] = sys.executable
        spec["display_name"] = f"Python (MPI, {ranks} ranks)"
        spec["metadata"][NP_KEY] = ranks
        if launcher:
            spec["env"] = {LAUNCHER_ENV: launcher}
        (place / "kernel.json").write_text(json.dumps(spec, indent=2))
        return str(KernelSpecManager().install_kernel_spec(str(place), name, user=True))


def main() -> None:
    """Be the process that Jupyter starts, waits for and kills; or install a kernel."""
    parser = argparse.ArgumentParser(description="Start the kernel whose cells run on every MPI rank.")
    parser.add_argument("what", nargs="?", choices=["install"], help="add a kernel to this user's list")
    parser.add_argument("-f", dest="connection_file", help="written by Jupyter")
    parser.add_argument("--spec", type=Path, help="folder of the kernelspec, for the number of ranks in its metadata")
    parser.add_argument("--ranks", type=int, default=NP_DEFAULT, help="of the kernel that is installed")
    parser.add_argument("--launcher", default="", help='in place of mpiexec, such as "srun -K1 --mpi=pmix -n {n}"')
    parser.add_argument("--name", default="", help="of the kernel that is installed")
    args = parser.parse_args()
    if args.what == "install":
        print(install(args.ranks, args.launcher, args.name))
        return
    if not args.connection_file:
        parser.error("-f is missing: Jupyter starts this, with the file of its connection")
    try:
        code = keep(args.connection_file, args.spec)
    except LabError as error:
        sys.exit(f"the kernel Python (MPI) did not start: {error}")
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
