"""Rank 0's side of the front, and the line between the two: nothing waits, nothing is lost in silence, nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from aiinfra_widgets.errors import StorageError
from aiinfra_widgets.experiments.serving import measure_front
from aiinfra_widgets.experiments.serving.front_link import Link, UnavailableError
from aiinfra_widgets.experiments.serving.measure_front import Gate


@pytest.fixture
def place(monkeypatch):
    """A folder for sockets that nobody else uses."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def gate(tmp_path, place):
    """A gate whose run keeps its files in tmp_path."""
    found = Gate(tmp_path)
    yield found
    found.close()


class Caller:
    """What the front does, byte by byte."""

    def __init__(self, folder):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(json.loads((folder / "gate.json").read_text())["socket"])
        self.lines = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def next(self):
        """The next answer; beats are left out."""
        while not (message := json.loads(self.lines.readline())):
            pass
        return message


def arrivals(gate, count):
    """Poll until `count` requests are there."""
    found, end = [], time.monotonic() + 30
    while len(found) < count:
        found += gate.poll()
        assert time.monotonic() < end, f"{len(found)} of {count} requests came"
    return found


def test_a_request_arrives_with_its_time_and_its_answer_goes_back(gate, tmp_path):
    caller = Caller(tmp_path)
    caller.send(b"[5, 12.5, 2.0]\n[6, 12.75, 1.0]\n")
    first, second = arrivals(gate, 2)
    assert [(a.arrived_s, a.size) for a in (first, second)] == [(12.5, 2.0), (12.75, 1.0)]
    gate.answer(second.id, "ok", 3, 0.25)
    gate.answer(first.id, "rejected", -1, float("nan"))
    assert caller.next() == [6, second.id, "ok", 3, 0.25]
    assert caller.next() == [5, first.id, "rejected", None, None]
    gate.answer(first.id, "ok", 0, 1.0)  # it has its answer
    gate.answer(10**9, "ok", 0, 1.0)
    caller.send(b"[7, 13.0, 1.0]\n")
    [third] = arrivals(gate, 1)
    gate.answer(third.id, "ok", 0, 0.5)
    assert caller.next()[0] == 7


def test_a_line_may_come_in_pieces(gate, tmp_path):
    caller = Caller(tmp_path)
    found = []
    for byte in b"[1, 2.0, 1.0]\n[2, 3.0, 1.0]\n":
        caller.send(bytes([byte]))
        found += gate.poll()
    found += arrivals(gate, 2 - len(found))
    assert [a.arrived_s for a in found] == [2.0, 3.0]


def test_the_first_word_is_that_rank_0_is_at_work_and_it_is_said_again(gate, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_front, "BEAT_S", 0.0)
    caller = Caller(tmp_path)
    for _ in range(5):
        gate.poll()
    assert [caller.lines.readline() for _ in range(3)] == [b"[]\n"] * 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\n",
        b"[1]\n",
        b"{}\n",
        b'[1, "x", 1]\n',
        b"null\n",
        b"\xff\xfe\n",
        b"[1, 2, 3, 4]\n",
        b"[" * 70_000 + b"\n",
    ],
)
def test_who_talks_nonsense_is_hung_up_on_and_nobody_else(gate, tmp_path, garbage):
    good, bad = Caller(tmp_path), Caller(tmp_path)
    good.send(b"[1, 1.0, 1.0]\n")
    [kept] = arrivals(gate, 1)
    sending = threading.Thread(target=bad.send, args=(garbage,), daemon=True)
    sending.start()
    bad.socket.settimeout(0.01)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert gate.poll() == []
        try:
            if not bad.socket.recv(4096):
                break
        except TimeoutError:
            continue
        except ConnectionResetError:
            break
    else:
        pytest.fail("nobody hung up")
    gate.answer(kept.id, "ok", 0, 0.1)
    assert good.next()[0] == 1


def test_a_line_without_end_is_cut_off(gate, tmp_path):
    caller = Caller(tmp_path)
    caller.socket.setblocking(False)
    sent, hung_up = 0, False
    while not hung_up and sent < 100 * measure_front.READ_BYTES:
        try:
            sent += caller.socket.send(b"1" * 4096)
        except BlockingIOError:
            assert gate.poll() == []
        except OSError:
            hung_up = True
    assert hung_up


