"""Who holds parameters, gradients and optimiser state, and how replicas are kept alike. ZeRO's stages are stores.

The executor tells the store when a unit is about to be used and when backward has finished with it; the store decides
what is in memory and when it is summed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.rank_grid import share
from .groups import Group
from .layout import Layout, Piece, Whole
from .optimizer import Optimizer
from .units import Unit


@dataclass(slots=True)
class Transient:
    """Storage that comes and goes within a step: whole gradients, gathered parameters.

    Attributes:
        now_bytes: Held at this moment.
        peak_bytes: Most that was held since `reset`.
    """

    now_bytes: int = 0
    peak_bytes: int = 0

    def reset(self) -> None:
        """Begin a step."""
        self.peak_bytes = self.now_bytes

    def hold(self, tensor: Tensor) -> None:
        """Count the storage of a tensor that was allocated."""
        self.now_bytes += tensor.untyped_storage().nbytes()
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)

    def free(self, tensor: Tensor) -> None:
        """Count the storage of a tensor that is about to go."""
        self.now_bytes -= tensor.untyped_storage().nbytes()


class Store(ABC):
    """The numbers of one rank.

    Args:
        units: In the order of the net.
        data: The ranks with the same units: replicas, and context-parallel ranks.
        tp: The ranks that share the units' layers.
        optimizer: How parameters are updated.
        device, dtype: Of parameters and gradients.

    Attributes:
        replicated: Every rank of `data` holds its whole state.
        transient: What is held within a step only; stores that hold such reset it in `begin`.
    """

    replicated: bool = True

    def __init__(
        self,
        units: Sequence[Unit],
        data: Group,
        tp: Group,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.units, self.data, self.tp, self.optimizer = list(units), data, tp, optimizer
        self.device, self.dtype = device, dtype
        self.transient = Transient()

    # --- a step, in this order ------------------------------------------------------------------------------------
    @abstractmethod
    def begin(self) -> None:
        """Before the first forward of a step: clear the gradients."""

    def before_forward(self, unit: Unit) -> None:  # noqa: B027 - most stores hold what they use
        """The unit's parameters are about to be read; also when activations are computed again."""

    def after_forward(self, unit: Unit) -> None:  # noqa: B027 - as above
        """Forward has read them."""

    def before_backward(self, unit: Unit) -> None:  # noqa: B027 - as above
        """The gradient of the unit's output has arrived."""

    def after_backward(self, unit: Unit, last: bool) -> None:  # noqa: B027 - as above
        """The unit's gradients of one micro-batch are complete; `last`: of the last one in this step."""

    @abstractmethod
    def finish(self) -> None:
        """After the last backward: the gradients of this rank's parameters become the sum over the replicas."""

    @abstractmethod
    def update(self, learning_rate: float, step: int) -> None:
        """Take the step; afterwards every rank can run forward with the new parameters."""

    # --- the whole state ------------------------------------------------------------------------------------------
    @abstractmethod
    def load(self, layout: Layout, whole: Whole) -> None:
        """Take this rank's share of the whole state: parameters, and the optimiser's tensors."""

    def settle(self) -> None:  # noqa: B027 - replicas are alike at any time, but for those that drift
        """Before `put`: agree on the one state that stands for all replicas; a collective."""

    @abstractmethod
    def pieces(self, layout: Layout) -> list[Piece]:
        """Return the numbers that this rank stands for: no other one of `data` does, but for replicas, which all say the same."""

    def put(self, layout: Layout, whole: Whole) -> None:
        """Write what this rank stands for into the whole state; of replicas the first one writes, so each number is written once."""
        if self.replicated and self.data.rank:
            return
        for piece in self.pieces(layout):
            piece.put(whole)

    @abstractmethod
    def held(self) -> dict[str, list[Tensor]]:
        """Return the tensors that are held between two steps, by kind: parameters, gradients, optimizer."""

    def gradients(self, unit: Unit) -> Tensor | None:
        """Return the summed flat gradient of a unit after `finish`, or None (for tests); some optimisers overwrite it.

        Where gradients are sharded this is a collective of `data`.
        """
        return None

    def state_bytes(self) -> dict[str, int]:
        """Count the storage behind `held`, each once."""
        found = {}
        for kind, tensors in self.held().items():
            storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
            found[kind] = sum(storages.values())
        return found

    def peak_bytes(self) -> int:
        """Return the most storage that this step held beside `held` at one moment."""
        return self.transient.peak_bytes

    def sum_partial(self, unit: Unit, gradient: Tensor) -> None:
        """Sum over the tp ranks what sequence parallel left partial in this unit's flat gradient."""
        if not unit.axes.sequence_parallel or self.tp.size == 1:
            return
        spans = [p.span for p in unit.placed if p.partial]
        if not spans:
            return
        packed = torch.cat([gradient[s] for s in spans])
        self.tp.all_reduce(packed)
        for span, piece in zip(spans, packed.split([s.stop - s.start for s in spans]), strict=True):
            gradient[span].copy_(piece)


