"""What a cell says about ranks: `%%rank 0,2` before a cell that only some run, `%ranks 4` for another number of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiinfra_widgets.errors import SpecError

HOW = "write %%rank 0,2 or %%rank 1-3 or %%rank !0 or %%rank all, and the code below it"
COUNT = "write %ranks 4 in a cell of its own; %ranks alone says how many there are"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with a cell.

    Attributes:
        code: For the ranks.
        ranks: Those that run it.
        resize: A new number of ranks, 0 for the same, -1 to say how many there are.
    """

    code: str
    ranks: tuple[int, ...]
    resize: int = 0


def read(code: str, alive: Sequence[int]) -> Order:
    """Return what a cell asks for.

    Args:
        code: As typed.
        alive: The ranks there are, by the numbers that they were started with.

    Raises:
        SpecError: `%%rank` or `%ranks` with something that cannot be read, or a rank that is not there.
    """
    first, _, rest = code.lstrip().partition("\n")
    words = first.split("#", 1)[0].split()
    if words[:1] == ["%%rank"]:
        return Order(rest, chosen("".join(words[1:]), alive))
    if words[:1] == ["%ranks"]:
        if rest.strip():
            raise SpecError(f"%ranks: there is more in this cell; {COUNT}")
        given = " ".join(words[1:])
        if given and (not given.isdecimal() or int(given) < 1):
            raise SpecError(f"%ranks: got {given!r}; allowed: a whole number from 1; {COUNT}")
        return Order("", tuple(alive), int(given) if given else -1)
    return Order(code, tuple(alive))


def chosen(text: str, alive: Sequence[int]) -> tuple[int, ...]:
    """Return the ranks that `text` names: numbers, ranges `1-3`, `all`, and with `!` before it what is left out.

    Raises:
        SpecError: It cannot be read, names a rank that is not there, or names none.
    """
    known, found, left_out = set(alive), set[int](), set[int]()
    parts = [p for p in text.split(",") if p]
    for part in parts:
        body = part.removeprefix("!")
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", body)
        if body == "all":
            mine = known
        elif match:
            mine = set(range(int(match[1]), int(match[2] or match[1]) + 1))
        else:
            raise SpecError(f"%%rank: got {part!r}; {HOW}")
        if missing := mine - known:
            raise SpecError(f"%%rank: there is no rank {shown(missing)}; there are {shown(known)}; {HOW}")
        (left_out if part != body else found).update(mine)
    if all(p.startswith("!") for p in parts) and parts:
        found = known
    if not found - left_out:
        raise SpecError(f"%%rank: got {text!r}, which is no rank; there are {shown(known)}; {HOW}")
    return tuple(sorted(found - left_out))


def shown(ranks: Iterable[int]) -> str:
    """Return ranks as a person writes them: `0-2, 5`."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ", ".join(str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a}, {b}" for a, b in runs)


def counted(count: int) -> str:
    """Return `1 rank`, `2 ranks`."""
    return f"{count} rank{'s' if count != 1 else ''}"


def label(ranks: Iterable[int]) -> str:
    """Return what stands before a line: `[rank 1] `, or `[ranks 0-3] ` where several said the same."""
    given = sorted(ranks)
    return f"[rank{'s' if len(given) > 1 else ''} {shown(given)}] "
