"""The catalogs in `data/`: devices, links, nodes, model architectures, prices, grids, PUE, embodied carbon, power.

Each number has its source and date.

An unknown key lists the near matches and never falls back to another device. A learner's own CSV files are merged over
ours, row by row: folders named in AIINFRA_DATA (separated as in PATH), or given as arguments. Files there carry the
same names (`prices.csv`) and the same columns; `rows.py` says which.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path

from ..errors import CatalogError, UnknownNameError, near
from .rows import Entry, read

ENV = "AIINFRA_DATA"
NAMES = (
    *("accelerators", "links", "nodes", "architectures"),
    *("prices", "grids", "pue", "embodied", "cpu_power"),
)
#: Between the spellings of one key in the text column `alias`.
SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class Price:
    """What an instance costs, somewhere, when."""

    provider: str
    region: str
    instance: str
    kind: str
    usd_per_hour: float
    accelerator: str
    accelerator_count: int
    entry: Entry

    @property
    def usd_per_s(self) -> float:
        """The same, per second."""
        return self.usd_per_hour / 3600

    def age_days(self, today: date | None = None) -> int:
        """Return how old the price is, in days; show it beyond 180."""
        return self.entry.age_days(today)


@dataclass(frozen=True, slots=True)
class Grid:
    """Carbon intensity of a region's electricity: yearly average, location based, lifecycle."""

    region: str
    name: str
    year: int
    carbon_intensity_gco2e_per_kwh: float
    source_url: str
    source_date: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class CpuWatts:
    """Power of one virtual CPU (hardware thread), idle and busy, in W."""

    architecture: str
    idle_w: float
    busy_w: float
    entry: Entry


def data_folder() -> Path:
    """Return the folder of our catalogs: inside an installed wheel, else at the root of the source tree.

    Raises:
        CatalogError: Neither is there.
    """
    places = (
        Path(str(resources.files("aiinfra_widgets") / "data")),
        Path(__file__).resolve().parents[2] / "data",
    )
    for place in places:
        if (place / "accelerators.csv").is_file():
            return place
    tried = " and ".join(str(p) for p in places)
    raise CatalogError(f"no catalogs found; looked in {tried}; reinstall the package or clone the whole repository")


def _extra_folders(extra: Iterable[Path | str]) -> tuple[Path, ...]:
    given = [Path(p).expanduser() for p in os.environ.get(ENV, "").split(os.pathsep) if p.strip()]
    folders = (*given, *(Path(p).expanduser() for p in extra))
    for folder in folders:
        if not folder.is_dir():
            raise CatalogError(f"{folder} is not a folder; {ENV} and extra paths name folders that hold CSV files")
    return folders


def load(name: str, extra: Iterable[Path | str] = ()) -> tuple[Entry, ...]:
    """Return all rows of a catalog; rows of `AIINFRA_DATA` and then of `extra` replace ours of the same key and field.

    Args:
        name: One of NAMES.
        extra: Further folders, the last one wins.

    Raises:
        UnknownNameError: No such catalog.
        CatalogError: A row that is not complete or not plausible, with file:line.
    """
    if name not in NAMES:
        raise UnknownNameError(f"no catalog {name!r}; {near(name, NAMES)}")
    paths = [folder / f"{name}.csv" for folder in (data_folder(), *_extra_folders(extra))]
    merged: dict[tuple[str, str], Entry] = {}
    for path in paths:
        if path.is_file():
            stat = path.stat()
            merged.update({(e.key, e.field): e for e in _cached(path, name, stat.st_mtime_ns, stat.st_size)})
    return tuple(merged.values())


@cache
def _cached(path: Path, name: str, mtime_ns: int, size: int) -> tuple[Entry, ...]:
    return read(path, name)


def keys(name: str, extra: Iterable[Path | str] = ()) -> list[str]:
    """Return the keys of a catalog, sorted."""
    return sorted({e.key for e in load(name, extra)})


def item(name: str, key: str, extra: Iterable[Path | str] = ()) -> dict[str, Entry]:
    """Return all numbers of one key, by field.

    Raises:
        UnknownNameError: With the near matches.
    """
    rows = load(name, extra)
    found = {e.field: e for e in rows if e.key == key}
    if not found:
        raise UnknownNameError(f"no {key!r} in the catalog {name}; {near(key, {e.key for e in rows})}")
    return found


def text(name: str, key: str, column: str, extra: Iterable[Path | str] = ()) -> str:
    """Return what a text column says of a key, "" if nothing. One row may say it for all rows of the key.

    Raises:
        UnknownNameError: No such key, with the near matches.
        CatalogError: Two rows say different things.
    """
    said = [e for e in item(name, key, extra).values() if e.extra.get(column)]
    for other in said[1:]:
        if other.extra[column] != said[0].extra[column]:
            raise CatalogError(
                f"{other.where}: {column} of {key} is {other.extra[column]!r} here and {said[0].extra[column]!r} at "
                f"{said[0].where}; rows of one key agree, or leave it empty"
            )
    return said[0].extra[column] if said else ""


