"""A report as PDF: Chromium prints the offline page. Nothing else draws its figures as they are."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil

from ..errors import ReportError, StorageError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Where playwright keeps the browsers that it has fetched, below its cache.
FETCHED = ("chromium-*/chrome-linux*/chrome", "chromium_headless_shell-*/chrome-linux*/headless_shell")
TIMEOUT_S = 45.0
#: Of the page's own clock, for the scripts to draw; it goes as fast as they do.
DRAWING_MS = 20_000
FLAGS = (
    *(
        "--headless",
        "--disable-gpu",
        "--disable-extensions",
        "--disable-background-networking",
        "--disable-component-update",
    ),
    *("--disable-sync", "--no-first-run", "--no-default-browser-check", "--disable-dev-shm-usage", "--mute-audio"),
    *("--no-pdf-header-footer", "--host-resolver-rules=MAP * ~NOTFOUND", f"--virtual-time-budget={DRAWING_MS}"),
)


def find_chromium() -> str:
    """Return a Chromium: `CHROMIUM`, else one on the PATH, else one that playwright has fetched.

    Raises:
        ReportError: There is none.
    """
    asked = os.environ.get("CHROMIUM")
    if asked:
        if found := shutil.which(asked):
            return found
        raise ReportError(f"CHROMIUM is set to {asked!r}, which is no program; set it to a Chromium, or unset it")
    for name in NAMES:
        if found := shutil.which(name):
            return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    for pattern in FETCHED:
        if fetched := sorted(cache.glob(pattern)):
            return str(fetched[-1])
    raise ReportError(
        f"a PDF is printed by Chromium, and none was found (CHROMIUM is not set; none of {', '.join(NAMES)} on the PATH); "
        "install one, set CHROMIUM to its path, or leave --pdf out: the HTML page has everything"
    )


def to_pdf(page: Path, path: Path | None = None) -> Path:
    """Print a report's page; A4, light, with the code that is open on the page.

    Args:
        page: The HTML file.
        path: Of the PDF; beside the page by default.

    Raises:
        ReportError: No Chromium, or it did not print.
        StorageError: The PDF cannot be put where it belongs.
    """
    target = path or page.with_suffix(".pdf")
    program = find_chromium()
    with tempfile.TemporaryDirectory(prefix="aiinfra-pdf-") as private:
        made = Path(private) / "page.pdf"
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
        argv = [
            *(program, *FLAGS, *sandbox, f"--user-data-dir={private}/profile", f"--print-to-pdf={made}"),
            page.absolute().as_uri(),
        ]
        code, said = _run(argv)
        if not made.exists() or not made.read_bytes().startswith(b"%PDF"):
            how = f"did not end within {TIMEOUT_S:g} s" if code is None else f"ended with exit code {code}"
            raise ReportError(
                f"{page.name}: no PDF was printed; {program} {how}; last output: {said or 'none'}; the HTML is there"
            )
        try:
            shutil.copyfile(made, target)
        except OSError as error:
            raise StorageError(
                f"{target}: cannot be written ({error.strerror or error}); free space or choose -o"
            ) from error
    return target


def _run(argv: list[str]) -> tuple[int | None, str]:
    """Run Chromium; return its exit code (None: killed for its time) and its last words. Nothing of it is left."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_group(process.pid)
            process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    return code, " / ".join(line.strip() for line in lines[-2:])[:400]


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    own = [p for p in psutil.process_iter() if _leads(p, group)]
    psutil.wait_procs(own, timeout=5.0)


def _leads(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group
    except OSError:
        return False
