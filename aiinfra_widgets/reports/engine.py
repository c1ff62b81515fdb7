"""Running a notebook with papermill, on a kernel that is ours, keeping evidence of what each cell really did.

papermill marks every cell as completed after a dead kernel, has no default timeout and asks for an installed
kernelspec. This engine plugs into papermill and changes just that.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.execute import ERROR_MARKER_TAG, execute_notebook

NAME = "aiinfra"
KEY = "aiinfra"
RUNNING, EXECUTED, FAILED, NOT_RUN = "running", "executed", "failed", "not run"
MAX_SOCKET_PATH_CHARS = 80
KILL_WAIT_S = 5.0
STOPPED = "the report was stopped while the cell ran; nothing after it was run"
log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

Progress = Callable[[int, int, str], None]


class WallTimeLimit(SystemExit):
    """The whole notebook took longer than it may; a SystemExit, because an event loop keeps every other exception to itself."""


def is_code(cell: nbformat.NotebookNode) -> bool:
    """Whether the kernel is asked to run this cell."""
    return bool(cell.cell_type == "code" and cell.source.strip())


def is_marker(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill put this cell in to point at an error."""
    return ERROR_MARKER_TAG in cell.metadata.get("tags", [])


def status_of(cell: nbformat.NotebookNode) -> str:
    """Return executed, failed or not run, from the evidence that the engine left; "running" never ended."""
    found = cell.metadata.get(KEY, {}).get("status", NOT_RUN)
    return FAILED if found == RUNNING else str(found)


