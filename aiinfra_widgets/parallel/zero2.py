"""ZeRO stage 2: gradients are sharded too. No replica ever holds the whole gradient of more than one unit.

As soon as backward has finished a unit, its gradient is summed over the replicas, each keeps its slice of the sum, and the
whole gradient is freed. With several micro-batches that happens for each, and the slices add up: memory is bought with
traffic, which grows with the micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.rank_grid import share
from .groups import Group
from .layout import Layout, Piece, Whole
from .optimizer import Optimizer
from .store import Store, counts
from .units import Unit


@dataclass(slots=True)
class Shard:
    """One unit, as this replica has it.

    Attributes:
        unit: Whose.
        counts: Numbers of each replica; they differ by one at most, and may be 0.
        mine: This replica's slice of the unit's flat buffers.
        flat: The unit's parameters, whole; its storage may be empty where nobody reads them (stage 3).
        parameters: Those of `mine`; a view of `flat` where that is always whole.
        gradient: Of `mine`, summed over the replicas and the micro-batches so far.
        state: The optimiser's tensors of `mine`.
        whole_gradient: Of the unit in which backward is, None else.
        readers: Passes that read `flat` now (stage 3).
    """

    unit: Unit
    counts: list[int]
    mine: slice
    flat: Tensor
    parameters: Tensor
    gradient: Tensor
    state: dict[str, Tensor] = field(default_factory=dict)
    whole_gradient: Tensor | None = None
    readers: int = 0


class Zero2(Store):
    """Stage 2 (Rajbhandari et al. 2020, P_os+g): whole parameters, 1/n of the gradients and of the optimiser's state."""

    replicated = False

    def __init__(
        self,
        units: Sequence[Unit],
        data: Group,
        tp: Group,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(units, data, tp, optimizer, device, dtype)
        self.shards = {unit: self._shard(unit) for unit in self.units if unit.size}

    def _shard(self, unit: Unit) -> Shard:
        """Return a unit's tensors, all zero, and bind its parameters to them."""
        mine = share(unit.size, self.data.size, self.data.rank)
        flat = self._zeros(unit.size)
        unit.attach(flat)
        unit.attach_gradients(None)
        shard = Shard(
            unit, counts(unit.size, self.data.size), mine, flat, flat[mine], self._zeros(mine.stop - mine.start)
        )
        shard.state = {name: torch.zeros_like(shard.gradient) for name in self.optimizer.state_names}
        return shard

    def _zeros(self, size: int) -> Tensor:
        return torch.zeros(size, device=self.device, dtype=self.dtype)

    # --- a step ---------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """See `Store`."""
        self.transient.reset()
        for shard in self.shards.values():
            shard.gradient.zero_()

    def before_backward(self, unit: Unit) -> None:
        """See `Store`: room for the unit's whole gradient."""
        shard = self.shards[unit]
        assert shard.whole_gradient is None, f"backward came to {unit.part.name} again before it had finished with it"
        shard.whole_gradient = self._zeros(unit.size)
        self.transient.hold(shard.whole_gradient)
        unit.attach_gradients(shard.whole_gradient)

    def after_backward(self, unit: Unit, last: bool) -> None:
        """See `Store`: the sum is added to what this rank keeps, and the whole gradient is gone."""
        shard = self.shards[unit]
        whole = shard.whole_gradient
        assert whole is not None
        self.sum_partial(unit, whole)
        summed = self.data.reduce_scatter(whole, shard.counts)
        shard.gradient.add_(summed)
        if self.data.size > 1:  # alone, it is the whole gradient itself
            self.transient.hold(summed)
            self.transient.free(summed)
        self.transient.free(whole)
        unit.attach_gradients(None)
        shard.whole_gradient = None

    def finish(self) -> None:
        """See `Store`: everything was summed unit by unit."""
        open_units = [unit.part.name for unit, shard in self.shards.items() if shard.whole_gradient is not None]
        assert not open_units, f"backward never finished {open_units}: a trained parameter got no gradient"

    def update(self, learning_rate: float, step: int) -> None:
        """See `Store`."""
        for shard in self.shards.values():
            self.optimizer.update(shard.parameters, shard.gradient, shard.state, learning_rate, step)
            self._publish(shard)

    def _publish(self, shard: Shard) -> None:
        """Give the other replicas this rank's new parameters."""
        self.data.all_gather(shard.flat, shard.counts)

    # --- the whole state ------------------------------------------------------------------------------------------
    def load(self, layout: Layout, whole: Whole) -> None:
        """See `Store`."""
        for unit, shard in self.shards.items():
            buffer = torch.zeros(unit.size, dtype=self.dtype)
            unit.take(layout, whole["parameters"], buffer)
            self._take_parameters(shard, buffer)
            for name, tensor in shard.state.items():
                unit.take(layout, whole[name], buffer)
                tensor.copy_(buffer[shard.mine])

    def _take_parameters(self, shard: Shard, buffer: Tensor) -> None:
        shard.flat.copy_(buffer)

    def pieces(self, layout: Layout) -> list[Piece]:
        """See `Store`: each rank's slice of every unit."""
        found = []
        for unit, shard in self.shards.items():
            places = unit.places(layout)[shard.mine]
            held = {"parameters": shard.parameters, **shard.state}
            found += [Piece(name, tensor, places) for name, tensor in held.items()]
        return found

    def held(self) -> dict[str, list[Tensor]]:
        """See `Store`."""
        shards = list(self.shards.values())
        return {
            "parameters": [t for s in shards for t in (s.flat, s.parameters)],
            "gradients": [s.gradient for s in shards],
            "optimizer": [t for s in shards for t in s.state.values()],
        }

    def gradients(self, unit: Unit) -> Tensor | None:
        """See `Store`."""
        if not unit.size:
            return None
        shard = self.shards[unit]
        whole = self._zeros(unit.size)
        whole[shard.mine] = shard.gradient
        self.data.all_gather(whole, shard.counts)
        return whole
