"""torch's FSDP2 (fully_shard): parameters, gradients and optimiser state are sharded over the replicas, part by part."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from .reference_engine import TorchEngine


class TorchFsdp(TorchEngine):
    """See `TorchEngine`. ZeRO stage 3 gathers parameters again for backward; stage 2 keeps them from forward to backward."""

    def distribute(self, module: nn.Sequential) -> nn.Module:
        """See `TorchEngine`."""
        self.replicas = self.comm.size
        mesh = init_device_mesh(self.job.device.type, (self.comm.size,))
        again = self.plan.zero_stage == 3
        for part in module:
            if next(part.parameters(), None) is not None:
                fully_shard(part, mesh=mesh, reshard_after_forward=again)
        fully_shard(module, mesh=mesh, reshard_after_forward=again)
        self.module = module
        return module

    def train(self, x: Tensor, y: Tensor, batch: int) -> float:
        """See `TorchEngine`."""
        total = 0.0
        for x_here, y_here, last in self.microbatches(x, y, batch):
            assert isinstance(self.module, FSDPModule)  # fully_shard has changed its class
            self.module.set_requires_gradient_sync(last)
            loss = self.loss(self.module(x_here), y_here, batch)
            (loss * self.replicas).backward()  # torch takes the mean over the ranks
            total += float(loss.detach())
        return total

    def outputs(self, x: Tensor) -> Tensor | None:
        """See `TorchEngine`."""
        found: Tensor = self.module(x)
        for part in self.module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # what forward gathered would be stale after the next update
        return found
