"""`check("speed-up", lab, answer)`: what a learner may run as often as they like, and what the grader runs once more.

The checks themselves stand in the files `check_*.py`, by what they are about.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import UnknownNameError
from ..errors import near as near_names
from .evidence import Evidence
from .exercises import REGISTRY, Exercise, judge
from .mark import Mark

__all__ = ["Exercise", "Mark", "check", "find", "names"]
for _file in ("failures", "ledger", "models", "queues", "training", "zoo"):
    import_module(f".check_{_file}", __package__)


def names() -> tuple[str, ...]:
    """Return the names of all exercises."""
    return tuple(REGISTRY)


def find(name: str) -> Exercise:
    """Return an exercise.

    Raises:
        UnknownNameError: There is none of that name; near ones are named.
    """
    if name not in REGISTRY:
        raise UnknownNameError(f"no exercise {name!r}; {near_names(name, REGISTRY)}")
    return REGISTRY[name]


def check(name: str, lab: Any, answer: Any, **more: Any) -> Mark:
    """Judge an answer against the learner's own record.

    Args:
        name: Of the exercise.
        lab: The lab of this notebook.
        answer: A dictionary with the names that the exercise asks for.
        more: What else the lab measured, by name: objects with `results()`, or data frames.

    Raises:
        UnknownNameError: No such exercise.
    """
    return judge(find(name), Evidence.of(lab, more), answer)
