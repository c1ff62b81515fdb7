"""`aiinfra course`: versions of the labs for a class, grading, and the class view."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

course = typer.Typer(
    help="Teach with the labs: student and instructor versions, grading, the class view.", no_args_is_help=True
)
Out = Annotated[Path, typer.Option("-o", "--output", help="Folder for what is written.")]


@course.command()
def make(
    labs: Annotated[list[Path], typer.Argument(help="Source notebooks: labs/01_*.ipynb")],
    output: Out,
    replace: Annotated[bool, typer.Option(help="Write over versions that are there already.")] = False,
) -> None:
    """Write a student and an instructor version of each lab."""
    from ..course import notebooks

    for path in notebooks.make(labs, output, replace=replace):
        print(path)


@course.command()
def grade(
    submissions: Annotated[list[Path], typer.Argument(help="Notebooks that were handed in, or folders of them.")],
    output: Out,
    labs: Annotated[Path, typer.Option(help="Folder of the source notebooks.")] = Path("labs"),
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Submissions at the same time.")] = 1,
    limit: Annotated[float, typer.Option(min=5, help="Seconds for one submission, all in all.")] = 120.0,
    cell_limit: Annotated[float, typer.Option(min=1, help="Seconds for one cell of it.")] = 30.0,
) -> None:
    """Grade submissions, each in a process of its own: grades.csv, grades.json, and the notebooks as they ran.

    A submission's code runs with your rights. Grade in a container, or as a user of its own, where you do not know who wrote it.
    """
    from ..course import grading, sheet

    sheet.refuse(output)
    given = grading.submissions(submissions)
    results = grading.grade(
        given, labs, jobs=jobs, limit_s=limit, cell_s=cell_limit, keep=output / "graded",
        progress=lambda r: print(f"{r.student}, {r.lab}: {r.status}, {r.points:g} of {r.of:g} {r.note}".rstrip(), file=sys.stderr),
    )  # fmt: skip
    for path in sheet.save(results, output):
        print(path)
    raise typer.Exit(0 if all(r.status in {"graded", "no record"} for r in results) else 2)


@course.command()
def collect(
    paths: Annotated[list[Path], typer.Argument(help="Notebooks that were handed in, ledgers, or folders of them.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write, such as class.html.")],
    names: Annotated[bool, typer.Option(help="Show learners by name; otherwise they are numbered.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the numbers as one JSON object, too.")] = False,
) -> None:
    """Collect predictions and show how a class predicted against what was measured: one offline page."""
    from ..course.classroom import Classroom
    from ..course.sheet import write_new

    room = Classroom.collect(paths, names=names)
    write_new(output, room.html())
    if json_:
        print(json.dumps(room.to_json(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(output)
    for name, why in room.left_out.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
