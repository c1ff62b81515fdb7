"""The physics that experiments share: pure functions of numbers, each with its domain, its bias and its source.

Every argument may be a float or an array that broadcasts with the others, so that one call predicts a whole sweep.
Nothing here does I/O or imports torch, MPI or an interface. The names are those of `every`; they are loaded on demand, because
a Spec needs a few light modules of this folder only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .every import *  # noqa: F403 - its `__all__` says which


def __getattr__(name: str) -> Any:
    from .every import __all__ as offered
    from .every import __dict__ as found  # type: ignore[attr-defined] # `from . import every` would ask this function again

    if name == "__all__" or name in offered:
        return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
