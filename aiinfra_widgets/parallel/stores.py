"""Which store keeps the replicas of a plan alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .compression import Brain16, Half
from .groups import Group
from .local_sgd import LocalSgd
from .optimizer import Optimizer
from .plan import Plan
from .powersgd import PowerSgd
from .store import Store
from .top_k import TopK
from .units import Unit
from .zero import STAGES


def make_store(
    plan: Plan,
    units: Sequence[Unit],
    data: Group,
    tp: Group,
    cp: Group,
    optimizer: Optimizer,
    device: torch.device,
    dtype: torch.dtype,
) -> Store:
    """Return the store of a plan that was checked; the other arguments are those of `Store`, and the context-parallel ranks."""
    kind: Any = STAGES[plan.zero_stage]
    more: dict[str, Any] = {}
    if plan.average_every > 1:
        kind, more = LocalSgd, {"average_every": plan.average_every, "outer_momentum": plan.outer_momentum}
        more["context"] = cp if cp.size > 1 else None
    match plan.compression:
        case "fp16":
            kind = Half
        case "bf16":
            kind = Brain16
        case "top-k":
            kind, more = TopK, {"frac": plan.top_k_frac}
        case "powersgd":
            kind, more = PowerSgd, {"rank": plan.powersgd_rank}
    made: Store = kind(units, data, tp, optimizer, device, dtype, **more)
    return made
