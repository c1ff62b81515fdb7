"""Every strategy and every pair of them on up to eight real ranks: the tests themselves run under mpiexec."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aiinfra_widgets.launch import local

INNER = Path(__file__).with_name("plans_on_ranks.py")

pytestmark = pytest.mark.plans


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("ranks", "tests"),
    [(5, "by_itself"), (4, "sequences or pair or drawn"), (8, "eight_ranks")],
    ids=["strategies", "pairs", "eight-ranks"],
)
def test_every_plan_computes_what_one_process_computes(repo, tmp_path, ranks, tests):
    argv = local.command(ranks, [], local.mpiexec())
    argv = [*argv[: argv.index("-m")], "-m", "mpi4py", "-m", "pytest", str(INNER), "-x", "-k", tests, "--timeout=240"]
    argv += [f"--basetemp={tmp_path / 'ranks'}", "-p", "no:cacheprovider"]
    env = local.environment(os.environ, 1)
    done = subprocess.run(argv, cwd=repo, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(" passed") == ranks, done.stdout[-2000:]
