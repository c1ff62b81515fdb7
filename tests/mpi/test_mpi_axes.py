"""Tensor, sequence and context parallelism on 1 to 4 real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aiinfra_widgets.launch import local

pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)  # a minute alone; the ranks poll, so other work on the cores stretches it
@pytest.mark.parametrize("what", ["axes_pieces", pytest.param("axes", marks=pytest.mark.slow)])
def test_nets_shared_by_one_to_four_ranks_compute_what_one_process_computes(repo, tmp_path, what):
    # Captured inside Python only, so that a rank that ends the job can say why.
    tests = [
        str(Path(__file__).with_name(f"{what}_on_ranks.py")),
        "-x",
        "--timeout=240",
        "--capture=sys",
        f"--basetemp={tmp_path / 'ranks'}",
    ]
    argv = local.command(4, tests, local.mpiexec(), "pytest")
    # With fault tolerance, an abort of one rank leaves the others waiting.
    argv = [word for word in argv if word not in {"--with-ft", "ulfm"}]
    env = local.environment(os.environ, 1)
    done = subprocess.run(argv, cwd=repo, env=env, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == 4, done.stdout[-2000:]
