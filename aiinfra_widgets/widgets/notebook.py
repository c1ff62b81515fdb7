"""What the lab needs to know of the notebook around it: is anybody there, and how is something displayed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from IPython import display as _display
from IPython.core import getipython as _getipython

#: Without type hints in IPython.
_show: Any = _display.display
_html: Any = _display.HTML
_shell: Any = _getipython.get_ipython

HEADLESS = "AIINFRA_HEADLESS"
#: What `reports` renders: the dictionary of `bokeh.embed.json_item`.
FIGURE_MIME = "application/vnd.aiinfra.bokeh+json"


class Stage(Protocol):
    """Where labs are shown instead of in a notebook."""

    def screen(self, state: Any, primary: Sequence[str], actions: dict[str, Callable[[], None]]) -> Any:
        """Return what shows a lab there: a `Presenter` with `root`, `comparison`, `feed` and `batch`."""

    def show(self, item: Any) -> None:
        """Show something at the cell that runs: a part of a screen, a Bokeh figure, or what a notebook would display."""


#: Set by the stand-alone app before it runs the cells of a notebook; None in a notebook and in a script.
stage: Stage | None = None


def headless() -> bool:
    """Whether nobody watches: AIINFRA_HEADLESS=1 (a report), or no notebook kernel and no app at all (a script)."""
    if stage is not None:
        return False
    return os.environ.get(HEADLESS, "") not in {"", "0"} or not hasattr(_shell(), "kernel")


def screen(state: Any, primary: Sequence[str], actions: dict[str, Callable[[], None]]) -> Any:
    """Return the screen of a lab, for where it is shown."""
    if stage is not None:
        return stage.screen(state, primary, actions)
    from .screen import Screen

    return Screen(state, primary, actions)


def bundle(figure: Any, says: str) -> dict[str, Any]:
    """Return a figure as what a headless notebook keeps: its data for an offline page, and a sentence in its place.

    Args:
        figure: A Bokeh figure; it is put into a document of its own.
        says: What it shows, in words.
    """
    from bokeh.embed import json_item

    return {FIGURE_MIME: dict(json_item(figure)), "text/plain": says}


def show(item: Any) -> None:
    """Display a widget."""
    stage.show(item) if stage is not None else _show(item)


def show_html(html: str) -> None:
    """Leave a table in the notebook; a script has no use for it."""
    if stage is not None:
        stage.show(_html(html))
    elif _shell() is not None:
        _show(_html(html))


def show_figure(figure: Any, says: str) -> None:
    """Leave a figure in the notebook, or say in a script what it would show."""
    if stage is not None:
        stage.show(figure)
    elif _shell() is None:
        print(says)
    else:
        _show(bundle(figure, says), raw=True)
