"""Teaching with the labs: the ledger, exercises and their checks, student and instructor versions, grading, the class view.

In a notebook: `from aiinfra_widgets.course import check, hand_in, table`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: What notebooks and people use, and where it is; loaded when it is first asked for.
_HOME = {
    "check": "checks", "hand_in": "evidence", "handed_in": "evidence", "table": "evidence", "Classroom": "classroom",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
