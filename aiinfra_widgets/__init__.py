"""aiinfra lab: predict, run, change and compare AI infrastructure on real MPI ranks, in a notebook.

`from aiinfra_widgets import Lab; Lab("training")` is all that a notebook needs; `Runs()` shows what was run. Nothing heavy is imported
before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .widgets.lab import Lab
    from .widgets.runs import Runs

__all__ = ["Lab", "Runs", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Lab":
        from .widgets.lab import Lab

        return Lab
    if name == "Runs":
        from .widgets.runs import Runs

        return Runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
