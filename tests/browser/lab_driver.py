"""A real JupyterLab with settings of its own, and a real Chromium that watches what the page asks for."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import websocket

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-dev-shm-usage", "--mute-audio", "--force-color-profile=srgb",
    # a headless window counts as hidden, and would have its timers slowed down
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
)  # fmt: skip
LOCAL = ("http://127.0.0.1", "ws://127.0.0.1", "http://localhost", "data:", "blob:", "file:", "about:")
# "idle" is shown before the kernel's socket exists, and Run All is then a silent no-op
CONNECTED = """() => { const c = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    const k = c?.session?.kernel; return c?.isReady && k && k.connectionStatus === 'connected' && k.status === 'idle' }"""
NOT_RUN = """() => [...window.jupyterapp.shell.currentWidget.content.widgets]
    .filter(c => c.model.type === 'code' && c.model.sharedModel.source.trim() && c.model.executionCount == null).length"""
#: Brings the n-th cell that shows a widget into sight: JupyterLab draws only what is near it.
TO_WIDGET = """async n => { const notebook = window.jupyterapp.shell.currentWidget.content;
    const shows = notebook.widgets.map((c, i) => [c, i]).filter(([c]) => c.model.type === 'code' && c.model.outputs.toJSON()
      .some(o => o.data && 'application/vnd.jupyter.widget-view+json' in o.data)).map(([, i]) => i);
    if (n < shows.length) { notebook.activeCellIndex = shows[n]; await notebook.scrollToItem(shows[n], 'start') }
    return shows.length }"""
#: The data of every Bokeh source in the page, by name; `n` is how many points it holds.
POINTS = """name => { const all = window.Bokeh?.documents ?? [];
    return all.flatMap(d => [...d._all_models.values()]).filter(m => m.type === 'ColumnDataSource' && m.name === name)
      .map(m => Object.fromEntries(Object.entries(m.data).map(([k, v]) => [k, Array.from(v)]))) }"""


class JupyterLab:
    """One server on a free port, with its own settings; ended with its kernels on exit.

    Args:
        root: Folder of the notebooks.
        home: Where the lab's runs, JupyterLab's settings and its log go.
        dark: The theme.
        config: More folders of Jupyter settings, such as the ones of `make lab`.
    """

    def __init__(self, root: Path, home: Path, *, dark: bool = False, config: Path | None = None) -> None:
        self.root, self.home, self.dark = root, home, dark
        self.token, self.log = secrets.token_hex(16), home / "jupyter.log"
        self._ended = threading.Event()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **os.environ,
            "AIINFRA_HOME": str(home / "lab"),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "run"),
            "IPYTHONDIR": str(home / "ipython"),
            **({"JUPYTER_CONFIG_PATH": str(config)} if config else {}),
        }
        self.env.pop("AIINFRA_HEADLESS", None)

    def __enter__(self) -> JupyterLab:
        self._settings(
            "@jupyterlab/apputils-extension", "themes", {"theme": f"JupyterLab {'Dark' if self.dark else 'Light'}"}
        )
        quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
        self._settings("@jupyterlab/apputils-extension", "notification", quiet)
        argv = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={self.port}", "--ServerApp.port_retries=0",
            "--ip=127.0.0.1", f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.root}",
            "--LabApp.expose_app_in_browser=True",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, env=self.env, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                self.api("status")
                threading.Thread(target=self._nudge, daemon=True).start()
                return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError("JupyterLab did not start:\n" + self.log.read_text()[-3000:])

    def _nudge(self) -> None:
        """Connect to every kernel anew each second: ipykernel 7.1 to 7.3 can miss a request until the next connection.

        It answers on the socket that it reads from, and that swallows the wake-up of a request which comes at that moment
        (ipykernel issue 1554): the cell then stands at [*], with an idle kernel, and no test of ours is about that.
        """
        while not self._ended.wait(1.0):
            with contextlib.suppress(OSError, HTTPException, websocket.WebSocketException, ValueError):
                for kernel in self.api("kernels"):
                    address = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel['id']}/channels?token={self.token}"
                    websocket.create_connection(address, timeout=5).close()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)  # once: a clean end, kernels included
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for process in children:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _settings(self, extension: str, name: str, values: dict[str, Any]) -> None:
        folder = self.home / "config" / "lab" / "user-settings" / extension
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(values))

    def api(self, path: str, method: str = "GET") -> Any:
        """Ask the server itself."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            body = reply.read()
        return json.loads(body) if body else None

    def kernel_pids(self) -> list[int]:
        """Return the processes of the kernels."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # gone, or not collected yet
                if "ipykernel_launcher" in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found


def may_be_ours(text: str) -> bool:
    """Whether a line of the console may be the lab's doing: JupyterLab's debugger complains by itself when a kernel restarts."""
    return "Could not restore the debugger state" not in text


class Page:
    """One page on one notebook, and everything suspicious that it did: `external`, `errors`, `failed`."""

    def __init__(self, page: Any, lab: JupyterLab) -> None:
        self.page, self.lab = page, lab
        self.external: list[str] = []
        self.errors: list[str] = []
        self.failed: list[str] = []
        page.on("request", lambda r: None if r.url.startswith(LOCAL) else self.external.append(r.url))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" and may_be_ours(m.text) else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("response", lambda r: self.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)

    def open(self, notebook: str) -> None:
        """Open a notebook in a workspace of its own and wait until its kernel answers."""
        space = f"w{secrets.token_hex(3)}"
        self.page.goto(f"{self.lab.url}/lab/workspaces/{space}/tree/{notebook}?token={self.lab.token}")
        self.connected()

    def connected(self) -> None:
        """Wait for the kernel's socket, then for its first answer."""
        self.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell", timeout=60_000)
        self.page.wait_for_function(CONNECTED, timeout=60_000)
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.info")
        self.to_widget()

    def command(self, name: str, seconds: float = 120) -> Any:
        """Run a command of JupyterLab; `page.evaluate` has no time limit of its own."""
        return self.page.evaluate(
            """async ([n, s]) => { const late = new Promise((_, no) => setTimeout(() => no(new Error(n + ' took too long')), s));
                const r = await Promise.race([window.jupyterapp.commands.execute(n), late]);
                return typeof r === 'boolean' ? r : null }""",
            [name, seconds * 1000],
        )

    def run_all(self) -> None:
        """Run every cell, and make sure that every cell did run."""
        self.command("notebook:run-all-cells")
        left = self.page.evaluate(NOT_RUN)
        assert left == 0, f"{left} code cells did not run"
        self.to_widget()

    def to_widget(self, number: int = 0) -> bool:
        """Bring the cell into sight that is the first, or a later one, to show a widget; whether there is one."""
        return int(self.page.evaluate(TO_WIDGET, number)) > number

    def points(self, source: str) -> list[dict[str, list[Any]]]:
        """Return the data of the sources called `source`, one dictionary of columns for each figure that has it."""
        found: list[dict[str, list[Any]]] = self.page.evaluate(POINTS, source)
        return found

    def until(self, what: str, holds: Any, seconds: float = 30) -> Any:
        """Look again until `holds()` is true, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = holds()
            if found:
                return found
            self.page.wait_for_timeout(100)
        raise AssertionError(f"waited {seconds:g} s for: {what}")


@contextlib.contextmanager
def chromium(path: str, lab: JupyterLab, width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """Open a browser window on `lab`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        scheme = "dark" if lab.dark else "light"
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        try:
            yield Page(context.new_page(), lab)
        finally:
            browser.close()


def left_running(home: Path, within_s: float = 20.0) -> list[psutil.Process]:
    """Return the processes of the lab home `home` that still live `within_s` seconds from now; the ending itself takes time."""
    end = time.monotonic() + within_s
    while (found := lab_processes(home)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def lab_processes(home: Path) -> list[psutil.Process]:
    """Return the living supervisors, launchers and ranks whose lab home is `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("AIINFRA_HOME") == str(home)
            line = " ".join(process.cmdline())
            if (
                mine
                and process.status() != psutil.STATUS_ZOMBIE
                and ("aiinfra_widgets" in line or "mpiexec" in line or "prte" in line)
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
