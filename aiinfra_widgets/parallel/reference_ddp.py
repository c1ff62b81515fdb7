"""torch's DistributedDataParallel: gradients are summed in buckets while backward goes on."""

from __future__ import annotations

import gc
from contextlib import nullcontext

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .reference_engine import TorchEngine


class TorchDdp(TorchEngine):
    """See `TorchEngine`. Buckets are torch's own (25 MB); gradients are views of them, which saves a copy."""

    replicated = True

    def distribute(self, module: nn.Sequential) -> nn.Module:
        """See `TorchEngine`."""
        self.replicas = self.comm.size
        self.module = module
        self.ddp = DistributedDataParallel(module, init_sync=False, gradient_as_bucket_view=True)
        return module

    def train(self, x: Tensor, y: Tensor, batch: int) -> float:
        """See `TorchEngine`."""
        total = 0.0
        for x_here, y_here, last in self.microbatches(x, y, batch):
            with nullcontext() if last else self.ddp.no_sync():
                loss = self.loss(self.ddp(x_here), y_here, batch)
                (loss * self.replicas).backward()  # torch takes the mean over the ranks
            total += float(loss.detach())
        return total

    def outputs(self, x: Tensor) -> Tensor | None:
        """See `TorchEngine`."""
        found: Tensor = self.module(x)
        return found

    def close(self) -> None:
        """See `Engine`; DDP goes first.

        Its reducer holds the process group. Were it the last one to do so, the group's threads would be joined under Python's
        lock, and one that wants the lock would never end.
        """
        self.__dict__.pop("ddp", None)
        gc.collect()
        super().close()
