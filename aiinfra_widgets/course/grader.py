"""One submission through nbgrader, in a process of its own: `python -m aiinfra_widgets.course.grader JOB.json`.

The parent (`grading.py`) started this process with an environment of its own, and ends it when its time is up. Here limits
are set that the kernel inherits; then nbgrader puts the instructor's cells in the place of what the learner may have
changed, runs the notebook, and writes down what each check said.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .mark import MIME

#: What one submission may take, on systems that can limit it: address space, and a file that it writes.
MEMORY_BYTES, FILE_BYTES = 8 << 30, 64 << 20
STUDENT, LAB = "student", "lab"


def main(job_file: str) -> None:
    """Grade what the job describes and write `marks.json` beside it.

    Args:
        job_file: JSON with `root` (a course folder for nbgrader, laid out by the parent) and `cell_s`. Without anything
            submitted, the assignment is only made, for submissions to be graded against.
    """
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    root = Path(job["root"])
    _limit()
    told = _grade(root, float(job["cell_s"]))
    done = root / "autograded" / STUDENT / LAB / f"{LAB}.ipynb"
    marks = _marks(json.loads(done.read_text(encoding="utf-8"))["cells"]) if done.exists() else []
    (root / "marks.json").write_text(json.dumps({"marks": marks, **told}), encoding="utf-8")


def _limit() -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        for kind, most in (
            (resource.RLIMIT_AS, MEMORY_BYTES),
            (resource.RLIMIT_FSIZE, FILE_BYTES),
            (resource.RLIMIT_CORE, 0),
        ):
            _, hard = resource.getrlimit(kind)
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, least))


def _grade(root: Path, cell_s: float) -> dict[str, Any]:
    """Let nbgrader make the assignment and grade it; return what its gradebook says, by cell."""
    from nbgrader.api import Gradebook
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    config = Config()
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.db_url = url = f"sqlite:///{root / 'gradebook.db'}"
    config.Execute.timeout = int(cell_s)
    config.OverwriteCells.add_missing_cells = True
    submitted = (root / "submitted" / STUDENT).exists()
    api = NbGraderAPI(config=config)
    done = api.autograde(LAB, STUDENT) if submitted else api.generate_assignment(LAB)
    if not done["success"]:
        return {"gradebook": {}, "problem": (done.get("log") or done.get("error") or "nbgrader gave no reason")[-2000:]}
    if not submitted:
        return {"gradebook": {}, "problem": ""}
    with Gradebook(url) as book:
        found = book.find_submission_notebook(LAB, LAB, STUDENT)
        return {"gradebook": {g.name: g.auto_score or 0.0 for g in found.grades}, "problem": ""}


def _marks(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each check cell what its check said, or the error in its place."""
    found = []
    for cell in cells:
        grid = (cell.get("metadata") or {}).get("nbgrader") or {}
        if not grid.get("grade"):
            continue
        mark, problem = None, ""
        for output in cell.get("outputs") or []:
            mark = (output.get("data") or {}).get(MIME) or mark
            if output.get("output_type") == "error":
                problem = f"{output.get('ename')}: {output.get('evalue')}"
        found.append({"cell": grid.get("grade_id"), "mark": mark, "problem": problem})
    return found


if __name__ == "__main__":
    main(sys.argv[1])
