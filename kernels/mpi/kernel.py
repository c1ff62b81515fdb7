"""Rank 0: an ordinary Python kernel that sends each cell to the other ranks as well, and shows what they answer."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell

from aiinfra_widgets.errors import LabError
from aiinfra_widgets.machine.devices import found as this_machine
from aiinfra_widgets.machine.limits import admit

from . import handover, ranks
from .__main__ import LAUNCHER_ENV
from .comm import PROGRESS_S, names, progress
from .fold import Fold
from .waiting import Waiting
from .wire import Lines, Wire, interrupt_main_thread

#: Seconds after an interrupt until ranks that wait in MPI are freed, and until a rank is reported as busy.
REVOKE_S, ANSWER_S = 0.2, 3.0
#: Seconds for the main thread to answer a shutdown.
END_S = 1.0
#: Seconds for the last words of a kernel to leave.
FLUSH_S = 0.3
STUCK = "still runs an interrupted cell; if it waits in MPI on a communicator of its own, only a restart ends that"
LOST = (
    "the process of this rank is gone: it was killed, crashed or ran out of memory. The others go on: from the next cell on `comm`, "
    "`rank` and `size` are theirs. Its variables are lost; restart the kernel to have it back"
)


class Shell(ZMQInteractiveShell):
    """The shell of rank 0."""

    def _showtraceback(self, etype: type, evalue: object, stb: list[str]) -> None:
        self.kernel.shown.add((etype.__name__, str(evalue)))
        super()._showtraceback(etype, f"[rank 0] {evalue}", ["[rank 0] failed:", *stb])


class MPIKernel(IPythonKernel):
    """The kernel that Jupyter talks to. A thread of it listens to the other ranks."""

    implementation = "aiinfra-mpi"
    shell_class = Shell
    shell: Any
    session: Any
    application: Any
    wires: dict[int, Wire]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.application = self.parent
        self.parent_of_cell: dict[str, Any] = {}
        self.interrupted_s, self.idle, self.busy = 0.0, threading.Event(), set[int]()
        self.lost = False
        self.shown, self.failed = set[tuple[str, str]](), dict[str, Any]()
        self.fold = Fold(self.say)
        self.inner = {name: getattr(sys, name) for name in ("stdout", "stderr")}
        self.streams = {name: Lines(partial(self.fold.add, 0, name), stream) for name, stream in self.inner.items()}
        self.waiting = Waiting(self.show, lambda: set(self.busy))
        self._ident: Any = None
        sys.stdout, sys.stderr = self.streams.values()
        self.renew()
        threading.Thread(target=self.listen, daemon=True).start()

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Remember who asks: `%ranks` is answered by the next kernel."""
        self._ident = ident
        await super().execute_request(stream, ident, parent)

    async def do_execute(self, code: str, silent: bool, store_history: bool = True, *rest: Any, **more: Any) -> Any:
        """Run a cell on every rank, or on those that it names; what a front end asks silently, or beside the running cell, only here."""
        if silent or threading.current_thread() is not threading.main_thread():
            return await super().do_execute(code, silent, store_history, *rest, **more)
        try:
            order = ranks.read(code, (0, *sorted(self.wires)))
            if order.resize:
                order = ranks.Order(self.resize(order.resize), (0,))
        except LabError as error:
            order = ranks.Order(f"raise type('RankError', (ValueError,), {{}})({str(error)!r}) from None", (0,))
        return await self.on_ranks(order, store_history, *rest, **more)

    async def on_ranks(self, order: ranks.Order, store_history: bool, *rest: Any, **more: Any) -> Any:
        """Run a cell on the ranks of an order."""
        code, silent = order.code, False
        self.parent_of_cell, self.failed = self.get_parent("shell"), {}
        self.shown.clear()
        if self.busy:
            refusal = f"raise RuntimeError({f'rank {sorted(self.busy)}: {STUCK}'!r})"
            return await super().do_execute(refusal, False, False, *rest, **more)
        if self.stale:
            self.renew()
        self.interrupted_s = 0.0
        chosen = set(order.ranks)
        self.busy.update(chosen)
        self.waiting.begin(chosen)
        for wire in [w for r, w in self.wires.items() if r in chosen]:
            wire.send("run", code=code, count=self.shell.execution_count, store_history=store_history)
            wire.flush()  # before the cell: MPI may hold the GIL until the other ranks come
        try:
            reply = await super().do_execute(code if 0 in chosen else "", silent, store_history, *rest, **more)
        finally:
            # Until the handler of this request ends, an interrupt is for the other ranks.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self.busy.discard(0)
        for stream in self.streams.values():
            stream.finish()
        while self.busy and not (self.interrupted_s and time.monotonic() > self.interrupted_s + ANSWER_S):
            self.idle.wait(PROGRESS_S)
            self.idle.clear()
            if self.interrupted_s:
                progress()
        for rank in sorted(self.busy):
            self.take(rank, "error", ename="RankBusy", evalue=STUCK, traceback=[STUCK])
        self.waiting.end()
        self.fold.flush()
        for stream in self.inner.values():
            stream.flush()
        return {**reply, "status": "error", **self.failed} if self.failed and reply["status"] == "ok" else reply

    def resize(self, count: int) -> str:
        """Return code that says how many ranks there are, for -1; else end this kernel for one of `count` ranks.

        Raises:
            AdmissionError: More than this machine takes.
        """
        if count < 0:
            alive = ranks.shown((0, *self.wires))
            return f"print({f'{len(self.wires) + 1} ranks: {alive}. %ranks 4 starts the kernel again with 4'!r})"
        if not os.environ.get(LAUNCHER_ENV):
            admit(count, this_machine())
        self.say("stdout", f"starting again with {ranks.counted(count)}; variables are gone ...\n", flush=True)
        handover.leave(self.application.connection_file, count, self._ident, self.get_parent("shell"))
        time.sleep(FLUSH_S)
        os._exit(0)

    def renew(self) -> None:
        """Make a new communicator for the cells: an interrupt has revoked the last one, or a rank of it is gone."""
        for wire in self.wires.values():
            wire.send("renew", lost=self.lost)
            wire.flush()
        self.stale, found = False, names(self.lost)
        self.comm = found["comm"]
        self.shell.user_ns.update(found)

    def listen(self) -> None:
        """Take what the other ranks say, for as long as there are any."""
        while ends := {wire.connection: rank for rank, wire in self.wires.items()}:
            ready = wait(list(ends))
            for rank in [rank for end, rank in ends.items() if end in ready]:
                try:
                    self.take(rank, **self.wires[rank].receive())
                except (EOFError, OSError):
                    del self.wires[rank]
                    self.lost = self.stale = True
                    self.take(rank, "error", ename="RankLost", evalue=LOST, traceback=[LOST])
                    self.take(rank, "done")

    def take(self, rank: int, kind: str, **content: Any) -> None:
        """Show what a rank says; the same error of several ranks once."""
        if kind == "done":
            self.busy.discard(rank)
            self.idle.set()
        elif kind == "print":
            self.fold.add(rank, content["name"], content["text"])
        elif kind == "display":
            self.fold.flush()
            self.say("stdout", f"[rank {rank}] shows:\n", flush=True)
            self.show("display_data", content)
        elif (error := (content["ename"], content["evalue"])) in self.shown:
            self.fold.add(rank, "stderr", f"{': '.join(error)} (as above)\n")
        else:
            self.fold.flush()
            self.shown.add(error)
            self.failed = {
                "ename": error[0],
                "evalue": f"[rank {rank}] {error[1]}",
                "traceback": [f"[rank {rank}] failed:", *content["traceback"]],
            }
            self.show("error", self.failed)

    def say(self, name: str, text: str, flush: bool = False) -> None:
        """Print to the stream `name` of the cell. It gathers text, so that no loop of prints drowns the front end."""
        stream = self.inner[name]
        stream.write(text)
        if flush:
            stream.flush()

    def show(self, kind: str, content: dict[str, Any]) -> None:
        """Show something below the cell that runs."""
        self.session.send(self.iopub_socket, kind, content, self.parent_of_cell, ident=self._topic(kind))

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Interrupt every rank, then free those that wait in MPI on `comm`."""
        self.interrupted_s, self.stale = time.monotonic(), True
        for rank in self.busy & set(self.wires):
            self.wires[rank].send("interrupt")
            self.wires[rank].flush()
        await super().interrupt_request(stream, ident, parent)
        if self.busy:
            threading.Timer(REVOKE_S, self.revoke, (self.comm,)).start()

    def _send_interrupt_children(self) -> None:
        interrupt_main_thread()

    def revoke(self, comm: Any) -> None:
        """End every MPI call on `comm`, on all ranks, where MPI can (ULFM); the next cell gets another communicator."""
        if self.busy:
            with contextlib.suppress(Exception):
                comm.Revoke()

    def do_shutdown(self, restart: bool) -> Any:
        """End, even if the main thread waits in MPI. The other ranks end with their wires."""
        if not restart:
            handover.forget(self.application.connection_file)
        timer = threading.Timer(END_S, os._exit, (0,))
        timer.daemon = True
        timer.start()
        return super().do_shutdown(restart)


def serve(connection_file: str, wires: dict[int, Wire]) -> None:
    """Be the kernel until Jupyter ends it."""
    MPIKernel.wires = wires
    app = IPKernelApp.instance(kernel_class=MPIKernel)
    app.initialize(["-f", connection_file])
    # JupyterLab asks every kernel for widgets; that there are none before ipywidgets is imported belongs below no cell.
    for name in ("Comm", "ipykernel.comm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if request := handover.take(app.connection_file):
        handover.answer(app, request, f"{ranks.counted(len(wires) + 1)} now\n")
    app.start()
