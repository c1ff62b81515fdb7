"""What an attacker would bring: names, texts and files, and a second user of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from aiinfra_widgets.launch.session import Session, spec_of, watch

#: Written by whatever code should never have run.
PWNED = "AIINFRA_PWNED"
STRANGER = "aiinfra-stranger"

#: Names that no run has: ways out, what a shell, a terminal, a page or another system takes for something else.
BAD_NAMES = {
    "empty": "",
    "up": "..",
    "way out": "../runs-secret/SECRET",
    "way out inside": "RUN/../../runs-secret/SECRET",
    "absolute": "/etc/passwd",
    "NUL": "RUN\0",
    "line": "RUN\nx",
    "option": "-rf",
    "shell": "$(touch pwned)",
    "device": "con",
    "device with an ending": "AUX.txt",
    "turned around": "\u202egnp.nur",
    "looks like a dot": "\uff0e\uff0e",
    "long": "x" * 65,
    "very long": "x" * 5000,
    "hidden": ".hidden",
    "link": "link",
    "another system's path": "..\\runs-secret\\SECRET",
    "escaped": "%2e%2e%2fruns-secret",
}

HIT = "window.pwned=(window.pwned||0)+1"
#: Eleven ways by which a text becomes a programme in a page.
PAYLOADS = {
    "script": f"<script>{HIT}</script>",
    "picture": f'<img src=x onerror="{HIT}">',
    "svg": f'<svg onload="{HIT}"><script>{HIT}</script></svg>',
    "link": f'<a href="javascript:{HIT}" autofocus onfocus="{HIT}">x</a>',
    "frame": f'<iframe srcdoc="<script>parent.{HIT}</script>"></iframe>',
    "attribute": f'" autofocus tabindex=1 onfocus="{HIT}" x="',
    "attribute, single": f"' onmouseover='{HIT}' style='position:fixed;inset:0' x='",
    "end of a script": f"</script><script>{HIT}</script>",
    "end of a title": f"</title></textarea></style><img src=x onerror={HIT}>",
    "template": "{{constructor.constructor('" + HIT + "')()}}${" + HIT + "}",
    "markdown": f'[x](javascript:{HIT}) ![x"onerror="{HIT}](x)<details ontoggle="{HIT}" open>',
}


def as_user(uid: int, act: Callable[[], str]) -> str:
    """Return what `act` returns when user `uid` does it, in a process of its own; an error is its text."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                said = act()
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(into, said.encode()[:60_000])
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def become(uid: int) -> list[str]:
    """Return what a command line begins with so that it runs as user `uid`, who may read everything: Python can lie in root's home."""
    # The last one lets access(2) count that right, too; no other survives the start of the command.
    rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--securebits=+no_setuid_fixup"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *rights]


def listeners() -> set[tuple[str, int, int]]:
    """Return (address, port, process) of everything on this machine that accepts TCP connections."""
    found = {
        (c.laddr.ip, c.laddr.port, c.pid or 0) for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN
    }
    return found | {
        (c.laddr.ip, c.laddr.port, c.pid or 0) for c in psutil.net_connections("udp") if c.laddr and not c.raddr
    }


def python(code: str, *words: str, timeout_s: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh Python of this environment."""
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=timeout_s, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def wait_until(true: Callable[[], Any], what: str, patience_s: float = 60.0) -> Any:
    """Wait until `true` returns something that is true, and return it."""
    end = time.monotonic() + patience_s
    while not (value := true()):
        assert time.monotonic() < end, f"waited {patience_s:.0f} s in vain for {what}"
        time.sleep(0.02)
    return value


def running(session: Session, name: str = "training", **values: Any) -> Any:
    """Start a run that goes on until it is stopped, and wait until it ticks."""
    given = (
        {"nodes": 2, "workload": "net-10-5-2", "steps": 10_000_000, "evaluate_every": 0} if name == "training" else {}
    )
    spec = spec_of(name, {**given, **values})
    reader = session.launch(name, spec, room=spec.ranks)
    end = time.monotonic() + 90
    for now in watch(
        reader, until=lambda s: s.final or max(s.last_tick.values(), default=0) >= 3 or time.monotonic() > end
    ):
        last = now
    assert not last.final, last
    assert max(last.last_tick.values(), default=0) >= 3, last
    return reader
