"""What is started: with which environment, by which words, and that nothing of it can be reached from elsewhere."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from attacks import listeners, running, wait_until

from aiinfra_widgets.launch import local, surroundings
from aiinfra_widgets.launch.session import Session
from aiinfra_widgets.machine.devices import found

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-aws", "JUPYTERHUB_API_TOKEN": "s3cr3t-hub", "HF_TOKEN": "s3cr3t-hf", "GITHUB_TOKEN": "s3cr3t-git",
    "OPENAI_API_KEY": "s3cr3t-ai", "NVIDIA_API_KEY": "s3cr3t-nv", "PGPASSWORD": "s3cr3t-pg", "KUBECONFIG": "s3cr3t-kube",
    "SSH_AUTH_SOCK": "s3cr3t-ssh", "AIINFRA_SOME_TOKEN": "s3cr3t-own", "LD_PRELOAD": "", "PYTHONSTARTUP": "s3cr3t-start",
    "http_proxy": "http://user:s3cr3t@proxy.invalid", "OMPI_MCA_plm_rsh_agent": "s3cr3t-agent", "BASH_ENV": "s3cr3t-bash",
}  # fmt: skip
PACKAGE = Path(local.__file__).resolve().parents[1]


@pytest.fixture
def session(runs: Path) -> Iterator[Session]:
    made = Session(found())
    yield made
    made.close()


def of_the_run(session: Session) -> dict[str, psutil.Process]:
    """Return supervisor, mpiexec, ranks and companions of a session's pool, by what they are."""
    assert session.pool is not None
    supervisor = psutil.Process(int(next(iter([_read(session.pool.path / "supervisor.json")["pid"]]))))
    return {f"{' '.join(p.cmdline()[1:6])} #{p.pid}": p for p in (supervisor, *supervisor.children(recursive=True))}


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    return data


