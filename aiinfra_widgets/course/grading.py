"""Grading many submissions: each in a process of its own, with a time limit, and no score taken on trust.

A submission's code is code: it runs with the rights of who grades. What is done about it: an environment without the grader's
variables, a home of its own that is deleted, limits of time, memory and file size, and everything that it started is ended. What
is not done: no network or file of the user is closed to it; a container or a user of its own does that (docs/course/instructors.md).

The points are not those that the submission's own process printed: answer and record are judged once more here, where no
cell of the learner ran. Where the two differ, the row says so.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil

from ..errors import DataError, LabError
from ..texts import tr
from . import notebooks
from .checks import find
from .evidence import RECORD_FILE, Evidence, records_in
from .exercises import judge
from .grader import LAB, STUDENT

Status = Literal["graded", "no record", "unreadable", "too slow", "failed"]
#: By this variable the processes of one submission are found, also those that left their parents.
MARK = "AIINFRA_GRADING"
LARGEST_NOTEBOOK_BYTES = 50_000_000
#: Variables that a submission's process gets from ours; nothing else.
KEPT = ("LANG", "LC_ALL", "AIINFRA_LANGUAGE", "SYSTEMROOT", "LD_LIBRARY_PATH")


@dataclass
class Result:
    """One graded submission.

    Attributes:
        student: As the submission's file or folder is named.
        marks: By exercise: points, of how many, and the sentences.
        note: What the instructor should look at.
        run: Id of the run that was handed in.
    """

    student: str
    lab: str
    status: Status
    marks: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    run: str = ""

    @property
    def points(self) -> float:
        """All points together."""
        return float(round(sum(m["points"] for m in self.marks), 2))

    @property
    def of(self) -> float:
        """The points that can be had."""
        return float(sum(m["of"] for m in self.marks))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "student": self.student, "lab": self.lab, "status": self.status, "points": self.points, "of": self.of,
            "run": self.run or None, "note": self.note, "marks": self.marks,
        }  # fmt: skip


@dataclass(frozen=True)
class Submission:
    """A notebook that somebody handed in."""

    path: Path
    student: str


def submissions(paths: Sequence[Path]) -> list[Submission]:
    """Return the notebooks below `paths`; the learner's name is the folder's, or what the file's name adds to the lab's.

    Raises:
        DataError: Nothing there, or two files of one learner and lab.
    """
    files = [f for p in paths for f in (sorted(p.rglob("*.ipynb")) if p.is_dir() else [p])]
    files = [f for f in files if ".ipynb_checkpoints" not in f.parts]
    if not files:
        raise DataError(f"no notebook in {', '.join(map(str, paths))}; name notebooks, or folders that hold some")
    return [Submission(f, _student(f)) for f in files]


def _student(path: Path) -> str:
    """`alice/01_x.ipynb` and `01_x_alice.ipynb` and `alice.ipynb` are all of alice."""
    stem = path.stem
    if not stem[:2].isdigit():
        return stem
    lab = _named_lab(path)
    rest = stem.removeprefix(lab).strip("_- ") if lab else ""
    return rest or path.resolve().parent.name


def _named_lab(path: Path) -> str:
    """Return the lab that a notebook says it is of, or ""."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        if path.stat().st_size <= LARGEST_NOTEBOOK_BYTES:
            course = json.loads(path.read_text(encoding="utf-8"))["metadata"]["aiinfra"]["course"]
            return str(course["lab"])
    return ""


def grade(
    given: Sequence[Submission], labs: Path, *, jobs: int = 1, limit_s: float = 120.0, cell_s: float = 30.0, keep: Path | None = None,
    progress: Callable[[Result], None] = lambda result: None,
) -> list[Result]:  # fmt: skip
    """Grade submissions.

    Args:
        given: From `submissions`.
        labs: Folder of the source notebooks.
        jobs: Submissions at the same time.
        limit_s: Seconds for one submission, all in all.
        cell_s: Seconds for one of its cells.
        keep: Gets the executed notebooks, `STUDENT/LAB.ipynb`.
        progress: Told of each result as it comes.

    Returns:
        In the order given.

    Raises:
        DataError: The optional extra `course` is not installed.
    """
    if find_spec("nbgrader") is None:
        raise DataError(
            "grading needs nbgrader, which is not installed; install the extra: pip install 'aiinfra-lab[course]'"
        )

    with tempfile.TemporaryDirectory(prefix="aiinfra-grade-") as folder:
        assignments = {
            lab: _prepare(lab, labs, Path(folder)) for lab in {_named_lab(s.path) for s in given} if _is_lab(lab, labs)
        }

        def one(submission: Submission) -> Result:
            found = _grade_one(submission, assignments, limit_s, cell_s, keep)
            progress(found)
            return found

        with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
            results = list(pool.map(one, given))
    _tell_twins(results)
    return results


def _tell_twins(results: Sequence[Result]) -> None:
    """Note where two learners handed in the same run."""
    for result in results:
        twins = sorted({r.student for r in results if r.run and r.run == result.run and r.student != result.student})
        if twins:
            result.note = "; ".join(filter(None, [result.note, tr("the same run as {names}", names=", ".join(twins))]))


@dataclass(frozen=True)
class _Assignment:
    """A lab as nbgrader grades it: a course folder with its gradebook, and the exercises by the name of their check cell."""

    root: Path
    tasks: dict[str, str]


def _is_lab(lab: str, labs: Path) -> bool:
    return bool(lab) and lab == Path(lab).name and (labs / f"{lab}.ipynb").is_file()


