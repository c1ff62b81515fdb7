"""Four ways to have machines: on demand, reserved, spot with interruptions, owned. On demand is `cost.rented_cost_usd`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._check import Number, magnitude, need, need_fraction
from .cost import SECONDS_PER_HOUR, energy_cost_usd, rented_cost_usd

SECONDS_PER_YEAR = 8760 * SECONDS_PER_HOUR


def reserved_cost_usd(
    num_nodes: Number, commitment_s: Number, price_usd_per_node_hour: Number, upfront_usd_per_node: Number = 0.0
) -> Number:
    """Return the price of a commitment, in USD: it is paid whether the nodes work or not.

    Args:
        num_nodes: Nodes committed to.
        commitment_s: Length of the commitment, 1 or 3 years as a rule.
        price_usd_per_node_hour: Of the reserved node, for every hour of the commitment.
        upfront_usd_per_node: Paid on the first day.

    Raises:
        ModelInputError: A negative value.

    Valid when: no part of the commitment is sold on. Off by: no interest on what is paid ahead.
    Source: the providers' terms of reserved instances and committed use.
    """
    hint = "a price is never below 0; check the catalog row"
    need("price_usd_per_node_hour", price_usd_per_node_hour, hint=hint)
    need("upfront_usd_per_node", upfront_usd_per_node, hint=hint)
    return rented_cost_usd(num_nodes, commitment_s, price_usd_per_node_hour) + num_nodes * upfront_usd_per_node


def price_per_used_hour_usd(price_usd_per_node_hour: Number, utilization_frac: Number) -> Number:
    """Return what an hour of use costs when hours without use are paid too, in USD.

    Args:
        price_usd_per_node_hour: Paid for every hour.
        utilization_frac: Share of the paid hours that are used, above 0.

    Raises:
        ModelInputError: A negative price or a share outside its range.

    Valid when: the price does not depend on use. Off by: exact. Source: definition.
    """
    need("price_usd_per_node_hour", price_usd_per_node_hour, hint="a price is never below 0; check the catalog row")
    need("utilization_frac", utilization_frac, 0, 1, above=True, hint="a node that is never used has no price per use")
    return price_usd_per_node_hour / utilization_frac


def break_even_utilization_frac(committed_usd_per_node_hour: Number, on_demand_usd_per_node_hour: Number) -> Number:
    """Return the share of its hours that a committed node must be used to be as cheap as one on demand.

    Args:
        committed_usd_per_node_hour: All that is paid for the committed node, over all its hours.
        on_demand_usd_per_node_hour: Of the same node on demand, above 0.

    Returns:
        The share; above 1 the commitment never pays.

    Raises:
        ModelInputError: A negative price, or nothing to pay on demand.

    Valid when: nodes on demand can be had whenever they are needed. Off by: exact for the two prices.
    Source: definition.
    """
    need("committed_usd_per_node_hour", committed_usd_per_node_hour, hint="check the catalog row")
    need("on_demand_usd_per_node_hour", on_demand_usd_per_node_hour, above=True, hint="check the catalog row")
    return committed_usd_per_node_hour / on_demand_usd_per_node_hour


@dataclass(frozen=True, slots=True)
class SpotRun:
    """What a job on interruptible nodes is expected to take; each field a number or an array.

    The parts of the billed time add up: `billed_time_s` = work + checkpoint + lost + restart.

    Attributes:
        work_time_s: Useful work.
        checkpoint_time_s: Writing checkpoints that were needed, those of lost work not counted.
        lost_time_s: Work and checkpoints done again.
        restart_time_s: Booting and loading after interruptions.
        billed_time_s: Their sum: the time that nodes are held.
        wait_time_s: Waiting for nodes to be had again; nothing is billed.
        time_s: billed + wait: from start to end.
        interruptions: Expected number.
        cost_usd: Price of the billed time.
    """

    work_time_s: Number
    checkpoint_time_s: Number
    lost_time_s: Number
    restart_time_s: Number
    billed_time_s: Number
    wait_time_s: Number
    time_s: Number
    interruptions: Number
    cost_usd: Number


def spot_run(
    work_time_s: Number,
    num_nodes: Number,
    price_usd_per_node_hour: Number,
    interruptions_per_s: Number,
    checkpoint_interval_s: Number,
    checkpoint_cost_s: Number,
    restart_time_s: Number,
    wait_time_s: Number = 0.0,
) -> SpotRun:
    """Return expected time and cost of a job on spot nodes that go back to its last checkpoint when interrupted.

    Args:
        work_time_s: Time of the job without checkpoints and interruptions, above 0.
        num_nodes: Nodes held.
        price_usd_per_node_hour: Of a spot node.
        interruptions_per_s: Of the whole job: with nodes that are taken one by one, their rate times the nodes.
        checkpoint_interval_s: Work between two checkpoints, above 0.
        checkpoint_cost_s: Time that one checkpoint stops the work.
        restart_time_s: Booting and loading, billed; an interruption may strike here too.
        wait_time_s: Mean time until nodes can be had again, not billed.

    Raises:
        ModelInputError: A negative value, or an interval that is not positive.

    Valid when: interruptions are independent of each other and of the age of a node; the job is many intervals long.
    Off by: 1 % of a simulation of the same rules; reality is burstier: prices and capacity move for a whole zone at once.
    Source: Daly 2006 (Future Generation Computer Systems 22), the expected time of a segment.
    """
    need("work_time_s", work_time_s, above=True, hint="a job has some work to do")
    for name, value in (
        ("interruptions_per_s", interruptions_per_s),
        ("checkpoint_cost_s", checkpoint_cost_s),
        ("restart_time_s", restart_time_s),
        ("wait_time_s", wait_time_s),
    ):
        need(name, value)
    need("price_usd_per_node_hour", price_usd_per_node_hour, hint="a price is never below 0; check the catalog row")
    need(
        "checkpoint_interval_s", checkpoint_interval_s, above=True, hint="for no checkpoint give the work's whole time"
    )
    interval_s = np.minimum(checkpoint_interval_s, work_time_s)
    segments = work_time_s / interval_s
    segment_s = interval_s + checkpoint_cost_s
    strikes = segments * np.expm1(interruptions_per_s * segment_s)
    # Expected time of a try that may itself be interrupted; (e^x - 1)/x goes to 1 as the rate goes to 0.
    lost_s = segments * segment_s * _excess(interruptions_per_s * segment_s)
    again_s = strikes * restart_time_s * (1 + _excess(interruptions_per_s * restart_time_s))
    checkpoint_s = segments * checkpoint_cost_s
    billed_s = work_time_s + checkpoint_s + lost_s + again_s
    interruptions = interruptions_per_s * billed_s
    waited_s = interruptions * wait_time_s
    cost = rented_cost_usd(num_nodes, billed_s, price_usd_per_node_hour)
    return SpotRun(
        work_time_s, checkpoint_s, lost_s, again_s, billed_s, waited_s, billed_s + waited_s, interruptions, cost
    )


def _excess(x: Number) -> Number:
    """Return (e^x - 1)/x - 1, which is 0 at 0."""
    bare = np.asarray(magnitude(x))
    safe = np.where(bare > 1e-8, bare, 1.0)
    return np.where(bare > 1e-8, np.expm1(safe) / safe - 1, bare / 2)[()]


def spot_break_even_price_usd(on_demand_usd_per_node_hour: Number, run: SpotRun) -> Number:
    """Return the spot price above which nodes on demand are cheaper for the job, in USD per node and hour.

    Args:
        on_demand_usd_per_node_hour: Of the same node.
        run: What `spot_run` says of the job.

    Raises:
        ModelInputError: A negative price.

    Valid when: the job on demand needs no checkpoints; only money counts, not the later end.
    Off by: as `spot_run`. Source: definition.
    """
    need("on_demand_usd_per_node_hour", on_demand_usd_per_node_hour, hint="check the catalog row")
    return on_demand_usd_per_node_hour * (run.work_time_s / run.billed_time_s)


@dataclass(frozen=True, slots=True)
class OwnedCost:
    """What one node costs from purchase to disposal; each field a number or an array. The parts add up to `total_usd`.

    Attributes:
        capital_usd: Price less what it is sold for.
        interest_usd: On the money bound in it.
        energy_usd: Electricity, cooling included.
        space_usd: Rooms and racks.
        staff_usd: People and support contracts.
        total_usd: Their sum.
        usd_per_used_hour: Total over the hours of use.
    """

    capital_usd: Number
    interest_usd: Number
    energy_usd: Number
    space_usd: Number
    staff_usd: Number
    total_usd: Number
    usd_per_used_hour: Number


def owned_node_cost(
    capex_usd: Number,
    lifetime_s: Number,
    utilization_frac: Number,
    busy_w: Number,
    idle_w: Number,
    pue: Number,
    tariff_usd_per_kwh: Number,
    space_usd_per_year: Number = 0.0,
    staff_usd_per_year: Number = 0.0,
    residual_frac: Number = 0.0,
    interest_frac_per_year: Number = 0.0,
) -> OwnedCost:
    """Return the total cost of ownership of one node, in its parts.

    Args:
        capex_usd: Price with network and installation.
        lifetime_s: From purchase to disposal, above 0.
        utilization_frac: Share of the lifetime in which it is used, above 0.
        busy_w, idle_w: Power at the wall when used and when not.
        pue: Power usage effectiveness, at least 1.
        tariff_usd_per_kwh: Of electricity.
        space_usd_per_year, staff_usd_per_year: Share of one node.
        residual_frac: What it is sold for in the end, as a share of the price.
        interest_frac_per_year: Of the capital; 0.08 for 8 %.

    Raises:
        ModelInputError: A negative value, a share outside its range, a PUE below 1.

    Valid when: one price, load and tariff for life; interest by equal yearly payments (annuity).
    Off by: as its inputs: price and use matter most, see the two break-even functions. Source: annuity; definition.
    """
    need("capex_usd", capex_usd, hint="a price is never below 0")
    need("lifetime_s", lifetime_s, above=True)
    need("utilization_frac", utilization_frac, 0, 1, above=True, hint="write 70 % as 0.7; 0 has no price per use")
    need("busy_w", busy_w)
    need("idle_w", idle_w)
    need("space_usd_per_year", space_usd_per_year)
    need("staff_usd_per_year", staff_usd_per_year)
    need_fraction("residual_frac", residual_frac)
    need("interest_frac_per_year", interest_frac_per_year, 0, 1, hint="write 8 % as 0.08")
    years = lifetime_s / SECONDS_PER_YEAR
    capital = capex_usd * (1 - residual_frac)
    interest = capital * _annuity_excess(interest_frac_per_year, years)
    interest = interest + capex_usd * residual_frac * interest_frac_per_year * years
    mean_w = utilization_frac * busy_w + (1 - utilization_frac) * idle_w
    energy = energy_cost_usd(mean_w * lifetime_s, tariff_usd_per_kwh, pue)
    space, staff = space_usd_per_year * years, staff_usd_per_year * years
    total = capital + interest + energy + space + staff
    hours = lifetime_s * utilization_frac / SECONDS_PER_HOUR
    return OwnedCost(capital, interest, energy, space, staff, total, total / hours)


def _annuity_excess(rate: Number, years: Number) -> Number:
    """Return the interest of a loan paid back in equal yearly parts, as a share of the loan; 0 at rate 0."""
    # Below a rate of 1e-6 the quotient loses its digits; its series begins with rate (years + 1) / 2.
    safe = np.where(rate > 1e-6, rate, 1.0)
    whole = safe * years / -np.expm1(-years * np.log1p(safe)) - 1
    return np.where(rate > 1e-6, whole, rate * (years + 1) / 2)[()]


def owning_break_even_frac(
    fixed_usd: Number, energy_usd_per_used_hour: Number, lifetime_s: Number, rented_usd_per_node_hour: Number
) -> Number:
    """Return the share of its life that an owned node must be used to be as cheap as a rented one.

    Args:
        fixed_usd: All that is paid whether the node is used or not, over its life.
        energy_usd_per_used_hour: What an hour of use adds.
        lifetime_s: From purchase to disposal, above 0.
        rented_usd_per_node_hour: Of the same node on demand.

    Returns:
        The share; above 1, or infinite where an hour of use costs more than the rent, owning never pays.

    Raises:
        ModelInputError: A negative value, or a lifetime that is not positive.

    Valid when: nodes on demand can be had whenever they are needed. Off by: as its inputs. Source: definition.
    """
    need("fixed_usd", fixed_usd)
    need("energy_usd_per_used_hour", energy_usd_per_used_hour)
    need("lifetime_s", lifetime_s, above=True)
    need("rented_usd_per_node_hour", rented_usd_per_node_hour, hint="a price is never below 0; check the catalog row")
    saved = np.asarray(rented_usd_per_node_hour - energy_usd_per_used_hour, dtype=float)
    worth = np.where(saved > 0, saved, 1.0) * (lifetime_s / SECONDS_PER_HOUR)
    return np.where(saved > 0, fixed_usd / worth, np.inf)[()]
