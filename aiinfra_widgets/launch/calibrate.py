"""`aiinfra calibrate`: run the calibration experiment and write what it found as a dated machine profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import LaunchError
from ..machine.devices import busy_seconds, found, usable_cpus
from ..machine.power import EnergyReading, best_probe
from ..machine.profile import Host, Machine, Probe
from ..runs.home import machines_folder
from ..runs.layout import versions
from ..runs.reader import RunReader
from .hosts import Hosts
from .session import Session, spec_of, this_machine, watch

#: Of the limit, kept for starting the ranks and for reading the meter at rest.
LAUNCH_ALLOWANCE_S = 17.0
REST_S = 2.0
#: Name of the probe that tells how fast hosts are (`experiments.calibration.measure_speed`); its parts are their first ranks.
SPEED = "speed"


def calibrate(
    seconds: float = 60.0, *, progress: Callable[[float, str], None] | None = None, most_ranks: int | None = None
) -> tuple[Machine, Path]:
    """Measure this machine and keep the profile.

    Args:
        seconds: Limit for everything, the start of the ranks included.
        progress: Called with the share done and what is going on.
        most_ranks: Largest number of ranks probed; None is twice the cores, 8 at most.

    Returns:
        The profile and where it was written.

    Raises:
        LaunchError: The ranks failed; with their last words.
    """
    here = found()
    ranks = most_ranks or max(2, min(2 * here.cores, 8))
    spec = spec_of("calibration", {"nodes": ranks, "seconds": max(1.0, seconds - LAUNCH_ALLOWANCE_S)})
    say = progress or (lambda share, what: None)
    session = Session(here, grace_s=0.0)
    try:
        say(0.0, "at rest")
        idle_w = _power(lambda: time.sleep(REST_S))
        say(0.0, f"starting {ranks} ranks")
        session.ready(ranks).wait_ready()
        reader = session.launch("calibration", spec, room=ranks)
        busy = best_probe()
        busy.start()
        cpus, _ = usable_cpus()
        busy_s, begun_s = busy_seconds(cpus), time.monotonic()
        for now in watch(reader, every_s=0.2):
            done = max(now.last_tick.values(), default=0)
            say(min(0.99, done / _ticks(reader)), "probing" if done else "starting")
        if not now.ok:
            raise LaunchError(f"calibration failed: {now.message}", [], hint="aiinfra doctor")
        others = _others(reader, busy_seconds(cpus) - busy_s, (time.monotonic() - begun_s) * len(cpus))
        power = [_watts("idle", idle_w), _watts("probing", busy.stop())]
        probes = [*_probes(reader), *_costs(session, reader, ranks), others, *(p for p in power if p is not None)]
    finally:
        session.close()
    made = datetime.now(UTC)
    machine = here.with_probes(
        probes,
        id=f"{here.id.rsplit('-', 2)[0]}-{made:%Y%m%d-%H%M%S}",
        made_at=made.isoformat(timespec="seconds"),
        versions=versions(),
    )
    path = machine.save(machines_folder())
    say(1.0, f"{len(probes)} probes")
    return machine, path


def calibrate_hosts(
    place: Hosts,
    seconds: float = 40.0,
    *,
    base: Machine | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[Machine, Path]:
    """Measure what passes between ranks on these hosts and how fast each is, and keep it beside what `base` knows of one host.

    Args:
        place: The hosts; two slots on one of them show the link inside a host too.
        seconds: For the probes; over a slow link the largest messages alone take longer.
        base: Profile of one host, whose all-reduce is replaced and which speeds are relative to; None is this machine's.
        progress: As `calibrate`.

    Returns:
        The profile (found again by `this_machine(place)`) and where it was written.

    Raises:
        LaunchError: The ranks failed; with their last words.
    """
    base, say = base or this_machine(), progress or (lambda share, what: None)
    ranks = sum(place.slots)
    spec = spec_of("calibration", {"nodes": ranks, "seconds": seconds, "only": "links"})
    session = Session(base, grace_s=0.0, place=place)
    try:
        say(0.0, f"starting {ranks} ranks on {len(place.names)} hosts")
        reader = session.launch("calibration", spec, room=ranks)
        for now in watch(reader, every_s=0.2):
            say(min(0.99, max(now.last_tick.values(), default=0) / _ticks(reader)), "probing")
        if not now.ok:
            raise LaunchError(f"calibration of the hosts failed: {now.message}", [], hint="aiinfra doctor")
        found = _probes(reader)
    finally:
        session.close()
    made = datetime.now(UTC)
    speeds = {p.at["part"]: p for p in found if p.name == SPEED}
    found = [p for p in found if p.name != SPEED]
    again = {p.name for p in found}
    machine = base.with_probes(
        [*(p for p in base.probes if p.name not in again), *found],
        id=f"{place.profiles}-{made:%Y%m%d-%H%M%S}",
        made_at=made.isoformat(timespec="seconds"),
        hosts=tuple(_hosts(place, speeds)),
    )
    path = machine.save(machines_folder())
    say(1.0, f"{len(found)} probes")
    return machine, path


def _hosts(place: Hosts, speeds: Mapping[str, Probe]) -> Iterator[Host]:
    """Yield each host with its speed; `speeds` by its first rank, as mpiexec fills the slots of one after the other."""
    first = 0
    for name, slots, given in zip(place.names, place.slots, place.speeds, strict=True):
        host, p = Host(name, slots), speeds.get(str(first))
        if p:
            host = replace(host, measured=p.median, q25=p.q25, q75=p.q75, n=p.n)
        yield host.told(given)
        first += slots


def _others(reader: RunReader, busy_s: float, held_s: float) -> Probe:
    """Share of the processor time that was used by neither the ranks nor left idle: how quiet the machine was."""
    ours_s = float(reader.nodes["cpu_time_s"].sum())
    share = min(max((busy_s - ours_s) / held_s, 0.0), 1.0)
    return Probe("others", {}, "frac", share, share, share, 1, how="busy time of all processors less that of the ranks")


def _power(during: Callable[[], None]) -> EnergyReading:
    """Read this host's meter around something."""
    probe = best_probe()
    probe.start()
    during()
    return probe.stop()


