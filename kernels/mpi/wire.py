"""What rank 0 and another rank say to each other: signed JSON, over loopback where all ranks are on one machine."""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

DIGEST, DIGEST_BYTES = "sha256", 32
#: Messages that may wait, before a rank that prints faster than it is shown is slowed down.
BACKLOG = 1000


class Wire:
    """One end of a connection; when the other end is gone, `receive` raises EOFError or OSError.

    A thread sends, because an interrupt strikes the main thread anywhere, and half a message would be the last one.
    """

    def __init__(self, connection: Connection, key: bytes) -> None:
        self.connection, self._key = connection, key
        self._queue: queue.Queue[bytes] = queue.Queue(BACKLOG)
        threading.Thread(target=self._drain, daemon=True).start()

    def send(self, kind: str, **more: Any) -> None:
        """Send a message of this kind, in order."""
        body = json.dumps({"kind": kind, **more}).encode()
        self._queue.put(hmac.digest(self._key, body, DIGEST) + body)

    def flush(self) -> None:
        """Wait until everything is sent."""
        self._queue.join()

    def receive(self) -> dict[str, Any]:
        """Wait for the next message."""
        data = self.connection.recv_bytes()
        digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if not hmac.compare_digest(digest, hmac.digest(self._key, body, DIGEST)):
            raise ConnectionError("a message was not signed with the key of this kernel")
        message: dict[str, Any] = json.loads(body)
        return message

    def _drain(self) -> None:
        while True:
            data = self._queue.get()
            with contextlib.suppress(OSError):  # `receive` says that the other end is gone
                self.connection.send_bytes(data)
            self._queue.task_done()


def interrupt_main_thread() -> None:
    """Send SIGINT to the main thread itself: sent to the process, another thread may take it, and a sleep sleeps on."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Lines:
    """A text stream that passes on whole lines, so that those of several ranks never mix.

    A carriage return ends a line as well, so progress bars stay alive. What else a stream can do is left to `inner`.
    """

    def __init__(self, emit: Callable[[str], object], inner: Any) -> None:
        self._emit, self.inner = emit, inner
        self._tail, self._lock = "", threading.RLock()

    def write(self, text: str) -> int:
        """Take text, and pass on the lines that are complete."""
        with self._lock:
            *done, self._tail = (self._tail + text).replace("\r", "\r\0").replace("\n", "\n\0").split("\0")
            if done:
                self._emit("".join(done))
        return len(text)

    def finish(self) -> None:
        """Pass on the last line even if nothing ended it."""
        if self._tail:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