def _prepare(lab: str, labs: Path, folder: Path) -> _Assignment:
    """Let nbgrader make the assignment, once for all submissions of a lab.

    Raises:
        DataError: The lab's source cannot be made one.
    """
    notebook, root = notebooks.graded(notebooks.read(labs / f"{lab}.ipynb"), lab), folder / lab
    notebooks.write(root / "source" / LAB / f"{LAB}.ipynb", notebook)
    done = _run(root, limit_s=300.0, cell_s=1.0) or {"problem": "it took more than 300 s"}
    if done.get("problem"):
        raise DataError(f"{lab}: nbgrader could not make the assignment: {_last(done['problem'])}")
    return _Assignment(root, notebooks.exercises_of(notebook))


def _last(text: Any) -> str:
    """Return the last line that says something of a log."""
    lines = [line.strip() for line in str(text).splitlines() if "Error" in line or "error" in line] or str(
        text
    ).strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def _grade_one(
    submission: Submission, assignments: dict[str, _Assignment], limit_s: float, cell_s: float, keep: Path | None
) -> Result:
    lab = _named_lab(submission.path)
    if lab not in assignments:
        why = tr("not a student version of a lab that is here, or broken")
        return Result(submission.student, lab or submission.path.stem, "unreadable", note=why)
    found = Result(submission.student, lab, "graded")
    tasks = assignments[lab].tasks
    try:
        cells = notebooks.read(submission.path).cells
        record = next(reversed(list(records_in(cells))), None)
    except (LabError, ValueError, AttributeError) as error:
        return _none(found, tasks, "unreadable", str(error))
    if record is None:
        return _none(found, tasks, "no record", tr("the last cell was not run, or the notebook was not saved after it"))
    evidence = Evidence(record)
    found.run = evidence.run()
    with tempfile.TemporaryDirectory(prefix="aiinfra-grade-") as folder:
        root = Path(folder) / "course"
        _lay_out(root, assignments[lab].root, submission.path, record)
        done = _run(root, limit_s, cell_s)
        if done is None:
            return _none(found, tasks, "too slow", tr("ended after {limit:g} s", limit=limit_s))
        if keep is not None:
            _keep(root, keep / _safe(submission.student), lab)
    if done.get("problem"):
        return _none(found, tasks, "failed", _last(done["problem"]))
    _judge_again(found, tasks, evidence, done)
    return found


def _none(found: Result, tasks: dict[str, str], status: Status, note: str) -> Result:
    found.status, found.note = status, note
    found.marks = [{"exercise": n, "points": 0.0, "of": find(n).points, "lines": []} for n in tasks.values()]
    return found


def _lay_out(root: Path, assignment: Path, submitted: Path, record: dict[str, Any]) -> None:
    shutil.copytree(assignment, root, ignore=shutil.ignore_patterns("home", "*.json"))
    (root / "source" / LAB / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
    target = root / "submitted" / STUDENT / LAB
    target.mkdir(parents=True)
    shutil.copyfile(submitted, target / f"{LAB}.ipynb")


def _run(root: Path, limit_s: float, cell_s: float) -> dict[str, Any] | None:
    """Run the grader's process; None where its time was up."""
    home, token = root / "home", secrets.token_hex(8)
    home.mkdir()
    job = root / "job.json"
    job.write_text(json.dumps({"root": str(root), "cell_s": cell_s}), encoding="utf-8")
    here = str(Path(sys.executable).parent)  # nbgrader calls alembic by its name
    env = {k: os.environ[k] for k in KEPT if k in os.environ} | {
        "PATH": os.pathsep.join([here, os.environ.get("PATH", "")]),
        "HOME": str(home), "TMPDIR": str(home), "AIINFRA_HOME": str(home), "AIINFRA_HEADLESS": "1", "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(home / "ipython"), "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "run"), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), MARK: token,
    }  # fmt: skip
    with (root / "grader.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aiinfra_widgets.course.grader", str(job)], cwd=root, env=env, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(token)
            process.wait()
    try:
        return dict(json.loads((root / "marks.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        tail = (root / "grader.log").read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        return {"problem": tail or tr("the grader's process ended with code {code}", code=process.returncode)}


def _end(token: str) -> None:
    """End every process of one submission."""
    for _ in range(3):
        left = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == token and process.status() != psutil.STATUS_ZOMBIE:
                    process.kill()
                    left.append(process)
        if not left:
            return
        time.sleep(0.05)


def _judge_again(found: Result, tasks: dict[str, str], evidence: Evidence, done: dict[str, Any]) -> None:
    said = {m["cell"]: m for m in done.get("marks") or []}
    for cell, name in tasks.items():
        own = said.get(cell) or {}
        printed = own.get("mark") if isinstance(own.get("mark"), dict) else None
        if printed is None:
            line = {
                "points": 0.0,
                "of": find(name).points,
                "said": own.get("problem") or tr("the check could not be run"),
            }
            found.marks.append({"exercise": name, "points": 0.0, "of": find(name).points, "lines": [line]})
            continue
        mark = judge(find(name), evidence, printed.get("answer")).to_json()
        found.marks.append(mark)
        scores = {float(mark["points"]), _float(printed.get("points")), _float((done.get("gradebook") or {}).get(cell))}
        if max(scores) - min(scores) > 0.01:
            found.note = tr(
                "{name}: the submission printed other points than its answer gets; look at its code", name=name
            )


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else -1.0


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in name).strip(". ") or "unnamed"


def _keep(root: Path, folder: Path, lab: str) -> None:
    done = root / "autograded" / STUDENT / LAB / f"{LAB}.ipynb"
    if done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(done, folder / f"{lab}.ipynb")