# --- the environment ------------------------------------------------------------------------------------------------
def test_only_what_is_on_the_list_goes_to_a_child() -> None:
    base = {
        **SECRETS,
        "HOME": "/h",
        "PATH": "/p",
        "OMP_PLACES": "cores",
        "CUDA_VISIBLE_DEVICES": "0",
        "UNHEARD_OF": "x",
        "SLURM_JOB_ID": "7",
    }
    given = local.environment(base, 3)
    assert {k: given[k] for k in ("HOME", "PATH", "OMP_PLACES", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")} == {
        "HOME": "/h", "PATH": "/p", "OMP_PLACES": "cores", "CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "3",
    }  # fmt: skip
    assert not (SECRETS.keys() | {"UNHEARD_OF", "SLURM_JOB_ID"}) & given.keys()
    assert local.environment(base, 1, keep=("SLURM_",))["SLURM_JOB_ID"] == "7"
    named = {**base, surroundings.KEEP_ENV: "UNHEARD_OF, HF_TOKEN"}
    assert {"UNHEARD_OF", "HF_TOKEN"} <= local.environment(named, 1).keys()
    assert "AWS_SECRET_ACCESS_KEY" not in local.environment(named, 1)


def test_no_secret_reaches_a_process_of_a_run_nor_its_files(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, a web front as companion, mpiexec, the supervisor: as the kernel sees them."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    reader = running(session, "serving", nodes=1, arrivals="http")
    wait_until(lambda: reader.poll() or any(e["kind"] == "companion-started" for e in reader.events), "the web front")
    found_ = of_the_run(session)
    assert len(found_) >= 5, list(found_)
    for what, process in found_.items():
        environment = process.environ()
        assert "HOME" in environment, what
        leaked = [k for k, v in environment.items() if "s3cr3t" in v or (k in SECRETS and k != "LD_PRELOAD")]
        assert not leaked, (what, leaked)
    session.stop(reader)
    kept = [p for p in (*reader.run.path.rglob("*"), *session.pool.path.rglob("*")) if p.is_file()]
    assert len(kept) > 10
    assert not [p for p in kept if b"s3cr3t" in p.read_bytes()]


# --- no shell --------------------------------------------------------------------------------------------------------
def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the package that starts a process, with its place."""
    starts = {
        "Popen",
        "run",
        "call",
        "check_call",
        "check_output",
        "system",
        "popen",
        "getoutput",
        "create_subprocess_shell",
    }
    for path in (*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "kernels").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in starts
            if (
                named
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"subprocess", "os", "asyncio"}
            ):
                yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}", node


def test_no_text_goes_to_a_shell() -> None:
    seen = dict(calls())
    assert len(seen) >= 8
    for where, call in seen.items():
        name = call.func.attr  # type: ignore[attr-defined]
        assert name in {"Popen", "run"}, f"{where}: {name}"
        assert not [k for k in call.keywords if k.arg == "shell"], where
        assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp), f"{where}: words, not a text"


@pytest.mark.parametrize(
    "word",
    [
        "; touch pwned",
        "$(touch pwned)",
        "`touch pwned`",
        "\n touch pwned",
        "' \" | touch pwned",
        "--mca plm_rsh_agent x",
    ],
)
def test_what_a_person_types_stays_one_word(word: str, tmp_path: Path) -> None:
    argv = local.command(2, [str(tmp_path / word)], Path("/usr/bin/mpiexec"))
    assert argv[-1] == str(tmp_path / word)
    assert [w for w in argv if "touch" in w or "plm_rsh_agent" in w] == [argv[-1]]


# --- listeners --------------------------------------------------------------------------------------------------------
LOOPBACK = ("127.", "::1")
#: Who listens beyond loopback all the same, and why. SECURITY.md says the same, with the remedy that is tested below.
EXCEPTIONS = {
    "prterun": "Open MPI's launcher binds the port for its daemons on other hosts to every interface, whatever its options"
}
#: mpiexec in a network of its own, in which there is only loopback: what SECURITY.md tells who cannot live with that.
PRIVATE = """#!/bin/sh
exec unshare --net sh -c 'ip link set lo up && exec "$0" "$@"' MPIEXEC "$@"
"""


def opened(before: set[tuple[str, int, int]], mine: Any) -> list[tuple[str, int, str]]:
    """Return (address, port, command line) of what listens now and did not before, among the processes `mine`."""
    pids = {p.pid: " ".join(p.cmdline()[:7]) for p in mine}
    return sorted((ip, port, pids[pid]) for ip, port, pid in listeners() - before if pid in pids)


@pytest.fixture
def before() -> set[tuple[str, int, int]]:
    if os.geteuid():
        pytest.skip("needs root, to see whose each socket is")
    return listeners()


def serving(session: Session) -> Any:
    reader = running(session, "serving", nodes=1, arrivals="http")
    wait_until(lambda: reader.poll() or (reader.run.work / "front.json").exists(), "the web front")
    return reader


def test_what_listens_during_a_run_and_after_it(session: Session, before: set[tuple[str, int, int]]) -> None:
    """Pool, two ranks, mpiexec with its own channels, and the web front."""
    reader = serving(session)
    mine = of_the_run(session)
    during = opened(before, mine.values())
    assert [ip for ip, _, what in during if "front" in what] == ["127.0.0.1"]
    assert not [line for line in during if "mpi4py" in line[2] and "prterun" not in line[2]], (
        "ranks talk by shared memory"
    )
    beyond = [line for line in during if not line[0].startswith(LOOPBACK)]
    assert {line[2].split()[0].rpartition("/")[2] for line in beyond} <= set(EXCEPTIONS), beyond
    assert len(beyond) <= 2, "one for each family of addresses"
    for _, port, _ in beyond:  # whoever finds that door and knocks disturbs nobody
        for noise in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(4096), b""):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                stranger.sendall(noise)
    ticks = max(int(r["tick"]) for r in reader.latest().values())
    wait_until(lambda: reader.poll() or max(int(r["tick"]) for r in reader.latest().values()) > ticks + 2, "more ticks")
    session.stop(reader)
    session.close()
    pids = {p.pid for p in mine.values()}
    wait_until(lambda: not {pid for _, _, pid in listeners()} & pids, "the end of every listener", 20)


def test_in_a_network_of_its_own_mpiexec_is_reached_by_nobody(
    session: Session, before: set[tuple[str, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "prterun-private"  # named so that it is known for Open MPI's
    wrapper.write_text(PRIVATE.replace("MPIEXEC", str(local.mpiexec())))
    wrapper.chmod(0o700)
    if subprocess.run(
        ["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, check=False
    ).returncode:
        pytest.skip("no network namespaces here")
    monkeypatch.setenv(local.MPIEXEC_ENV, str(wrapper))
    reader = serving(session)
    mine = of_the_run(session)
    assert [p for what, p in mine.items() if "mpi4py" in what]
    assert [line for line in opened(before, mine.values()) if not line[0].startswith(LOOPBACK)] == []
    assert session.stop(reader).state == "stopped"


def test_the_kernel_and_the_page_listen_on_loopback_only(
    before: set[tuple[str, int, int]], runs: Path, repo: Path
) -> None:
    """`aiinfra serve`, and a kernel Python (MPI) of two ranks that Jupyter's client starts."""
    from jupyter_client.manager import KernelManager

    serve = subprocess.Popen(
        [sys.executable, "-c", "from aiinfra_widgets.cli import main; main()", "serve", "labs/01_training_scaling.ipynb", "--no-browser"],
        cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    manager = KernelManager(kernel_name="python3")
    spec = repo / "kernels" / "mpi" / "spec"
    manager.kernel_spec.argv = [
        sys.executable, "-m", "aiinfra_widgets.kernels.mpi", "-f", "{connection_file}", "--spec", str(spec)
    ]  # fmt: skip
    try:
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(90)
        assert any(line.startswith("http") for line in serve.stdout or ())
        during = opened(before, psutil.Process().children(recursive=True))
        assert [what for _, _, what in during if "kernels.mpi.rank" in what], during
        assert [what for _, _, what in during if "serve" in what], during
        beyond = [line for line in during if not line[0].startswith(LOOPBACK)]
        assert {line[2].split()[0].rpartition("/")[2] for line in beyond} <= set(EXCEPTIONS), beyond
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
        serve.terminate()
        serve.wait(30)
