"""What several commands take in the same way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpecError

if TYPE_CHECKING:
    from ..launch.place import Place

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
On = Annotated[str, typer.Option("--on", help="Where the ranks are to be: slurm or hosts; left out: this machine.")]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm", metavar="KEY=VALUE", help="What is asked of Slurm: partition=gpu, time=2h, account=...; repeatable."
    ),
]
Hosts = Annotated[
    list[str] | None, typer.Option("--hosts", metavar="KEY=VALUE", help="Hosts by ssh: file=hosts.txt; repeatable.")
]


def place(on: str, slurm: list[str] | None, hosts: list[str] | None) -> Place | None:
    """Return where ranks are to be, None for this machine.

    Raises:
        SpecError: No such place, or what is asked of it is not allowed.
    """
    if not (on or slurm or hosts):
        return None
    from ..launch.place import asked_for

    return asked_for(on, {"slurm": pairs(slurm or []), "hosts": pairs(hosts or [])})


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


def duration_s(text: str, name: str) -> float:
    """Read how long: "90s", "30min", "2h".

    Raises:
        SpecError: It cannot be read.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    if not found:
        raise SpecError(f"{name}: got {text!r}; allowed: such as 90s, 30min or 2h")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]
