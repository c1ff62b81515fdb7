"""Which launcher, which command line, which environment: pure functions, held as tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiinfra_widgets.errors import AdmissionError, LaunchError
from aiinfra_widgets.launch import local, pool
from aiinfra_widgets.launch.processes import why_ended
from aiinfra_widgets.launch.supervisor import Supervisor
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs.jobs import write_job
from aiinfra_widgets.runs.layout import RunDir, write_json

HERE = Machine("here", "2026-01-01", 2, 8 * 2**30)


def programme(folder: Path, name: str = "mpiexec") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_one_that_was_asked_for_comes_first(tmp_path, monkeypatch):
    mine = programme(tmp_path)
    monkeypatch.setenv("AIINFRA_MPIEXEC", str(mine))
    assert local.mpiexec() == mine


def test_the_embedded_one_comes_before_the_path(tmp_path, monkeypatch):
    monkeypatch.delenv("AIINFRA_MPIEXEC", raising=False)
    other = programme(tmp_path / "other")
    monkeypatch.setenv("PATH", str(other.parent))
    assert local.mpiexec() == Path(sys.executable).parent / "mpiexec"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert local.mpiexec() == other
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="neither beside this Python nor on PATH"):
        local.mpiexec()


def test_open_mpi_is_started_with_fault_tolerance_and_off_the_network():
    argv = local.command(3, ["pool", "1", "3"], local.mpiexec())
    text = " ".join(argv)
    for part in (
        "--with-ft ulfm",
        "--bind-to none",
        "--map-by :OVERSUBSCRIBE",
        "--mca pml ob1",
        "--mca btl self,sm",
        "-n 3",
    ):
        assert part in text
    assert argv[-8:] == [sys.executable, "-m", "mpi4py", "-m", "aiinfra_widgets.ranks", "pool", "1", "3"]


def test_another_mpi_gets_only_what_every_mpi_knows(tmp_path):
    launcher = programme(tmp_path)
    assert local.command(2, [], launcher)[:3] == [str(launcher), "-n", "2"]
    assert not local.is_openmpi(launcher)
    assert local.is_openmpi(local.mpiexec())


def test_variables_of_another_launcher_are_scrubbed():
    foreign = (
        "PMI_RANK",
        "PMIX_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "SLURM_NTASKS",
        "HYDRA_X",
        "PYTHONSTARTUP",
        "PRTE_MCA_x",
    )
    env = local.environment({**dict.fromkeys(foreign, "1"), "PATH": "/bin", "OMP_NUM_THREADS": "64"}, 3)
    assert not set(foreign) & set(env)
    assert (env["PATH"], env["OMP_NUM_THREADS"]) == ("/bin", "3")
    assert ("OMPI_ALLOW_RUN_AS_ROOT" in env) == (os.geteuid() == 0)


@pytest.mark.parametrize(
    ("code", "tail", "says"),
    [
        (137, "", "a rank of 4 was killed (signal 9"),
        (-9, "", "a rank of 4 was killed (signal 9"),
        (1, "exited on signal 9 (Killed)", "a rank of 4 was killed (signal 9"),
        (3, "", "mpiexec ended with exit code 3 before the run did"),
    ],
)
def test_exit_codes_in_words(code, tail, says):
    assert why_ended(code, 4, tail).startswith(says)


@pytest.mark.parametrize("size", [0, -1, 17, 10_000])
def test_more_ranks_than_the_machine_takes_are_refused_before_anything_is_made(tmp_path, size):
    with pytest.raises(AdmissionError, match=f"nodes: got {size}; this machine takes 1 to 16"):
        pool.start(size, HERE, grace_s=0.0, folder=tmp_path / "pools")
    assert not (tmp_path / "pools").exists()


def test_a_process_is_told_from_a_later_one_with_its_pid():
    assert pool.lives(pool.me())
    assert not pool.lives({**pool.me(), "up_s": 1.0})
    assert not pool.lives({})
    assert not pool.lives({"pid": 2**22 + 1, "born_s": 1.0})


def test_folders_of_pools_that_ended_long_ago_are_swept(tmp_path):
    for name, record, age_s in (
        ("old", {"pid": 2**22 + 1, "born_s": 0}, 9e5),
        ("fresh", {"pid": 2**22 + 1, "born_s": 0}, 0),
        ("mine", pool.me(), 9e5),
    ):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "supervisor.json"
        write_json(path, record)
        then = path.stat().st_mtime - age_s
        os.utime(path, (then, then))
    pool.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh", "mine"]


def test_only_pools_without_a_living_owner_can_be_taken_over(tmp_path):
    for name, owner in (
        ("gone", {"pid": 2**22 + 1, "born_s": 0}),
        ("mine", pool.me()),
        ("of-another", {"pid": 1, "born_s": __import__("psutil").Process(1).create_time()}),
    ):
        (tmp_path / name / "jobs").mkdir(parents=True)
        write_json(tmp_path / name / "supervisor.json", pool.me())
        write_json(tmp_path / name / "owner.json", owner)
    assert sorted(p.path.name for p in pool.ours(tmp_path)) == ["gone", "mine"]


def test_a_pool_is_idle_when_it_carries_no_run_and_none_is_queued(tmp_path):
    (tmp_path / "jobs").mkdir()
    found = pool.Pool(tmp_path)
    assert found.idle
    write_job(tmp_path, RunDir(tmp_path / "run"), 0, 2)
    assert not found.idle
    for path in (tmp_path / "jobs").iterdir():
        path.unlink()
    write_json(tmp_path / "state.json", {"run": "somewhere"})
    assert not found.idle


def test_a_job_of_a_run_that_was_deleted_is_dropped(tmp_path):
    for folder in ("jobs", "assign", "ready", "logs"):
        (tmp_path / folder).mkdir()
    write_job(tmp_path, RunDir(tmp_path / "gone"), 0, 2)
    supervisor = Supervisor(tmp_path, 2, 2)
    supervisor.next_job()
    assert supervisor.job is None
    assert not list((tmp_path / "jobs").iterdir())


def test_what_a_killed_mpiexec_left_under_a_number_does_not_stop_the_next_one_with_it(tmp_path):
    """Open MPI fails with exit code 213 where a session with its number lies; without `clear_session` this test does."""
    code = (
        "import os, sys, pathlib, tempfile\n"
        "from aiinfra_widgets.launch import local\n"
        "left = pathlib.Path(tempfile.gettempdir()) / f'ompi.{os.getpid()}'\n"
        "(left / '0' / '0').mkdir(parents=True)\n"
        "for name in ('hwloc.sm', 'pmix.vm.tool', f'pmix.vm.tool.{os.getpid()}', f'pmix.vm.tool.prterun-vm-{os.getpid()}@0'):\n"
        "    (left / name).write_text('prterun-vm@0;tcp4://127.0.0.1:1')\n"
        "if sys.argv[1] == 'clear': local.clear_session()\n"
        "program = str(local.mpiexec())\n"
        "flags = local.command(1, [], local.mpiexec())[1:]\n"
        "flags = flags[: flags.index('-m')] if '-m' in flags else flags\n"
        "os.execve(program, [program, *flags, '-c', 'print(6 * 7)'], local.environment(os.environ, 1))\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    ends = {
        how: subprocess.run([sys.executable, "-c", code, how], env=env, capture_output=True, text=True, timeout=60)
        for how in ("keep", "clear")
    }
    assert (ends["clear"].returncode, ends["clear"].stdout.strip()) == (0, "42")
    assert ends["keep"].returncode != 0
