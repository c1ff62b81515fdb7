"""The stages of ZeRO on 1 to 4 real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aiinfra_widgets.launch import local

pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["zero_memory", pytest.param("zero", marks=pytest.mark.slow)])
def test_one_to_four_replicas_that_share_their_state(repo, tmp_path, what):
    """What they hold; and, beyond what the tests of plans try, that they train as one process."""
    inner = str(Path(__file__).with_name(f"{what}_on_ranks.py"))
    argv = local.command(4, [], local.mpiexec())
    start = argv[: argv.index("-m")]  # up to the Python; what follows is the lab's own programme
    tests = ["-m", "pytest", inner, "-x", "--timeout=240", f"--basetemp={tmp_path / 'ranks'}"]
    done = subprocess.run(
        [*start, "-m", "mpi4py", *tests],
        cwd=repo,
        env=local.environment(os.environ, 1),
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == 4, done.stdout[-2000:]
