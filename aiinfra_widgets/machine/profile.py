"""A machine profile: what calibration measured here, as a tidy table of probes with medians and spread."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelInputError, RunFormatError

FORMAT = 1
#: A profile that was made while others used more of the processors than this is not to be relied on.
QUIET_FRAC = 0.15


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator found here."""

    index: int
    name: str
    memory_bytes: int
    has_energy_counter: bool = False


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

    @property
    def calibrated(self) -> bool:
        """Whether there is anything measured to predict from."""
        return bool(self.probes)

    @property
    def disturbed_frac(self) -> float:
        """Share of the processors that other programs used during calibration; 0.0 where that is not known."""
        return next((p.median for p in self.rows("others")), 0.0)

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