class FlatStore(Store):
    """Parameters and gradients of all units in two flat buffers: what stages 0 and 1 share.

    Attributes:
        parameters, gradient: Flat, of all units; the last unit first.
        spans: Where each unit lies.
        mine: The slice that this rank updates.
        state: The optimiser's tensors, of the size of `mine`.
    """

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
        self.spans: list[slice] = []
        at = 0
        for unit in reversed(self.units):
            self.spans.insert(0, slice(at, at + unit.size))
            at += unit.size
        self.size = at
        self.parameters = torch.zeros(at, device=device, dtype=dtype)
        self.gradient = torch.zeros(at, device=device, dtype=dtype)
        for unit, span in zip(self.units, self.spans, strict=True):
            unit.attach(self.parameters[span])
            unit.attach_gradients(self.gradient[span])
        self.mine = self._mine()
        count = self.mine.stop - self.mine.start
        self.state = {name: torch.zeros(count, device=device, dtype=dtype) for name in optimizer.state_names}

    @abstractmethod
    def _mine(self) -> slice:
        """Return which slice of the flat buffers this rank updates."""

    def begin(self) -> None:
        """See `Store`."""
        self.gradient.zero_()

    def _sum_all_partial(self) -> None:
        for unit, span in zip(self.units, self.spans, strict=True):
            self.sum_partial(unit, self.gradient[span])

    def load(self, layout: Layout, whole: Whole) -> None:
        """See `Store`."""
        for unit, span in zip(self.units, self.spans, strict=True):
            unit.take(layout, whole["parameters"], self.parameters[span])
        buffer = torch.zeros(self.size, dtype=self.dtype)
        for name, tensor in self.state.items():
            for unit, span in zip(self.units, self.spans, strict=True):
                unit.take(layout, whole[name], buffer[span])
            tensor.copy_(buffer[self.mine])

    def pieces(self, layout: Layout) -> list[Piece]:
        """See `Store`: of the parameters, too, those that this rank updates."""
        places = torch.cat([unit.places(layout) for unit in reversed(self.units)])[self.mine]
        held = {"parameters": self.parameters[self.mine], **self.state}
        return [Piece(name, tensor, places) for name, tensor in held.items()]

    def held(self) -> dict[str, list[Tensor]]:
        """See `Store`."""
        return {"parameters": [self.parameters], "gradients": [self.gradient], "optimizer": list(self.state.values())}

    def gradients(self, unit: Unit) -> Tensor | None:
        """See `Store`."""
        return self.gradient[self.spans[self.units.index(unit)]]


class Replicated(FlatStore):
    """Stage 0: every replica holds everything; gradients are summed by one all-reduce."""

    def _mine(self) -> slice:
        return slice(0, self.size)

    def finish(self) -> None:
        """See `Store`."""
        self._sum_all_partial()
        self.data.all_reduce(self.gradient)

    def update(self, learning_rate: float, step: int) -> None:
        """See `Store`."""
        self.optimizer.update(self.parameters, self.gradient, self.state, learning_rate, step)


def counts(size: int, ranks: int) -> list[int]:
    """Return how many of `size` numbers each rank has in an even cut; they differ by one at most."""
    return [(s := share(size, ranks, r)).stop - s.start for r in range(ranks)]
