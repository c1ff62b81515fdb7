"""`aiinfra trace`: the timeline of a run as a file that Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import StorageError


def trace(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help='A run\'s id, the end of one, "last", or a path.')
    ] = "last",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Where to.", show_default="RUN-trace.json, here")
    ] = None,
    last: Annotated[int | None, typer.Option(help="Only the newest so many ticks (steps).", show_default="all")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there already.")] = False,
    runs: Annotated[Path | None, typer.Option(help="Folder of run directories.")] = None,
) -> None:
    """Write what every node did, and what was predicted of it, as a Chrome trace; open it in Perfetto or chrome://tracing."""
    from ..runs.home import runs_folder
    from ..runs.layout import find
    from ..runs.reader import RunReader
    from ..runs.trace import chrome_trace

    run = find(name, runs or runs_folder())
    path = out or Path(f"{run.path.name}-trace.json")
    _free(path, force)
    found = chrome_trace(RunReader(run), last)
    _write(path, found, force)
    print(path)
    print("open it at https://ui.perfetto.dev or in chrome://tracing", file=sys.stderr)


def _free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise StorageError(f"{path} is there already; choose another file with -o, or write over it with --force")


def _write(path: Path, found: dict[str, Any], force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            json.dump(found, file, separators=(",", ":"), allow_nan=False)
    except FileExistsError:
        _free(path, force)
        raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; choose another place with -o") from error