def test_what_a_front_asked_for_that_is_gone_is_void(gate, tmp_path):
    dead = Caller(tmp_path)
    dead.send(b"[1, 1.0, 1.0]\n")
    [taken] = arrivals(gate, 1)
    dead.send(b"[2, 1.0, 1.0]\n")  # not read when it dies
    dead.lines.close()
    dead.socket.close()
    assert gate.poll() == []
    fresh = Caller(tmp_path)
    fresh.send(b"[1, 2.0, 1.0]\n")
    [asked] = arrivals(gate, 1)
    assert asked.id != taken.id
    gate.answer(taken.id, "ok", 0, 0.1)
    gate.answer(asked.id, "ok", 0, 0.2)
    assert fresh.next() == [1, asked.id, "ok", 0, 0.2]


def test_a_front_that_stands_still_never_holds_rank_0_up(gate, tmp_path):
    caller = Caller(tmp_path)
    count, answered = 20_000, 0
    threading.Thread(target=caller.send, args=(b"[1, 1.0, 1.0]\n" * count,), daemon=True).start()
    end = time.monotonic() + 60
    while answered < count and time.monotonic() < end:
        found = gate.poll()
        for arrival in found:
            gate.answer(arrival.id, "ok", 0, 0.125)  # it reads none of them
        answered += len(found)
        if answered and not gate._lines:
            break
    assert gate._lines == {}  # given up, after so much
    assert gate._waiting == {}


def test_a_gate_is_private_and_leaves_nothing(tmp_path, place):
    gate = Gate(tmp_path)
    [folder] = place.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    caller = Caller(tmp_path)
    gate.poll()
    gate.close()
    gate.close()
    assert caller.lines.readlines() == [b"[]\n"]
    assert list(place.iterdir()) == list(tmp_path.iterdir()) == []


def test_what_a_killed_rank_left_is_swept_and_nothing_else(tmp_path, place):
    for name in ("old", "young", "used"):
        (place / f"aiinfra-gate-{name}").mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place / f"aiinfra-gate-{name}" / "s"))
        listener.listen()
        if name == "used":
            used = listener
        else:
            listener.close()
        if name != "young":
            os.utime(place / f"aiinfra-gate-{name}", (0, 0))
    (place / "aiinfra-gate-other").mkdir()
    Gate(tmp_path).close()
    assert sorted(p.name for p in place.iterdir()) == [f"aiinfra-gate-{n}" for n in ("other", "used", "young")]
    used.close()


def test_a_place_that_takes_no_socket_is_named_with_the_way_out(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(StorageError, match="set TMPDIR to a short path"):
        Gate(tmp_path)
    assert list(long.iterdir()) == []


def test_while_rank_0_does_not_look_nobody_waits_for_ever_and_what_was_asked_is_void(gate, tmp_path):
    async def conversation():
        link = Link(tmp_path, silent_s=0.3)
        with pytest.raises(UnavailableError, match="no rank answers"):
            await link.ask(0.0, 1.0)  # not connected yet
        keeping = asyncio.create_task(link.keep())
        while not link.ready:
            gate.poll()
            await asyncio.sleep(0.01)
        with pytest.raises(UnavailableError, match="paused or over"):
            await link.ask(1.0, 1.0)  # from now on rank 0 looks at nothing
        assert not link.ready
        assert link.under_way == 0
        while not link.ready:
            assert gate.poll() == []
            await asyncio.sleep(0.01)
        asking = asyncio.create_task(link.ask(2.0, 1.0))
        while not (found := gate.poll()):
            await asyncio.sleep(0.01)
        gate.answer(found[0].id, "ok", 1, 0.5)
        assert await asking == {"id": found[0].id, "outcome": "ok", "server": 1, "response_s": 0.5}
        asking = asyncio.create_task(link.ask(3.0, 1.0))
        while not gate.poll():
            await asyncio.sleep(0.01)
        gate.close()
        with pytest.raises(UnavailableError):
            await asking
        keeping.cancel()

    asyncio.run(conversation())


def test_a_link_goes_to_the_gate_that_takes_over(tmp_path, place):
    async def conversation():
        link = Link(tmp_path)
        keeping = asyncio.create_task(link.keep())
        for server in (0, 1):
            gate = Gate(tmp_path)
            while not link.ready:
                gate.poll()
                await asyncio.sleep(0.01)
            asking = asyncio.create_task(link.ask(1.0, 1.0))
            while not (found := gate.poll()):
                await asyncio.sleep(0.01)
            gate.answer(found[0].id, "ok", server, 0.5)
            assert (await asking)["server"] == server
            gate.close()
            while link.ready:
                await asyncio.sleep(0.01)
        keeping.cancel()

    asyncio.run(conversation())
