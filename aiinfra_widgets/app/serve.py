"""`aiinfra serve`: the page, the server behind it, and its end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import Any

# Before Panel is imported: everything comes from here, nothing from elsewhere; and a page of a thousand models is not
# checked for mistakes of layout each time somebody opens it.
os.environ.update(BOKEH_RESOURCES="server", BOKEH_VALIDATE_DOC="false")

from bokeh.document import Document
from tornado.web import RequestHandler

from ..errors import ControlError, DataError, LabError
from ..texts import tr
from ..widgets.theme import style_sheet
from . import parts
from .book import Block, Book
from .charts import PAPERS, skin
from .gate import Gate
from .parts import pn
from .stage import AppStage, Room
from .view import View

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
#: Ports that are tried where none is asked for.
FIRST_PORT, PORTS = 8700, 50


class _Style(RequestHandler):
    """The style sheet of the lab's widgets with the page's own after it."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/css; charset=utf-8")
        self.write(style_sheet() + (STATIC / "app.css").read_text(encoding="utf-8"))


def free_port(asked: int | None) -> int:
    """Return the port to listen on: the one asked for, else the first that is free.

    Raises:
        ControlError: It is taken.
    """
    for port in [asked] if asked is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    what = f"port {asked}" if asked is not None else f"every port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1}"
    raise ControlError(f"{what} is in use on {HOST}; take another one: --port N")


def page(book: Book, blocks: list[Block]) -> Any:
    """Return the page for the browser that asks now: the text, and views of its own on the labs that all pages share."""
    asked = pn.state.session_args.get("theme", [b""])[0].decode(errors="replace")
    theme = asked if asked in PAPERS else "light"
    found = pn.Template((STATIC / "page.html").read_text(encoding="utf-8"))
    shown: list[dict[str, str]] = []
    views: dict[Room, View] = {}
    for i, block in enumerate(blocks):
        name = f"live{i}"
        shown.append({"html": block.html, "kind": block.kind, "name": "" if block.html else name})
        if block.part is not None:
            room = block.part.room
            view = views[room] = views.get(room) or room.open(pn.state.curdoc, theme)
            found.add_panel(name, getattr(view, block.part.name))
        elif block.figure:
            copy = Document.from_json(block.figure)  # type: ignore[arg-type]
            figure = copy.roots[0]
            copy.remove_root(figure)
            skin(figure, PAPERS[theme])
            found.add_panel(name, pn.pane.Bokeh(figure, sizing_mode="stretch_width"))
    words = {
        "text": tr("Text"), "theme": tr("Dark or light"), "text_tip": tr("Show or hide the text (T)"),
        "theme_tip": tr("Switch between dark and light (D)"), "lost": tr("The connection is lost; reload this page."),
    }  # fmt: skip
    for key, value in {"blocks": shown, "heading": book.title, "theme": theme, "words": words}.items():
        found.add_variable(key, value)
    found.title = book.title
    return found


def serve(path: Path, *, port: int | None = None, browser: bool = True, token: str | None = None) -> None:
    """Serve a lab until Ctrl-C or SIGTERM; then what runs is stopped with a checkpoint, and its ranks end.

    Args:
        path: Of the notebook.
        port: None takes a free one.
        browser: Open it here.
        token: None draws one.

    Raises:
        DataError: Not a notebook with a lab.
        ControlError: The port is in use.
    """
    book, stage, port = Book(path), AppStage(), free_port(port)
    blocks = book.run(stage)
    pn.extension(design="native", notifications=False)
    server = pn.io.server.get_server(
        {"/": lambda: page(book, blocks)}, port=port, address=HOST, title=book.title, start=False, show=False, verbose=False,
        websocket_origin=[f"{HOST}:{port}", f"localhost:{port}"], extra_patterns=[(parts.STYLE, _Style)],
        sign_sessions=True, secret_key=secrets.token_hex(), generate_session_ids=True,
        keep_alive_milliseconds=10_000, unused_session_lifetime_milliseconds=120_000,
    )  # fmt: skip
    gate = Gate(server._tornado, port, token)
    server._http.request_callback = gate
    address = f"http://{HOST}:{port}/?token={gate.token}"
    loop = server.io_loop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.add_callback_from_signal(loop.stop))
    print(
        f"{book.title}\n{address}\nOnly this machine can open it, with the whole address. Ctrl-C ends it.", flush=True
    )
    if browser:
        import webbrowser

        loop.call_later(0.5, webbrowser.open, address)
    server.start()
    try:
        loop.start()
    finally:
        server.stop()
        _end(stage)


def _end(stage: AppStage) -> None:
    """Stop what runs, with a checkpoint, and end the ranks."""
    for room in stage.rooms:
        with contextlib.suppress(LabError):
            if room.state.look().going:
                print("stopping the run ...", file=sys.stderr, flush=True)
                now = room.state.stop()
                reader = room.state.reader
                if now is not None and reader is not None:
                    print(f"run {reader.run.id}: {now.state}; {now.message}", file=sys.stderr, flush=True)
        room.state.close()


__all__ = ["DataError", "serve"]
