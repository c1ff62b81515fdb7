"""ZeRO stage 3: parameters are sharded too. A unit is gathered when a pass comes to it, and freed when the pass has left it.

Autograd keeps the weights that backward needs as views of the unit's flat storage. Therefore that storage is emptied and
filled again in place, instead of being replaced: the views stay valid, and read the numbers gathered last. That is
sound because parameters change between steps only, when no backward is under way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from .units import Unit
from .zero2 import Shard, Zero2


class Zero3(Zero2):
    """Stage 3 (Rajbhandari et al. 2020, P_os+g+p): 1/n of everything; whole units only while they are used."""

    def _shard(self, unit: Unit) -> Shard:
        shard = super()._shard(unit)
        shard.parameters = torch.zeros_like(shard.gradient)
        shard.flat.untyped_storage().resize_(0)
        return shard

    # --- a step ---------------------------------------------------------------------------------------------------
    def before_forward(self, unit: Unit) -> None:
        """See `Store`. Activations may be computed again within backward, where the unit is gathered already."""
        self._gather(self.shards[unit])

    def after_forward(self, unit: Unit) -> None:
        """See `Store`."""
        self._release(self.shards[unit])

    def before_backward(self, unit: Unit) -> None:
        """See `Store`."""
        self._gather(self.shards[unit])
        super().before_backward(unit)

    def after_backward(self, unit: Unit, last: bool) -> None:
        """See `Store`. A complete gradient means that nothing reads the parameters any more."""
        self._release(self.shards[unit])
        super().after_backward(unit, last)

    def _gather(self, shard: Shard) -> None:
        shard.readers += 1
        if shard.readers > 1:
            return
        flat = shard.flat
        flat.untyped_storage().resize_(flat.numel() * flat.element_size())
        self.transient.hold(flat)
        flat[shard.mine].copy_(shard.parameters)
        # A second tensor on the same memory: numpy would forbid for good that the storage it looks at be resized.
        self.data.all_gather(from_dlpack(flat), shard.counts)

    def _release(self, shard: Shard) -> None:
        shard.readers -= 1
        if shard.readers == 0:
            self.transient.free(shard.flat)
            shard.flat.untyped_storage().resize_(0)

    def _publish(self, shard: Shard) -> None:
        """Whoever needs them gathers them."""

    # --- the whole state ------------------------------------------------------------------------------------------
    def _take_parameters(self, shard: Shard, buffer: Tensor) -> None:
        shard.parameters.copy_(buffer[shard.mine])
