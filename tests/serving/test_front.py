"""The HTTP front as a client meets it: a real process, and a thread that answers as rank 0 would."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlencode

import psutil
import pytest

from aiinfra_widgets.experiments.serving import front
from aiinfra_widgets.experiments.serving.desk import Outcome
from aiinfra_widgets.experiments.serving.front_link import MOST_UNDER_WAY, Link
from aiinfra_widgets.experiments.serving.measure_front import Gate
from aiinfra_widgets.runs.layout import RunDir


class Rank0(threading.Thread):
    """Answers every request by `rule`, while it is not `held`."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.gate = Gate(folder)
        self.rule, self.held, self.ended = Rank0.fine, threading.Event(), threading.Event()
        self.seen = []

    @staticmethod
    def fine(arrival):
        return "ok", 0, 0.001

    def run(self):
        waiting = []
        while not self.ended.is_set():
            came = self.gate.poll()
            self.seen += came
            waiting += came
            if not self.held.is_set():
                for arrival in waiting:
                    self.gate.answer(arrival.id, *self.rule(arrival))
                waiting.clear()
            time.sleep(1e-4)
        self.gate.close()

    def end(self):
        self.ended.set()
        self.join()


class Web:
    """A front of its own, started as the supervisor does."""

    def __init__(self, path):
        self.run = RunDir(path)
        for folder in self.run.folders():
            folder.mkdir(parents=True, exist_ok=True)

    def start(self, incarnation=0):
        module = "aiinfra_widgets.experiments.serving.front"
        with self.run.log(incarnation, "front").open("ab") as log:
            argv = [sys.executable, "-m", module, str(self.run.path), str(incarnation)]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        until(lambda: self.told("pid") == self.process.pid)
        self.address = json.loads((self.run.work / "front.json").read_text())
        self.port = int(self.address["url"].rpartition(":")[2])
        return self

    def told(self, what):
        """What the last event of the front says."""
        try:
            *_, last = self.run.events(0, "front").read_text().splitlines()
            return json.loads(last)[what]
        except (OSError, ValueError):
            return None

    def ask(self, method="GET", path="/infer", query="", body=None, token=None, **headers):
        """Send one request and return status, headers and body."""
        token = self.address["token"] if token is None else token
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path + query, body, {"Authorization": f"Bearer {token}", **headers})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    def raw(self, text=""):
        """Return a connection on which `text` was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(text.encode())
        return connection

    def request(self):
        """The text of a request with the token, after which the server hangs up."""
        return f"GET /infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {self.address['token']}\r\n\r\n"


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One front and one rank 0 for all tests that do not break them."""
    web = Web(tmp_path_factory.mktemp("run")).start()
    web.rank0 = Rank0(web.run.work)
    assert web.ask()[0] == 503  # nobody looks yet
    web.rank0.start()
    until(lambda: web.ask(path="/healthz")[0] == 200)
    yield web
    web.rank0.end()
    assert web.ask()[0] == 503
    web.process.kill()
    web.process.wait()


@pytest.fixture
def web(running):
    """The running front with a rank 0 that answers at once."""
    running.rank0.rule = Rank0.fine
    running.rank0.held.clear()
    running.rank0.seen.clear()
    yield running
    running.rank0.rule = Rank0.fine
    running.rank0.held.clear()
    assert running.ask()[0] == 200  # whatever a test did, it still works


def test_a_request_reaches_rank_0_and_its_answer_comes_back(web):
    web.rank0.rule = lambda arrival: ("ok", 3, 0.25)
    before_s = time.monotonic()
    status, headers, text = web.ask("POST", body='{"size": 2.5}')
    after_s = time.monotonic()
    [seen] = web.rank0.seen
    assert status == 200
    assert json.loads(text) == {"id": seen.id, "outcome": "ok", "server": 3, "response_s": 0.25}
    assert seen.size == 2.5
    assert before_s < seen.arrived_s < after_s  # one clock for both processes
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_size_may_be_asked_for_in_the_query_and_is_1_elsewhere(web, method):
    assert web.ask(method, query="?size=4")[0] == web.ask(method)[0] == 200
    assert [a.size for a in web.rank0.seen] == [4.0, 1.0]


