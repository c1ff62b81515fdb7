"""The catalogs in `data/`: accelerators, links, prices, grids, processor power; each number with source and date.

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
from types import MappingProxyType

from ..errors import CatalogError, UnknownNameError, near
from .rows import Entry, read

ENV = "AIINFRA_DATA"
NAMES = ("accelerators", "links", "prices", "grids", "cpu_power")
#: What drivers call a device -> its key. Exact names only: an L40S must never be taken for an L40 or an A100.
DEVICE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "Tesla V100-SXM2-16GB": "v100-sxm2-16gb",
        "Tesla V100-SXM2-32GB": "v100-sxm2-32gb",
        "NVIDIA A100-SXM4-40GB": "a100-sxm4-40gb",
        "NVIDIA A100-SXM4-80GB": "a100-sxm4-80gb",
        "NVIDIA H100 80GB HBM3": "h100-sxm5-80gb",
        "NVIDIA H100 PCIe": "h100-pcie-80gb",
        "NVIDIA H200": "h200-sxm-141gb",
        "NVIDIA B200": "b200-sxm-180gb",
        "AMD Instinct MI300X": "mi300x-oam-192gb",
        "NVIDIA L4": "l4-24gb",
        "NVIDIA L40S": "l40s-48gb",
        "Tesla T4": "t4-16gb",
    }
)


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


def accelerator(name: str, extra: Iterable[Path | str] = ()) -> dict[str, Entry]:
    """Return the data sheet of a device, by its key or by exactly the name that its driver gives.

    Raises:
        UnknownNameError: With the near matches.
    """
    key = DEVICE_NAMES.get(name, name)
    known = keys("accelerators", extra)
    if key not in known:
        raise UnknownNameError(f"no {name!r} in the catalog accelerators; {near(name, [*known, *DEVICE_NAMES])}")
    return item("accelerators", key, extra)


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
