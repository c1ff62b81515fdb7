"""Runs a unit with its store's calls around it: forward, forward again (recomputation), and backward.

Backward is autograd's; the store hears of it through two hooks. The gradient of a unit's output arrives before anything in
the unit is computed; and a unit is finished when each of its parameters has got its gradient. Backward passes of several
micro-batches follow each other, whatever the order of their forward passes, so one count per unit is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .store import Store
from .units import Unit


class Hooks:
    """Between the executor and a store.

    Units without trained parameters concern no store. A store that overrides neither `before_backward` nor `after_backward`
    costs nothing here: no hook is registered.

    Args:
        store: Whose calls are made.
        units: Of this rank; bound to the store already.
        recompute: Keep only the input of each unit, and compute its activations again in backward.
        compiled: Run each module through `torch.compile`.
    """

    def __init__(self, store: Store, units: Sequence[Unit], *, recompute: bool = False, compiled: bool = False) -> None:
        self.store, self.recompute = store, recompute
        self._modules = {unit: torch.compile(unit.module) if compiled else unit.module for unit in units}
        kind = type(store)
        self._listens = (
            kind.before_backward is not Store.before_backward or kind.after_backward is not Store.after_backward
        )
        self._missing: dict[Unit, int] = {}
        self._last: dict[Unit, bool] = {}
        self._handles = [
            placed.parameter.register_post_accumulate_grad_hook(partial(self._arrived, unit))
            for unit in units
            for placed in unit.placed
            if self._listens
        ]

    def forward(self, unit: Unit, x: Tensor, last: bool) -> Tensor:
        """Return what a unit makes of `x`.

        Args:
            unit: One of this rank's.
            x: (B, ...) of one micro-batch.
            last: Whether this micro-batch is the last one of the step to go backward.
        """
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._run, unit, x, use_reentrant=False)
        else:
            out = self._run(unit, x)
        if self._listens and unit.size and out.requires_grad:
            out.register_hook(partial(self._entered, unit, last))
        return out

    def _run(self, unit: Unit, x: Tensor) -> Tensor:
        module = self._modules[unit]
        if not unit.size:
            return cast(Tensor, module(x))
        self.store.before_forward(unit)
        try:
            return cast(Tensor, module(x))
        finally:  # recomputation stops, by an exception, as soon as it has what backward needs
            self.store.after_forward(unit)

    def _entered(self, unit: Unit, last: bool, gradient: Tensor) -> None:
        self._missing[unit], self._last[unit] = len(unit.placed), last
        self.store.before_backward(unit)

    def _arrived(self, unit: Unit, parameter: Tensor) -> None:
        self._missing[unit] -= 1
        if not self._missing[unit]:
            self.store.after_backward(unit, self._last[unit])

    def close(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()
