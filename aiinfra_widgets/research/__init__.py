"""Research with the lab: designed sweeps, one tidy table, fits with intervals, figures for paper, archives, other trackers.

    from aiinfra_widgets.research import sweep
    found = sweep("training", {"nodes": [1, 2], "global_batch": [64, 128]}, repeats=3)
    found.table()

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sweeps import Sweep, open_sweep, sweep

__all__ = ["Sweep", "open_sweep", "sweep"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import sweeps

        return getattr(sweeps, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
