"""Carbon of a job: electricity by place and by contract, a share of the manufacture, and what would reduce it most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from ..errors import UnknownNameError, near
from ._check import Number, need, need_fraction
from .energy import JOULE_PER_KWH, embodied_gco2e, facility_energy_j, operational_gco2e

GRAM_PER_TONNE = 1e6
Accounting = Literal["location", "market"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Everything that the emissions of a job depend on; each field a number or an array.

    Attributes:
        it_energy_j: Energy of the computers at the wall.
        pue: Power usage effectiveness, at least 1.
        location_gco2e_per_kwh: Of the grid that the building hangs on.
        residual_gco2e_per_kwh: Of what is left in that grid when contracts are taken out.
        contract_gco2e_per_kwh: Of the energy bought by contract: 0 for wind and sun.
        contract_frac: Share of the energy that contracts cover.
        num_devices: Devices held.
        held_time_s: How long.
        device_embodied_gco2e: Manufacture of one device, with its share of the node.
        lifetime_s: Of a device, above 0.
        used_frac: Share of the lifetime in which anybody uses it, above 0.

    Raises:
        ModelInputError: A negative value, a share outside its range, a PUE below 1.
    """

    it_energy_j: Number
    pue: Number
    location_gco2e_per_kwh: Number
    residual_gco2e_per_kwh: Number
    contract_gco2e_per_kwh: Number
    contract_frac: Number
    num_devices: Number
    held_time_s: Number
    device_embodied_gco2e: Number
    lifetime_s: Number
    used_frac: Number

    def __post_init__(self) -> None:
        need("it_energy_j", self.it_energy_j)
        need("pue", self.pue, 1, hint="a building uses at least what its computers use")
        need("location_gco2e_per_kwh", self.location_gco2e_per_kwh, above=True, hint="check the grid's row")
        need("residual_gco2e_per_kwh", self.residual_gco2e_per_kwh)
        need("contract_gco2e_per_kwh", self.contract_gco2e_per_kwh)
        need_fraction("contract_frac", self.contract_frac)
        need("num_devices", self.num_devices)
        need("held_time_s", self.held_time_s)
        need("device_embodied_gco2e", self.device_embodied_gco2e)
        need("lifetime_s", self.lifetime_s, above=True)
        need("used_frac", self.used_frac, 0, 1, above=True)


@dataclass(frozen=True, slots=True)
class Emissions:
    """Emissions of a job, in grams of CO2 equivalent.

    Attributes:
        location_gco2e: Of the electricity, by the grid's average where the job runs.
        market_gco2e: Of the same electricity, by contracts. Never add the two: they count the same energy twice.
        embodied_gco2e: Share of the manufacture.
    """

    location_gco2e: Number
    market_gco2e: Number
    embodied_gco2e: Number

    def total_gco2e(self, accounting: Accounting) -> Number:
        """Return electricity and manufacture together, in grams, by one of the two ways to count electricity.

        Raises:
            UnknownNameError: Another way than location or market.
        """
        by_name = {"location": self.location_gco2e, "market": self.market_gco2e}
        if accounting not in by_name:
            raise UnknownNameError(f"no accounting {accounting!r}; {near(accounting, by_name)}")
        return by_name[accounting] + self.embodied_gco2e

    def total_tco2e(self, accounting: Accounting) -> Number:
        """Return the same, in tonnes."""
        return self.total_gco2e(accounting) / GRAM_PER_TONNE


def market_gco2e_per_kwh(
    residual_gco2e_per_kwh: Number, contract_gco2e_per_kwh: Number, contract_frac: Number
) -> Number:
    """Return the intensity of bought electricity: contracts for their share, the residual mix for the rest.

    Args:
        residual_gco2e_per_kwh: Of the grid without what contracts took out; the grid's average where it is not known.
        contract_gco2e_per_kwh: Of the contracts.
        contract_frac: Share of the energy that they cover.

    Raises:
        ModelInputError: A negative intensity, or a share outside 0 to 1.

    Valid when: contracts and use are matched over a year.
    Off by: hour by hour much of "100 % renewable" is the grid's mix. Source: GHG Protocol, scope 2 guidance.
    """
    need("residual_gco2e_per_kwh", residual_gco2e_per_kwh)
    need("contract_gco2e_per_kwh", contract_gco2e_per_kwh)
    need_fraction("contract_frac", contract_frac)
    return contract_frac * contract_gco2e_per_kwh + (1 - contract_frac) * residual_gco2e_per_kwh


