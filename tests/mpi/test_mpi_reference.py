"""torch's own engines on two real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aiinfra_widgets.launch import local

INNER = Path(__file__).with_name("reference_on_ranks.py")
pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
def test_references_on_two_ranks(repo):
    argv = local.command(2, [], local.mpiexec())
    start = argv[: argv.index("-m")]  # up to the Python; what follows is the lab's own programme
    tests = ["-m", "mpi4py", "-m", "pytest", str(INNER), "-x", "--timeout=240"]
    env = local.environment(os.environ, 1)
    done = subprocess.run([*start, *tests], cwd=repo, env=env, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == 2, done.stdout[-2000:]
