"""The web front of a serving run, a companion process, and those who hold it are killed: nothing is left, and the run says it."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from aiinfra_widgets.launch.session import spec_of

HTTP = {"arrivals": "http", "nodes": 2, "mean_service_s": 0.001, "service_scv": 0.0, "duration_s": 86400.0}
RUN = ["run", "serving", "--json", *(f"--set={name}={value}" for name, value in HTTP.items())]


@pytest.fixture(autouse=True)
def own_sockets(tmp_path_factory, monkeypatch):
    """Sockets of this test go where nobody else's are; the path is short, as it must be."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def start(owner):
    """Start a run with a front in a session of this process, and wait until it answers."""
    session = owner.session()
    reader = session.launch("serving", spec_of("serving", HTTP), room=3)
    answered(owner, reader)
    return session, reader


def ask(reader):
    """Ask the front for one request and return the status, 0 where nobody listens."""
    try:
        front = json.loads((reader.run.work / "front.json").read_text())
        url = f"{front['url']}/infer?token={front['token']}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return 0


def answered(owner, reader):
    """Wait until a request is answered."""
    owner.until(reader, lambda now: not now.final and ask(reader) == 200)


def supervisor_of(reader):
    return next(int(e["pid"]) for e in reader.kind("launching"))


def front_of(reader):
    return int(reader.kind("companion-started")[-1]["pid"])


def test_a_killed_front_comes_back_where_it_was_and_a_stopped_run_leaves_nothing_of_it(owner, own_sockets):
    session, reader = start(owner)
    os.kill(front_of(reader), signal.SIGKILL)
    owner.until(reader, lambda now: len(reader.kind("front-ready")) == 2)
    ended, ready = reader.kind("companion-ended"), reader.kind("front-ready")
    assert [(e["name"], e["exit_code"], e["restarted"]) for e in ended] == [("front", -9, True)]
    assert ready[0]["url"] == ready[1]["url"]  # whoever called it goes on, with the same token
    answered(owner, reader)
    assert len(list(own_sockets.glob("aiinfra-gate-*"))) == 1
    assert session.stop(reader, wait_s=30).state == "stopped"
    session.close()
    owner.alone()
    assert list(reader.run.work.iterdir()) == []
    assert list(own_sockets.glob("aiinfra-gate-*")) == []
    reader.poll()
    assert len(reader.kind("companion-ended")) == 1  # what ends with its run is not reported


def test_a_killed_supervisor_takes_the_front_along(owner):
    _, reader = start(owner)
    os.kill(supervisor_of(reader), signal.SIGKILL)
    now = owner.ended(reader)
    owner.alone()
    assert (now.state, now.message) == ("interrupted", "the launcher is gone, and so are its ranks")
    assert ask(reader) == 0


def test_a_killed_owner_takes_the_front_along(owner):
    process = owner.command(*RUN)
    reader = owner.newest()
    answered(owner, reader)
    process.kill()
    now = owner.ended(reader)
    owner.alone()
    assert now.state == "interrupted"
    assert f"its owner (process {process.pid}) ended" in now.message


def test_the_front_finds_whoever_answers_after_the_first_rank_died(owner):
    session, reader = start(owner)
    os.kill(owner.pid(reader, 0), signal.SIGKILL)
    owner.until(reader, lambda now: now.state == "degraded")
    answered(owner, reader)
    assert len(reader.kind("front-ready")) == 1
    assert session.stop(reader, wait_s=30).state == "stopped"
