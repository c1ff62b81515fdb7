"""The JSON schemas of what a report and a batch leave for scripts. They ship with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError, near

FOLDER = Path(__file__).parent / "schema"
NAMES = ("results", "batch")


def schema(name: str) -> dict[str, Any]:
    """Return the schema of `results.json` or `batch.json` (JSON Schema, draft 2020-12).

    Raises:
        UnknownNameError: Another name.
    """
    if name not in NAMES:
        raise UnknownNameError(f"got {name!r}; {near(name, NAMES)}")
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    return found
