"""What the tests of ZeRO on real ranks share: cases, torch's own result for them, and a training loop as small as it can be.

The ranks agree on a verdict before anyone asserts, for a rank that stops alone would leave the others waiting.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from functools import cache

import torch
from mpi4py import MPI
from torch import nn
from torch.nn import functional as F

from aiinfra_widgets.models.rank_grid import share
from aiinfra_widgets.parallel.groups import MpiGroup
from aiinfra_widgets.parallel.hooks import Hooks
from aiinfra_widgets.parallel.layout import Layout, Piece
from aiinfra_widgets.parallel.ledger import Ledger
from aiinfra_widgets.parallel.optimizer import AdamW, Sgd
from aiinfra_widgets.parallel.units import build
from aiinfra_widgets.parallel.zero import make_store
from aiinfra_widgets.ranks.link import InjectedLink
from aiinfra_widgets.workloads import catalog
from aiinfra_widgets.workloads.axes import ALONE
from aiinfra_widgets.workloads.nets import row_of_layers

WORLD = MPI.COMM_WORLD
CPU = torch.device("cpu")
TOLERANCE = 1e-9
STAGES = (0, 1, 2, 3)
OPTIMIZERS = {"sgd": (Sgd(0.9), 0.01), "adamw": (AdamW(weight_decay=0.1), 0.01)}
BATCH = 13
NETS = {
    "digits-perceptron": catalog.facts("digits-perceptron").layers(),
    "digits-cnn": catalog.facts("digits-cnn").layers(),
    "synthetic": catalog.facts("synthetic").layers(64, 3),
}


def agree(check) -> None:
    """`check()` must hold on every rank; an error on one ends all of them, for the others wait for it."""
    try:
        ok = check()
    except BaseException:
        print(f"rank {WORLD.rank}\n{traceback.format_exc()}", file=sys.__stderr__, flush=True)
        WORLD.Abort(1)
    assert all(WORLD.allgather(bool(ok)))


@dataclass(frozen=True)
class Case:
    """One way to train a row of layers.

    Attributes:
        layers, optimizer: What and by which rule.
        stage: Of ZeRO.
        num_microbatches, recompute: As in the plan.
        ahead: All forward passes of a step come before the first backward pass, as in GPipe.
    """

    layers: tuple
    optimizer: str = "sgd"
    stage: int = 0
    num_microbatches: int = 1
    recompute: bool = False
    ahead: bool = False


@cache
def data(layers: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """The same batch on every rank."""
    source = torch.Generator().manual_seed(5)
    dims = layers[0].dims
    shape = (dims["in"],) if layers[0].kind == "linear" else (dims["in_channels"], dims["height"], dims["width"])
    x = torch.randn(BATCH, *shape, generator=source, dtype=torch.float64)
    return x, torch.randn(BATCH, layers[-1].dims["outputs"], generator=source, dtype=torch.float64)


def reference_step(whole: nn.Module, optimizer: torch.optim.Optimizer, x, y) -> float:
    optimizer.zero_grad()
    loss = F.mse_loss(whole(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def torch_optimizer(name: str, whole: nn.Module) -> torch.optim.Optimizer:
    rule, lr = OPTIMIZERS[name]
    if isinstance(rule, Sgd):
        return torch.optim.SGD(whole.parameters(), lr, rule.momentum)
    betas = rule.beta1, rule.beta2
    return torch.optim.AdamW(whole.parameters(), lr, betas, rule.epsilon, rule.weight_decay)


@cache
def reference(layers: tuple, optimizer: str, steps: int) -> tuple[list[float], torch.Tensor, torch.Tensor]:
    """Losses, parameters after the last step, gradients of the last step: of one process."""
    whole, (x, y) = row_of_layers(layers).whole(3).double(), data(layers)
    rule = torch_optimizer(optimizer, whole)
    losses = [reference_step(whole, rule, x, y) for _ in range(steps)]
    layout = Layout.of(whole)
    gradient = torch.cat([whole.get_parameter(name).grad.flatten() for name in layout.slices])
    return losses, layout.flatten(whole, torch.float64), gradient


class Ranks:
    """One case on the ranks of `comm`, all of them replicas; a loop as small as it can be."""

    def __init__(self, comm: MPI.Intracomm, case: Case, link_latency_s: float = 0.0) -> None:
        self.comm, self.case, (rule, self.lr) = comm, case, OPTIMIZERS[case.optimizer]
        ledger, link = Ledger(), InjectedLink(link_latency_s)
        self.data = MpiGroup("data", comm.Dup(), ledger, link)
        self.tp = MpiGroup("tp", MPI.COMM_SELF.Dup(), ledger, link)
        net = row_of_layers(case.layers)
        self.layout = Layout.of(net.whole(3))
        self.names = rule.state_names
        self.units = build(net.parts, ALONE, net.whole(seed=0), CPU, torch.float64)
        self.store = make_store(case.stage, self.units, self.data, self.tp, rule, CPU, torch.float64)
        self.hooks = Hooks(self.store, self.units, recompute=case.recompute)

    def draw(self) -> None:
        """Begin at the drawn parameters."""
        whole = self.layout.empty(self.names, torch.float64)
        whole["parameters"] = self.layout.flatten(row_of_layers(self.case.layers).whole(3), torch.float64)
        self.store.load(self.layout, whole)

    def step(self, number: int, watch: bool = False) -> float:
        """Take one step; the loss of the whole batch."""
        x, y = data(self.case.layers)
        mine, m = share(BATCH, self.comm.size, self.comm.rank), self.case.num_microbatches
        parts = [share(mine.stop - mine.start, m, i) for i in range(m)]
        self.store.begin()
        waiting, total = [], 0.0
        for i, part in enumerate(parts):
            value = x[mine][part]
            for unit in self.units:
                value = self.hooks.forward(unit, value, i == m - 1)
            waiting.append(F.mse_loss(value, y[mine][part], reduction="sum") / y.numel())
            if not self.case.ahead:
                waiting[-1].backward()
        for loss in waiting:
            total += float(loss.detach())
            if self.case.ahead:
                loss.backward()
        self.store.finish()
        if watch:  # before the update: some optimisers use gradients as scratch
            self.gradient = torch.zeros(self.layout.size, dtype=torch.float64)
            for unit in self.units:
                found = self.store.gradients(unit)
                if found is not None:
                    Piece("gradient", found, unit.places(self.layout)).put({"gradient": self.gradient})
        self.store.update(self.lr, number)
        return self.comm.allreduce(total)

    def whole(self) -> dict[str, torch.Tensor]:
        """Gather the state as an engine does: a sum, for each number is written once."""
        found = self.layout.empty(self.names, torch.float64)
        self.store.put(self.layout, found)
        for vector in found.values():
            self.comm.Allreduce(MPI.IN_PLACE, vector.numpy())
        return found

    def close(self) -> None:
        self.hooks.close()
        self.data.close()
        self.tp.close()
