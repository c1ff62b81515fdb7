"""What Jupyter starts: becomes mpiexec with the ranks of the kernel. `python -m aiinfra_widgets.kernels.mpi -f FILE`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from aiinfra_widgets.errors import LabError, SpecError
from aiinfra_widgets.launch import local
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.machine.limits import admit

NP_ENV, NP_KEY, NP_DEFAULT = "AIINFRA_NP", "aiinfra_np", 2
RANK = "aiinfra_widgets.kernels.mpi.rank"


def rank_count(spec: Path | None) -> int:
    """Return the number of ranks: AIINFRA_NP of the environment, else of the metadata in SPEC/kernel.json, else 2.

    Raises:
        SpecError: It is not a whole number of at least 1.
    """
    metadata = json.loads((spec / "kernel.json").read_text()).get("metadata", {}) if spec else {}
    given = str(os.environ.get(NP_ENV) or metadata.get(NP_KEY, NP_DEFAULT))
    if not given.isdecimal() or int(given) < 1:
        raise SpecError(f"ranks: got {given!r}; a whole number from 1; set {NP_ENV}, or {NP_KEY} in kernel.json")
    return int(given)


def main() -> None:
    """Replace this process by mpiexec, so that what Jupyter waits for and kills is mpiexec itself."""
    parser = argparse.ArgumentParser(description="Start the kernel whose cells run on every MPI rank.")
    parser.add_argument("-f", dest="connection_file", required=True, help="written by Jupyter")
    parser.add_argument("--spec", type=Path, help="folder of the kernelspec, for the number of ranks in its metadata")
    args = parser.parse_args()
    try:
        size, here, launcher = rank_count(args.spec), found(), local.mpiexec()
        admit(size, here)
    except LabError as error:
        sys.exit(f"the kernel Python (MPI) did not start: {error}")
    jupyter = os.environ.get("JPY_PARENT_PID", "0")
    argv = local.command(size, [args.connection_file, str(size), jupyter], launcher, module=RANK)
    # For ipykernel the parent is mpiexec, which gets our pid. And mpi4py would reduce objects on a hidden communicator,
    # which no interrupt can revoke, unless it is told not to.
    own = {"JPY_PARENT_PID": str(os.getpid()), "MPI4PY_RC_FAST_REDUCE": "false"}
    local.clear_session()
    os.execve(argv[0], argv, local.environment(os.environ, max(1, here.cores // size)) | own)  # noqa: S606


if __name__ == "__main__":
    main()