class Execution:
    """One notebook on one kernel.

    Args:
        source: The notebook; it is copied, not changed.
        parameters: In the types of the notebook.
        scratch: Where papermill saves after each cell; what is left if this process is killed.
        folder: The kernel's working folder.
        environment: Of the kernel.
        cell_timeout_s: A cell that takes longer fails, and the kernel is killed.
        start_timeout_s: For the kernel to answer.
        progress: Called with (code cells done, of how many, first line of the next).

    Attributes:
        notebook: The executed notebook, with evidence in `cell.metadata.aiinfra`; None until the kernel is asked for.
        kernel_pid: None until the kernel is there.
    """

    def __init__(
        self,
        source: nbformat.NotebookNode,
        parameters: Mapping[str, Any],
        scratch: Path,
        folder: Path,
        environment: Mapping[str, str],
        cell_timeout_s: float,
        start_timeout_s: float,
        progress: Progress | None,
    ) -> None:
        self.source, self.parameters, self.scratch, self.folder = source, dict(parameters), scratch, folder
        self.environment, self.progress = dict(environment), progress
        self.cell_timeout_s, self.start_timeout_s = cell_timeout_s, start_timeout_s
        self.notebook: nbformat.NotebookNode | None = None
        self.kernel_pid: int | None = None
        self._kernel: psutil.Process | None = None
        self._started_s = 0.0
        self._hung = False

    def run(self) -> None:
        """Execute every cell, up to the first that fails.

        Raises:
            papermill.PapermillExecutionError: A cell failed, timed out, or took the kernel with it.
            Exception: The kernel did not start, or the disk is full.
        """
        papermill_engines.register(NAME, EvidenceEngine)
        # It warns of parameters that it cannot parse, such as lists; our own check is stricter and was passed already.
        logging.getLogger("papermill").setLevel(logging.ERROR)
        # papermill formats paths like templates, so a brace in a folder's name would be a missing parameter
        literal = str(self.scratch).replace("{", "{{").replace("}", "}}")
        execute_notebook(
            _fresh(self.source),
            literal,
            self.parameters,
            engine_name=NAME,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=math.ceil(self.start_timeout_s),
            execution=self,
        )

    def drive(self, manager: NotebookExecutionManager) -> None:
        """Run papermill's client on a kernel of this interpreter; called by the engine."""
        self.notebook = manager.nb
        manager.nb.metadata.papermill.update(input_path=None, output_path=None)  # the input is all of the notebook
        with tempfile.TemporaryDirectory(prefix="aiinfra-") as private:
            kernel = _kernel(Path(private))
            client = PapermillNotebookClient(
                manager,
                km=kernel,
                timeout=math.ceil(self.cell_timeout_s),
                startup_timeout=math.ceil(self.start_timeout_s),
                log=log,
                on_notebook_start=lambda **_: self._on_kernel(kernel),
                on_cell_execute=self._on_cell,
                on_cell_executed=self._on_reply,
            )
            try:
                client.execute(env=self.environment, cwd=str(self.folder))
            except CellTimeoutError:
                self._hung = True
                seconds = f"{self.cell_timeout_s:g} s"
                self._fail("CellTimeoutError", f"the cell took longer than {seconds}; the kernel was killed")
            except DeadKernelError:
                self._fail("DeadKernelError", _obituary(kernel))
            except (KeyboardInterrupt, SystemExit) as stop:
                self._hung = True
                self._fail(type(stop).__name__, str(stop) if isinstance(stop, WallTimeLimit) else STOPPED)
                raise
            finally:
                self._end(kernel, client)

    def _on_kernel(self, kernel: AsyncKernelManager) -> None:
        self.kernel_pid = getattr(getattr(kernel.provisioner, "process", None), "pid", None)
        if self.kernel_pid:
            self._kernel = psutil.Process(self.kernel_pid)

    def _on_cell(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        cell.metadata[KEY] = {"status": RUNNING}
        self._started_s = time.monotonic()
        if self.progress and self.notebook is not None:
            codes = [c for c in self.notebook.cells if is_code(c)]
            done = sum(status_of(c) == EXECUTED for c in codes)
            self.progress(done, len(codes), _title(cell))

    def _on_reply(self, cell: nbformat.NotebookNode, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        content = execute_reply["content"]
        expected = "raises-exception" in cell.metadata.get("tags", [])
        left = content.get("ename") == "SystemExit" and content.get("evalue") in {"", "0", "None"}
        fine = content["status"] == "ok" or expected or left
        self._mark(cell, EXECUTED if fine else FAILED)

    def _mark(self, cell: nbformat.NotebookNode, status: str) -> None:
        cell.metadata[KEY] = {"status": status, "seconds": round(time.monotonic() - self._started_s, 3)}

    def _fail(self, name: str, message: str) -> None:
        """Put the error where a cell's error belongs; papermill then treats it as any failed cell."""
        cells = self.notebook.cells if self.notebook is not None else []
        for cell in (c for c in cells if c.metadata.get(KEY, {}).get("status") == RUNNING):
            cell.outputs.append(_error_output(name, message))
            self._mark(cell, FAILED)

    def _end(self, kernel: AsyncKernelManager, client: PapermillNotebookClient) -> None:
        """End the kernel: asked first, so that what it started can be told, then killed, then seen to be gone."""
        try:
            if kernel.has_kernel:
                run_sync(kernel.shutdown_kernel)(now=self._hung)
            run_sync(kernel.cleanup_resources)()
        except Exception:  # whatever Jupyter says, the process is ended below
            log.warning("the kernel did not shut down as asked", exc_info=True)
        finally:
            if client.kc is not None:
                client.kc.stop_channels()
            if self._kernel is not None and self._kernel.is_running():
                try:
                    self._kernel.kill()
                    self._kernel.wait(KILL_WAIT_S)
                except psutil.Error:
                    log.warning("kernel %s is still there", self.kernel_pid, exc_info=True)


class EvidenceEngine(NBClientEngine):  # type: ignore[misc]
    """The engine under which papermill runs an `Execution`."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, *, execution: Execution, **_: Any
    ) -> None:
        """Hand over to the execution; papermill calls this."""
        execution.drive(nb_man)


def _fresh(source: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy without what an earlier report left in it; its injected cell would override the defaults unseen."""
    notebook = copy.deepcopy(source)
    left = {ERROR_MARKER_TAG, "injected-parameters"}
    notebook.cells = [c for c in notebook.cells if not left & set(c.metadata.get("tags", []))]
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop(KEY, None)
    return notebook


def _kernel(private: Path) -> AsyncKernelManager:
    """Return a kernel of the running interpreter, reached through sockets in a private folder instead of open ports.

    With no folder to look in, the specification is ipykernel's own, which names `sys.executable`; so neither a
    kernelspec that a user installed nor one that is missing matters.
    """
    specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    connection = private / "kernel.json"
    by_file = os.name == "posix" and len(str(connection)) <= MAX_SOCKET_PATH_CHARS
    return AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=specs,
        connection_file=str(connection),
        transport="ipc" if by_file else "tcp",
    )


def _obituary(kernel: AsyncKernelManager) -> str:
    """Say how the kernel ended, with the next step."""
    code = getattr(getattr(kernel.provisioner, "process", None), "returncode", None)
    if code is None or code >= 0:
        return f"the kernel ended while the cell ran (exit code {code}); nothing after it was run"
    name = signal.Signals(-code).name
    hint = "; out of memory is the usual reason" if name == "SIGKILL" else ""
    return f"the kernel was ended by {name} while the cell ran{hint}; nothing after it was run"


def _error_output(name: str, message: str) -> nbformat.NotebookNode:
    return nbformat.from_dict(  # type: ignore[no-any-return]
        {"output_type": "error", "ename": name, "evalue": message, "traceback": [f"{name}: {message}"]}
    )


def _title(cell: nbformat.NotebookNode) -> str:
    lines = [line.strip("# ").strip() for line in cell.source.splitlines()]
    return next((line for line in lines if line), "")[:60]
