"""How many ranks a machine takes: cores, memory and the administrator's cap. Asked before anything is started."""

from __future__ import annotations

import os

from ..errors import AdmissionError
from .profile import Machine

RANK_BYTES = 200 * 2**20
RESERVED_BYTES = 2**30
#: Ranks per core that still behave: idle ones sleep, busy ones take turns.
RANKS_PER_CORE = 8
MAX_ENV = "AIINFRA_MAX_NODES"


def limit(machine: Machine) -> tuple[int, str]:
    """Return how many ranks may be started here, and the reason: cores, memory, or the administrator's cap."""
    free = max(machine.memory_bytes - RESERVED_BYTES, RANK_BYTES)
    bounds = [
        (machine.cores * RANKS_PER_CORE, f"{RANKS_PER_CORE} ranks for each of {machine.cores} cores"),
        (int(free // RANK_BYTES), f"200 MiB a rank in {machine.memory_bytes / 2**30:.0f} GiB"),
    ]
    if os.environ.get(MAX_ENV, "").isdigit():
        bounds.append((int(os.environ[MAX_ENV]), f"{MAX_ENV} is set by the administrator"))
    return min(bounds)


def admit(nodes: int, machine: Machine) -> None:
    """Refuse more ranks than `limit`, before anything is started.

    Raises:
        AdmissionError: With the limit and its reason.
    """
    most, why = limit(machine)
    if not 1 <= nodes <= most:
        raise AdmissionError(
            f"nodes: got {nodes}; this machine takes 1 to {most} ({why}); choose fewer nodes, or run on a cluster"
        )
