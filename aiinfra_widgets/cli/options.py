"""What several commands take in the same way."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import SpecError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]


def pairs(given: list[str]) -> dict[str, str]:
    """Read key=value.

    Raises:
        SpecError: There is no "=", or a key twice with different values.
    """
    found: dict[str, str] = {}
    for word in given:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise SpecError(f"got {word!r}; write it as key=value")
        if found.setdefault(key, value) != value:
            raise SpecError(f"{key}: got {found[key]!r} and {value!r}; give it once")
    return found
