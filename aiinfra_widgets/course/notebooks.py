"""One source for each lab: student version, instructor version, and the version that is graded, from the tags of its cells.

An exercise is four cells in a row, tagged `exercise` (what is asked; `metadata.aiinfra.exercise` names its check), `answer`
(the place to answer), `solution` (a raw cell, folded: code, then a line `---`, then notes for the instructor) and `check`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from ..errors import DataError, StorageError
from ..texts import tr
from .checks import find
from .exercises import Exercise

EDITIONS = ("student", "instructor")
ORDER = ("exercise", "answer", "solution", "check")
DIVIDER = "---"
#: The cell that a lab in another language has beside those of the English one, from which nbgrader knows the assignment.
_LANGUAGE = "language"
#: The first code cell of a graded notebook: names that stand for the lab and for what it measured beside.
_PRELUDE = "from aiinfra_widgets.course import handed_in, table\n\n{names} = handed_in()"
_LEFT_OUT = "pass  # not run when it is graded: what the learner measured was handed in"


@dataclass(frozen=True)
class Task:
    """One exercise of a notebook: its cells by tag, and its check."""

    cells: dict[str, Any]
    exercise: Exercise

    @property
    def solution(self) -> str:
        """The code that answers it."""
        return str(self.cells["solution"].source).partition(f"\n{DIVIDER}\n")[0]

    @property
    def notes(self) -> str:
        """What the instructor should know."""
        return str(self.cells["solution"].source).partition(f"\n{DIVIDER}\n")[2]


def read(path: Path) -> Any:
    """Read a notebook.

    Raises:
        DataError: It is not there, or not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds: JSON, validation, reading
        raise DataError(f"{path}: not a notebook that can be read ({type(error).__name__}: {error})") from error


def tags(cell: Any) -> set[str]:
    """Return a cell's tags."""
    return set(cell.metadata.get("tags") or ())


def tasks(notebook: Any, name: str = "the notebook") -> list[Task]:
    """Return the exercises of a source notebook in order.

    Raises:
        DataError: An exercise whose cells are not in order, or whose check does not exist.
    """
    found = []
    cells = list(notebook.cells)
    for i, cell in enumerate(cells):
        if "exercise" not in tags(cell):
            continue
        group = cells[i : i + len(ORDER)]
        seen = [next((t for t in ORDER if t in tags(c)), "untagged") for c in group]
        asked = (cell.metadata.get("aiinfra") or {}).get("exercise", "")
        if tuple(seen) != ORDER:
            raise DataError(
                f"{name}: the exercise {asked!r} has the cells {', '.join(seen)}; allowed: {', '.join(ORDER)}, in this order"
            )
        found.append(Task(dict(zip(ORDER, group, strict=True)), find(asked)))
    return found


def _extras(notebook: Any) -> dict[str, str]:
    """Return what checks are given beside the lab: keyword and the variable's name in the notebook."""
    found: dict[str, str] = {}
    for cell in notebook.cells:
        if "check" in tags(cell):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call):
                    found |= {k.arg: k.value.id for k in node.keywords if k.arg and isinstance(k.value, ast.Name)}
    return found


def _grader(cell: Any, *, grade: bool = False, solution: bool = False, points: float = 0.0) -> None:
    """Give a cell the metadata that nbgrader knows it by."""
    known: dict[str, Any] = {
        "grade": grade, "solution": solution, "locked": not solution, "grade_id": cell.id, "schema_version": 3, "task": False,
    }  # fmt: skip
    cell.metadata["nbgrader"] = known | ({"points": points} if grade else {})


def _versioned(source: Any, lab: str, edition: str) -> Any:
    notebook = copy.deepcopy(source)
    notebook.metadata.setdefault("aiinfra", {})["course"] = {"lab": lab, "edition": edition}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if cell.id != _LANGUAGE:  # nbgrader stops at a cell that the assignment does not have
                _grader(cell)
    for task in tasks(notebook, lab):
        _grader(task.cells["answer"], solution=True)
        _grader(task.cells["check"], grade=True, points=task.exercise.points)
    return notebook


