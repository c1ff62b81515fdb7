"""Submissions that are filled in by script, well and in several bad ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

from aiinfra_widgets.course import evidence, notebooks

REPO = Path(__file__).resolve().parents[2]
LAB = "01_training_scaling"
SOURCE = REPO / "labs" / f"{LAB}.ipynb"
CHINESE = REPO / "labs" / "zh_CN" / f"{LAB}.ipynb"
WORDS = "I expected less, because I forgot that both nodes share the memory of one machine."


Fill = Callable[[str, str, str], str]


def good(name: str, solution: str, stub: str) -> str:
    """Answer as the instructor does."""
    return solution


def empty(name: str, solution: str, stub: str) -> str:
    """Answer nothing."""
    return stub


def wrong_trend(name: str, solution: str, stub: str) -> str:
    """Read the own numbers right, and see the opposite in them, for no reason."""
    return (
        solution
        + '\nif "trend" in globals().get("answer_4", {}):\n    answer_4 |= {"trend": "shrinks", "because": "a"}'
    )


def copied(name: str, solution: str, stub: str) -> str:
    """Hand in times that another machine measured: three times as long, and the right ratio of them."""
    names = '("one_node_ms", "two_nodes_ms")'
    return (
        solution
        + f'\nif "one_node_ms" in globals().get("answer_2", {{}}):\n    answer_2 |= {{k: 3 * answer_2[k] for k in {names}}}'
    )


def tampered(name: str, solution: str, stub: str) -> str:
    """Answer nothing, and change the check in one's own process."""
    return f"import aiinfra_widgets.course.mark as mark\nmark.Mark.points = property(lambda self: self.of)\n{stub}"


def endless(name: str, solution: str, stub: str) -> str:
    """Never end, and leave a process behind."""
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
    return f"import subprocess, sys\n{child}\nwhile True:\n    pass"


def submit(folder: Path, fill: Fill, record: dict[str, Any] | None, edition: Path = SOURCE) -> Path:
    """Fill in the student version by script, as somebody who ran its last cell and saved."""
    source = notebooks.read(edition)
    made = notebooks.student(source, LAB)
    answers = {task.cells["answer"].id: task for task in notebooks.tasks(source, LAB)}
    for cell in made.cells:
        if cell.id in answers:
            cell.source = fill(answers[cell.id].exercise.name, answers[cell.id].solution, cell.source)
        if cell.id == "hand-in" and record is not None:
            cell.outputs = [nbformat.v4.new_output("display_data", data={evidence.MIME: record, "text/plain": "ready"})]
    path = folder / f"{LAB}.ipynb"
    notebooks.write(path, made)
    return path
