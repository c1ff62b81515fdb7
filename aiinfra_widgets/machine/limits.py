"""How many ranks a machine takes, and what its administrator allows each user. Asked before anything is started.

The administrator writes `/etc/aiinfra/limits.toml`, or `etc/aiinfra/limits.toml` below the Python environment:

    max_ranks_per_user = 8       # over all runs of a user together
    max_run_time_s = 1800        # then the run is saved and ended
    [users.alice]                # takes the place of the two above, for her
    max_ranks_per_user = 16

Every source counts and the lowest value holds, so what a user sets (environment variables, a file named in AIINFRA_LIMITS)
can only lower it.
"""

from __future__ import annotations

import math
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from ..errors import AdmissionError, BusyError, near
from ..texts import tr
from . import neighbours
from .profile import Machine
from .ranks_held import Held, held

RANK_BYTES = 200 * 2**20
RESERVED_BYTES = 2**30
#: Ranks per core that still behave: idle ones sleep, busy ones take turns.
RANKS_PER_CORE = 8
#: How often who waits for room looks again.
WAIT_EVERY_S = 0.5
MAX_ENV, RUN_ENV, FILE_ENV = "AIINFRA_MAX_NODES", "AIINFRA_MAX_RUN_S", "AIINFRA_LIMITS"
RANKS, RUN_TIME = "max_ranks_per_user", "max_run_time_s"
#: The administrator's files; whichever is there counts.
PLACES = (Path("/etc/aiinfra/limits.toml"), Path(sys.prefix) / "etc" / "aiinfra" / "limits.toml")


@dataclass(frozen=True, slots=True)
class UserLimits:
    """What one user may have; None is "no limit". `..._from` says who set it."""

    ranks: int | None = None
    ranks_from: str = ""
    run_s: float | None = None
    run_from: str = ""

    def told(self) -> list[str]:
        """Return the limits as sentences for the user; none where there are none."""
        found = []
        if self.ranks is not None:
            found.append(tr("At most {ranks} ranks at a time, over all your runs together.", ranks=self.ranks))
        if self.run_s is not None:
            found.append(tr("A run is saved and ended after {time}.", time=minutes(self.run_s)))
        return found


def user_limits() -> UserLimits:
    """Return what this user may have: the lowest of what the administrator's files and the user's own variables say.

    Raises:
        AdmissionError: A source that cannot be understood; nothing is started then, for nobody knows what is allowed.
    """
    ranks: list[tuple[float, str]] = []
    times: list[tuple[float, str]] = []
    for source, given in _sources():
        unknown = given.keys() - {RANKS, RUN_TIME, "users"}
        if unknown:
            name = sorted(unknown)[0]
            raise AdmissionError(f"{source}: unknown entry {name!r}; {near(name, (RANKS, RUN_TIME, 'users'))}")
        for name, found in ((RANKS, ranks), (RUN_TIME, times)):
            if name in given:
                found.append((_number(source, name, given[name], whole=name == RANKS), source))
    most, most_from = min(ranks, default=(None, ""))
    run_s, run_from = min(times, default=(None, ""))
    return UserLimits(None if most is None else int(most), most_from, run_s, run_from)


def limit(machine: Machine) -> tuple[int, str]:
    """Return how many ranks one run may have here, and the reason: cores, memory, or the administrator's cap."""
    bounds = [_of_machine(machine)]
    mine = user_limits()
    if mine.ranks is not None:
        bounds.append((mine.ranks, f"{RANKS} = {mine.ranks}, set by the administrator in {mine.ranks_from}"))
    return min(bounds)


