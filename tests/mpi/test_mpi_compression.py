"""Compressed gradients and drifting replicas on real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aiinfra_widgets.launch import local

INNER = Path(__file__).with_name("compression_on_ranks.py")


pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("ranks", "which"), [(4, "not goal"), pytest.param(2, "goal", marks=pytest.mark.slow)], ids=["sums", "goals"]
)
def test_compression(repo, ranks, which):
    argv = local.command(ranks, [], local.mpiexec())
    start = argv[: argv.index("-m")]  # up to the Python; what follows is the lab's own programme
    tests = ["-m", "mpi4py", "-m", "pytest", str(INNER), "-x", "--timeout=240", "-k", which]
    env = local.environment(os.environ, 1)
    done = subprocess.run([*start, *tests], cwd=repo, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == ranks, done.stdout[-2000:]
