"""All-reduce on 1 to 5 real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from aiinfra_widgets.launch import local

INNER = Path(__file__).with_name("collectives_on_ranks.py")


def test_allreduce_on_one_to_five_ranks(repo, tmp_path):
    launcher = local.mpiexec()
    argv = local.command(5, [], launcher)
    start = argv[: argv.index("-m")]  # up to the Python; what follows is the lab's own programme
    argv = [
        *start,
        "-m",
        "mpi4py",
        "-m",
        "pytest",
        str(INNER),
        "-x",
        "--timeout=120",
        f"--basetemp={tmp_path / 'ranks'}",
    ]
    env = local.environment(os.environ, 1)
    done = subprocess.run(argv, cwd=repo, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == 5, done.stdout[-2000:]
    assert sys.executable in argv
