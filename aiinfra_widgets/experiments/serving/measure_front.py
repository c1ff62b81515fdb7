"""Rank 0's side of the HTTP front: requests come in and answers go out, and no call ever waits.

Gate and front talk over a Unix socket in a folder that only this user may enter, in lines of JSON. The front may die, come
back or be told to come later: it finds the gate by `work/gate.json`.

    front to gate   [key, arrived_s, size]                       a request; `key` is the front's own number
    gate to front   [key, id, outcome, server, response_s]       its answer
    gate to front   []                                           rank 0 is at work, at least every BEAT_S
"""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import StorageError
from ...runs.layout import write_json
from ...runs.writer import finite

FILE = "gate.json"
BEAT_S = 0.25
READ_BYTES = 1 << 16
#: What may wait to be read by a front before it is given up; it holds the answers to some thousand requests.
UNSENT_BYTES = 1 << 18
#: A folder as young as this may be one in which somebody is about to listen.
FRESH_S = 60.0
_PREFIX, _SOCKET = "aiinfra-gate-", "s"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that came in by HTTP.

    Attributes:
        id: To answer it by.
        arrived_s: Monotonic time at which the front got it.
        size: How many times the usual work it asks for; 1 where the client did not say.
    """

    id: int
    arrived_s: float
    size: float


@dataclass(slots=True, eq=False)
class _Line:
    """A connection to one front: what is not yet a whole line, what it has not yet taken, and its requests under way."""

    socket: socket.socket
    came: bytes = b""
    unsent: bytes = b""
    waiting: set[int] = field(default_factory=set)


class Gate:
    """Where requests of the HTTP front reach rank 0. Not for several threads.

    Args:
        folder: Of the run's programme (`Node.folder`); the front looks there for `gate.json`.

    Raises:
        StorageError: No place for the socket or for `gate.json`.
    """

    def __init__(self, folder: Path) -> None:
        self._told = folder / FILE
        _sweep()
        self._place, self._listener = _listen()
        self._poller = select.poll()
        self._poller.register(self._listener, select.POLLIN)
        self._lines: dict[int, _Line] = {}
        self._waiting: dict[int, tuple[_Line, int]] = {}
        self._last_id = 0
        self._beat_s = 0.0
        write_json(self._told, {"socket": str(self._place / _SOCKET)})

    def poll(self) -> list[Arrival]:
        """Return what has come in since the last call. Costs a microsecond where there is nothing."""
        now_s = time.monotonic()
        if now_s - self._beat_s > BEAT_S:
            self._beat_s = now_s
            for each in list(self._lines.values()):
                self._send(each, [])
        arrivals: list[Arrival] = []
        for fd, event in self._poller.poll(0):
            line = self._lines.get(fd)
            if line is None:
                self._accept()
            elif event & (select.POLLHUP | select.POLLERR):
                self._drop(line)  # a front that is gone asks for nothing any more, read or not
            else:
                arrivals += self._read(line)
        return arrivals

    def answer(self, id: int, outcome: str, server: int | None, response_s: float | None) -> None:
        """Answer a request; nothing happens where its front is gone.

        Args:
            id: Of the arrival.
            outcome: See `front.STATUS`.
            server: Which one served it; None or negative for none.
            response_s: From its arrival to now; None where it got no response.
        """
        if id not in self._waiting:
            return
        line, key = self._waiting.pop(id)
        line.waiting.discard(id)
        served = server if server is not None and server >= 0 else None
        self._send(line, [key, id, outcome, served, finite(response_s)])

    def close(self) -> None:
        """Hang up and leave nothing behind. May be called twice."""
        for line in list(self._lines.values()):
            self._drop(line)
        self._listener.close()
        self._told.unlink(missing_ok=True)
        shutil.rmtree(self._place, ignore_errors=True)

    # --- connections --------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        connection.setblocking(False)
        line = _Line(connection)
        self._lines[connection.fileno()] = line
        self._poller.register(connection, select.POLLIN)
        self._send(line, [])

    def _read(self, line: _Line) -> list[Arrival]:
        try:
            came = line.socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            came = b""
        *whole, line.came = (line.came + came).split(b"\n")
        try:
            requests = [(int(key), float(arrived_s), float(size)) for key, arrived_s, size in map(json.loads, whole)]
        except (ValueError, TypeError, RecursionError):
            requests, came = [], b""
        if not came or len(line.came) > READ_BYTES:
            self._drop(line)
            return []
        arrivals = []
        for key, arrived_s, size in requests:
            self._last_id += 1
            self._waiting[self._last_id] = line, key
            line.waiting.add(self._last_id)
            arrivals.append(Arrival(self._last_id, arrived_s, size))
        return arrivals

    def _send(self, line: _Line, message: list[object]) -> None:
        """Send what the front can take now; the rest goes with what comes next, a beat at the latest."""
        line.unsent += json.dumps(message).encode() + b"\n"
        try:
            line.unsent = line.unsent[line.socket.send(line.unsent) :]
        except BlockingIOError:
            if len(line.unsent) > UNSENT_BYTES:
                self._drop(line)
        except OSError:
            self._drop(line)

    def _drop(self, line: _Line) -> None:
        if self._lines.pop(line.socket.fileno(), None) is None:
            return
        self._poller.unregister(line.socket)
        line.socket.close()
        for id in line.waiting:
            del self._waiting[id]


def _listen() -> tuple[Path, socket.socket]:
    """Return a new folder that only this user may enter, and a socket in it; not in the run's, whose path may be too long."""
    place = None
    try:
        place = Path(tempfile.mkdtemp(prefix=_PREFIX))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(str(place / _SOCKET))
        listener.listen()
    except OSError as error:
        if place:
            shutil.rmtree(place, ignore_errors=True)
        raise StorageError(
            f"no socket for the HTTP front in {tempfile.gettempdir()}: {error}; set TMPDIR to a short path that you may write"
        ) from error
    return place, listener


def _sweep() -> None:
    """Remove what gates left whose process was killed: folders of this user in which nobody listens any more."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller, contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime < FRESH_S:
                continue
            try:
                caller.connect(str(left / _SOCKET))
            except ConnectionRefusedError:
                shutil.rmtree(left, ignore_errors=True)
