"""The stages of ZeRO as stores, by their number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import ModelInputError
from .groups import Group
from .optimizer import Optimizer
from .store import Replicated, Store
from .units import Unit
from .zero1 import Zero1
from .zero2 import Zero2
from .zero3 import Zero3

#: By stage: what replicas share is nothing; the optimiser's state; the gradients too; the parameters too.
STAGES: tuple[type[Store], ...] = (Replicated, Zero1, Zero2, Zero3)


def make_store(
    zero_stage: int,
    units: Sequence[Unit],
    data: Group,
    tp: Group,
    optimizer: Optimizer,
    device: torch.device,
    dtype: torch.dtype,
) -> Store:
    """Return the store of one stage; the other arguments are those of `Store`.

    Raises:
        ModelInputError: There is no such stage.
    """
    if zero_stage not in range(len(STAGES)):
        raise ModelInputError(f"zero_stage: got {zero_stage}; there are 0, 1, 2 and 3; 0 shards nothing")
    return STAGES[zero_stage](units, data, tp, optimizer, device, dtype)
