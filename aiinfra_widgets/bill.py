"""Energy, money and carbon of a stretch of time: the same arithmetic for what is predicted and for what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from .machine.catalog import grid
from .machine.modelled import ModelledPower
from .machine.profile import Machine
from .models import energy, rented_cost_usd
from .quantities import Value
from .texts import N_

#: Modelled watts are this much too high or too low, as a share.
BAND = 0.4


@cache
def power_model(architecture: str, vcpus: float) -> ModelledPower:
    """Return the labelled power model of a processor; its watts come from the catalog."""
    return ModelledPower.of(architecture, vcpus, lambda: 0.0)


def power_of(machine: Machine) -> ModelledPower:
    """Return the power model of the machine that a run is on: its own watts where calibration read a counter."""
    read = {p.at["state"]: p.median for p in machine.rows("power") if p.method == "measured"}
    if {"idle", "probing"} <= read.keys():
        idle_w = read["idle"] / machine.cores
        busy_w = max(read["probing"] / machine.cores, idle_w)
        return ModelledPower(machine.cores, idle_w, busy_w, "this machine's counter during calibration", lambda: 0.0)
    known: Mapping[str, Any] = machine.assumptions
    return power_model(str(known.get("architecture", "unknown")), float(known.get("vcpus_allowed", machine.cores)))


def bill(
    machine: Machine,
    *,
    region: str,
    price_usd_per_node_hour: float,
    nodes: Any,
    wall_s: Any,
    cpu_s: Any,
    counter_j: float | None = None,
) -> dict[str, Value]:
    """Return `energy_j`, `cost_usd` and `operational_gco2e` of a stretch of time.

    Args:
        machine: Whose idle power is charged for as long as it lasts.
        region: Whose grid.
        price_usd_per_node_hour: Assumed.
        nodes: How many are held and paid for.
        wall_s: How long.
        cpu_s: Processor seconds used meanwhile, all nodes.
        counter_j: Energy by a counter; None models it.

    Returns:
        Energy is measured or modelled; carbon and money rest on an assumed grid and price.
    """
    model, place = power_of(machine), grid(region)
    joule = energy.energy_j(model.vcpus * model.idle_w, wall_s) + energy.energy_j(model.busy_w - model.idle_w, cpu_s)
    watts = f"{model.idle_w:.2g} W idle and {model.busy_w:.2g} W busy for each of {model.vcpus:g} processors"
    method, how, low, high = "modelled", watts, 1 - BAND, 1 + BAND
    if counter_j is not None:
        joule, method, how, low, high = counter_j, "measured", "energy counter of this machine", 1.0, 1.0
    gram = energy.operational_gco2e(joule, place.carbon_intensity_gco2e_per_kwh)
    intensity = N_(f"{place.carbon_intensity_gco2e_per_kwh:.0f} gCO2e/kWh on average")
    dollars = f"{price_usd_per_node_hour:g} USD for a node and hour"
    usd = rented_cost_usd(nodes, wall_s, price_usd_per_node_hour)
    return {
        "energy_j": Value("energy_j", joule, joule * low, joule * high, method, how),  # type: ignore[arg-type]
        "cost_usd": Value("cost_usd", usd, method="assumed", how=dollars),
        "operational_gco2e": Value(
            "operational_gco2e", gram, gram * low, gram * high, "modelled", f"{place.name or place.region} {place.year}: {intensity}"
        ),
    }  # fmt: skip


def share(value: Value, quantity: str, of: Any) -> Value:
    """Return a bill's value divided among `of` things, under another name."""

    def part(v: Any) -> Any:
        return None if v is None else v / of

    return Value(quantity, part(value.value), part(value.low), part(value.high), value.method, value.how)
