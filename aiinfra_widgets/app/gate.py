"""Who gets in: whoever has the address with its token. Nothing of the server answers anybody else, not even a style sheet."""

from __future__ import annotations

import hmac
import http.cookies
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tornado import httputil

DENIED = "This page needs its token: open the whole address that `aiinfra serve` printed.\n"


class Gate(httputil.HTTPServerConnectionDelegate):
    """Stands before the server's own handlers, so that pages, files and sockets are guarded alike.

    The token in the address is changed for a cookie, and the browser is sent to the address without it: a projector shows the
    address bar to the room.

    Args:
        inside: The application that answers whoever may come in.
        port: Cookies are shared by all ports of a host, so its name carries it.
        token: None draws one.
    """

    def __init__(
        self, inside: Callable[[httputil.HTTPServerRequest], Any], port: int, token: str | None = None
    ) -> None:
        self.inside: Any = inside
        self.token = token or secrets.token_urlsafe(24)
        self._cookie, self._pass = f"aiinfra-{port}", secrets.token_urlsafe(24)

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        """Look at a request before anybody else does."""
        return _Visitor(self, server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """Pass on that a connection is closed."""
        self.inside.on_close(server_conn)

    def knows(self, headers: httputil.HTTPHeaders) -> bool:
        """Whether a request carries our cookie."""
        jar = http.cookies.SimpleCookie()
        try:
            jar.load(headers.get("Cookie", ""))
        except http.cookies.CookieError:
            return False
        found = jar.get(self._cookie)
        return found is not None and hmac.compare_digest(found.value.encode(), self._pass.encode())

    def invites(self, target: str) -> str:
        """Return the address without its token where the token is right, else ""."""
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        given = query.pop("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return ""
        rest = urlencode(query, doseq=True)
        return "/" + parts.path.lstrip("/") + (f"?{rest}" if rest else "")

    @property
    def cookie(self) -> str:
        """The header that lets a browser in from then on; no script reads it, and no other site makes a browser send it."""
        return f"{self._cookie}={self._pass}; HttpOnly; SameSite=Strict; Path=/"


class _Visitor(httputil.HTTPMessageDelegate):
    """One request: handed on whole, or answered here."""

    def __init__(self, gate: Gate, server_conn: object, connection: httputil.HTTPConnection) -> None:
        self._gate, self._server_conn, self._connection = gate, server_conn, connection
        self._inner: httputil.HTTPMessageDelegate | None = None

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> Any:
        """Decide; what is let in goes to the application from its first line on."""
        if self._gate.knows(headers):
            self._inner = self._gate.inside.start_request(self._server_conn, self._connection)
            return self._inner.headers_received(start_line, headers)
        if clean := self._gate.invites(start_line.path):
            self._answer(302, "Found", {"Location": clean, "Set-Cookie": self._gate.cookie}, b"")
        else:
            self._answer(403, "Forbidden", {"Content-Type": "text/plain; charset=utf-8"}, DENIED.encode())
        return None

    def data_received(self, chunk: bytes) -> Any:
        """Pass on a body."""
        return self._inner.data_received(chunk) if self._inner else None

    def finish(self) -> None:
        """Pass on that a request is complete."""
        if self._inner:
            self._inner.finish()

    def on_connection_close(self) -> None:
        """Pass on that a browser went away."""
        if self._inner:
            self._inner.on_connection_close()

    def _answer(self, code: int, word: str, headers: dict[str, str], body: bytes) -> None:
        found = httputil.HTTPHeaders(
            {**headers, "Content-Length": str(len(body)), "Connection": "close", "Cache-Control": "no-store"}
        )
        self._connection.write_headers(httputil.ResponseStartLine("HTTP/1.1", code, word), found, body)
        self._connection.finish()
