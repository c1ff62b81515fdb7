"""Another number of ranks behind the same connection: the old kernel leaves the request, the new one answers it.

The answer must come from the new kernel: a front end sends its next cell as soon as it has an answer, and what it sends to a
process that is about to end is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.jsonutil import json_default

from .__main__ import ASKED_SUFFIX

#: Seconds for the front end to find the new kernel, and for its other socket to do so.
FIND_S, SETTLE_S = 20.0, 1.0


def leave(connection_file: str, ranks: int, ident: Any, parent: dict[str, Any]) -> None:
    """Write down what was asked; the keeper then starts so many ranks."""
    idents = [ident] if isinstance(ident, bytes) else list(ident or [])
    request = {"ident": [i.hex() for i in idents], "header": parent["header"]}
    path = Path(connection_file + ASKED_SUFFIX)
    whole = path.with_suffix(".new")
    with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"ranks": ranks, "request": request}, file, default=json_default)
    whole.replace(path)


def forget(connection_file: str) -> None:
    """A kernel that is shut down for good starts with its usual number the next time."""
    with contextlib.suppress(OSError):
        Path(connection_file + ASKED_SUFFIX).unlink()


def take(connection_file: str) -> dict[str, Any] | None:
    """Return the request that waits for its answer, once; the number stays, for a restart."""
    path = Path(connection_file + ASKED_SUFFIX)
    try:
        asked = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    request: dict[str, Any] | None = asked.pop("request", None)
    if request:
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(asked))
        whole.replace(path)
    return request


def answer(app: Any, request: dict[str, Any], text: str) -> None:
    """Answer a request as soon as the front end has found this kernel; from a thread, so that the kernel can begin."""
    threading.Thread(target=_answer, args=(app, request, text), daemon=True).start()


def _answer(app: Any, request: dict[str, Any], text: str) -> None:
    kernel, parent = app.kernel, {"header": request["header"]}
    idents = [bytes.fromhex(i) for i in request["ident"]]
    done, found = threading.Event(), []
    reply = {"status": "ok", "execution_count": 0, "user_expressions": {}, "payload": []}
    end = time.monotonic() + FIND_S

    def send() -> None:
        app.shell_socket.router_mandatory = True
        try:
            kernel.session.send(app.shell_socket, "execute_reply", reply, parent=parent, ident=idents)
            found.append(True)
        except zmq.ZMQError:
            pass  # not there yet
        finally:
            app.shell_socket.router_mandatory = False
            done.set()

    def say(kind: str, content: dict[str, Any]) -> None:
        kernel.session.send(kernel.iopub_socket, kind, content, parent=parent, ident=kernel._topic(kind))

    while not found and time.monotonic() < end:
        done.clear()
        app.shell_channel_thread.io_loop.add_callback(send)
        done.wait(FIND_S)
        if not found:
            time.sleep(0.1)
    time.sleep(SETTLE_S)  # it listens on another socket, which comes back at about the same time
    say("stream", {"name": "stdout", "text": text})
    say("status", {"execution_state": "idle"})
    if not found:
        app.log.warning("nobody took the answer to %%ranks; the kernel is ready")
