"""Machine profiles beside each other: what this machine, or another one, can do, and by how much they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunFormatError, UnknownNameError, near
from ..machine.profile import Machine, Probe, load
from ..runs.home import machines_folder


@dataclass(frozen=True, slots=True)
class Difference:
    """One probe on two machines.

    Attributes:
        ratio: Median of the second over that of the first; None where one of them has no such probe, or it is 0.
        low, high: The least and the most that the quartiles allow of the ratio.
        apart: The quartiles do not touch: the difference is more than the scatter within each.
    """

    name: str
    at: str
    unit: str
    first: Probe | None
    second: Probe | None
    ratio: float | None
    low: float | None
    high: float | None
    apart: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        sides = {
            k: None if p is None else {"median": p.median, "q25": p.q25, "q75": p.q75, "n": p.n}
            for k, p in (("first", self.first), ("second", self.second))
        }
        return {
            "probe": self.name,
            "at": self.at,
            "unit": self.unit,
            **sides,
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "apart": self.apart,
        }


def profiles(folder: Path | None = None) -> list[Machine]:
    """Return every readable profile, oldest first."""
    found = []
    for path in sorted((folder or machines_folder()).glob("*.json")):
        try:
            found.append(load(path))
        except RunFormatError:
            continue
    return sorted(found, key=lambda m: m.made_at)


def profile(name: str, folder: Path | None = None) -> Machine:
    """Return a profile by its id, the end or the beginning of one where that is clear, "newest", "previous", or the path of a file.

    Raises:
        UnknownNameError: There is none, or several.
        RunFormatError: The file is no profile.
    """
    if name.endswith(".json"):
        return load(Path(name).expanduser())
    known = profiles(folder)
    words = {"newest": -1, "previous": -2}
    if name in words and len(known) >= -words[name]:
        return known[words[name]]
    ids = [m.id for m in known]
    match = [m for m in known if m.id == name] or [m for m in known if m.id.endswith(name) or m.id.startswith(name)]
    if len(match) != 1:
        hint = (
            f"it could be {', '.join(m.id for m in match)}"
            if match
            else near(name, ids)
            if ids
            else "there is none yet; run: aiinfra calibrate"
        )
        raise UnknownNameError(f"no machine profile {name!r}; {hint}")
    return match[0]


def compare(first: Machine, second: Machine) -> list[Difference]:
    """Return every probe of either machine, in the order of the first, with how much the second differs."""
    return [_difference(key, a, b) for key, (a, b) in _pairs(first.probes, second.probes).items()]


def _pairs(first: Iterable[Probe], second: Iterable[Probe]) -> dict[tuple[str, str], tuple[Probe | None, Probe | None]]:
    found: dict[tuple[str, str], tuple[Probe | None, Probe | None]] = {_key(p): (p, None) for p in first}
    for p in second:
        found[_key(p)] = (found.get(_key(p), (None, None))[0], p)
    return found


def _key(p: Probe) -> tuple[str, str]:
    return p.name, ", ".join(f"{k} {v}" for k, v in p.at.items())


def _difference(key: tuple[str, str], a: Probe | None, b: Probe | None) -> Difference:
    unit = (a or b).unit  # type: ignore[union-attr]  # one of them is there
    if a is None or b is None or a.unit != b.unit or not a.median > 0:
        return Difference(*key, unit, a, b, None, None, None, None)
    low = b.q25 / a.q75 if a.q75 > 0 else None
    high = b.q75 / a.q25 if a.q25 > 0 else None
    # One repeat has no quartiles of its own: whether two such differ cannot be told.
    apart = None if min(a.n, b.n) < 2 else b.q25 > a.q75 or b.q75 < a.q25
    return Difference(*key, unit, a, b, b.median / a.median, low, high, apart)


def summary(found: Iterable[Difference]) -> list[dict[str, Any]]:
    """Return one row for each kind of probe: how many points, the median ratio, the range of ratios, how many are clearly apart."""
    import numpy as np

    rows = []
    kinds: dict[tuple[str, str], list[Difference]] = {}
    for d in found:
        kinds.setdefault((d.name, d.unit), []).append(d)
    for (name, unit), mine in kinds.items():
        ratios = [d.ratio for d in mine if d.ratio is not None]
        rows.append(
            {
                "probe": name, "unit": unit, "points": len(mine), "compared": len(ratios),
                "ratio": float(np.median(ratios)) if ratios else None,
                "least": min(ratios, default=None), "most": max(ratios, default=None), "apart": sum(d.apart is True for d in mine),
            }
        )  # fmt: skip
    return rows
