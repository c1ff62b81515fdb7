"""What a run costs: rented by the second, or owned. Nodes cost while they are held, whether they work or not."""

from __future__ import annotations

import numpy as np

from ._check import Number, magnitude, need
from .energy import energy_kwh, facility_energy_j

SECONDS_PER_HOUR = 3600.0


def rented_cost_usd(num_nodes: Number, held_time_s: Number, price_usd_per_node_hour: Number) -> Number:
    """Return the price of nodes for the time they are held, in USD.

    Args:
        num_nodes: Nodes held, idle ones included.
        held_time_s: How long, or `billed_time_s` of it.
        price_usd_per_node_hour: Of the catalog row.

    Raises:
        ModelInputError: A negative value.

    Valid when: one price for all nodes and hours.
    Off by: no storage, traffic, tax or discount. Source: the providers' on-demand terms.
    """
    need("num_nodes", num_nodes)
    need("held_time_s", held_time_s)
    need("price_usd_per_node_hour", price_usd_per_node_hour)
    return num_nodes * (held_time_s / SECONDS_PER_HOUR) * price_usd_per_node_hour


def billed_time_s(held_time_s: Number, minimum_s: Number = 60.0, increment_s: Number = 1.0) -> Number:
    """Return the time that is billed, in seconds: at least the minimum, rounded up to whole increments.

    Args:
        held_time_s: How long a node was held; 0 means never, and is not billed.
        minimum_s: Least time billed (60 s at the large clouds).
        increment_s: 1 for billing by the second, 3600 by the hour.

    Raises:
        ModelInputError: A negative time, or an increment that is not positive.

    Valid when: each hold is billed by itself. Off by: exact for the rule.
    Source: per-second billing terms of AWS EC2 and Google Compute Engine.
    """
    need("held_time_s", held_time_s)
    need("minimum_s", minimum_s)
    need("increment_s", increment_s, above=True)
    # A part in 1e9 of an increment is rounding of a sum of floats, not a second that was used.
    whole = np.ceil(np.maximum(held_time_s, minimum_s) / increment_s - 1e-9)
    return whole * increment_s * (magnitude(held_time_s) > 0)[()]


def capital_cost_usd(
    num_nodes: Number, held_time_s: Number, capex_usd_per_node: Number, lifetime_s: Number, used_frac: Number = 1.0
) -> Number:
    """Return the share of the purchase that a run answers for, in USD.

    Args:
        num_nodes: Nodes held.
        held_time_s: How long.
        capex_usd_per_node: Price of one node.
        lifetime_s: Years of service, in seconds.
        used_frac: Share of its life in which anybody uses it, above 0: an idle machine makes the others' hours dear.

    Raises:
        ModelInputError: A negative value, a lifetime that is not positive, a share outside 0 to 1.

    Valid when: straight-line write-off, no interest, nothing left at the end.
    Off by: too low without interest, rooms and staff. Source: straight-line depreciation.
    """
    need("num_nodes", num_nodes)
    need("held_time_s", held_time_s)
    need("capex_usd_per_node", capex_usd_per_node)
    need("lifetime_s", lifetime_s, above=True)
    need("used_frac", used_frac, 0, 1, above=True)
    return num_nodes * capex_usd_per_node * (held_time_s / (lifetime_s * used_frac))


def energy_cost_usd(it_energy_j: Number, tariff_usd_per_kwh: Number, pue: Number = 1.0) -> Number:
    """Return the price of a run's electricity, cooling included, in USD.

    Args:
        it_energy_j: Energy of the computers.
        tariff_usd_per_kwh: Energy price.
        pue: Power usage effectiveness, at least 1.

    Raises:
        ModelInputError: A negative value or a PUE below 1.

    Valid when: one tariff all day. Off by: no charge for peak power. Source: definition.
    """
    need("tariff_usd_per_kwh", tariff_usd_per_kwh)
    return energy_kwh(facility_energy_j(it_energy_j, pue)) * tariff_usd_per_kwh


def owned_cost_usd(
    num_nodes: Number,
    held_time_s: Number,
    capex_usd_per_node: Number,
    lifetime_s: Number,
    it_energy_j: Number,
    tariff_usd_per_kwh: Number,
    pue: Number = 1.0,
    used_frac: Number = 1.0,
    upkeep_usd_per_node_hour: Number = 0.0,
) -> Number:
    """Return the cost of a run on machines that one owns, in USD: purchase share, electricity and upkeep.

    Args:
        num_nodes, held_time_s, capex_usd_per_node, lifetime_s, used_frac: As `capital_cost_usd`.
        it_energy_j, tariff_usd_per_kwh, pue: As `energy_cost_usd`; the energy of all nodes together.
        upkeep_usd_per_node_hour: Staff, rooms, support.

    Raises:
        ModelInputError: As the two.

    Valid when, off by, source: as the two.
    """
    return (
        capital_cost_usd(num_nodes, held_time_s, capex_usd_per_node, lifetime_s, used_frac)
        + energy_cost_usd(it_energy_j, tariff_usd_per_kwh, pue)
        + rented_cost_usd(num_nodes, held_time_s, upkeep_usd_per_node_hour)
    )
