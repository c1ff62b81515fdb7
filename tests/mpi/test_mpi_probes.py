"""The probes of several ranks on three real ranks, one more than pairs need: the test itself runs under mpiexec."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from aiinfra_widgets.launch import local

INNER = Path(__file__).with_name("probes_on_ranks.py")


def test_the_probes_of_several_ranks(repo, tmp_path):
    argv = local.command(3, [], local.mpiexec())
    start = argv[: argv.index("-m")]  # up to the Python; what follows is the lab's own programme
    inner = ["-m", "mpi4py", "-m", "pytest", str(INNER), "-x", "--timeout=200", f"--basetemp={tmp_path / 'ranks'}"]
    env = local.environment(os.environ, 1)
    done = subprocess.run([*start, *inner], cwd=repo, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == 3, done.stdout[-2000:]
