"""From the Spec to the parts that a run and its prediction share: policy, hours of the day, what a node draws."""

from __future__ import annotations

from typing import Any

from ...bill import power_of
from ...machine.catalog import grid
from ...machine.limits import limit
from ...machine.profile import Machine
from .hourly import HourlyTrace
from .metrics import Tariff
from .policies import make_policy
from .policies.base import Policy
from .spec import SchedulingSpec

#: Assumed: a day of a grid with much sun, each hour over the day's mean, from midnight. It emits least at noon.
CARBON_DAY = (
    1.10, 1.08, 1.07, 1.07, 1.09, 1.14, 1.18, 1.10, 0.95, 0.82, 0.72, 0.66, 0.64, 0.65, 0.69, 0.78, 0.92, 1.08, 1.22, 1.29, 1.27,
    1.21, 1.16, 1.12,
)  # fmt: skip
#: Assumed: a day of electricity prices over the day's mean, from midnight: cheap at night and at noon, dear in the evening.
PRICE_DAY = (
    0.75, 0.70, 0.68, 0.68, 0.72, 0.88, 1.12, 1.28, 1.18, 1.00, 0.88, 0.80, 0.78, 0.80, 0.85, 0.95, 1.10, 1.35, 1.55, 1.52, 1.30,
    1.10, 0.98, 0.85,
)  # fmt: skip
#: Assumed: mean price of electricity.
ENERGY_USD_PER_KWH = 0.15
#: In a run's slowdowns shorter jobs count as long as this: a tenth of a second in a run of seconds is ten in one of hours.
SHORT_S = 0.1
#: Hours that a job without a deadline may be put off for a better one.
MOST_DELAY_H = 12


def traces_of(spec: SchedulingSpec) -> dict[str, HourlyTrace]:
    """Return carbon intensity and electricity price over the run's time; an hour of the day passes in `hour_s`."""
    mean = grid(spec.region).carbon_intensity_gco2e_per_kwh
    carbon = [mean * share for share in CARBON_DAY]
    price = [ENERGY_USD_PER_KWH * share for share in PRICE_DAY]
    return {"carbon": HourlyTrace(carbon, step_s=spec.hour_s), "price": HourlyTrace(price, step_s=spec.hour_s)}


def tariff_of(spec: SchedulingSpec, machine: Machine) -> Tariff:
    """Return what a node draws and costs; a node counts as one processor of this machine, busy while a job holds it."""
    power = power_of(machine)
    return Tariff(idle_w=power.idle_w, busy_w=power.busy_w, price_usd_per_node_hour=spec.price_usd_per_node_hour)


def most_nodes(spec: SchedulingSpec, machine: Machine) -> int:
    """Return how many nodes there may ever be: a job that needs more is refused."""
    return max(limit(machine)[0] - spec.coordinators, spec.nodes)


def policy_of(spec: SchedulingSpec) -> Policy:
    """Return a fresh policy with the options that the Spec gives it."""
    delay_s = MOST_DELAY_H * spec.hour_s
    options: dict[str, dict[str, Any]] = {
        "priority": {"ageing_per_s": spec.ageing_per_s},
        "gang": {"quantum_s": spec.quantum_s},
        "fair_share": {"half_life_s": 12 * spec.hour_s},
    }
    if spec.policy in {"carbon", "price"}:
        options[spec.policy] = {"trace": traces_of(spec)[spec.policy], "max_delay_s": delay_s}
    return make_policy(spec.policy, **options.get(spec.policy, {}))
