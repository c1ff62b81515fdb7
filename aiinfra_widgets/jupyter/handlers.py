"""The server extension: what the launcher and the sidebar ask. Handlers of Jupyter Server, so its login and XSRF rules hold.

Nothing here talks to ranks: runs are read from their directories, and asked by their inbox, as everybody does.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tornado.web
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join

from ..errors import LabError
from ..machine.limits import user_limits
from ..runs.home import make_private, runs_folder
from ..runs.layout import RunDir, inside
from .board import Board
from .notebooks import cards, open_copy
from .words import words

#: How long the sidebar waits for a run's controller; after that the answer is "asked".
ANSWER_S = 8.0
#: Name of the link by which JupyterLab's file browser, which shows nothing outside its folder, reaches the runs.
LINK = "aiinfra-runs"


class Handler(APIHandler):
    """Answers in JSON; an error of the lab is a 400 with its message."""

    board: Board

    def initialize(self, board: Board) -> None:
        """Take what all handlers share."""
        self.board = board

    async def reply(self, work: Callable[[], Any]) -> None:
        """Do `work`, which may read files or wait, beside the server's loop, and finish with its result."""
        try:
            found = await asyncio.to_thread(work)
        except LabError as error:
            self.refuse(error)
            return
        await self.finish(json.dumps(found, allow_nan=False))

    def refuse(self, error: LabError) -> None:
        """Say what is wrong, in the words of the lab."""
        self.set_status(400)
        self.finish(json.dumps({"message": str(error)}))

    def asked(self) -> dict[str, Any]:
        """Return the body, a JSON object.

        Raises:
            HTTPError: It is none.
        """
        body = self.get_json_body()
        if not isinstance(body, dict):
            raise tornado.web.HTTPError(400, "the body must be a JSON object")
        return body

    @property
    def root(self) -> Path | None:
        """The folder that JupyterLab shows; None where its files are elsewhere."""
        folder = getattr(self.contents_manager, "root_dir", None)
        return Path(folder) if folder else None


class AboutHandler(Handler):
    """What the page needs once: labs, texts, limits."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Return `labs`, `words` and `limits`."""

        def about() -> dict[str, Any]:
            return {"labs": [c.to_json() for c in cards()], "words": words(), "limits": user_limits().told()}

        await self.reply(about)


class LabHandler(Handler):
    """A person's copy of a lab."""

    @tornado.web.authenticated
    async def post(self) -> None:
        """Make or find the copy of `name`; with `fresh` always make one. Returns `path` and `made`."""
        body = self.asked()
        try:
            found = await open_copy(
                self.contents_manager, self.root, str(body.get("name", "")), fresh=body.get("fresh") is True
            )
        except LabError as error:
            self.refuse(error)
            return
        await self.finish(json.dumps(found))


class RunsHandler(Handler):
    """The table of the sidebar."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Return `runs`, those that go on first, and the `folder` they are in."""
        await self.reply(lambda: {"runs": self.board.rows(), "folder": str(runs_folder())})


class AskHandler(Handler):
    """Asks a run, as `aiinfra ask` does."""

    @tornado.web.authenticated
    async def post(self, run: str) -> None:
        """Ask for `words`, such as ["nodes=2"] or ["stop"], and return the controller's answer."""
        typed = self.asked().get("words")
        if not isinstance(typed, list) or not typed or not all(isinstance(w, str) for w in typed):
            raise tornado.web.HTTPError(400, 'words: a list of texts, such as ["nodes=2"]')

        def ask() -> dict[str, Any]:
            from ..launch.schedule import ask_now
            from ..launch.session import Session
            from ..runs.reader import RunReader

            try:
                reader = RunReader(inside(run, runs_folder()))
                return ask_now(Session(), reader, typed, wait_s=ANSWER_S, by="sidebar")
            except LabError as error:  # refused before it was asked; for whoever asked that is the same
                return {"run": run, "kind": "refused", "reason": str(error)}
            finally:
                self.board.stale()

        await self.reply(ask)


class FolderHandler(Handler):
    """A run's folder, as a path that JupyterLab's file browser can open."""

    @tornado.web.authenticated
    async def post(self, run: str) -> None:
        """Return `path`, below the folder that JupyterLab shows; None, with `folder` and `why`, where it cannot be shown."""
        await self.reply(lambda: shown_path(inside(run, runs_folder()), self.root))


def shown_path(run: RunDir, root: Path | None) -> dict[str, Any]:
    """Return where the file browser finds a run; a link to the runs is made where they lie outside of `root`.

    Raises:
        RunFormatError: It is not a run.
    """
    run.read_manifest()
    folder = make_private(run.path.parent)
    found: dict[str, Any] = {"path": None, "folder": str(run.path), "why": ""}
    if root is None:
        return {**found, "why": "this server keeps its files elsewhere"}
    inside = run.path.is_relative_to(root.resolve())
    parts = run.path.relative_to(root.resolve()).parts if inside else ()
    if inside and not any(part.startswith(".") for part in parts):
        return {**found, "path": "/".join(parts)}
    link = root / LINK
    try:
        if not os.path.lexists(link):
            link.symlink_to(folder, target_is_directory=True)
        if link.is_symlink() and link.resolve() == folder.resolve():
            return {**found, "path": f"{LINK}/{run.id}"}
    except OSError as error:
        return {**found, "why": f"{link}: {error.strerror or error}"}
    return {**found, "why": f"{link} is something else; move it away to see runs in the file browser"}


def add_handlers(app: Any) -> None:
    """Put the handlers below /aiinfra/ of the server's own address."""
    shared = {"board": Board()}
    base = url_path_join(app.settings["base_url"], "aiinfra")
    run = r"/runs/([A-Za-z0-9][A-Za-z0-9._-]{0,63})"
    app.add_handlers(
        ".*$",
        [
            (base + "/about", AboutHandler, shared),
            (base + "/labs", LabHandler, shared),
            (base + "/runs", RunsHandler, shared),
            (base + run + "/ask", AskHandler, shared),
            (base + run + "/folder", FolderHandler, shared),
        ],
    )