def _watts(state: str, reading: EnergyReading) -> Probe | None:
    """A power probe: measured where there is a counter, else modelled, and the profile says which."""
    watts = reading.power_avg_w
    if watts is None:
        return None
    low, high = ((e / reading.duration_s if e is not None else watts) for e in (reading.low_j, reading.high_j))
    method = "modelled" if reading.method == "estimated" else "measured"
    return Probe("power", {"state": state}, "W", watts, low, high, 1, method, reading.note)


def _ticks(reader: RunReader) -> float:
    """Ticks that the run will take, as its controller announced them; many, while it has not."""
    announced = reader.kind("plan")
    return float(announced[-1]["ticks"]) if announced else 1e9


def _probes(reader: RunReader) -> list[Probe]:
    keys = Probe.__dataclass_fields__
    return [Probe(**{k: e[k] for k in keys if k in e}) for e in reader.kind("probe")]


def _costs(session: Session, reader: RunReader, ranks: int) -> list[Probe]:
    """What the lab itself costs: between two ticks, by the plain ones at the end; and starting the ranks, once."""
    nodes = reader.nodes
    plain = nodes[(nodes["node"] == 0) & (nodes["tick"] > reader.kind("plain")[-1]["tick"] + 5)]["runtime_time_s"]
    q25, median, q75 = (float(q) for q in plain.quantile([0.25, 0.5, 0.75]))
    found = [Probe("runtime", {}, "s", median, q25, q75, len(plain), how="control and sampling between two ticks")]
    state: dict[str, Any] = session.pool.state if session.pool else {}
    if "launch_s" in state:
        cost = float(state["launch_s"])
        found.append(
            Probe("launch", {"ranks": ranks}, "s", cost, cost, cost, 1, how="mpiexec until every rank is ready")
        )
    return found