def _of_machine(machine: Machine) -> tuple[int, str]:
    """Return how many ranks a machine takes, whoever asks."""
    free = max(machine.memory_bytes - RESERVED_BYTES, RANK_BYTES)
    return min(
        (machine.cores * RANKS_PER_CORE, f"{RANKS_PER_CORE} ranks for each of {machine.cores} cores"),
        (int(free // RANK_BYTES), f"200 MiB a rank in {machine.memory_bytes / 2**30:.0f} GiB"),
    )


def within(nodes: int, machine: Machine) -> None:
    """Refuse what is no count of ranks, or more than `limit`, whatever else goes on.

    Raises:
        AdmissionError: With the limit and its reason.
    """
    most, why = limit(machine)
    if not isinstance(nodes, Integral) or isinstance(nodes, bool) or not 1 <= nodes <= most:
        who = "you may have" if RANKS in why else "this machine takes"
        seen = repr(nodes)[:40]
        raise AdmissionError(f"nodes: got {seen}; {who} 1 to {most} ({why}); choose fewer nodes, or run on a cluster")


def admit(nodes: int, machine: Machine, *, replaces: Path | None = None) -> None:
    """Refuse more ranks than `limit`, than other users leave, and than this user's other runs leave, before anything is started.

    Args:
        nodes: Ranks to be had.
        machine: On which.
        replaces: The pool whose ranks these take the place of, or are part of; they are not counted.

    Raises:
        AdmissionError: With the limit and its reason; a BusyError where it would be another answer later.
    """
    within(nodes, machine)
    _beside_others(nodes, machine)
    if (
        replaces is None and not {"PMIX_RANK", "PMI_RANK"} & os.environ.keys()
    ):  # a rank's own run has its processes already
        _processes(nodes)
    mine = user_limits()
    if mine.ranks is None:
        return
    others = held(replaces)
    if nodes + sum(h.ranks for h in others) > mine.ranks:
        raise _too_many(nodes, mine, others)


def wait_for_room(nodes: int, machine: Machine, wait_s: float, tell: Callable[[str], None]) -> None:
    """Wait until `admit` has no objection that time could lift, and whoever of any user waits longer has gone on.

    Args:
        nodes: Ranks to be had.
        machine: On which.
        wait_s: Longest time to wait.
        tell: Is given the reason, each time that it changes.

    Raises:
        BusyError: The time is up; with what holds the room.
        AdmissionError: Waiting does not help.
    """
    end_s, said = time.monotonic() + wait_s, ""
    with neighbours.shown_as_waiting():
        while True:
            try:
                admit(nodes, machine)
                before = neighbours.waiting_longer()
                if not before:
                    return
                why = f"{before} waited before this one"
            except BusyError as error:
                if time.monotonic() > end_s:
                    raise
                why = str(error)
            if time.monotonic() > end_s:
                raise BusyError(
                    f"nodes: got {nodes}; {why}, and {minutes(wait_s)} are over; wait longer, or come back later"
                )
            if why != said:
                tell(why)
                said = why
            time.sleep(WAIT_EVERY_S)


def _beside_others(nodes: int, machine: Machine) -> None:
    """Refuse what does not fit beside the ranks of other users: all of them share the cores and the memory."""
    taken = neighbours.held_by_others()
    if not taken:
        return
    most, why = _of_machine(machine)
    left = most - sum(taken.values())
    if nodes > left:
        who = ", ".join(f"{ranks} by {user}" for user, ranks in sorted(taken.items()))
        fewer = f"choose at most {left}, or wait" if left > 0 else "wait"
        raise BusyError(
            f"nodes: got {nodes}; this machine takes {most} ({why}), and {sum(taken.values())} are held by other users: {who}; "
            f"{fewer}: aiinfra run ... --wait 30min"
        )


def admit_relaunch(ranks: int) -> None:
    """Refuse, in a rank, ranks that would replace those of its own launcher where the system would not let this user start them.

    Asked while the old ones still work: so the run goes on with them, instead of ending in half a launch.

    Raises:
        BusyError: With what there is, those included that the old ranks will have given back.
    """
    if os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") != os.environ.get("OMPI_COMM_WORLD_SIZE"):
        return  # elsewhere are other limits
    _processes(ranks, neighbours.tasks_of(os.getppid()))


def _processes(nodes: int, given_back: int = 0) -> None:
    """Refuse ranks that the system would not let this user start: half a launch is worse than none."""
    found = neighbours.tasks_left()
    found = found and (found[0] + given_back, found[1])
    need = neighbours.TASKS_PER_POOL + nodes * neighbours.TASKS_PER_RANK
    if found is not None and need > found[0]:
        left = (found[0] - neighbours.TASKS_PER_POOL) // neighbours.TASKS_PER_RANK
        fewer = f"choose at most {left} nodes, or end" if left > 0 else "end"
        raise BusyError(
            f"nodes: got {nodes}, which take some {need} processes and threads; you may have {found[0]} more ({found[1]}); "
            f"{fewer} other programs, or ask the administrator for more"
        )


def admit_forking(ranks: int) -> None:
    """Refuse ranks right before they are started, by their supervisor: of two that are started at one moment the younger gives way.

    Raises:
        AdmissionError: As `admit`, but for the user's quota and processes only.
    """
    _processes(ranks)
    mine = user_limits()
    others = held(older=True) if mine.ranks is not None else []
    if mine.ranks is not None and ranks + sum(h.ranks for h in others) > mine.ranks:
        raise _too_many(ranks, mine, others)


def _too_many(ranks: int, mine: UserLimits, others: list[Held]) -> BusyError:
    assert mine.ranks is not None
    taken = sum(h.ranks for h in others)
    who = f", and {taken} are in use: " + ", ".join(f"{h.ranks} by {h.what}" for h in others) if others else ""
    stop = "stop a run, or shut down a kernel that keeps ranks warm"
    left = mine.ranks - taken
    way_out = f"choose at most {left}, or {stop}" if left > 0 else stop
    return BusyError(
        f"nodes: got {ranks}; you may have {mine.ranks} ranks at a time ({RANKS}, set by the administrator in "
        f"{mine.ranks_from}){who}; {way_out}"
    )


def room(wanted: int, least: int, machine: Machine, *, replaces: Path | None = None) -> int:
    """Return how many ranks to hold where `wanted` would be convenient and `least` are needed: what the quota and others leave."""
    left = [_of_machine(machine)[0] - sum(neighbours.held_by_others().values())]
    mine = user_limits()
    if mine.ranks is not None:
        left.append(mine.ranks - sum(h.ranks for h in held(replaces)))
    return max(least, min(wanted, *left))


def minutes(seconds: float) -> str:
    """Return a time limit for a person: "30 min", "90 s"."""
    return f"{seconds / 60:g} min" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g} s"


def user_name() -> str:
    """Return this user's name, by the number that the system knows, not by a variable."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError, AttributeError):
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _sources() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every place that says something, with what it says of this user."""
    own = os.environ.get(FILE_ENV)
    for path in (*PLACES, *([Path(own)] if own else [])):
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise AdmissionError(f"{path}: cannot be read ({error}); tell the administrator of this machine") from error
        users = given.get("users", {})
        special = users.get(user_name(), {}) if isinstance(users, dict) else None
        if not isinstance(special, dict) or not all(isinstance(v, dict) for v in users.values()):
            raise AdmissionError(f"{path}: 'users' must be tables such as [users.alice]; tell the administrator")
        yield str(path), {**given, **special}
    for variable, name in ((MAX_ENV, RANKS), (RUN_ENV, RUN_TIME)):
        if os.environ.get(variable):
            text = os.environ[variable]
            yield variable, {name: float(text) if text.replace(".", "", 1).isdecimal() else text}


def _number(source: str, name: str, value: Any, *, whole: bool) -> float:
    """Return a limit, which is a number above 0."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    if not fine or (whole and value != int(value)):
        kind = "a whole number from 1" if whole else "a number of seconds above 0"
        raise AdmissionError(f"{source}: {name}: got {value!r}; {kind}; correct it, or tell the administrator")
    return float(value)