def test_all_answers_are_of_one_length(web):
    """A load tool takes an answer of another length than the first one for a failure."""
    results = iter(
        [("ok", 0, 0.1), ("ok", 117, 0.12345678901234567), ("unfinished", None, None), ("timed_out", -1, 1e9)]
    )
    web.rank0.rule = lambda arrival: next(results)
    assert {len(web.ask()[2]) for _ in range(4)} == {front.ANSWER_BYTES}


@pytest.mark.parametrize("outcome", [o.name.lower() for o in Outcome] + ["server-lost"])
def test_http_says_what_became_of_a_request(web, outcome):
    web.rank0.rule = lambda arrival: (outcome, None, None)
    status, _, text = web.ask()
    wanted = {"ok": 200, "rejected": 429, "timed_out": 504, "unfinished": 503, "server-lost": 502}
    assert (status, json.loads(text)["outcome"]) == (wanted[outcome], outcome)


@pytest.mark.parametrize("path", ["/infer", "/healthz", "/", "/front.json"])
@pytest.mark.parametrize("given", ["", "wrong", "Bearer", "\u00fc"])
def test_nothing_is_told_without_the_token(web, path, given):
    for status, headers, text in (
        web.ask(path=path, token=given),
        web.ask(path=path, query="?" + urlencode({"token": given}), token="-"),
    ):
        assert status == 401
        assert headers["www-authenticate"] == "Bearer"
        assert web.address["token"].encode() not in text
    assert web.rank0.seen == []


def test_a_part_of_the_token_or_more_than_it_is_not_the_token(web):
    token = web.address["token"]
    assert len(token) >= 43  # 256 bits
    assert {web.ask(token=t)[0] for t in (token[:-1], token + "x", token.swapcase(), token[::-1])} == {401}


