"""Only the largest gradients travel; the others wait until they have grown (Stich, Cordonnier and Jaggi 2018).

# k numbers that are sent, of the P parameters of this rank
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .compression import Compressed
from .groups import Group
from .optimizer import Optimizer
from .units import Unit


class TopK(Compressed):
    """Each replica sends values and places of the largest part of its gradient, and keeps the rest for the next step.

    Values and 32-bit places go to every rank, (n - 1) 8 k bytes from each in float32: with many ranks this grows past a ring,
    and above half of the numbers it is more than a plain sum even with two.

    Args:
        frac: Part of each parameter's numbers that is sent, above 0 and at most 1; at least one number of each.
        feedback: Keep what was not sent; without, it is lost (to show why nobody does that).
        others: As for `Store`.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        data: Group,
        tp: Group,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        frac: float = 0.01,
        feedback: bool = True,
    ) -> None:
        super().__init__(units, data, tp, optimizer, device, dtype)
        self.frac = frac
        self.rest = torch.zeros_like(self.gradient) if feedback else None

    def exchange(self) -> None:
        """See `Compressed`."""
        if self.rest is not None:
            self.gradient.add_(self.rest)
        chosen = self._largest()
        values = self.gradient[chosen]
        if self.rest is not None:
            self.rest.copy_(self.gradient)
            self.rest[chosen] = 0
        n = self.data.size
        mine = torch.cat([values.view(torch.int32), chosen.to(torch.int32)])
        everyone = torch.empty(n, len(mine), dtype=torch.int32, device=self.device)
        everyone[self.data.rank] = mine
        self.data.all_gather(everyone.view(-1), [len(mine)] * n)
        self.gradient.zero_()
        for row in everyone:  # one replica after the other, so that all of them add in the same order
            sent, places = row[: -len(chosen)].clone().view(self.dtype), row[-len(chosen) :]
            self.gradient.index_add_(0, places, sent)

    def memory(self) -> list[Tensor]:
        """See `Compressed`."""
        return [] if self.rest is None else [self.rest]

    def _largest(self) -> Tensor:
        """Return the places (k,) of the numbers to be sent; each parameter has its share of them."""
        found = []
        for p in self.named:
            size = p.span.stop - p.span.start
            k = min(size, math.ceil(self.frac * size))
            found.append(self.gradient[p.span].abs().topk(k, sorted=False).indices + p.span.start)
        return torch.cat(found)
