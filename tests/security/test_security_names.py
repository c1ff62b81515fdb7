"""Names of runs: whatever is typed, sent or packed, nothing outside of the folder of runs is read, moved or written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks import BAD_NAMES

from aiinfra_widgets.cli import main
from aiinfra_widgets.errors import ControlError, LabError
from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.research import archive
from aiinfra_widgets.runs import layout, trash
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.widgets.runs import Runs

TOKEN = "only-for-this-test"
#: Names under which a run can lie in a folder of this system all the same, put there by hand or by somebody else.
POSSIBLE = ("line", "option", "device", "device with an ending", "turned around", "looks like a dot", "long", "hidden")


@pytest.fixture
def secret(runs: Path) -> RunDir:
    """A run that no name of a run in `runs` leads to; `link` in `runs` points at it."""
    run = layout.create(
        runs.parent / "runs-secret", "training", spec_of("training", {}), found(), note="nobody's business"
    )
    (runs / "link").symlink_to(run.path, target_is_directory=True)
    return run


@pytest.fixture
def bad(request: pytest.FixtureRequest, run: RunDir, secret: RunDir) -> str:
    """One of BAD_NAMES, with the real names in it, and planted where the file system allows it."""
    name = BAD_NAMES[request.param].replace("RUN", run.id).replace("SECRET", secret.id)
    if request.param in POSSIBLE:
        shutil.copytree(run.path, run.path.parent / name)
    return name


every_name = pytest.mark.parametrize("bad", BAD_NAMES, indirect=True)


def everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@every_name
def test_a_bad_name_opens_deletes_restores_and_packs_nothing(
    runs: Path, run: RunDir, secret: RunDir, bad: str, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    browser = Runs(runs)
    doors = {
        "find": lambda: layout.find(bad, runs),
        "inside": lambda: layout.inside(bad, runs),
        "discard": lambda: trash.discard(bad, runs),
        "restore": lambda: trash.restore(bad, runs),
        "browser: delete": lambda: browser.delete([bad]),
        "browser: put back": lambda: browser.put_back([bad]),
        "browser: segments": lambda: browser.segments(bad),
        "browser: open": lambda: browser.open(bad),
        "browser: export": lambda: browser.export([bad], tmp_path / "x.zip"),
    }
    for door, go in doors.items():
        with pytest.raises(LabError) as refused:
            go()
        assert len(str(refused.value)) < 2000, door
        assert "nobody's business" not in str(refused.value), door
    assert everything(tmp_path) == before


@every_name
def test_a_bad_name_on_the_command_line(
    runs: Path,
    run: RunDir,
    bad: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if "\0" in bad:
        pytest.skip("no system hands a NUL to a command")
    before = everything(tmp_path)
    out = str(tmp_path / "here" / "x.zip")
    for words in (["watch"], ["resume"], ["ask", "--", "stop"], ["export", "-o", out], ["trace", "-o", out], ["rerun"]):
        at = words.index("--") if "--" in words else len(words)
        monkeypatch.setattr(sys, "argv", ["aiinfra", *words[:at], "--", bad, *words[at + 1 :]])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert ended.value.code not in (0, None), words
        assert "Traceback" not in said.err, words
        assert "nobody's business" not in said.out + said.err, words
    assert everything(tmp_path) == before


@every_name
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_bad_name_is_refused_whole(
    runs: Path, run: RunDir, secret: RunDir, bad: str, tmp_path: Path
) -> None:
    made = archive.pack([run.path], tmp_path / "good.zip")
    hostile = tmp_path / "bad.zip"
    with zipfile.ZipFile(made) as good, zipfile.ZipFile(hostile, "w") as to:
        for info in good.infolist():
            text = good.read(info)
            if info.filename == archive.INDEX:
                about = json.loads(text)
                about["items"][0]["name"] = bad
                about["files"] = {k.replace(run.id, bad, 1): v for k, v in about["files"].items()}
                text = json.dumps(about).encode()
            to.writestr(info.filename.replace(run.id, bad, 1) or "x", text)
    before, into = everything(tmp_path), tmp_path / "imported"
    with pytest.raises(LabError):
        archive.unpack(hostile, runs=into)
    assert everything(tmp_path) <= before | {"imported"}
    assert not into.exists() or not everything(into)


@pytest.mark.parametrize("bad", POSSIBLE, indirect=True)
def test_a_folder_that_no_import_would_take_is_not_packed(
    runs: Path, run: RunDir, secret: RunDir, bad: str, tmp_path: Path
) -> None:
    with pytest.raises(ControlError, match="rename its folder"):
        archive.pack([runs / bad], tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_the_trash_shows_and_empties_only_what_was_put_there(runs: Path, run: RunDir, secret: RunDir) -> None:
    there = trash.trash_of(runs)
    there.mkdir()
    (there / "link").symlink_to(secret.path, target_is_directory=True)
    shutil.copytree(run.path, there / "-rf")
    trash.discard(run.id, runs)
    assert trash.trashed(runs) == [run.id]
    assert trash.empty(runs) == 1
    assert secret.manifest.is_file()
    assert (there / "-rf" / "run.json").is_file()


def test_a_name_that_is_fine_opens(runs: Path, run: RunDir, secret: RunDir) -> None:
    """The tests above would also pass if nothing could be opened at all."""
    for name in (run.id, run.id[-4:], "last"):
        assert layout.find(name, runs) == run
    trash.discard(run.id, runs)
    assert trash.restore(run.id, runs) == run


# --- the server extension ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Jupyter server with a home of its own: its address, and the folder of runs."""
    home = tmp_path_factory.mktemp("served")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    argv = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}",
    ]  # fmt: skip
    env = {**os.environ, "AIINFRA_HOME": str(home / "home")}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2).close()
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/aiinfra", home / "home" / "runs"
    process.terminate()
    process.wait(30)


def ask(url: str, body: dict[str, Any]) -> tuple[int, str]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("kind", BAD_NAMES)
def test_a_bad_name_sent_to_the_server(server: tuple[str, Path], kind: str) -> None:
    url, runs = server
    if not (runs / "link").is_symlink():
        secret = layout.create(
            runs.parent / "runs-secret", "training", spec_of("training", {}), found(), note="nobody's"
        )
        run = layout.create(runs, "training", spec_of("training", {}), found())
        (runs / "link").symlink_to(secret.path, target_is_directory=True)
        shutil.copytree(run.path, runs / "con")
    [secret_id] = [p.name for p in (runs.parent / "runs-secret").iterdir()]
    run_id = max(p.name for p in runs.iterdir() if p.name[0] == "2")
    name = urllib.parse.quote(BAD_NAMES[kind].replace("RUN", run_id).replace("SECRET", secret_id), safe="")
    for verb, body in (("ask", {"words": ["stop"]}), ("folder", {})):
        code, said = ask(f"{url}/runs/{name}/{verb}", body)
        refused = code >= 400 or (verb == "ask" and json.loads(said)["kind"] == "refused")
        assert refused, (verb, code, said)
        assert "Traceback" not in said
        assert code < 500 or (code == 500 and not said), (code, said)
    assert not list(runs.parent.glob("*/*/control/inbox/*.json")), "something was asked of a run"
    assert ask(f"{url}/runs/{run_id}/folder", {})[0] == 200
