"""Rows of a catalog: one line is one number with one source, read strictly.

Values are converted to base units and fields get the unit as a suffix (`memory_capacity` in GB becomes
`memory_capacity_bytes`). A row without unit, source or date, or with an implausible number, is an error with file and
line.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from datetime import date
from pathlib import Path
from types import MappingProxyType

from ..errors import CatalogError, near

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
        "FLOP": ("flop", 1.0, "flop"),
        "GFLOP": ("flop", 1e9, "flop"),
        "TFLOP": ("flop", 1e12, "flop"),
        "kgCO2e": ("gCO2e", 1e3, "gco2e"),
        "tCO2e": ("gCO2e", 1e6, "gco2e"),
        "1": ("1", 1.0, ""),
    }
)
#: (catalog, start of the field) -> lowest (excluded) and highest (excluded) plausible value in base units.
RANGES: Mapping[tuple[str, str], tuple[float, float]] = MappingProxyType(
    {
        ("accelerators", "achievable"): (0.0, 1.0),
        ("architectures", "gated"): (-0.5, 1.5),
        ("architectures", "tied"): (-0.5, 1.5),
        ("architectures", "positions"): (-0.5, math.inf),
        ("pue", "pue"): (0.999, 4.0),
        ("prices", ""): (0.0, 1e4),
        ("grids", "carbon_intensity"): (0.0, 1500.0),
        ("cpu_power", "power"): (0.0, 5.0),
    }
)
#: Fields that count something, by catalog; their values are whole.
WHOLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "nodes": ("accelerators",),
        "architectures": (
            *("layers", "encoder_layers", "decoder_layers", "hidden", "heads", "kv_heads", "head_size", "ffn", "gated"),
            *(
                "vocab",
                "tied",
                "positions",
                "experts",
                "active_experts",
                "max_seq_len",
                "parameters",
                "active_parameters",
            ),
        ),
    }
)
#: In a note, with a reason: the value is known to lie above the plausible range. Less than the lowest is never accepted.
EXCUSE = "outside range:"


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
    extra: Mapping[str, str] = attribute(default_factory=dict)

    def age_days(self, today: date | None = None) -> int:
        """Return the days since the date of the source; a date without a day counts from its first day."""
        return ((today or date.today()) - _first_day(self.source_date)).days


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
    if cells["field"] in WHOLE.get(name, ()) and not value.is_integer():
        raise CatalogError(
            f"{where}: {cells['key']} {cells['field']} is {value:g}; it counts something, give a whole number"
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
