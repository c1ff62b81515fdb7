"""What a command refuses before it loads anything: a count that no experiment or not this machine takes, where nothing else is asked."""

from __future__ import annotations

import re

from ..errors import SpecError
from ..knobs import NODES

#: They change how an answer is printed or where it goes, never what is asked.
_BESIDE = {"--json", "--detach", "--dry-run"}


def refuse(words: list[str]) -> None:
    """Refuse a count by the rules that a Spec and a launch have (`knobs.NODES`, `limits.within`), in their words.

    A command line that asks for more than a count goes on to the command, so that every wrong field is named at once.

    Raises:
        SpecError: No experiment takes so many nodes.
        AdmissionError: This machine does not.
    """
    parted = [
        part for word in words if word not in _BESIDE for part in (word.split("=", 1) if word[:2] == "--" else [word])
    ]
    counts = _counts(parted)
    for text in counts:
        value = NODES.parse(text)
        if not NODES.inside(value):
            raise SpecError(NODES.refusal(value))
    match parted:
        case ["run", _, "--nodes" | "--set", _]:
            here = counts
        case ["run" | "resume", _, "--room", count]:
            here = [count]
        case _:
            here = []
    for count in here:
        if count.isdecimal():
            from ..launch.machines import this_machine
            from ..machine.limits import within

            within(int(count), this_machine())


def _counts(words: list[str]) -> list[str]:
    """Return the node counts of a command line that asks for nothing else."""
    match words:
        case ["run", _, "--nodes", count]:
            return [count]
        case ["run" | "sweep", _, "--set", given] | ["ask", _, given] if given.startswith("nodes="):
            return [given.removeprefix("nodes=")]
        case ["sweep", _, "--over", given] if given.startswith("nodes=") and ".." not in given:
            return [count for count in given.removeprefix("nodes=").split(",") if count.strip()]
        case ["run", _, "--change", given] if found := re.fullmatch(r"\w+=\d+ nodes=(\S*)", given):
            return [found[1]]
    return []
