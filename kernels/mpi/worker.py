"""Every rank but 0: an IPython shell that runs the cells it is sent, and sleeps between them."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from functools import partial
from typing import Any

from ipykernel.jsonutil import encode_images, json_clean
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from .comm import PROGRESS_S, names, progress
from .wire import Lines, Wire, interrupt_main_thread

CONFIG = Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "neutral"})


class Display(DisplayPublisher):
    """`display` on this rank: rank 0 shows it."""

    def publish(self, data: Any, metadata: Any = None, *rest: Any, **more: Any) -> None:
        """Send what is to be shown."""
        self.shell.wire.send("display", data=json_clean(encode_images(data)), metadata=json_clean(metadata or {}))


class Shell(InteractiveShell):
    """The shell of this rank."""

    wire: Wire

    def _showtraceback(self, etype: type, evalue: object, stb: list[str]) -> None:
        self.wire.send("error", ename=etype.__name__, evalue=str(evalue), traceback=list(stb))


def serve(wire: Wire) -> None:
    """Run cells until rank 0 is gone."""
    Shell.wire = wire
    shell = Shell.instance(config=CONFIG, display_pub_class=Display)
    streams = [Lines(partial(tell, wire, name), getattr(sys, name)) for name in ("stdout", "stderr")]
    sys.stdout, sys.stderr = streams
    running, revoked, work = threading.Event(), threading.Event(), queue.SimpleQueue[dict[str, Any]]()

    def interrupted(*_: object) -> None:
        if running.is_set():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    threading.Thread(target=listen, args=(wire, work, revoked), daemon=True).start()
    while True:
        while revoked.is_set() and work.empty():
            progress()
            time.sleep(PROGRESS_S)
        message = work.get()
        if message["kind"] == "renew":
            revoked.clear()
            shell.user_ns.update(names(message["lost"]))
            continue
        try:
            running.set()
            shell.execution_count = message["count"]
            shell.run_cell(message["code"], store_history=message["store_history"])
        except KeyboardInterrupt:
            pass  # it struck after the cell
        finally:
            running.clear()
        for stream in streams:
            stream.finish()
        wire.send("done")


def tell(wire: Wire, name: str, text: str) -> None:
    """Send what this rank printed."""
    wire.send("print", name=name, text=text)


def listen(wire: Wire, work: queue.SimpleQueue[dict[str, Any]], revoked: threading.Event) -> None:
    """Hear rank 0 while the main thread computes; end with it."""
    try:
        while True:
            message = wire.receive()
            if message["kind"] == "interrupt":
                revoked.set()
                interrupt_main_thread()
            else:
                work.put(message)
    finally:
        os._exit(0)
