"""Power from the work that is done: device, power limit, node, building.

A device's time is cut into phases by the kind of work: matrix products, memory traffic, communication, waiting. Each kind
asks for its own power at full clock. A power limit slows only the phases that ask for more. That one idea gives time
and power together, below the limit and at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ..errors import ModelInputError
from ._check import Number, magnitude, need, need_fraction, need_rate

#: Allowed range of each parameter: outside it the number would mean something else.
BOUNDS = MappingProxyType(
    {
        "matrix_frac": (0.6, 2.0),
        "memory_frac": (0.3, 0.9),
        "communication_frac": (0.1, 0.6),
        "memory_clock_share_frac": (0.0, 0.7),
        "voltage_floor_frac": (0.4, 0.9),
    }
)


@dataclass(frozen=True, slots=True)
class PowerParameters:
    """What a kind of work asks for at full clock, as a share of the range from idle to the device's rated power.

    Attributes:
        matrix_frac: Dense matrix products. Above 1 the device cannot hold its full clock at its rated power.
        memory_frac: Streaming from the device's own memory.
        communication_frac: A collective that spins while the links work.
        memory_clock_share_frac: Share of a memory phase's time that lengthens when the core clock falls.
        voltage_floor_frac: Clock, as a share of the full one, below which the voltage falls no further.

    Raises:
        ModelInputError: A value outside `BOUNDS`.
    """

    matrix_frac: float
    memory_frac: float
    communication_frac: float
    memory_clock_share_frac: float
    voltage_floor_frac: float

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            need(name, getattr(self, name), low, high, hint="see models.power.BOUNDS")


#: Fitted on 60 measured rows (V100 under limits, H100 nodes, TPUs) by `validation.power_rows.fit_power_model`, but for the
#: first and the fourth: 1.2 stands for the known fact that large products push a GPU to its limit.
POWER_PARAMETERS = PowerParameters(
    matrix_frac=1.2,
    memory_frac=0.630,
    communication_frac=0.232,
    memory_clock_share_frac=0.0,
    voltage_floor_frac=0.766,
)


@dataclass(frozen=True, slots=True)
class DeviceRun:
    """A stretch of work on one device under a power limit; each field a number or an array.

    Attributes:
        time_s: How long it takes.
        power_avg_w: Mean power over that time.
        energy_j: Their product.
        clock_frac: Clock of the matrix phase, 1 where the limit does not bind.
    """

    time_s: Number
    power_avg_w: Number
    energy_j: Number
    clock_frac: Number


def dynamic_power_frac(clock_frac: Number, voltage_floor_frac: Number) -> Number:
    """Return the dynamic power at a clock, as a share of that at full clock: f V^2.

    Args:
        clock_frac: Clock over full clock, 0 to 1.
        voltage_floor_frac: Clock below which the voltage is constant, above 0.

    Raises:
        ModelInputError: A share outside its range.

    Valid when: the voltage falls in proportion to the clock down to the floor; the work per clock is the same.
    Off by: leakage falls with the voltage too and counts as idle here.
    Source: P = C V^2 f, Weste and Harris, CMOS VLSI Design; the floor as in Tang et al. 2019 (e-Energy).
    """
    need_fraction("clock_frac", clock_frac)
    need("voltage_floor_frac", voltage_floor_frac, 0, 1, above=True)
    return clock_frac * np.maximum(clock_frac, voltage_floor_frac) ** 2


def clock_at_power_frac(power_frac: Number, voltage_floor_frac: Number) -> Number:
    """Return the highest clock whose dynamic power is within `power_frac`: the inverse of `dynamic_power_frac`, at most 1.

    Args:
        power_frac: Dynamic power that is allowed over that at full clock, at least 0.
        voltage_floor_frac: As there.

    Raises:
        ModelInputError: A negative power or a floor outside 0 to 1.

    Valid when, off by, source: as `dynamic_power_frac`.
    """
    need("power_frac", power_frac, infinite=True)
    need("voltage_floor_frac", voltage_floor_frac, 0, 1, above=True)
    bare = magnitude(power_frac)
    below_floor = bare / voltage_floor_frac**2
    return np.minimum(np.where(below_floor < voltage_floor_frac, below_floor, np.cbrt(bare)), 1.0)[()]


def run_under_limit(
    matrix_time_s: Number,
    memory_time_s: Number,
    communication_time_s: Number,
    waiting_time_s: Number,
    idle_w: Number,
    rated_w: Number,
    limit_w: Number,
    parameters: PowerParameters = POWER_PARAMETERS,
) -> DeviceRun:
    """Return time, mean power and energy of a stretch of work on one device under a power limit.

    Args:
        matrix_time_s, memory_time_s, communication_time_s, waiting_time_s: Time of each kind of work at full clock.
        idle_w: Power of a device that is on and has nothing to do.
        rated_w: Highest power limit that the maker allows (TDP), above idle.
        limit_w: Power limit in force, above idle; more than `rated_w` is cut to it.
        parameters: Of the power model.

    Raises:
        ModelInputError: A negative time, no time at all, powers out of order.

    Valid when: phases are longer than the limiter's reaction or alternate faster than its average; one phase at a time.
    Off by: 2 % mean in the power of three training jobs at seven limits of a V100 (Zeus traces), 5 % in their time.
    Source: roofline phases with P = C V^2 f; Zeus (You et al., NSDI 2023) for the traces.
    """
    _need_powers(idle_w, rated_w)
    need("limit_w - idle_w", limit_w - idle_w, above=True, hint="no device obeys a limit below its idle power")
    parts = (matrix_time_s, memory_time_s, communication_time_s, waiting_time_s)
    for name, part in zip(("matrix", "memory", "communication", "waiting"), parts, strict=True):
        need(f"{name}_time_s", part)
    need("sum of the times", sum(parts), above=True, hint="give at least one kind of work a time")
    p = parameters
    allowed_w = np.minimum(limit_w, rated_w) - idle_w
    time_s, energy_j, clock_frac = waiting_time_s, idle_w * waiting_time_s, 1.0
    for part, demand_frac, clock_share in (
        (communication_time_s, p.communication_frac, 0.0),
        (memory_time_s, p.memory_frac, p.memory_clock_share_frac),
        (matrix_time_s, p.matrix_frac, 1.0),
    ):
        demand_w = demand_frac * (rated_w - idle_w)
        clock_frac = clock_at_power_frac(allowed_w / demand_w, p.voltage_floor_frac)
        stretched = part * (1 - clock_share + clock_share / clock_frac)
        time_s = time_s + stretched
        energy_j = energy_j + stretched * (idle_w + demand_w * dynamic_power_frac(clock_frac, p.voltage_floor_frac))
    return DeviceRun(time_s, energy_j / time_s, energy_j, clock_frac)


def device_power_w(
    idle_w: Number,
    rated_w: Number,
    matrix_share_frac: Number,
    memory_share_frac: Number,
    communication_share_frac: Number = 0.0,
    parameters: PowerParameters = POWER_PARAMETERS,
) -> Number:
    """Return the mean power of a device whose time goes into these kinds of work, in watts; the rest it waits.

    Args:
        idle_w, rated_w: As `run_under_limit`.
        matrix_share_frac, memory_share_frac, communication_share_frac: Shares of the time; their sum is at most 1.
        parameters: Of the power model.

    Raises:
        ModelInputError: A share below 0, a sum above 1, powers out of order.

    Valid when: no limit below the rated power; the shares were taken at the clock that the device then runs at.
    Off by: 5 to 15 % of a device's counter. Source: as `run_under_limit`.
    """
    _need_powers(idle_w, rated_w)
    shares = (matrix_share_frac, memory_share_frac, communication_share_frac)
    for name, share in zip(("matrix", "memory", "communication"), shares, strict=True):
        need_fraction(f"{name}_share_frac", share)
    # Shares that a caller divided by their sum may exceed 1 by rounding.
    need("sum of the shares", sum(shares), 0, 1 + 1e-9, hint="what is left of 1 is waiting")
    p = parameters
    demands = (min(p.matrix_frac, 1.0), p.memory_frac, p.communication_frac)
    return idle_w + (rated_w - idle_w) * sum(s * d for s, d in zip(shares, demands, strict=True))


def streaming_power_w(
    idle_w: Number, rated_w: Number, matrix_share_frac: Number, parameters: PowerParameters = POWER_PARAMETERS
) -> Number:
    """Return the power of kernels that stream from memory all the time and multiply beside it, in watts: the two add.

    Args:
        idle_w, rated_w: As `run_under_limit`.
        matrix_share_frac: Arithmetic that is done, as a share of what large products would reach in the same time.
        parameters: Of the power model.

    Raises:
        ModelInputError: A share outside 0 to 1, powers out of order.

    Valid when: decoding of a language model, with the device never waiting for its host.
    Off by: 10 % of an H100 at 8 to 512 sequences (ML.ENERGY); 40 % too high where the host is what limits.
    Source: fitted on none of them: the sum of the two demands, at most the rated power.
    """
    _need_powers(idle_w, rated_w)
    need_fraction("matrix_share_frac", matrix_share_frac)
    busy = np.minimum(1.0, parameters.memory_frac + matrix_share_frac * min(parameters.matrix_frac, 1.0))
    return idle_w + (rated_w - idle_w) * busy


def node_dc_power_w(
    num_accelerators: Number, accelerator_w: Number, host_w: Number, num_nics: Number, nic_w: Number, fan_frac: Number
) -> Number:
    """Return the power that the parts of one node take behind its power supplies, in watts.

    Args:
        num_accelerators: Devices in the node.
        accelerator_w: Mean power of one, see `device_power_w`.
        host_w: Processors, memory, disks, switches between the devices.
        num_nics, nic_w: Network cards, and the power of one.
        fan_frac: Fans, as a share of all the rest: 0 in a bath or on cold plates, 0.10 to 0.20 in air.

    Raises:
        ModelInputError: A negative value, or fans beyond 100 %.

    Valid when: the host's power is the mean over the same time.
    Off by: 100 to 300 W a node, since a host's load is seldom known. Source: definition.
    """
    need("num_accelerators", num_accelerators, 1, whole=True)
    need("accelerator_w", accelerator_w)
    need("host_w", host_w)
    need("num_nics", num_nics, whole=True)
    need("nic_w", nic_w)
    need_fraction("fan_frac", fan_frac)
    return (num_accelerators * accelerator_w + host_w + num_nics * nic_w) * (1 + fan_frac)


def ac_power_w(dc_power_w: Number, conversion_efficiency_frac: Number) -> Number:
    """Return the power at the wall for a power behind the supplies, in watts.

    Args:
        dc_power_w: Of all parts.
        conversion_efficiency_frac: Of the supplies at that load, above 0 and at most 1.

    Raises:
        ModelInputError: A negative power or an efficiency outside its range.

    Valid when: one efficiency for the load. Off by: 1 % between half and full load.
    Source: definition; 80 PLUS Titanium asks for 94 % at half load on 230 V.
    """
    need("dc_power_w", dc_power_w)
    need("conversion_efficiency_frac", conversion_efficiency_frac, 0, 1, above=True, hint="write 96 % as 0.96")
    return dc_power_w / conversion_efficiency_frac


def facility_power_w(it_power_w: Number, pue: Number) -> Number:
    """Return the power of the building for that power of its computers, in watts.

    Args:
        it_power_w: At the wall.
        pue: Power usage effectiveness, at least 1.

    Raises:
        ModelInputError: A negative power or a PUE below 1.

    Valid when, off by, source: as `energy.facility_energy_j`.
    """
    need("it_power_w", it_power_w)
    need("pue", pue, 1, hint="a building uses at least what its computers use")
    return it_power_w * pue


def energy_per_token_j(power_w: Number, tokens_per_s: Number) -> Number:
    """Return the energy of one token, in joules: power over rate.

    Args:
        power_w: Of all devices that make the tokens.
        tokens_per_s: Of them together, above 0.

    Raises:
        ModelInputError: A negative power, a rate that is not positive.

    Valid when: power and rate are means over the same time. Off by: exact. Source: definition.
    """
    need("power_w", power_w)
    need_rate("tokens_per_s", tokens_per_s)
    return power_w / tokens_per_s


def lowest_energy_limit_w(limits_w: Number, runs: DeviceRun) -> float:
    """Return which of the limits spends the least energy on the same work, in watts; the highest of equals.

    Args:
        limits_w: A list of limits, in watts.
        runs: What `run_under_limit` says of them, one element each.

    Raises:
        ModelInputError: Not one element for each limit.

    Valid when: only the device's energy counts; a host that waits longer moves the best limit up.
    Off by: as `run_under_limit`. Source: definition.
    """
    limits, energy = np.ravel(magnitude(limits_w)), np.ravel(magnitude(runs.energy_j))
    if limits.size != energy.size or not limits.size:
        raise ModelInputError(f"one energy for each limit is needed, got {energy.size} for {limits.size}; pass arrays")
    return float(np.max(limits[energy <= energy.min() * (1 + 1e-12)]))


def _need_powers(idle_w: Number, rated_w: Number) -> None:
    need("idle_w", idle_w)
    need("rated_w - idle_w", rated_w - idle_w, above=True, hint="rated power lies above idle power; check the catalog")
