"""`aiinfra serve`: a lab as a page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    notebook: Annotated[Path, typer.Argument(help="A lab, such as labs/01_training_scaling.ipynb.")],
    port: Annotated[
        int | None, typer.Option(help="Where to listen.", show_default="a free one", min=0, max=65535)
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in a browser here.")] = True,
) -> None:
    """Show a lab as a page of its own, for a projector: on this machine only, for whoever has the address."""
    from ..app.serve import serve as show

    show(notebook, port=port, browser=browser)
