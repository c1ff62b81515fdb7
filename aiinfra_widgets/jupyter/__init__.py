"""What JupyterLab shows of the lab: launcher cards and a sidebar of runs (`labextension/`), and the server extension behind them."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell Jupyter Server which module to load; it is switched on by a file that the wheel puts into `etc/jupyter`."""
    return [{"module": "aiinfra_widgets.jupyter"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Add the handlers. Nothing heavy is imported before somebody opens the sidebar."""
    from .handlers import add_handlers

    add_handlers(server.web_app)
