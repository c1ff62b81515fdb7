"""Power, energy and carbon. A counter, where there is one, is always better; these say *modelled*."""

from __future__ import annotations

from ._check import Number, need, need_fraction

JOULE_PER_KWH = 3.6e6


def linear_power_w(idle_w: Number, busy_w: Number, utilization_frac: Number) -> Number:
    """Return the power of a device between idle and fully busy, in watts.

    Args:
        idle_w: Power at utilization 0; of one core for power per core.
        busy_w: Power at utilization 1, at least `idle_w`.
        utilization_frac: Between 0 and 1.

    Raises:
        ModelInputError: A negative power, busy below idle, or a utilization outside 0 to 1.

    Valid when: fixed clock and voltage.
    Off by: up to 40 % of a wall meter; too low in the middle range, where turbo clocks draw nearly full power.
    Source: Fan, Weber, Barroso 2007 (ISCA); the form of Cloud Carbon Footprint's coefficients.
    """
    need("idle_w", idle_w)
    need("busy_w", busy_w)
    need("busy_w - idle_w", busy_w - idle_w, hint="busy power is at least idle power")
    need_fraction("utilization_frac", utilization_frac)
    return idle_w + (busy_w - idle_w) * utilization_frac


def node_power_w(
    num_cores: Number, idle_w_per_core: Number, busy_w_per_core: Number, utilization_frac: Number, other_w: Number = 0.0
) -> Number:
    """Return the power of one node, in watts: its cores by `linear_power_w`, and what draws power all the time.

    Args:
        num_cores: Cores of the node.
        idle_w_per_core, busy_w_per_core: At utilization 0 and 1.
        utilization_frac: Mean over all cores: busy processor seconds over cores times wall seconds.
        other_w: Memory, fans, disks: constant.

    Raises:
        ModelInputError: As `linear_power_w`, or no core.

    Valid when, off by, source: as `linear_power_w`; a constant for memory is a guess unless it was measured.
    """
    need("num_cores", num_cores, 1, whole=True)
    need("other_w", other_w)
    return num_cores * linear_power_w(idle_w_per_core, busy_w_per_core, utilization_frac) + other_w


def energy_j(power_avg_w: Number, time_s: Number) -> Number:
    """Return the energy of a mean power over a time, in joules.

    Raises:
        ModelInputError: A negative power or time.

    Valid when: the power is the mean over that time, idle nodes included. Off by: exact. Source: definition.
    """
    need("power_avg_w", power_avg_w)
    need("time_s", time_s)
    return power_avg_w * time_s


def facility_energy_j(it_energy_j: Number, pue: Number) -> Number:
    """Return the energy of the building for that energy of its computers, in joules.

    Args:
        it_energy_j: Energy of the computers.
        pue: Power usage effectiveness, at least 1.

    Raises:
        ModelInputError: A negative energy or a PUE below 1.

    Valid when: a yearly mean PUE stands for the hour of the run.
    Off by: PUE is lower in winter and at full load. Source: ISO/IEC 30134-2.
    """
    need("it_energy_j", it_energy_j)
    need("pue", pue, 1, hint="a building uses at least what its computers use")
    return it_energy_j * pue


def energy_kwh(joules: Number) -> Number:
    """Return joules as kilowatt-hours, the unit of tariffs and of carbon intensities.

    Raises:
        ModelInputError: A negative energy.

    Valid when: always. Off by: exact. Source: 1 kWh = 3.6 MJ.
    """
    need("joules", joules)
    return joules / JOULE_PER_KWH


def operational_gco2e(facility_energy_j: Number, carbon_intensity_gco2e_per_kwh: Number) -> Number:
    """Return the emissions of the electricity used, in grams of CO2 equivalent: kWh times g/kWh.

    Args:
        facility_energy_j: Energy of the building, see the function of that name.
        carbon_intensity_gco2e_per_kwh: Of the grid, above 0; say average or marginal, region and year beside it.

    Raises:
        ModelInputError: A negative energy, or an intensity that is not positive (a row with 0 is an error of the data).

    Valid when: the intensity's region and time are the run's.
    Off by: a yearly average is off by the hour's mix, easily a factor 2. Source: GHG Protocol, scope 2.
    """
    need("carbon_intensity_gco2e_per_kwh", carbon_intensity_gco2e_per_kwh, above=True, hint="check the grid's row")
    return energy_kwh(facility_energy_j) * carbon_intensity_gco2e_per_kwh


def embodied_gco2e(
    device_embodied_gco2e: Number, time_s: Number, lifetime_s: Number, used_frac: Number = 1.0
) -> Number:
    """Return the share of a device's manufacture that a run answers for, in grams of CO2 equivalent.

    Args:
        device_embodied_gco2e: Of the whole device.
        time_s: How long the run holds it.
        lifetime_s: From purchase to disposal.
        used_frac: Share of its life in which anybody uses it, above 0.

    Raises:
        ModelInputError: A negative amount or time, a lifetime that is not positive, a share outside 0 to 1.

    Valid when: the manufacture is spread evenly over the time in use.
    Off by: the total is known to a factor 2 at best (150 to 318 kg for one accelerator class in the literature).
    Source: Green Software Foundation, Software Carbon Intensity 1.0 (term M).
    """
    need("device_embodied_gco2e", device_embodied_gco2e)
    need("time_s", time_s)
    need("lifetime_s", lifetime_s, above=True)
    need("used_frac", used_frac, 0, 1, above=True)
    return device_embodied_gco2e * (time_s / (lifetime_s * used_frac))


def embodied_share_frac(operational: Number, embodied: Number) -> Number:
    """Return the embodied part of all emissions, between 0 and 1.

    Args:
        operational: gCO2e of the electricity.
        embodied: gCO2e of the manufacture, for the same run.

    Raises:
        ModelInputError: A negative amount, or nothing emitted at all.

    Valid when, off by: as its two inputs. Source: definition.
    """
    need("operational", operational)
    need("embodied", embodied)
    need("operational + embodied", operational + embodied, above=True)
    return embodied / (operational + embodied)