def find(name: str, spelling: str, extra: Iterable[Path | str] = ()) -> str:
    """Return the key that a spelling stands for: the key itself, or one of the names in the column `alias`.

    Letter case, spaces, hyphens, underscores, brackets and slashes do not matter; all else must match from end to end,
    so that an L40S is never taken for an L40.

    Raises:
        UnknownNameError: With the near matches.
        CatalogError: Two keys claim the spelling.
    """
    spelt: dict[str, Entry] = {}
    shown: list[str] = []
    for e in load(name, extra):
        words = [e.key, *(w for w in e.extra.get("alias", "").split(SEPARATOR) if w)]
        shown += words
        for word in words:
            other = spelt.setdefault(_folded(word), e)
            if other.key != e.key:
                raise CatalogError(
                    f"{e.where}: {e.key} claims {word!r}, which is {other.key} at {other.where}; take it out"
                )
    if _folded(spelling) not in spelt:
        raise UnknownNameError(f"no {spelling!r} in the catalog {name}; {near(spelling, set(shown))}")
    return spelt[_folded(spelling)].key


def _folded(word: str) -> str:
    return "".join(c for c in word.casefold() if c not in " -_()/")


def accelerator(name: str, extra: Iterable[Path | str] = ()) -> dict[str, Entry]:
    """Return the data sheet of a device, by its key or by a name that its driver or its vendor gives.

    Raises:
        UnknownNameError: With the near matches.
    """
    return item("accelerators", find("accelerators", name, extra), extra)


def price(
    provider: str, region: str, instance: str, kind: str = "on_demand", extra: Iterable[Path | str] = ()
) -> Price:
    """Return a price.

    Args:
        provider, region, instance: As the vendor writes them: "aws", "us-east-1", "p5.48xlarge".
        kind: "on_demand" or "spot".
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: Not in the catalog; a missing price is unknown, never 0.
    """
    key = f"{provider}/{region}/{instance}"
    found = item("prices", key, extra)
    kinds = {f.removesuffix("_usd_per_h"): e for f, e in found.items()}
    if kind not in kinds:
        raise UnknownNameError(f"no {kind!r} price for {key}; {near(kind, kinds)}")
    entry = kinds[kind]
    count = entry.extra.get("accelerator_count") or "0"
    if not count.isdecimal():
        raise CatalogError(f"{entry.where}: accelerator_count is {count!r}; give a whole number")
    return Price(
        provider,
        region,
        instance,
        kind,
        entry.value,
        entry.extra.get("accelerator", ""),
        int(count),
        entry,
    )


def grid(region: str, year: int | None = None, extra: Iterable[Path | str] = ()) -> Grid:
    """Return the carbon intensity of a region.

    Args:
        region: Code ("FRA", "World") or English name ("France").
        year: A year, or None for the newest there is.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such region, or no such year of it.
    """
    rows = [e for e in load("grids", extra) if e.field.startswith("carbon_intensity")]
    years = {_year(e): e for e in rows if region in (e.key, e.extra.get("name", ""))}
    if not years:
        known = {e.key for e in rows} | {e.extra.get("name", "") for e in rows}
        raise UnknownNameError(f"no region {region!r} in the catalog grids; {near(region, known)}")
    if year is not None and year not in years:
        raise UnknownNameError(
            f"no year {year} for {region!r} in the catalog grids; {near(str(year), map(str, years))}"
        )
    chosen = max(years) if year is None else year
    entry = years[chosen]
    return Grid(entry.key, entry.extra.get("name", ""), chosen, entry.value, entry.source_url, entry.source_date, entry)


def _year(entry: Entry) -> int:
    year = entry.field.removeprefix("carbon_intensity_").removesuffix("_gco2e_per_kwh")
    if not year.isdecimal():
        raise CatalogError(
            f"{entry.where}: field {entry.field!r} has no year; write carbon_intensity_2024, in gCO2e/kWh"
        )
    return int(year)


def cpu_watts(architecture: str, extra: Iterable[Path | str] = ()) -> CpuWatts:
    """Return idle and busy power per virtual CPU of a processor architecture ("epyc-4th-gen", "ice-lake").

    Raises:
        UnknownNameError: With the near matches; there is no default.
    """
    found = item("cpu_power", architecture, extra)
    try:
        idle, busy = found["power_idle_w"], found["power_busy_w"]
    except KeyError as error:
        raise CatalogError(
            f"{architecture} has no {error} row in cpu_power; give both power_idle and power_busy"
        ) from error
    return CpuWatts(architecture, idle.value, busy.value, busy)