def emissions(footprint: Footprint) -> Emissions:
    """Return the emissions of a job.

    Args:
        footprint: Everything that they depend on.

    Raises:
        ModelInputError: As `Footprint`.

    Valid when: yearly averages stand for the time of the job.
    Off by: a factor 2 in the hour's mix, and 2 in the manufacture; see `energy.operational_gco2e`, `embodied_gco2e`.
    Source: GHG Protocol, scope 2 guidance; Green Software Foundation, Software Carbon Intensity.
    """
    f = footprint
    energy_j = facility_energy_j(f.it_energy_j, f.pue)
    intensity = market_gco2e_per_kwh(f.residual_gco2e_per_kwh, f.contract_gco2e_per_kwh, f.contract_frac)
    location = operational_gco2e(energy_j, f.location_gco2e_per_kwh)
    made = f.num_devices * embodied_gco2e(f.device_embodied_gco2e, f.held_time_s, f.lifetime_s, f.used_frac)
    # The market's share of the location's emissions: an intensity of 0 is allowed here, a contract may be wind alone.
    return Emissions(location, location * (intensity / f.location_gco2e_per_kwh), made)


def elasticities(footprint: Footprint, accounting: Accounting) -> dict[str, Number]:
    """Return what one per cent more of each input does to the total, in per cent, the largest effect first.

    Args:
        footprint: Everything that the emissions depend on.
        accounting: Which total.

    Returns:
        By the input's name; d ln(total) / d ln(input). Inputs that this total does not depend on are left out.

    Raises:
        ModelInputError: As `Footprint`, or nothing is emitted at all.
        UnknownNameError: Another accounting than location or market.

    Valid when: small changes; see `what_if` for large ones. Off by: exact as a derivative.
    Source: derivative of the products in `emissions`.
    """
    f, e = footprint, emissions(footprint)
    total = e.total_gco2e(accounting)
    need("total emissions", total, above=True, hint="a job that emits nothing has nothing to reduce")
    operational, embodied = (total - e.embodied_gco2e) / total, e.embodied_gco2e / total
    result = {"it_energy_j": operational, "pue": operational}
    if accounting == "location":
        result["location_gco2e_per_kwh"] = operational
    else:
        by_kwh = facility_energy_j(f.it_energy_j, f.pue) / JOULE_PER_KWH / total
        result["residual_gco2e_per_kwh"] = by_kwh * (1 - f.contract_frac) * f.residual_gco2e_per_kwh
        result["contract_gco2e_per_kwh"] = by_kwh * f.contract_frac * f.contract_gco2e_per_kwh
        result["contract_frac"] = by_kwh * f.contract_frac * (f.contract_gco2e_per_kwh - f.residual_gco2e_per_kwh)
    result |= dict.fromkeys(("num_devices", "held_time_s", "device_embodied_gco2e"), embodied)
    result |= dict.fromkeys(("lifetime_s", "used_frac"), -embodied)
    return dict(sorted(result.items(), key=lambda item: -float(np.max(np.abs(item[1])))))


def what_if(footprint: Footprint, accounting: Accounting, changes: Mapping[str, Number]) -> Number:
    """Return the total with some inputs set to other values, less the total as it is, in grams of CO2 equivalent.

    Args:
        footprint: As it is.
        accounting: Which total.
        changes: New values by the input's name.

    Raises:
        UnknownNameError: A name that `Footprint` does not have, with the near matches.
        ModelInputError: A new value outside its range.

    Valid when, off by, source: as `emissions`.
    """
    names = [field.name for field in fields(Footprint)]
    for name in changes:
        if name not in names:
            raise UnknownNameError(f"no input {name!r} of a footprint; {near(name, names)}")
    changed = emissions(replace(footprint, **dict(changes)))
    return changed.total_gco2e(accounting) - emissions(footprint).total_gco2e(accounting)
