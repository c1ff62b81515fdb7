"""`aiinfra report`: one lab, or a batch of them, unattended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SpecError
from . import DONE, FAILED, INTERRUPTED
from .options import Json, pairs

BATCH_SUFFIXES = (".yaml", ".yml")
CELL_S = 600.0


def report(
    what: Annotated[
        Path,
        typer.Argument(metavar="NOTEBOOK|BATCH.yaml", help="A lab, or a batch file: many labs with many parameters."),
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME VALUE",
            help="A parameter of the notebook (NAME=VALUE works too); repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="DIR", help="New folder for the report; for a batch also the one to resume."
        ),
    ] = Path("report"),
    timeout: Annotated[
        float | None, typer.Option(help=f"Longest time for one cell, in seconds. [default: {CELL_S:g}]")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print each page as PDF too; needs Chromium.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option("-j", "--jobs", min=1, help="Batch: reports at a time, at most, where cores and memory bear it."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Batch: make again what failed.")] = False,
    previous: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Batch: compare with this one. [default: the newest one beside it]"),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Batch: say nothing unless something is wrong, for cron.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run a lab unattended: the executed notebook, one offline HTML file, and results.json. Or a whole batch of labs.

    A batch is resumed by the same command: what is done stays. Exit codes: 0 all done, 2 some failed, 3 interrupted, 1 nothing was
    run because of what was asked.
    """
    if what.suffix in BATCH_SUFFIXES:
        if parameter or timeout is not None:
            raise SpecError(
                f"-p and --timeout are for one notebook; in {what.name} they are `parameters:` and `cell_time:`"
            )
        raise typer.Exit(_batch(what, out, jobs or 1, pdf, retry, previous, quiet, json_))
    given = {"-j": jobs, "--retry": retry, "--previous": previous, "--quiet": quiet}
    if wrong := [name for name, value in given.items() if value]:
        raise SpecError(f"{', '.join(wrong)}: for a batch file (.yaml), and {what.name} is none; leave it out")
    raise typer.Exit(_one(what, parameter or [], out, timeout or CELL_S, pdf, json_))


def _one(notebook: Path, parameter: list[str], out: Path, timeout_s: float, pdf: bool, json_: bool) -> int:
    from ..reports.pdf import find_chromium, to_pdf
    from ..reports.run import report as make
    from . import show

    if pdf:
        find_chromium()  # before minutes of work, not after
    done = make(notebook, pairs(parameter), out, timeout_s=timeout_s, progress=show.counted("running"))
    if pdf:
        to_pdf(done.html)
    show.report(done, json_)
    return DONE if done.ok else FAILED


def _batch(
    file: Path, out: Path, jobs: int, pdf: bool, retry: bool, previous: Path | None, quiet: bool, json_: bool
) -> int:
    from ..launch.session import this_machine
    from ..reports.batch.plan import plan
    from ..reports.batch.run import Options, make
    from . import show

    machine = this_machine()
    asked = plan(file, machine)
    options = Options(at_once=jobs, pdf=pdf, retry=retry, previous=previous)
    data = make(asked, out, machine, options, lambda line: None if quiet else print(line, file=sys.stderr, flush=True))
    if json_:
        show.as_json(data)
    elif not quiet or data["status"] != "done":
        _told(data, out)
    return {"done": DONE, "interrupted": INTERRUPTED}.get(data["status"], FAILED)


def _told(data: dict[str, Any], out: Path) -> None:
    counts = ", ".join(f"{n} {state}" for state, n in data["counts"].items() if n)
    print(f"{data['status']}: {counts}; {out / 'index.html'}")
    for row in data["reports"]:
        if row["error"]:
            message = next(iter((row["error"]["message"] or "").strip().splitlines()), "")
            print(f"  {row['id']}: {row['error']['name']}: {message}")
