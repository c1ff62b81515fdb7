"""A machine profile: what calibration measured here, as a tidy table of probes with medians and spread."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ModelInputError, RunFormatError

FORMAT = 1
#: A profile that was made while others used more of the processors than this is not to be relied on.
QUIET_FRAC = 0.15
#: A host file may be so far from what was measured; beyond that people are told.
SPEEDS_DIFFER_FRAC = 0.2


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator found here."""

    index: int
    name: str
    memory_bytes: int
    has_energy_counter: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """One of several hosts that a profile is about.

    Attributes:
        name: As ssh knows it.
        slots: Ranks that it takes.
        speed: Of one core while the other hosts compute too, relative to the machine that the profile's other probes were
            measured on. What predictions use.
        origin: Of `speed`: "given" by the host file, "measured", or "assumed" to be 1.
        measured, q25, q75: Median and quartiles of the speed as it was measured, also where the host file gives another one; None:
            not measured.
        n: Repeats.
    """

    name: str
    slots: int
    speed: float = 1.0
    origin: str = "given"
    measured: float | None = None
    q25: float | None = None
    q75: float | None = None
    n: int = 0

    def told(self, given: float | None) -> Host:
        """Return it as a host file has it: the speed that is given goes before the measured one, and that before 1."""
        if given is not None:
            return replace(self, speed=given, origin="given")
        if self.measured is not None:
            return replace(self, speed=self.measured, origin="measured")
        return replace(self, speed=1.0, origin="assumed")

    def speed_at(self, which: str) -> float:
        """Return the speed that makes times their "median", "q25" or "q75": where they are short, it is high."""
        found = {"q25": self.q75, "q75": self.q25}.get(which) if self.origin == "measured" else None
        return self.speed if found is None else found

    @property
    def contradiction(self) -> str:
        """Say where the host file differs from what was measured by more than SPEEDS_DIFFER_FRAC; "" where it does not."""
        if self.origin != "given" or not self.measured or abs(self.speed / self.measured - 1) <= SPEEDS_DIFFER_FRAC:
            return ""
        return (
            f"{self.name}: the host file says speed={self.speed:g}, but {self.measured:.2g} was measured; take speed= out of its "
            "line, or calibrate the hosts again"
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """One measured point.

    Attributes:
        name: What was probed: "matmul", "conv", "memory", "allreduce", "overhead", "launch", "resize", "power" ...
        at: The point, as numbers or words: {"n": 512, "ranks": 2}.
        unit: Of the median: "flop/s", "B/s", "s", "W".
        median, q25, q75: Over `n` repeats after a warm-up.
        method: "measured", or "modelled" where no counter exists.
    """

    name: str
    at: Mapping[str, Any]
    unit: str
    median: float
    q25: float
    q75: float
    n: int
    method: str = "measured"
    how: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything a prediction may know of a machine. Plain data, so that it is kept with each run.

    `probes` is empty on a machine that was never calibrated; predictions then refuse or say that they use a catalog row.
    `hosts` is empty where it is one host.
    """

    id: str
    made_at: str
    cores: int
    memory_bytes: int
    cpu_model: str = ""
    threads_per_core: int = 1
    gpus: tuple[Gpu, ...] = ()
    probes: tuple[Probe, ...] = ()
    assumptions: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[Host, ...] = ()

    @property
    def calibrated(self) -> bool:
        """Whether there is anything measured to predict from."""
        return bool(self.probes)

    @property
    def disturbed_frac(self) -> float:
        """Share of the processors that other programs used during calibration; 0.0 where that is not known."""
        return next((p.median for p in self.rows("others")), 0.0)

    def ranks_on_hosts(self, ranks: Any) -> Any:
        """Return how many of `ranks` stand on each of `hosts`, as mpiexec fills them: the slots of the first one, then the next.

        Args:
            ranks: (...), whole numbers; beyond all slots the last host takes the rest.

        Returns:
            (..., H).
        """
        import numpy as np  # here: a refusal on the command line need not wait for it

        slots = np.array([h.slots for h in self.hosts])
        before = np.cumsum(slots) - slots
        most = np.append(slots[:-1], np.inf)
        return np.clip(np.asarray(ranks)[..., None] - before, 0, most)

    def spread(self, ranks: Any) -> tuple[Any, Any]:
        """Return on how many hosts that many ranks stand, and how many of them on the fullest one; both of the shape of `ranks`."""
        import numpy as np

        if not self.hosts:
            return np.ones_like(ranks), ranks
        on_hosts = self.ranks_on_hosts(ranks)
        return (on_hosts > 0).sum(-1), on_hosts.max(-1)

    def speeds_said(self, hosts: Iterable[Host]) -> str:
        """Return the speeds of some of `hosts` in words, with where each is from: "node1 1, node2 0.52 (measured 2026-11-22)"."""
        origins = {
            "given": "by the host file",
            "measured": f"measured {self.made_at[:10]}",
            "assumed": "assumed, not measured",
        }
        told = {o: ", ".join(f"{h.name} {h.speed:.2g}" for h in hosts if h.origin == o) for o in origins}
        return "; ".join(f"{names} ({origins[o]})" for o, names in told.items() if names)

    def cores_of(self, ranks: Any) -> Any:
        """Return how many cores that many ranks of one thread keep busy; on several hosts each is taken to have `cores`."""
        import numpy as np

        if not self.hosts:
            return np.minimum(np.asarray(ranks), self.cores)
        return np.minimum(self.ranks_on_hosts(ranks), self.cores).sum(-1)

    def rows(self, name: str, **at: Any) -> list[Probe]:
        """Return the probes called `name` whose point holds every given key and value, in order of measurement."""
        return [p for p in self.probes if p.name == name and all(p.at.get(k) == v for k, v in at.items())]

    def need(self, name: str, **at: Any) -> list[Probe]:
        """Return `rows`, or refuse.

        Raises:
            ModelInputError: When calibration has no such probe.
        """
        found = self.rows(name, **at)
        if not found:
            where = ", ".join(f"{k}={v}" for k, v in at.items())
            raise ModelInputError(
                f"machine profile {self.id!r} holds no {name!r} probe{' at ' + where if where else ''}; run: aiinfra calibrate"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types with the format version."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Machine:
        """Read what `to_json` wrote.

        Raises:
            RunFormatError: Another format version.
        """
        if data.get("format") != FORMAT:
            raise RunFormatError(
                f"machine profile of format {data.get('format')!r}; this release reads {FORMAT}; run: aiinfra calibrate"
            )
        known = {k: data[k] for k in cls.__dataclass_fields__ if k in data}
        known["gpus"] = tuple(Gpu(**g) for g in known.get("gpus", ()))
        known["probes"] = tuple(Probe(**p) for p in known.get("probes", ()))
        known["hosts"] = tuple(Host(**h) for h in known.get("hosts", ()))
        return cls(**known)

    def with_probes(self, probes: Iterable[Probe], **changes: Any) -> Machine:
        """Return a copy that holds `probes`."""
        data = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return type(self)(**{**data, **changes, "probes": tuple(probes)})

    def save(self, folder: Path) -> Path:
        """Write `<id>.json` into `folder`, atomically, and return the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.id}.json"
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(self.to_json(), indent=1))
        part.replace(path)
        return path


def load(path: Path) -> Machine:
    """Read a profile.

    Raises:
        RunFormatError: Not a profile, or of another version.
    """
    try:
        return Machine.from_json(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, RunFormatError):
            raise
        raise RunFormatError(f"{path}: not a machine profile ({error}); run: aiinfra calibrate") from error


def newest(folder: Path, host: str) -> Machine | None:
    """Return the newest readable profile in `folder` that was made on `host` (its id begins with it), or None."""
    for path in sorted(folder.glob(f"{host}-*.json"), reverse=True):
        try:
            return load(path)
        except RunFormatError:
            continue
    return None
