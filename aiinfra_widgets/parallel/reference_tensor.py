"""torch's tensor parallelism: DTensor parameters, put in place by parallelize_module, dense layers by columns and by rows."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle

from ..workloads.parts import Cut, Net
from .reference_engine import TorchEngine


class TorchTensor(TorchEngine):
    """See `TorchEngine`. Every rank sees the whole batch, and computes its columns and rows."""

    def distribute(self, module: nn.Sequential) -> nn.Module:
        """See `TorchEngine`."""
        mesh = init_device_mesh(self.job.device.type, (self.comm.size,))
        styles: dict[str, ParallelStyle] = {
            path: ColwiseParallel() if cut.dim == 0 else RowwiseParallel() for path, cut in weights(self.job.work.net)
        }
        self.module = parallelize_module(module, mesh, styles)
        return module

    def train(self, x: Tensor, y: Tensor, batch: int) -> float:
        """See `TorchEngine`; all ranks have the same loss, and the first one tells it."""
        total = 0.0
        for x_here, y_here, _ in self.microbatches(x, y, batch):
            loss = self.loss(self.module(x_here), y_here, batch)
            loss.backward()
            total += float(loss.detach())
        return 0.0 if self.comm.rank else total

    def outputs(self, x: Tensor) -> Tensor | None:
        """See `TorchEngine`."""
        found: Tensor = self.module(x)
        return None if self.comm.rank else found


def weights(net: Net) -> Iterator[tuple[str, Cut]]:
    """Yield (path of the layer, how its weight is cut)."""
    for part in net.parts:
        for name, cut in part.cuts.items():
            if name.rpartition(".")[2] == "weight":
                yield f"{part.name}.{name}".rpartition(".")[0], cut


def why_not(net: Net, module: nn.Module, ranks: int) -> str:
    """Return why torch cannot cut this net over `ranks` ranks, or ""."""
    if net.why_not_tp:
        return net.why_not_tp
    for path, cut in weights(net):
        layer = module.get_submodule(path)
        if not isinstance(layer, nn.Linear):
            return f"torch's styles cut nn.Linear, and {path} is a {type(layer).__name__}"
        count = layer.weight.shape[cut.dim]
        if count % ranks:
            return f"torch's styles cut evenly, and {path} has {count} columns or rows for {ranks} ranks"
    return ""
