"""Replicas that train on their own for a while and are averaged now and then: local SGD (Stich 2019), DiLoCo (Douillard et al. 2023).

# P parameters of this rank, n replicas, H steps between two averages
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .groups import Group
from .layout import Layout, Whole
from .optimizer import Optimizer
from .store import Replicated
from .units import Unit

#: Of DiLoCo's outer step, as its authors chose it.
OUTER_LEARNING_RATE = 0.7


class LocalSgd(Replicated):
    """Each replica steps with the gradient of its own share of the batch; after every H steps parameters are averaged.

    The optimiser's state stays each replica's own, which halves the traffic or better, as in torch's post-local SGD and in
    DiLoCo. With momentum, and H = 1, the average is still exactly the plain step, for both are linear.

    The state that stands for the run is the average over the replicas, of parameters and of the optimiser's state alike: `settle`
    makes it, `put` writes it. The replicas do not notice, so a checkpoint leaves the loss curve as it is. Whoever loads it begins
    with equal replicas. With outer momentum, the outer velocity begins at zero then.

    Args:
        average_every: H, counted from the first step of the run.
        outer_momentum: 0 takes the average. Above, the change since the last average is a gradient for an outer step with
            Nesterov's momentum.
        outer_learning_rate: Of the outer step.
        context: Ranks that share each sequence of this replica; they sum their gradients at every step.
        others: As for `Store`; `data` are the replicas and their `context` ranks.
    """

    replicated = False  # a rank that dies takes its own state along

    def __init__(
        self,
        units: Sequence[Unit],
        data: Group,
        tp: Group,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        average_every: int,
        outer_momentum: float = 0.0,
        outer_learning_rate: float = OUTER_LEARNING_RATE,
        context: Group | None = None,
    ) -> None:
        super().__init__(units, data, tp, optimizer, device, dtype)
        self.average_every, self.context = average_every, context
        self.outer_momentum, self.outer_learning_rate = outer_momentum, outer_learning_rate
        self.anchor = self.parameters.clone() if outer_momentum else None
        self.velocity = torch.zeros_like(self.parameters) if outer_momentum else None
        self._settled: list[Tensor] = []

    def finish(self) -> None:
        """See `Store`; the gradient becomes the mean over this replica's own samples instead of a sum over all."""
        self._sum_all_partial()
        if self.context is not None:
            self.context.all_reduce(self.gradient)
        # The loss was divided by the global batch. Replicas with a larger share of it weigh more in the average by that.
        self.gradient.mul_(self.data.size // (self.context.size if self.context else 1))

    def update(self, learning_rate: float, step: int) -> None:
        """See `Store`; at every H-th step, the replicas are averaged."""
        super().update(learning_rate, step)
        if step % self.average_every:
            return
        self._average(self.parameters)
        if self.anchor is None or self.velocity is None:
            return
        change = self.anchor - self.parameters
        self.velocity.mul_(self.outer_momentum).add_(change)
        change.add_(self.velocity, alpha=self.outer_momentum)
        self.anchor.add_(change, alpha=-self.outer_learning_rate)
        self.parameters.copy_(self.anchor)

    def load(self, layout: Layout, whole: Whole) -> None:
        """See `Store`."""
        super().load(layout, whole)
        if self.anchor is not None and self.velocity is not None:
            self.anchor.copy_(self.parameters)
            self.velocity.zero_()

    def settle(self) -> None:
        """See `Store`: average copies of parameters and optimiser state."""
        self._settled = [tensor.clone() for tensor in self._drifting()]
        for tensor in self._settled:
            self._average(tensor)

    def put(self, layout: Layout, whole: Whole) -> None:
        """See `Store`; after `settle`."""
        assert self._settled, "settle before put"
        settled, self._settled = self._settled, []
        if self.data.rank:
            return
        own = [tensor.clone() for tensor in self._drifting()]
        self._take(settled)
        super().put(layout, whole)
        self._take(own)

    def held(self) -> dict[str, list[Tensor]]:
        """See `Store`; "outer" is what DiLoCo's outer step needs."""
        outer = [t for t in (self.anchor, self.velocity) if t is not None]
        return {**super().held(), **({"outer": outer} if outer else {})}

    def _drifting(self) -> list[Tensor]:
        return [self.parameters, *self.state.values()]

    def _take(self, tensors: Sequence[Tensor]) -> None:
        for mine, tensor in zip(self._drifting(), tensors, strict=True):
            mine.copy_(tensor)

    def _average(self, tensor: Tensor) -> None:
        self.data.all_reduce(tensor)
        tensor.div_(self.data.size)
