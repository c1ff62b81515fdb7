"""The catalogs in `data/`: devices, links, nodes, model architectures, prices, grids, PUE, embodied carbon, power.

Each number has its source and date.

An unknown key lists the near matches and never falls back to another device. A learner's own CSV files are merged over
ours, row by row: folders named in AIINFRA_DATA (separated as in PATH), or given as arguments. Files there carry the
same names (`prices.csv`) and the same columns; `rows.py` says which.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
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
    return _merged(name, _stamps(name, extra))


_Stamps = tuple[tuple[Path, int, int], ...]


def _stamps(name: str, extra: Iterable[Path | str]) -> _Stamps:
    """The files of a catalog with time and size, so that what is kept of them is read again after an edit."""
    if name not in NAMES:
        raise UnknownNameError(f"no catalog {name!r}; {near(name, NAMES)}")
    paths = [folder / f"{name}.csv" for folder in (data_folder(), *_extra_folders(extra))]
    stats = [(path, path.stat()) for path in paths if path.is_file()]
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


@cache
def _read(path: Path, name: str, mtime_ns: int, size: int) -> tuple[Entry, ...]:
    return read(path, name)


@cache
def _merged(name: str, stamps: _Stamps) -> tuple[Entry, ...]:
    merged: dict[tuple[str, str], Entry] = {}
    for path, mtime_ns, size in stamps:
        merged.update({(e.key, e.field): e for e in _read(path, name, mtime_ns, size)})
    return tuple(merged.values())


@cache
def _by_key(name: str, stamps: _Stamps) -> Mapping[str, Mapping[str, Entry]]:
    grouped: dict[str, dict[str, Entry]] = {}
    for e in _merged(name, stamps):
        grouped.setdefault(e.key, {})[e.field] = e
    return grouped


def keys(name: str, extra: Iterable[Path | str] = ()) -> list[str]:
    """Return the keys of a catalog, sorted."""
    return sorted(_by_key(name, _stamps(name, extra)))


def item(name: str, key: str, extra: Iterable[Path | str] = ()) -> dict[str, Entry]:
    """Return all numbers of one key, by field.

    Raises:
        UnknownNameError: With the near matches.
    """
    known = _by_key(name, _stamps(name, extra))
    if key not in known:
        raise UnknownNameError(f"no {key!r} in the catalog {name}; {near(key, known)}")
    return dict(known[key])


def texts(name: str, column: str, extra: Iterable[Path | str] = ()) -> dict[str, str]:
    """Return what a text column says of each key, "" if nothing. One row may say it for all rows of its key.

    Raises:
        CatalogError: Two rows of a key say different things.
    """
    return dict(_texts(name, column, _stamps(name, extra)))


def text(name: str, key: str, column: str, extra: Iterable[Path | str] = ()) -> str:
    """Return what a text column says of one key; see `texts`.

    Raises:
        UnknownNameError: No such key, with the near matches.
        CatalogError: Two rows of a key say different things.
    """
    known = _texts(name, column, _stamps(name, extra))
    if key not in known:
        raise UnknownNameError(f"no {key!r} in the catalog {name}; {near(key, known)}")
    return known[key]


@cache
def _texts(name: str, column: str, stamps: _Stamps) -> Mapping[str, str]:
    said: dict[str, Entry] = {}
    for e in _merged(name, stamps):
        first = said.setdefault(e.key, e)
        if not first.extra.get(column):
            said[e.key] = e
        elif e.extra.get(column, "") not in ("", first.extra[column]):
            raise CatalogError(
                f"{e.where}: {column} of {e.key} is {e.extra[column]!r} here and {first.extra[column]!r} at "
                f"{first.where}; rows of one key agree, or leave it empty"
            )
    return {key: e.extra.get(column, "") for key, e in said.items()}


def find(name: str, spelling: str, extra: Iterable[Path | str] = ()) -> str:
    """Return the key that a spelling stands for: the key itself, or one of the names in the column `alias`.

    Letter case, spaces, hyphens, underscores, brackets and slashes do not matter; all else must match from end to end,
    so that an L40S is never taken for an L40.

    Raises:
        UnknownNameError: With the near matches.
        CatalogError: Two keys claim the spelling.
    """
    stamps = _stamps(name, extra)
    spelt = _spellings(name, stamps)
    if _folded(spelling) not in spelt:
        known = {e.key for e in _merged(name, stamps)}
        known.update(word for e in _merged(name, stamps) for word in _aliases(e))
        raise UnknownNameError(f"no {spelling!r} in the catalog {name}; {near(spelling, known)}")
    return spelt[_folded(spelling)].key


@cache
def _spellings(name: str, stamps: _Stamps) -> Mapping[str, Entry]:
    spelt: dict[str, Entry] = {}
    for e in _merged(name, stamps):
        for word in (e.key, *_aliases(e)):
            other = spelt.setdefault(_folded(word), e)
            if other.key != e.key:
                raise CatalogError(
                    f"{e.where}: {e.key} claims {word!r}, which is {other.key} at {other.where}; take it out"
                )
    return spelt


def _aliases(entry: Entry) -> list[str]:
    return [word for word in entry.extra.get("alias", "").split(SEPARATOR) if word]


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
        kind: "on_demand", "spot" or "reserved_1y".
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
    chosen, entry = _of_year("grids", "carbon_intensity", "region", region, year, extra)
    return Grid(entry.key, entry.extra.get("name", ""), chosen, entry.value, entry.source_url, entry.source_date, entry)


def pue(site: str, year: int | None = None, extra: Iterable[Path | str] = ()) -> Entry:
    """Return the power usage effectiveness of a site, a company, or the industry: facility power / IT power, a yearly mean.

    Args:
        site: Key ("google", "industry-average") or name.
        year: A year, or None for the newest there is.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such site, or no such year of it.
    """
    return _of_year("pue", "pue", "site", site, year, extra)[1]


def _of_year(
    name: str, start: str, what: str, key: str, year: int | None, extra: Iterable[Path | str]
) -> tuple[int, Entry]:
    """Return the row of a year, or the newest, of a key or of its text in the column `name`."""
    rows = [e for e in load(name, extra) if e.field.startswith(start)]
    years = {_year(e, start): e for e in rows if key in (e.key, e.extra.get("name", ""))}
    if not years:
        known = {e.key for e in rows} | {e.extra.get("name", "") for e in rows}
        raise UnknownNameError(f"no {what} {key!r} in the catalog {name}; {near(key, known)}")
    if year is not None and year not in years:
        raise UnknownNameError(f"no year {year} for {key!r} in the catalog {name}; {near(str(year), map(str, years))}")
    chosen = max(years) if year is None else year
    return chosen, years[chosen]


def _year(entry: Entry, start: str) -> int:
    year = entry.field.removeprefix(f"{start}_").removesuffix("_gco2e_per_kwh")
    if not year.isdecimal():
        raise CatalogError(f"{entry.where}: field {entry.field!r} has no year; write {start}_2024")
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
