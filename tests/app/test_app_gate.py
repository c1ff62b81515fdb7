"""Who gets in: the gate in front of a real server, and what a notebook must be to be served."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from aiinfra_widgets.app.book import Book
from aiinfra_widgets.app.gate import Gate
from aiinfra_widgets.app.serve import free_port
from aiinfra_widgets.errors import ControlError, DataError

TOKEN = "only-for-this-test"


class Inside(RequestHandler):
    def get(self) -> None:
        self.write("inside")

    post = get


@pytest.fixture
def port() -> Iterator[int]:
    """A server behind a gate, in a thread with a loop of its own."""
    up, box = threading.Event(), {}

    def work() -> None:
        loop = IOLoop()
        sockets = bind_sockets(0, "127.0.0.1")
        number = sockets[0].getsockname()[1]
        server = HTTPServer(Application([(r"/.*", Inside)]))
        server.request_callback = Gate(server.request_callback, number, TOKEN)
        server.add_sockets(sockets)
        box.update(port=number, loop=loop)
        loop.add_callback(up.set)
        loop.start()
        server.stop()
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert up.wait(20)
    yield box["port"]
    box["loop"].add_callback(box["loop"].stop)
    thread.join(20)


def ask(port: int, path: str, cookie: str = "", method: str = "GET") -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read().decode()


@pytest.mark.parametrize(
    ("path", "cookie"),
    [
        pytest.param("/", "", id="nothing"),
        pytest.param("/?token=wrong", "", id="wrong-token"),
        pytest.param("/?token=", "", id="empty-token"),
        pytest.param("/static/js/bokeh.min.js", "", id="a-file"),
        pytest.param("/ws", "", id="the-socket"),
        pytest.param("/", f"aiinfra-1={TOKEN}", id="the-token-as-a-cookie"),
        pytest.param("/", 'aiinfra="broken', id="a-broken-cookie"),
    ],
)
def test_nobody_gets_in_without_the_token(port: int, path: str, cookie: str) -> None:
    status, headers, text = ask(port, path, cookie)
    assert status == 403
    assert "inside" not in text
    assert "Set-Cookie" not in headers


def test_the_token_becomes_a_cookie_and_leaves_the_address(port: int) -> None:
    status, headers, text = ask(port, f"/page?theme=dark&token={TOKEN}")
    assert (status, headers["Location"], text) == (302, "/page?theme=dark", "")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert ask(port, "/page", cookie.split(";")[0])[::2] == (200, "inside")
    assert ask(port, "/page", cookie.split(";")[0] + "x")[0] == 403


def test_the_way_out_of_the_token_never_leads_to_another_site(port: int) -> None:
    assert ask(port, f"//elsewhere.example/?token={TOKEN}")[1]["Location"] == "/"


def test_a_port_that_is_taken_is_named(port: int) -> None:
    with pytest.raises(ControlError, match=f"port {port} is in use.*--port"):
        free_port(port)


def notebook(path: Path, *cells: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells]), path)
    return path


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        pytest.param("none.ipynb", None, "there is no such file", id="missing"),
        pytest.param("lab.py", "Lab('training')", r"got a \.py; allowed: a notebook", id="python"),
        pytest.param("broken.ipynb", "{", "not a notebook that can be read", id="broken"),
        pytest.param("empty.ipynb", "", "no cell makes a Lab", id="without-a-lab"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_can(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    path = tmp_path / name
    if text == "":
        notebook(path, "1 + 1")
    elif text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        Book(path)
    assert "labs/01_training_scaling.ipynb" in str(caught.value)


def test_a_lab_that_has_no_lab_is_sent_to_jupyterlab(repo: Path) -> None:
    with pytest.raises(DataError, match="widgets are for JupyterLab"):
        Book(repo / "labs" / "04_scale_out.ipynb")
