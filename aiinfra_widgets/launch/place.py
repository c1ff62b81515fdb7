"""Where the ranks of a pool are, when that is not just this machine: what every launcher keeps to, and what is written down.

A launcher is one frozen dataclass of what is asked (a partition, a list of hosts), so that it can be written to `place.json` and made
again from there by a process that never saw the first owner. The supervisor beside the ranks, the run directory and live control are
the same everywhere; a launcher only says where the supervisor starts and what mpiexec needs there:

- a scheduler (`slurm`) starts the supervisor elsewhere and later: `submit` hands it over and returns the job's number;
- where the supervisor starts here (`hosts`, by ssh; `allocation`, inside a job), `submit` returns "", and the pool starts it.

To add one: a class with these methods and `parse`, and a line in PLACES.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from ..errors import RunFormatError, SpecError, near
from ..runs.layout import write_json

#: Names after `--on` and in place.json, and the class behind each; imported when it is needed.
PLACES = {"slurm": ("slurm", "SlurmRequest"), "allocation": ("allocation", "Allocation"), "hosts": ("hosts", "Hosts")}


@dataclass(frozen=True, slots=True)
class QueueState:
    """What a scheduler says of a job.

    Attributes:
        state: Its own word, such as PENDING or RUNNING; "" when it does not know the job (any more), or nothing waits in a queue.
        reason: Why it waits, in its word.
        starts_at: When it is expected to start or did, ISO 8601; "" where it is not said.
        hosts: Where it runs.
        left: Time until the limit, as it is printed.
        waiting: Whether it has not started, or waits to be started again.
        over: Whether nothing more will come of it.
    """

    state: str = ""
    reason: str = ""
    starts_at: str = ""
    hosts: str = ""
    left: str = ""
    waiting: bool = False
    over: bool = True


class Place(Protocol):
    """Where ranks are asked for; a frozen dataclass whose fields are plain JSON types, and the properties class variables."""

    @property
    def name(self) -> str:
        """Key in PLACES."""

    @property
    def title(self) -> str:
        """How sentences name it."""

    @property
    def keeps(self) -> tuple[str, ...]:
        """Beginnings of environment variables that mpiexec needs there."""

    @property
    def profiles(self) -> str:
        """How the names of machine profiles made there begin; "" where this machine's are taken."""

    def available(self) -> str | None:
        """Return None where it can be used, else why not and what would help."""

    def admit(self, size: int) -> None:
        """Raise AdmissionError, with the most that is possible, where `size` ranks can never be; asked before anything starts."""

    def command(self, size: int, pool: Path, supervisor: list[str]) -> list[str]:
        """Return the argv that starts `supervisor` for `size` ranks; pure. Where it starts here, that is `supervisor` itself."""

    def submit(self, size: int, pool: Path, supervisor: list[str]) -> str:
        """Hand the supervisor over and return the job's number, or "" where the pool is to start `command()` on this host.

        Raises:
            AdmissionError, LaunchError: Refused; nothing was started.
        """

    def mpiexec(self, size: int, pool: Path) -> list[str]:
        """Return the flags of mpiexec there (transports, hosts, how daemons start); pure. A file may be written by `submit`."""

    def state(self, job: str) -> QueueState:
        """Return what is known of a job, from evidence; QueueState() where there is no queue."""

    def cancel(self, job: str) -> None:
        """Take a job out of the queue, or end it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What `place.json` of a pool says: the place, how many ranks it holds, and the job's number ("" without a scheduler)."""

    place: Place
    size: int
    job: str = ""

    def named(self) -> str:
        """Return how sentences name it: "Slurm's job 12"."""
        return f"{self.place.title}'s job {self.job}" if self.job else self.place.title


def network_flags(network: str) -> list[str]:
    """Return mpiexec's flags for the network, a CIDR, that ranks of different hosts use; none where MPI is to choose."""
    return ["--mca", "btl_tcp_if_include", network] if network else []


def check_network(network: str) -> None:
    """Raise a SpecError where a network is not "" or a CIDR."""
    try:
        ipaddress.ip_network(network or "0.0.0.0/0")
    except ValueError as error:
        raise SpecError(f"network: got {network!r} ({error}); allowed: such as 10.0.0.0/24") from None


def of(name: str) -> Any:
    """Return the class of a place.

    Raises:
        SpecError: There is no such place.
    """
    if name not in PLACES:
        raise SpecError(f"on: got {name!r}; {near(name, PLACES)}")
    module, class_ = PLACES[name]
    return getattr(importlib.import_module(f".{module}", __package__), class_)


def parse(name: str, given: Mapping[str, str]) -> Place:
    """Return what a person asked for: `--on slurm --slurm partition=gpu` is `parse("slurm", {"partition": "gpu"})`.

    Raises:
        SpecError: No such place, no such word, or a value that is not allowed.
    """
    return cast(Place, of(name).parse(given))


def asked_for(on: str, words: Mapping[str, Mapping[str, Any]]) -> Place | None:
    """Return the place that a command line or a lab names, None for this machine.

    Args:
        on: "slurm", "hosts", or "". Inside an allocation "slurm" is that allocation.
        words: What is asked of each, by its name.

    Raises:
        SpecError: No such place, words for another one, or a value that is not allowed.
    """
    if idle := [name for name, given in words.items() if given and name != on]:
        raise SpecError(
            f"{idle[0]}: something is asked of it, but the ranks are to be on {on or 'this machine'}; add --on {idle[0]}"
        )
    if not on:
        return None
    name = "allocation" if on == "slurm" and os.environ.get("SLURM_JOB_ID") else on
    return parse(name, {key: str(value) for key, value in words.get(on, {}).items()})


def keep(pool: Path, placed: Placed) -> None:
    """Write `place.json`."""
    asked = asdict(cast(Any, placed.place))
    write_json(
        pool / "place.json", {"launcher": placed.place.name, "job": placed.job, "size": placed.size, "asked": asked}
    )


def read(pool: Path) -> Placed | None:
    """Return where a pool was handed to, None where it was started on this machine.

    Raises:
        RunFormatError: Another release wrote it.
    """
    try:
        found = json.loads((pool / "place.json").read_text())
    except (OSError, ValueError):
        return None
    try:
        place = of(found["launcher"])(**{k: tuple(v) if isinstance(v, list) else v for k, v in found["asked"].items()})
        return Placed(place, int(found["size"]), str(found["job"]))
    except (KeyError, TypeError, ImportError, SpecError) as error:
        raise RunFormatError(
            f"{pool / 'place.json'} cannot be read ({error}); another release of aiinfra wrote it"
        ) from error
