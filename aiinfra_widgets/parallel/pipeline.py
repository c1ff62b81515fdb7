"""Micro-batches through the chunks of the net on this rank, in the order that the schedule gives. One stage is a pipeline too.

A message between stages is known by the virtual stage that receives it, the micro-batch and the direction, so that several
can be under way at once. Sends do not wait; what was sent stays until the step ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.kinds import BACKWARD, FORWARD
from ..models.schedules import Operation, virtual_stage
from .groups import Group
from .ledger import Ledger
from .units import Unit

#: Runs one unit: (unit, input, whether it is the last micro-batch of the step) -> output.
Forward = Callable[[Unit, Tensor, bool], Tensor]
Shape = tuple[tuple[int, ...], torch.dtype]


@dataclass(slots=True)
class _Alive:
    """What one forward pass leaves for its backward pass."""

    input: Tensor
    output: Tensor


class Pipeline:
    """The chunks of one stage.

    Args:
        chunks: Units of each chunk.
        pp: The stages.
        ledger: Where operations and messages are noted.
        forward: Runs a unit.
        loss: (outputs, micro-batch) -> the micro-batch's share of the global loss; asked on the last virtual stage only.
        hidden: Shape of one sample, and type, of what each virtual stage receives; the first is not used.
        autocast: Context of the forward passes.
    """

    def __init__(
        self, chunks: Sequence[Sequence[Unit]], pp: Group, ledger: Ledger, forward: Forward,
        loss: Callable[[Tensor, int], Tensor], hidden: Sequence[Shape], autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:  # fmt: skip
        self.chunks, self.pp, self.ledger, self.forward = chunks, pp, ledger, forward
        self.loss, self.hidden, self.autocast = loss, hidden, autocast
        self.virtual_stages = pp.size * len(chunks)
        self.injected_s = 0.0
        self._alive: dict[tuple[int, int], _Alive] = {}

    def run(self, operations: Sequence[Operation], inputs: Sequence[Tensor], slow_factor: float = 1.0) -> float:
        """Carry out one step's operations.

        Args:
            operations: Of this stage, in order.
            inputs: The micro-batches; later stages use their sizes only.
            slow_factor: How many times longer each operation's arithmetic shall take.

        Returns:
            The loss of this rank's micro-batches, 0 where another stage has it.
        """
        self.injected_s, total = 0.0, torch.zeros(())
        last_backward = [o.microbatch for o in operations if o.kind == "backward"][-1]
        for operation in operations:
            stage = virtual_stage(self.pp.rank, operation.chunk, self.pp.size)
            if operation.kind == "forward":
                total = total + self._forward(
                    operation, stage, inputs, operation.microbatch == last_backward, slow_factor
                )
            else:
                self._backward(operation, stage, slow_factor)
        self.pp.settle()
        return float(total)  # here and not earlier: on a GPU it waits for all that was asked

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor | None:
        """Run one batch forward, for evaluation; the outputs on the last virtual stage, None elsewhere."""
        result: Tensor | None = None
        for chunk, units in enumerate(self.chunks):
            stage = virtual_stage(self.pp.rank, chunk, self.pp.size)
            value = x if stage == 0 else self._receive(stage, 0, len(x), backward=False)
            with self.autocast():
                for unit in units:
                    value = self.forward(unit, value, False)
            if stage == self.virtual_stages - 1:
                result = value
            else:
                self._send(value, stage + 1, 0, backward=False)
        self.pp.settle()
        return result

    def _forward(
        self, operation: Operation, stage: int, inputs: Sequence[Tensor], last: bool, slow_factor: float
    ) -> Tensor:
        number = operation.microbatch
        x = inputs[number]
        if stage > 0:
            x = self._receive(stage, number, len(x), backward=False).requires_grad_()
        share = torch.zeros(())
        with self._timed(FORWARD, number, slow_factor), self.autocast():
            value = x
            for unit in self.chunks[operation.chunk]:
                value = self.forward(unit, value, last)
            if stage == self.virtual_stages - 1:
                value = self.loss(value, number)
                share = value.detach()
        if stage < self.virtual_stages - 1:
            self._send(value, stage + 1, number, backward=False)
        self._alive[operation.chunk, number] = _Alive(x, value)
        return share

    def _backward(self, operation: Operation, stage: int, slow_factor: float) -> None:
        number = operation.microbatch
        alive = self._alive.pop((operation.chunk, number))
        gradient = None
        if stage < self.virtual_stages - 1:
            gradient = torch.empty_like(alive.output, memory_format=torch.contiguous_format)
            self._take(gradient, stage, number, backward=True)
        with self._timed(BACKWARD, number, slow_factor):
            if alive.output.requires_grad:
                torch.autograd.backward(alive.output, gradient)
        if stage > 0:
            assert alive.input.grad is not None
            self._send(alive.input.grad, stage - 1, number, backward=True)

    # --- messages ---------------------------------------------------------------------------------------------------
    def _tag(self, stage: int, number: int, backward: bool) -> int:
        return 1 + 2 * (number * self.virtual_stages + stage) + backward

    def _send(self, tensor: Tensor, stage: int, number: int, *, backward: bool) -> None:
        self.pp.send(tensor.detach().contiguous(), stage % self.pp.size, self._tag(stage, number, backward))

    def _receive(self, stage: int, number: int, samples: int, *, backward: bool) -> Tensor:
        shape, dtype = self.hidden[stage]
        device = next(
            (p.parameter.device for units in self.chunks for u in units for p in u.placed), torch.device("cpu")
        )
        tensor = torch.empty((samples, *shape), dtype=dtype, device=device)
        self._take(tensor, stage, number, backward=backward)
        return tensor

    def _take(self, tensor: Tensor, stage: int, number: int, *, backward: bool) -> None:
        source = (stage + 1 if backward else stage - 1) % self.pp.size
        self.pp.receive(tensor, source, self._tag(stage, number, backward))

    def _timed(self, kind: int, number: int, slow_factor: float) -> AbstractContextManager[None]:
        return _Timed(self, kind, number, slow_factor) if slow_factor > 1 else self.ledger.operation(kind, number)


class _Timed(AbstractContextManager[None]):
    """An operation whose arithmetic is made longer: it sleeps in proportion to what it computed."""

    def __init__(self, pipeline: Pipeline, kind: int, number: int, slow_factor: float) -> None:
        self.pipeline, self.slow_factor = pipeline, slow_factor
        self.noted = pipeline.ledger.operation(kind, number)

    def __enter__(self) -> None:
        self.noted.__enter__()
        self.calls, self.begun_s = len(self.pipeline.ledger.calls), time.perf_counter()

    def __exit__(self, *error: object) -> None:
        now_s = time.perf_counter()
        talked_s = sum(call.time_s for call in self.pipeline.ledger.calls[self.calls :])
        time.sleep(max(now_s - self.begun_s - talked_s, 0.0) * (self.slow_factor - 1))
        self.pipeline.injected_s += time.perf_counter() - now_s
        self.noted.__exit__(None, None, None)
