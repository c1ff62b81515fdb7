"""ZeRO stage 1: each replica updates a slice of the parameters, and holds the optimiser's state of that slice alone.

The two halves of an all-reduce, with the update between them: as many bytes as without sharding.
"""

from __future__ import annotations

from torch import Tensor

from ..models.rank_grid import share
from .store import FlatStore, counts
from .units import Unit


class Zero1(FlatStore):
    """Stage 1 (Rajbhandari et al. 2020, P_os): whole parameters, whole gradients, 1/n of the optimiser's state."""

    replicated = False

    def _mine(self) -> slice:
        self.counts = counts(self.size, self.data.size)
        return share(self.size, self.data.size, self.data.rank)

    def begin(self) -> None:
        """See `Store`."""
        super().begin()
        self.transient.reset()

    def finish(self) -> None:
        """See `Store`; of the gradient buffer, `mine` is the sum, and the rest is scratch."""
        self._sum_all_partial()
        if self.data.size == 1:
            return
        summed = self.data.reduce_scatter(self.gradient, self.counts)
        self.transient.hold(summed)
        self.gradient[self.mine] = summed
        self.transient.free(summed)

    def update(self, learning_rate: float, step: int) -> None:
        """See `Store`."""
        mine = self.mine
        self.optimizer.update(self.parameters[mine], self.gradient[mine], self.state, learning_rate, step)
        self.data.all_gather(self.parameters, self.counts)

    def gradients(self, unit: Unit) -> Tensor | None:
        """See `Store`."""
        self.data.all_gather(self.gradient, self.counts)
        return super().gradients(unit)