def student(source: Any, lab: str) -> Any:
    """Return the student version: solutions removed, a place to answer, checks to run, and a cell that hands in."""
    notebook = _versioned(source, lab, "student")
    for task in tasks(notebook, lab):
        _ask(task)
    notebook.cells = [c for c in notebook.cells if "solution" not in tags(c)]
    given = "".join(f", {keyword}={variable}" for keyword, variable in _extras(notebook).items())
    text = tr("## Hand in\n\nRun this cell when you are done, save the notebook, and hand in this one file. "
              "It holds your answers, your measurements and your predictions; no name, no path.")  # fmt: skip
    notebook.cells += [
        new_markdown_cell(text, id="hand-in-text"),
        new_code_cell(
            f"from aiinfra_widgets.course import hand_in\n\nhand_in(lab{given})",
            id="hand-in",
            metadata={"tags": ["hand-in"]},
        ),
    ]
    return notebook


def instructor(source: Any, lab: str) -> Any:
    """Return the instructor version: solutions filled in, with notes, points and what each check tolerates."""
    notebook = _versioned(source, lab, "instructor")
    for task in tasks(notebook, lab):
        _ask(task)
        task.cells["answer"].source = task.solution
        note = task.cells["solution"]
        note.cell_type = "markdown"
        note.metadata = nbformat.from_dict({"tags": ["notes"]})
        head = tr("**For the instructor** ({points:g} points). {tolerates}",
                  points=task.exercise.points, tolerates=tr(task.exercise.tolerates))  # fmt: skip
        note.source = "\n".join(f"> {line}" for line in [head, "", *task.notes.splitlines()])
    return notebook


def graded(source: Any, lab: str) -> Any:
    """Return the version that the grader puts in the place of what a learner might have changed: nothing is measured anew."""
    notebook = _versioned(source, lab, "graded")
    extras = _extras(notebook)
    names = " = ".join(["lab", *extras.values()])
    first = True
    for cell in notebook.cells:
        if cell.cell_type == "code" and not tags(cell) & {"answer", "check"}:
            cell.source = _PRELUDE.format(names=names) if first else _LEFT_OUT
            first = False
    for task in tasks(notebook, lab):
        call = ast.parse(task.cells["check"].source).body[-1]
        answer = next(a.id for a in call.value.args[2:] if isinstance(a, ast.Name))
        task.cells["answer"].source = task.solution
        task.cells[
            "check"
        ].source = f'from aiinfra_widgets.course import check, handed_in\n\ncheck("{task.exercise.name}", handed_in(), {answer})'
    notebook.cells = [c for c in notebook.cells if "solution" not in tags(c)]
    return notebook


def exercises_of(notebook: Any) -> dict[str, str]:
    """Return the exercises of a graded notebook by the name of their check cell."""
    names: dict[str, str] = {}
    asked = ""
    for cell in notebook.cells:
        if "exercise" in tags(cell):
            asked = cell.metadata["aiinfra"]["exercise"]
        elif "check" in tags(cell):
            names[cell.id] = asked
    return names


def _ask(task: Task) -> None:
    minutes = (task.cells["exercise"].metadata.get("aiinfra") or {}).get("minutes")
    told = {"points": task.exercise.points, "minutes": minutes or "?"}
    task.cells["exercise"].source += "\n\n" + tr("*{points:g} points, about {minutes} minutes*", **told)


def make(sources: list[Path], folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Write both versions of each lab below `folder`, and yield their paths.

    Args:
        sources: Source notebooks.
        folder: Gets a folder for each edition.
        replace: Write over versions that are there already.

    Raises:
        DataError: Not a source, or one without exercises.
        StorageError: A file is there already, or cannot be written.
    """
    made = []
    for source in sources:
        notebook, lab = read(source), source.stem
        if not tasks(notebook, lab):
            raise DataError(f"{source}: no cell is tagged exercise; name a lab of the folder labs")
        made += [
            (folder / e / source.name, {"student": student, "instructor": instructor}[e](notebook, lab))
            for e in EDITIONS
        ]
    taken = [path for path, _ in made if path.exists()]
    if taken and not replace:
        raise StorageError(
            f"{taken[0]}: is there already, and may hold somebody's work; choose another -o, or --replace"
        )
    for path, notebook in made:
        write(path, notebook)
        yield path


def write(path: Path, notebook: Any) -> None:
    """Write a notebook.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        nbformat.write(notebook, part)
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}); free space or choose -o") from error
