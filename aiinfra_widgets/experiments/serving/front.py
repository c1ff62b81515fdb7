"""The HTTP front of a serving run: a companion process that hands requests to rank 0 and brings its answers back.

`python -m aiinfra_widgets.experiments.serving.front RUN INCARNATION`. It listens on loopback only, at a port that the system
gives, and wants a token: both are in `work/front.json`, which only this user may read and which is gone when the front is.
It counts and measures nothing; the run's own records do, from when a request came in here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ...runs.layout import RunDir
from ...runs.writer import BEAT_S, EventWriter
from .front_link import Link, UnavailableError

NAME = "front"
HOST = "127.0.0.1"
#: What is open or half open, also without a token; beyond it the server itself answers 503.
MOST_CONNECTIONS = 512
MOST_BODY_BYTES, BODY_S = 1 << 16, 5.0
MOST_SIZE = 1000.0
#: Rank 0's outcome of a request, as HTTP says it; another is a fault behind the front.
STATUS = {"ok": 200, "rejected": 429, "timed_out": 504, "unfinished": 503}
BAD_GATEWAY = 502
#: Every answer is filled up to this length: load tools count one of another length as a failure.
ANSWER_BYTES = 128
PATHS = {"/infer": ("GET", "POST"), "/healthz": ("GET",)}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class RefusedError(Exception):
    """A request that gets an answer of its own: status and the sentence in its body."""

    def __init__(self, status: int, message: str, header: tuple[bytes, bytes] | None = None) -> None:
        super().__init__(status, message, header)
        self.status, self.message, self.headers = status, message, [header] if header else []


class Front:
    """The ASGI application.

    Args:
        link: To rank 0.
        token: That every request must bring, as `Authorization: Bearer TOKEN` or `?token=TOKEN`.
    """

    def __init__(self, link: Link, token: str) -> None:
        self.link, self._token = link, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived_s = time.monotonic()
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, found = await self._answer(scope, receive, arrived_s)
        except UnavailableError as error:
            status, found, headers = 503, {"error": str(error)}, [(b"retry-after", b"1")]
        except RefusedError as error:
            status, found, headers = error.status, {"error": error.message}, error.headers
        body = (json.dumps(found).ljust(ANSWER_BYTES - 1) + "\n").encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        about = {"status": status, "headers": [*head, (b"cache-control", b"no-store"), *headers]}
        with contextlib.suppress(OSError):  # the client has gone
            await send({"type": "http.response.start", **about})
            await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, arrived_s: float) -> tuple[int, dict[str, Any]]:
        query = self._admitted(scope)
        if scope["path"] == "/healthz":
            ready = self.link.ready
            return (200 if ready else 503), {"ready": ready, "under_way": self.link.under_way}
        body = await _body(receive) if scope["method"] == "POST" else b""
        answer = await self.link.ask(arrived_s, _size(query, body))
        return STATUS.get(answer["outcome"], BAD_GATEWAY), answer

    def _admitted(self, scope: Scope) -> dict[str, list[str]]:
        """Return the query of a request that has the token and asks for something that there is."""
        try:
            query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=8)
        except ValueError as error:
            raise RefusedError(400, f"the query cannot be read: {error}") from None
        scheme, _, bearer = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else query.get("token", [""])[0].encode()
        if not hmac.compare_digest(given, self._token):
            how = "send the header 'Authorization: Bearer TOKEN', or ?token=TOKEN; it is in work/front.json of the run"
            raise RefusedError(401, f"no token, or a wrong one; {how}", (b"www-authenticate", b"Bearer"))
        path, method = scope["path"], scope["method"]
        if path not in PATHS:
            raise RefusedError(404, f"there is no {path[:100]!r}; there are: {', '.join(PATHS)}")
        if method not in PATHS[path]:
            allowed = ", ".join(PATHS[path])
            raise RefusedError(
                405, f"{path} does not take {method[:20]}; allowed: {allowed}", (b"allow", allowed.encode())
            )
        return query


def _size(query: dict[str, list[str]], body: bytes) -> float:
    """Return how many times the usual work is asked for: `?size=2`, or the body {"size": 2}; 1 where nothing is said."""
    wanted: Any = query.get("size", ["1"])[0]
    if body.strip():
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            raise RefusedError(400, 'the body is no JSON; send nothing, or for example {"size": 2}') from None
        if not isinstance(said, dict) or not said.keys() <= {"size"}:
            raise RefusedError(400, 'the body must be an object that holds "size" at most, for example {"size": 2}')
        wanted = said.get("size", wanted)
    try:
        size = float(wanted)
    except (ValueError, TypeError, OverflowError):
        size = 0.0
    if not 0 < size <= MOST_SIZE:
        raise RefusedError(400, f"size: got {str(wanted)[:50]!r}; allowed: a number above 0, at most {MOST_SIZE:g}")
    return size


async def _body(receive: Receive) -> bytes:
    """Return the body, if it comes in time and is not too long."""
    body, more = b"", True
    try:
        async with asyncio.timeout(BODY_S):
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MOST_BODY_BYTES:
                    raise RefusedError(413, f"the body is too long; allowed: {MOST_BODY_BYTES} bytes")
    except TimeoutError:
        raise RefusedError(408, f"the body did not come within {BODY_S:g} s") from None
    return body


async def serve(run: RunDir, incarnation: int) -> None:
    """Listen, say where, and answer until told to end (SIGTERM)."""
    import uvicorn

    told = run.work / f"{NAME}.json"
    listener, token = _where_it_was(told, incarnation)
    link = Link(run.work)
    config = uvicorn.Config(
        Front(link, token), loop="asyncio", http="h11", ws="none", lifespan="off", access_log=False, log_level="warning",
        proxy_headers=False, server_header=False, limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def announce() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        _keep_private(told, {"url": url, "token": token, "incarnation": incarnation})
        run.heartbeat(incarnation, NAME).touch()
        EventWriter(run, incarnation, NAME)("front-ready", url=url, pid=os.getpid())
        while True:
            with contextlib.suppress(OSError):  # the run was deleted; then the supervisor ends this process
                os.utime(run.heartbeat(incarnation, NAME))
            await asyncio.sleep(BEAT_S)

    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(link.keep()), group.create_task(announce())]
        await server.serve([listener])
        told.unlink(missing_ok=True)
        for task in beside:
            task.cancel()


def _where_it_was(told: Path, incarnation: int) -> tuple[socket.socket, str]:
    """Return a socket and a token: those of the front that died in this incarnation, so that its clients can go on; else new ones."""
    try:
        last = json.loads(told.read_text())
        if last["incarnation"] == incarnation:
            return _bound(int(last["url"].rpartition(":")[2])), str(last["token"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return _bound(0), secrets.token_urlsafe(32)


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    return listener


def _keep_private(path: Path, data: dict[str, Any]) -> None:
    """Replace `path`, readable by this user alone from the first byte."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(data, file)
    part.replace(path)


if __name__ == "__main__":
    # The server re-raises the signal that ended it when it is done; then this handler stands, and the rest is tidied up.
    signal.signal(signal.SIGTERM, lambda *_: None)
    asyncio.run(serve(RunDir(Path(sys.argv[1])), int(sys.argv[2])))
