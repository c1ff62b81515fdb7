"""torch's pipelines (torch.distributed.pipelining): stages and schedules of its own, on the lab's cut of the net.

# m micro-batches of b samples, v virtual stages, p ranks; virtual stage s is on rank s modulo p
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from mpi4py import MPI
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

from ..errors import ModelInputError
from ..workloads.parts import stages
from .layout import Whole
from .reference_engine import TorchEngine

_ALONE = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


class TorchPipeline(TorchEngine):
    """See `TorchEngine`. Shapes are told to torch beforehand: it would exchange them as pickles."""

    def distribute(self, module: nn.Sequential) -> nn.Module:
        """See `TorchEngine`."""
        parts, plan = self.job.work.net.parts, self.plan
        self.count = self.comm.size * plan.chunks
        cuts = stages([part.cost for part in parts], self.count)
        whole = [_row(module, cut) for cut in cuts]
        self.samples = self._samples(whole)
        self.mine = {s: whole[s] for s in range(self.comm.rank, self.count, self.comm.size)}
        self.first, self.last = 0 in self.mine, self.count - 1 in self.mine
        self._batch = 0
        self._schedule: Any = None
        kept = [item for chunk in self.mine.values() for item in chunk.named_children()]
        return nn.Sequential(OrderedDict(kept))

    def train(self, x: Tensor, y: Tensor, batch: int) -> float:
        """See `TorchEngine`; the last stage has the loss.

        Raises:
            ModelInputError: The batch does not make equal micro-batches.
        """
        if batch != self._batch:
            self._make_schedule(batch)
        losses: list[Tensor] = []
        given = (x,) if self.first else ()
        if self.last:
            self._schedule.step(*given, target=y, losses=losses, return_outputs=False)
        else:
            self._schedule.step(*given, return_outputs=False)
        return float(sum(loss.detach() for loss in losses))

    def outputs(self, x: Tensor) -> Tensor | None:
        """See `TorchEngine`: one stage after the other."""
        value, ranks = x, self.comm.size
        for s in range(self.count):
            if s not in self.mine:
                continue
            if s and ranks > 1:
                like = self.samples[s]
                value = torch.empty((len(x), *like.shape[1:]), dtype=like.dtype, device=x.device)
                dist.recv(value, (s - 1) % ranks)
            value = self.mine[s](value)
            if s < self.count - 1:
                dist.send(value.contiguous(), (s + 1) % ranks)
        return value if self.last else None

    def whole(self) -> Whole:
        """See `Engine`: every rank has the numbers of its stages."""
        found = super().whole()
        for vector in found.values():
            self.comm.Allreduce(MPI.IN_PLACE, vector.numpy())
        return found

    @torch.no_grad()
    def _samples(self, chunks: list[nn.Sequential]) -> list[Tensor]:
        """Return what each virtual stage receives for one sample, and the net's output last."""
        found = [self.job.train[0][:1]]
        with self.autocast()():
            for chunk in chunks:
                found.append(chunk(found[-1]))
        return found

    def _make_schedule(self, batch: int) -> None:
        """Tell torch the shapes of a batch of this size."""
        plan, job = self.plan, self.job
        check_batch(batch, plan.num_microbatches)
        size = batch // plan.num_microbatches

        def like(s: int) -> Tensor:
            sample = self.samples[s]
            needs = s > 0 and sample.is_floating_point()
            return torch.empty((size, *sample.shape[1:]), dtype=sample.dtype, device="meta", requires_grad=needs)

        made = [
            PipelineStage(chunk, s, self.count, job.device, input_args=like(s), output_args=like(s + 1))
            for s, chunk in self.mine.items()
        ]
        loss: Callable[..., Tensor] = lambda outputs, y: self.loss(outputs, y, batch)  # noqa: E731
        more: dict[str, Any] = {"n_microbatches": plan.num_microbatches, "loss_fn": loss, "scale_grads": False}
        if plan.schedule == "interleaved":
            self._schedule = ScheduleInterleaved1F1B(list(made), **more)
        else:
            self._schedule = _ALONE[plan.schedule](made[0], **more)
        self._batch = batch


def check_batch(batch: int, num_microbatches: int) -> None:
    """Refuse a batch that torch cannot cut.

    Raises:
        ModelInputError: It does not make equal micro-batches.
    """
    if batch % num_microbatches:
        raise ModelInputError(
            f"global_batch: got {batch}; torch-pipelining needs a multiple of num_microbatches {num_microbatches}; "
            "change one of them, or use engine=lab"
        )


def _row(module: nn.Sequential, cut: slice) -> nn.Sequential:
    """Return some parts of the whole net under their names."""
    return nn.Sequential(OrderedDict(list(module.named_children())[cut]))
