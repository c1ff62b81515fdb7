"""The catalogs in `data/`: one line is one number with one source.

Values are converted to base units and fields get the unit as a suffix (`memory_capacity` in GB becomes
`memory_capacity_bytes`). A row without unit, source or date, or with an implausible number, is an error with file and
line; an unknown key lists the near matches and never falls back to another device.

A learner's own CSV files are merged over ours, row by row: folders named in AIINFRA_DATA (separated as in PATH), or
given as arguments. Files there carry the same names (`prices.csv`) and the same columns.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from ..errors import CatalogError, UnknownNameError, near

ENV = "AIINFRA_DATA"
NAMES = ("accelerators", "links", "prices", "grids", "cpu_power")
COLUMNS = ("key", "field", "value", "unit", "scope", "source_url", "source_date", "checked_on", "note")
#: Printed unit -> (base unit, factor to it, suffix of the field). Prefixes are decimal unless they carry an i.
#: Money is kept per hour and carbon per kWh, since nobody quotes them otherwise.
UNITS: Mapping[str, tuple[str, float, str]] = MappingProxyType(
    {
        "FLOP/s": ("flop/s", 1.0, "flops"),
        "GFLOP/s": ("flop/s", 1e9, "flops"),
        "TFLOP/s": ("flop/s", 1e12, "flops"),
        "PFLOP/s": ("flop/s", 1e15, "flops"),
        "B": ("B", 1.0, "bytes"),
        "MB": ("B", 1e6, "bytes"),
        "GB": ("B", 1e9, "bytes"),
        "TB": ("B", 1e12, "bytes"),
        "MiB": ("B", 2.0**20, "bytes"),
        "GiB": ("B", 2.0**30, "bytes"),
        "B/s": ("B/s", 1.0, "bytes_per_s"),
        "MB/s": ("B/s", 1e6, "bytes_per_s"),
        "GB/s": ("B/s", 1e9, "bytes_per_s"),
        "TB/s": ("B/s", 1e12, "bytes_per_s"),
        "Mbit/s": ("B/s", 1e6 / 8, "bytes_per_s"),
        "Gbit/s": ("B/s", 1e9 / 8, "bytes_per_s"),
        "s": ("s", 1.0, "s"),
        "ms": ("s", 1e-3, "s"),
        "us": ("s", 1e-6, "s"),
        "ns": ("s", 1e-9, "s"),
        "W": ("W", 1.0, "w"),
        "kW": ("W", 1e3, "w"),
        "J": ("J", 1.0, "j"),
        "USD/h": ("USD/h", 1.0, "usd_per_h"),
        "gCO2e/kWh": ("gCO2e/kWh", 1.0, "gco2e_per_kwh"),
        "kgCO2e/kWh": ("gCO2e/kWh", 1e3, "gco2e_per_kwh"),
        "1": ("1", 1.0, ""),
    }
)
#: (catalog, start of the field) -> lowest (excluded) and highest (excluded) plausible value in base units.
RANGES: Mapping[tuple[str, str], tuple[float, float]] = MappingProxyType(
    {
        ("prices", ""): (0.0, 1e4),
        ("grids", "carbon_intensity"): (0.0, 1500.0),
        ("cpu_power", "power"): (0.0, 5.0),
    }
)
#: In a note, with a reason: the value is known to lie above the plausible range. Zero and less are never accepted.
EXCUSE = "outside range:"
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
class Entry:
    """One number of a catalog.

    Attributes:
        key: What it is of ("h200-sxm-141gb", "aws/us-east-1/p5.48xlarge", "FRA", "epyc-4th-gen").
        field: With the suffix of its base unit.
        value, unit: In base units.
        printed: As the file has it ("4.8 TB/s").
        scope: Per what, and in which direction.
        source_date: As precise as it is known: YYYY, YYYY-MM or YYYY-MM-DD.
        checked_on: When somebody compared the value with its source, or None for never.
        where: file:line.
        extra: Further columns of this catalog, as text.
    """

    key: str
    field: str
    value: float
    unit: str
    printed: str
    scope: str
    source_url: str
    source_date: str
    checked_on: date | None
    note: str
    where: str
    extra: Mapping[str, str] = field(default_factory=dict)

    def age_days(self, today: date | None = None) -> int:
        """Return the days since the date of the source; a date without a day counts from its first day."""
        return ((today or date.today()) - _first_day(self.source_date)).days


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


def read(path: Path, name: str) -> tuple[Entry, ...]:
    """Read one file strictly.

    Raises:
        CatalogError: With file:line, what is wrong and what is allowed.
    """
    entries: dict[tuple[str, str], Entry] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [c for c in COLUMNS if c not in (rows.fieldnames or ())]
            if missing:
                raise CatalogError(f"{path.name}:1: no column {', '.join(missing)}; needed: {', '.join(COLUMNS)}")
            for row in rows:
                entry = _entry(name, f"{path.name}:{rows.line_num}", row)
                twin = entries.setdefault((entry.key, entry.field), entry)
                if twin is not entry:
                    raise CatalogError(f"{entry.where}: {entry.key} {entry.field} is already given at {twin.where}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{path.name}: cannot be read ({error}); it must be a CSV file in UTF-8") from error
    _check_pairs(name, entries)
    return tuple(entries.values())


def _entry(name: str, where: str, row: Mapping[str | None, str | None]) -> Entry:
    if None in row or None in row.values():
        raise CatalogError(f"{where}: more or fewer columns than the header; quote a text that holds a comma")
    cells = {str(k): str(v).strip() for k, v in row.items()}
    empty = [c for c in COLUMNS if c != "note" and not cells[c]]
    if empty:
        raise CatalogError(f"{where}: {', '.join(empty)} is empty; every number carries unit, scope, source and date")
    if cells["unit"] not in UNITS:
        raise CatalogError(f"{where}: unit {cells['unit']!r} is not known; {near(cells['unit'], UNITS)}")
    if "://" not in cells["source_url"]:
        raise CatalogError(f"{where}: source_url {cells['source_url']!r} is no address; give https://...")
    unit, factor, suffix = UNITS[cells["unit"]]
    try:
        value = float(cells["value"]) * factor
        _first_day(cells["source_date"])
        checked = None if cells["checked_on"] == "never" else date.fromisoformat(cells["checked_on"])
    except ValueError as error:
        raise CatalogError(
            f"{where}: {error}; value is a number, source_date YYYY[-MM[-DD]], checked_on YYYY-MM-DD or never"
        ) from error
    _check_range(name, where, cells, value, unit)
    return Entry(
        cells["key"],
        "_".join(p for p in (cells["field"], suffix) if p),
        value,
        unit,
        f"{cells['value']} {cells['unit']}",
        cells["scope"],
        cells["source_url"],
        cells["source_date"],
        checked,
        cells["note"],
        where,
        MappingProxyType({k: v for k, v in cells.items() if k not in COLUMNS}),
    )


def _check_range(name: str, where: str, cells: Mapping[str, str], value: float, unit: str) -> None:
    low, high = next(
        (r for (c, start), r in RANGES.items() if c == name and cells["field"].startswith(start)), (0.0, math.inf)
    )
    ok = math.isfinite(value) and low < value and (value < high or EXCUSE in cells["note"])
    if not ok:
        raise CatalogError(
            f"{where}: {cells['key']} {cells['field']} is {value:g} {unit}; plausible: above {low:g} and below {high:g}"
            f" (a note with '{EXCUSE} reason' lets a high one pass)"
        )


def _check_pairs(name: str, entries: Mapping[tuple[str, str], Entry]) -> None:
    """Idle power below busy power: the one rule that needs two rows."""
    if name != "cpu_power":
        return
    for (key, what), idle in entries.items():
        busy = entries.get((key, "power_busy_w"))
        if what == "power_idle_w" and busy and not idle.value < busy.value:
            raise CatalogError(f"{busy.where}: {key} draws {busy.value:g} W busy but {idle.value:g} W idle; swapped?")


def _first_day(text: str) -> date:
    """Parse YYYY, YYYY-MM or YYYY-MM-DD."""
    parts = text.split("-")
    if [len(p) for p in parts] not in ([4], [4, 2], [4, 2, 2]):
        raise ValueError(f"{text!r} is no date")
    return date(*(int(p) for p in (*parts, "1", "1")[:3]))


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
    return item("accelerators", DEVICE_NAMES.get(name, name), extra)


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
