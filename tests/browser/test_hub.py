"""On a real JupyterHub: a person logs in, opens a lab from the launcher and runs it; another person sees nothing of it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lab_driver import FLAGS, Page
from lab_page import commit, press
from test_integration import CARD, clean, click_card, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROXY = os.environ.get("CONFIGURABLE_HTTP_PROXY") or shutil.which("configurable-http-proxy")
#: What a page of this person gets, with the token against forged requests that it has.
STATUS = """async path => (await fetch(path, {redirect: 'manual',
    headers: {'X-XSRFToken': /_xsrf=([^;]+)/.exec(document.cookie)?.[1] ?? ''}})).status"""
CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_port = {hub}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"  # one account for everybody, so only a test may use it
c.SimpleLocalProcessSpawner.home_dir_template = {home!r} + "/users/{{username}}"
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root", "--LabApp.expose_app_in_browser=True"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.JupyterHub.cleanup_servers = c.JupyterHub.cleanup_proxy = True
"""


class Hub:
    """A JupyterHub of its own on loopback; `url` and `token` as a `Page` wants them."""

    def __init__(self, home: Path) -> None:
        self.home, self.password, self.token = home, secrets.token_hex(8), ""
        ports = [_free_port() for _ in range(3)]
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.config = home / "hub.py"
        values = dict(zip(("public", "hub", "api"), ports, strict=True))
        self.config.write_text(
            CONFIG.format(**values, proxy=PROXY, password=self.password, home=str(home), python=sys.executable)
        )

    def __enter__(self) -> Hub:
        (self.home / "users").mkdir()
        self.log = (self.home / "hub.log").open("wb")
        # Without the homes of these tests: each person has their own, below `users`.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "JUPYTER_", "IPYTHON", "AIINFRA_"))}
        argv = [sys.executable, "-m", "jupyterhub", "-f", str(self.config)]
        self.process = subprocess.Popen(
            argv, cwd=self.home, env=env, stdout=self.log, stderr=self.log, start_new_session=True
        )
        end = time.monotonic() + 90
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/hub/health", timeout=2).close()
                return self
            time.sleep(0.2)
        self.__exit__()
        raise RuntimeError("JupyterHub did not start:\n" + (self.home / "hub.log").read_text()[-3000:])

    def __exit__(self, *_: object) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for process in children:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def hub(lab_home: Path) -> Iterator[Hub]:
    if importlib.util.find_spec("jupyterhub") is None:
        pytest.skip("no JupyterHub in this environment; pip install 'aiinfra-lab[hub]'")
    if not PROXY:
        pytest.skip("no configurable-http-proxy on the PATH; npm install -g configurable-http-proxy")
    with Hub(lab_home) as found:
        yield found
        for user in (lab_home / "users").iterdir():  # whose ranks end with their server, within the grace of a notebook
            _end_ranks(user)


def _end_ranks(user: Path) -> None:
    for pool in (user / ".local/share/aiinfra/pools").glob("*/supervisor.json"):
        (pool.parent / "close").touch()


def log_in(browser: Any, hub: Hub, name: str) -> Page:
    """Log in as `name`, wait for JupyterLab, and return its page."""
    page = Page(browser.new_context(viewport={"width": 1400, "height": 1000}).new_page(), hub)  # type: ignore[arg-type]
    p = page.page
    p.goto(f"{hub.url}/hub/login")
    p.fill("input[name=username]", name)
    p.fill("input[name=password]", hub.password)
    p.click("input[type=submit], #login_submit")
    p.wait_for_selector(CARD, timeout=180_000)
    # A server that is still starting answers the hub's own page with 503; what counts is JupyterLab.
    page.failed.clear()
    page.errors.clear()
    return page


def test_a_lab_on_a_hub_and_a_second_person_who_sees_nothing_of_it(
    chromium: str, hub: Hub, profile: Path, artifacts: Path
) -> None:
    from playwright.sync_api import sync_playwright

    machines = hub.home / "users" / "ada" / ".local" / "share" / "aiinfra" / "machines"
    machines.mkdir(parents=True)
    shutil.copy(profile, machines)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(FLAGS))
        ada = log_in(browser, hub, "ada")
        click_card(ada, "1. Training")
        opened(ada, "aiinfra-labs/01_training_scaling.ipynb")
        ada.connected()
        ada.run_all()
        commit(ada)
        press(ada, "Run")
        ada.page.locator(".jp-SideBar [data-id='aiinfra-runs']").click()
        ada.page.wait_for_selector(".aiinfra-run[data-state=running]", timeout=240_000)
        ada.page.screenshot(path=artifacts / "hub-1-ada.png")

        bob = log_in(browser, hub, "bob")
        bob.page.locator(".jp-SideBar [data-id='aiinfra-runs']").click()
        bob.page.wait_for_selector(".aiinfra-runs-note strong:visible", timeout=60_000)
        assert bob.page.locator(".aiinfra-run").count() == 0
        bob.page.screenshot(path=artifacts / "hub-2-bob.png")
        assert bob.page.evaluate(STATUS, "/user/bob/aiinfra/runs") == 200
        assert bob.page.evaluate(STATUS, "/user/ada/aiinfra/runs") != 200
        clean_of_refusals(bob)

        ada.page.locator(".aiinfra-run button", has_text="Stop").click()
        ada.page.wait_for_selector(".aiinfra-run[data-state=stopped]", timeout=60_000)
        clean(ada)
        browser.close()
    runs = hub.home / "users" / "ada" / ".local" / "share" / "aiinfra" / "runs"
    assert len(list(runs.iterdir())) == 1
    assert runs.stat().st_mode & 0o077 == 0, "nobody else may look into it"
    assert not (hub.home / "users" / "bob" / ".local" / "share" / "aiinfra" / "runs").exists()


def clean_of_refusals(page: Page) -> None:
    """Clean, but for the one request that had to be refused."""
    page.failed[:] = [line for line in page.failed if "/user/ada/" not in line]
    page.errors[:] = [line for line in page.errors if "403" not in line]
    clean(page)
