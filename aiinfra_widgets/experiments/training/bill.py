"""What a step costs in energy, money and carbon: the same arithmetic for what is predicted and for what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ...machine.catalog import grid
from ...machine.modelled import ModelledPower
from ...machine.profile import Machine
from ...models import energy, rented_cost_usd
from ...quantities import Value
from .spec import TrainingSpec


@cache
def power_model(architecture: str, vcpus: float) -> ModelledPower:
    """Return the labelled power model of a processor; its watts come from the catalog."""
    return ModelledPower.of(architecture, vcpus, lambda: 0.0)


def of_machine(machine: Machine) -> ModelledPower:
    """Return the power model of the machine that a run is on: its own watts where calibration read a counter."""
    read = {p.at["state"]: p.median for p in machine.rows("power") if p.method == "measured"}
    if {"idle", "probing"} <= read.keys():
        idle_w = read["idle"] / machine.cores
        busy_w = max(read["probing"] / machine.cores, idle_w)
        return ModelledPower(machine.cores, idle_w, busy_w, "this machine's counter during calibration", lambda: 0.0)
    known: Mapping[str, Any] = machine.assumptions
    return power_model(str(known.get("architecture", "unknown")), float(known.get("vcpus_allowed", machine.cores)))


def bill(
    spec: TrainingSpec,
    machine: Machine,
    nodes: Any,
    step_s: Any,
    cpu_s: Any,
    steps: Any = 1,
    counter_j: float | None = None,
) -> dict[str, Value]:
    """Return energy, cost and carbon of `steps` steps, and of one.

    Args:
        spec: Region and price.
        machine: Whose idle power is charged for as long as the steps last.
        nodes: How many are held and paid for.
        step_s: Seconds of one step.
        cpu_s: Processor seconds of one step, all nodes.
        steps: How many steps.
        counter_j: Energy by a counter, for all steps; None models it.

    Returns:
        Values by quantity; energy is measured or modelled, carbon and money rest on an assumed grid and price.
    """
    model, place = of_machine(machine), grid(spec.region)
    watts_busy = model.busy_w - model.idle_w
    step_j = energy.energy_j(model.vcpus * model.idle_w, step_s) + energy.energy_j(watts_busy, cpu_s)
    method, how = (
        "modelled",
        f"{model.idle_w:.2g} W idle and {model.busy_w:.2g} W busy for each of {model.vcpus:g} processors",
    )
    low, high = 0.6, 1.4
    if counter_j is not None:
        step_j, method, how, low, high = (
            counter_j / max(steps, 1),
            "measured",
            "energy counter of this machine",
            1.0,
            1.0,
        )
    price = rented_cost_usd(nodes, step_s, spec.price_usd_per_node_hour)
    gram = energy.operational_gco2e(step_j, place.carbon_intensity_gco2e_per_kwh)
    where = (
        f"{place.name or place.region} {place.year}: {place.carbon_intensity_gco2e_per_kwh:.0f} gCO2e/kWh on average"
    )
    dollars = f"{spec.price_usd_per_node_hour:g} USD for a node and hour"
    return {
        "energy_per_step_j": Value("energy_per_step_j", step_j, step_j * low, step_j * high, method, how),  # type: ignore[arg-type]
        "energy_j": Value("energy_j", step_j * steps, step_j * low * steps, step_j * high * steps, method, how),  # type: ignore[arg-type]
        "cost_per_step_usd": Value("cost_per_step_usd", price, method="assumed", how=dollars),
        "cost_usd": Value("cost_usd", price * steps, method="assumed", how=dollars),
        "operational_gco2e": Value(
            "operational_gco2e", gram * steps, gram * low * steps, gram * high * steps, "modelled", where
        ),
    }
