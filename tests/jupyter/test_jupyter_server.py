"""The server extension in a real Jupyter Server: it is switched on by its file, asks for a login, and opens no port."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiinfra_widgets.errors import RunFormatError
from aiinfra_widgets.jupyter.board import Board
from aiinfra_widgets.jupyter.handlers import LINK, shown_path
from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.profile import Machine
from aiinfra_widgets.runs import layout
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.runs.writer import EventWriter

TOKEN = "a-token-of-this-test"
MACHINE = Machine("here", "now", 2, 2**35)
EXTENSION = Path("aiinfra_widgets") / "jupyter"


@dataclass
class Server:
    url: str
    home: Path
    process: subprocess.Popen[bytes]

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/aiinfra/{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def mine(self, path: str, body: Any = None) -> tuple[int, Any]:
        return self.ask(path, body, Authorization=f"token {TOKEN}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("served")
    (home / "root").mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    argv = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home / 'root'}",
    ]  # fmt: skip
    log = (home / "log").open("wb")
    process = subprocess.Popen(argv, env={**os.environ, "AIINFRA_HOME": str(home / "lab")}, stdout=log, stderr=log)
    found = Server(f"http://127.0.0.1:{port}", home, process)
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{found.url}/api", timeout=2).close()
            break
        except OSError:
            time.sleep(0.1)
    yield found
    process.terminate()
    process.wait(30)
    log.close()


def test_what_pip_copied_is_what_is_in_the_tree(repo: Path) -> None:
    """An editable install copies these files; after a change `make setup` copies them anew."""
    copies = {
        "labextension": "share/jupyter/labextensions/@aiinfra/lab",
        "config/server.json": "etc/jupyter/jupyter_server_config.d/aiinfra.json",
        "config/kernel.json": "etc/ipython/ipython_kernel_config.json",
    }
    for source, target in copies.items():
        here = repo / EXTENSION / source
        for path in [p for p in ([here] if here.is_file() else here.rglob("*")) if p.is_file()]:
            copy = Path(sys.prefix) / target / path.relative_to(here)
            assert copy.exists(), f"{copy} is missing; run: make setup"
            assert copy.read_bytes() == path.read_bytes(), f"{copy} is of an older tree; run: make setup"


def test_every_text_of_the_page_can_be_translated(repo: Path) -> None:
    from aiinfra_widgets.jupyter.words import words

    said: set[str] = set()
    for script in (repo / EXTENSION / "labextension" / "static").glob("*.js"):
        said |= set(re.findall(r'\bt\("((?:[^"\\]|\\.)+)"', script.read_text()))
    assert len(said) > 20
    assert said <= words().keys()


def test_nothing_answers_without_a_login(server: Server) -> None:
    for path, body in (("about", None), ("runs", None), ("labs", {"name": "x"}), ("runs/a/ask", {"words": ["stop"]})):
        code, _ = server.ask(path, body)
        assert code == 403, path


def test_a_forged_request_of_another_page_is_refused(server: Server) -> None:
    """With the cookie that a browser would send by itself, and without the token that only our page can read."""
    with urllib.request.urlopen(f"{server.url}/api/status?token={TOKEN}", timeout=30) as reply:
        cookie = "; ".join(c.partition(";")[0] for c in reply.headers.get_all("Set-Cookie"))
    assert server.ask("runs", None, Cookie=cookie)[0] == 200
    code, said = server.ask("labs", {"name": "01_training_scaling.ipynb"}, Cookie=cookie)
    assert code == 403
    assert "xsrf" in said.lower() or "origin" in said.lower()
    assert not (server.home / "root" / "aiinfra-labs").exists()


def test_the_table_of_runs_and_what_is_wrong_with_a_question(server: Server) -> None:
    assert server.mine("runs")[1]["runs"] == []
    run = layout.create(
        server.home / "lab" / "runs", "training", spec_of("training", {"nodes": 2}), MACHINE, note="hello"
    )
    time.sleep(0.6)
    [row] = server.mine("runs")[1]["runs"]
    assert (row["id"], row["state"], row["nodes"], row["note"], row["costs"]) == (run.id, "new", 2, "hello", [])
    code, answer = server.mine(f"runs/{run.id}/ask", {"words": ["colour=2"]})
    assert (code, answer["kind"]) == (200, "refused")
    assert "colour" in answer["reason"]
    assert server.mine(f"runs/{run.id}/ask", {"words": "stop"})[0] == 400
    assert server.mine("runs/no-such-run/ask", {"words": ["stop"]})[1]["kind"] == "refused"
    assert server.mine("runs/..%2F..%2Fetc/ask", {"words": ["stop"]})[0] == 404
    assert server.mine("labs", {"name": "no"})[0] == 400


def test_it_listens_nowhere_else(server: Server) -> None:
    listening = [
        c for c in psutil.Process(server.process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN
    ]
    assert [c.laddr.port for c in listening] == [int(server.url.rpartition(":")[2])]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return layout.create(tmp_path / ".hidden" / "runs", "training", spec_of("training", {}), MACHINE)


def test_a_runs_folder_is_shown_by_a_link_that_takes_nobodys_place(run: RunDir, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert shown_path(run, root)["path"] == f"{LINK}/{run.id}"
    assert (root / LINK / run.id / "run.json").samefile(run.manifest)
    assert shown_path(run, root)["path"] == f"{LINK}/{run.id}"
    (root / LINK).unlink()
    (root / LINK).write_text("mine")
    found = shown_path(run, root)
    assert found["path"] is None
    assert "something else" in found["why"]
    assert (root / LINK).read_text() == "mine"
    assert shown_path(run, run.path.parent)["path"] == run.id, "inside of the root nothing is needed"
    assert shown_path(run, None)["path"] is None
    with pytest.raises(RunFormatError):
        shown_path(RunDir(run.path.parent / "none"), root)


def test_an_ended_run_is_read_once_and_again_when_it_is_resumed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIINFRA_HOME", str(run.path.parents[1]))
    board = Board()
    assert [r["state"] for r in board.rows()] == ["new"]
    event = EventWriter(run, 0, "launch")
    event("launch-failed", message="no ranks")
    event.close()
    board.stale()
    [row] = board.rows()
    assert (row["state"], row["message"]) == ("failed", "no ranks")
    board.stale()
    assert board.rows()[0] is row, "an ended run costs nothing"
    again = EventWriter(run, 1, "owner")
    again("queued", pid=os.getpid(), born_s=psutil.Process().create_time())
    again.close()
    board.stale()
    assert board.rows()[0]["state"] == "starting"
