"""Memory and traffic of plans on real ranks against their prediction; the tests themselves run under mpiexec."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aiinfra_widgets.launch import local

INNER, RANKS = Path(__file__).with_name("predicted_on_ranks.py"), 4
pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
def test_what_plans_hold_and_send_is_what_was_predicted(repo, tmp_path):
    argv = local.command(RANKS, [], local.mpiexec())
    argv = [*argv[: argv.index("-m")], "-m", "mpi4py", "-m", "pytest", str(INNER), "-x", "--timeout=240"]
    argv += [f"--basetemp={tmp_path / 'ranks'}", "-p", "no:cacheprovider"]
    env = local.environment(os.environ, 1)
    done = subprocess.run(argv, cwd=repo, env=env, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == RANKS, done.stdout[-2000:]