def test_a_tool_that_cannot_set_headers_puts_the_token_into_the_query(web):
    connection = web.raw(f"GET /infer?token={web.address['token']}&size=2 HTTP/1.0\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert web.rank0.seen[0].size == 2.0


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "status", "says"),
    [
        ("GET", "/infer", "?size=0", None, 400, "size: got '0'; allowed: a number above 0, at most 1000"),
        ("GET", "/infer", "?size=-1", None, 400, "size: got '-1'"),
        ("GET", "/infer", "?size=nan", None, 400, "size: got 'nan'"),
        ("GET", "/infer", "?size=1e999", None, 400, "size: got '1e999'"),
        ("GET", "/infer", "?size=1001", None, 400, "size: got '1001'"),
        ("GET", "/infer", "?size=", None, 400, "size: got ''"),
        ("GET", "/infer", "?size=" + "9" * 5000, None, 400, "size: got '999"),
        ("GET", "/infer", "?" + "a=1&" * 20, None, 400, "the query cannot be read"),
        ("POST", "/infer", "", "size=2", 400, "the body is no JSON"),
        ("POST", "/infer", "", b"\xff\xfe\x00", 400, "the body is no JSON"),
        ("POST", "/infer", "", "[" * 60_000, 400, "the body is no JSON"),
        ("POST", "/infer", "", "[1]", 400, "the body must be an object"),
        ("POST", "/infer", "", '{"sise": 1}', 400, "the body must be an object"),
        ("POST", "/infer", "", '{"size": null}', 400, "size: got 'None'"),
        ("POST", "/infer", "", '{"size": [2]}', 400, "size: got '[2]'"),
        ("POST", "/infer", "", '{"size": ' + "9" * 400 + "}", 400, "size: got '999"),
        ("POST", "/infer", "", "x" * 65537, 413, "allowed: 65536 bytes"),
        ("DELETE", "/infer", "", None, 405, "allowed: GET, POST"),
        ("POST", "/healthz", "", None, 405, "allowed: GET"),
        ("GET", "/infer/../work", "", None, 404, "there are: /infer, /healthz"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_with_what_is_allowed(web, method, path, query, body, status, says):
    found, _, text = web.ask(method, path, query, body)
    assert (found, says in json.loads(text)["error"]) == (status, True), text
    assert web.rank0.seen == []


@pytest.mark.parametrize(
    "text", ["\r\n\r\n", "hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /infer HTTP/1.1\r\nX" + "y" * 200_000]
)
def test_what_is_not_http_harms_nobody(web, text):
    connection = web.raw()
    try:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(100)
    except OSError:  # hung up on
        answer = b""
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 401")


def test_a_client_that_leaves_breaks_nothing(web):
    web.rank0.held.set()
    for _ in range(5):
        web.raw(web.request()).close()
    web.raw(
        f"POST /infer HTTP/1.1\r\nContent-Length: 9\r\nAuthorization: Bearer {web.address['token']}\r\n\r\n{{"
    ).close()
    until(lambda: len(web.rank0.seen) == 5)
    web.rank0.held.clear()
    until(lambda: json.loads(web.ask(path="/healthz")[2])["under_way"] == 0)


def test_no_more_is_under_way_than_the_front_holds(web):
    web.rank0.held.set()
    callers = [web.raw(web.request()) for _ in range(MOST_UNDER_WAY + 20)]
    until(lambda: len(web.rank0.seen) == MOST_UNDER_WAY)
    until(lambda: json.loads(web.ask(path="/healthz")[2])["under_way"] == MOST_UNDER_WAY)
    status, headers, text = web.ask()
    assert (status, headers["retry-after"]) == (503, "1")
    assert b"requests are under way" in text
    web.rank0.held.clear()
    answers = [b"".join(iter(lambda c=c: c.recv(4096), b""))[9:12] for c in callers]
    assert (answers.count(b"200"), answers.count(b"503")) == (MOST_UNDER_WAY, 20)


def test_more_connections_than_are_allowed_are_turned_away(web):
    open_ones = [web.raw() for _ in range(front.MOST_CONNECTIONS)]
    until(lambda: len(psutil.Process(web.process.pid).net_connections()) > front.MOST_CONNECTIONS)
    assert web.ask()[0] == 503
    for connection in open_ones:
        connection.close()
    until(lambda: web.ask()[0] == 200)


def test_it_listens_on_loopback_only(web):
    listening = [c for c in psutil.Process(web.process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert [(c.laddr.ip, c.laddr.port) for c in listening] == [("127.0.0.1", web.port)]


def test_the_token_is_in_one_private_file_and_nowhere_else(web):
    web.ask(token="wrong")
    web.ask(query=f"?token={web.address['token']}")
    holding = [p for p in web.run.path.rglob("*") if p.is_file() and web.address["token"] in p.read_text()]
    assert holding == [web.run.work / "front.json"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    assert web.told("kind") == "front-ready"
    assert web.told("url") == web.address["url"] == f"http://127.0.0.1:{web.port}"
    assert web.address["token"] not in " ".join(psutil.Process(web.process.pid).cmdline())


def test_its_heart_beats(web):
    beat = web.run.heartbeat(0, "front")
    before = beat.stat().st_mtime_ns
    until(lambda: beat.stat().st_mtime_ns > before)


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(front, "BODY_S", 0.05)
    sent = []

    async def never():
        await asyncio.sleep(600)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/infer", "query_string": b"", "headers": [(b"authorization", b"bearer t")]
    }  # fmt: skip
    asyncio.run(front.Front(Link(tmp_path), "t")(scope, never, send))
    assert sent[0]["status"] == 408


def test_a_front_that_was_killed_is_found_again_and_one_that_ends_leaves_no_token(tmp_path):
    web = Web(tmp_path / "run").start()
    rank0 = Rank0(web.run.work)
    rank0.start()
    first = web.address
    until(lambda: web.ask()[0] == 200)
    os.kill(web.process.pid, signal.SIGKILL)
    web.process.wait()
    assert web.start().address == first  # url and token
    until(lambda: web.ask()[0] == 200)
    web.process.terminate()
    assert web.process.wait(timeout=60) == 0
    assert not (web.run.work / "front.json").exists()
    assert web.run.log(0, "front").read_text() == ""
    rank0.end()


def test_a_token_does_not_outlive_its_incarnation(tmp_path):
    told = tmp_path / "front.json"
    told.write_text(json.dumps({"url": "http://127.0.0.1:1", "token": "old", "incarnation": 0}))
    for text in (told.read_text(), "{", "[]", '{"incarnation": 1}', '{"incarnation": 1, "url": "x", "token": "old"}'):
        told.write_text(text)
        listener, token = front._where_it_was(told, 1)
        assert listener.getsockname()[1] != 1
        listener.close()
        assert token != "old"
