"""What carries out training steps under one plan. The lab's own engines and torch's, as references, look alike from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from mpi4py import MPI
from torch import Tensor

from ..ranks.link import InjectedLink
from ..workloads.nets import Workload
from .layout import Layout, Whole
from .mirror import Mirror
from .optimizer import Optimizer
from .plan import Plan

#: Samples of each replica in one evaluation pass at most, so that it needs no more memory than a step.
EVALUATION_BATCH = 512


@dataclass(slots=True)
class Job:
    """What is trained, whatever the plan.

    Attributes:
        work: Net, data and loss; the module's own parameters are only the initial ones.
        layout: Of the whole state.
        optimizer: How parameters are updated.
        device: Of this rank.
        dtype: Of parameters: float32, or float64 for comparisons.
        link: Injected delay between ranks.
        train: (x, y), on the device; floating point data in `dtype`.
    """

    work: Workload
    layout: Layout
    optimizer: Optimizer
    device: torch.device
    dtype: torch.dtype
    link: InjectedLink
    train: tuple[Tensor, Tensor]


@dataclass(slots=True)
class Ask:
    """One step that is asked for.

    Attributes:
        index: (B,) places of the global batch in the training data, the same on every rank.
        step: 1 for the first one.
        learning_rate: Of this step.
        ballot: This rank's vote; the sum over the ranks comes back.
        slow_factor: How many times longer this rank's arithmetic shall take (injected).
        tracing: Keep the operations of this step.
    """

    index: Tensor
    step: int
    learning_rate: float
    ballot: int = 0
    slow_factor: float = 1.0
    tracing: bool = False


@dataclass(slots=True)
class Done:
    """One step that was taken.

    Attributes:
        loss: Mean over the global batch, before the update; the same on every rank.
        verdict: Sum of the ballots.
        sample: Quantities of this rank: step_time_s, and the parts that add up to it; sent_bytes; memory.
        operations: (kind, micro-batch, begin, end) of this rank in seconds since the first rank began; empty if not traced.
    """

    loss: float
    verdict: int
    sample: dict[str, float]
    operations: list[tuple[int, int, float, float]] = field(default_factory=list)


@dataclass(slots=True)
class Judged:
    """What one rank contributes to an evaluation; zeros on ranks that see no outputs, so that sums over all ranks are right.

    Attributes:
        loss_sum: Over its samples.
        right: Samples classified right.
        count: Samples; a share of one where ranks share a sequence.
        scores, targets: (N,) of a binary task, else None.
    """

    loss_sum: float = 0.0
    right: float = 0.0
    count: float = 0.0
    scores: Tensor | None = None
    targets: Tensor | None = None

    def add(self, task: str, outputs: Tensor, targets: Tensor, loss_sum: float, count: float) -> None:
        """Take in one pass: its outputs and targets, its loss, and how many samples it stands for."""
        self.loss_sum += loss_sum
        self.count += count
        if task == "classification":
            self.right += float((outputs.argmax(1) == targets).sum())
        elif task == "binary":
            outputs, targets = outputs.flatten(), targets.flatten()
            self.scores = outputs if self.scores is None else torch.cat([self.scores, outputs])
            self.targets = targets if self.targets is None else torch.cat([self.targets, targets])


class Engine(ABC):
    """Training steps on the ranks of `comm` under `plan`. Made anew when the plan or the ranks change.

    Args:
        job: What is trained.
        plan: How; checked already.
        comm: The active ranks; stays the caller's.

    Attributes:
        replicated: Every rank holds the whole state, so survivors of a dead rank can go on.
    """

    replicated: bool = True

    def __init__(self, job: Job, plan: Plan, comm: MPI.Intracomm) -> None:
        self.job, self.plan, self.comm = job, plan, comm

    @abstractmethod
    def load(self, whole: Whole) -> None:
        """Take this rank's share of the whole state; `whole` may be freed afterwards."""

    @abstractmethod
    def whole(self) -> Whole:
        """Return the whole state, in host memory, the same on every rank; a collective."""

    @abstractmethod
    def step(self, ask: Ask) -> Done:
        """Take one step on all ranks."""

    @abstractmethod
    def evaluate(self, x: Tensor, y: Tensor) -> Judged:
        """Run the net on held-out samples, shared over the replicas; a collective without a sum over them."""

    @abstractmethod
    def state_bytes(self) -> dict[str, int]:
        """Count the tensor storage between two steps by kind: parameters, gradients, optimizer."""

    def begin_mirror(self, mirror: Mirror, step: int) -> None:  # noqa: B027 - replicas need none
        """Keep copies of the state in `mirror` from now on, as the plan asks; a collective. `step`: steps done."""

    def abandon(self) -> None:  # noqa: B027 - most have no groups of their own
        """Somebody died: call back whoever waits in this engine's groups. It is of no use afterwards."""

    def sync_device(self) -> None:
        """Wait until a GPU has done what was asked of it, so that a clock tells the truth."""
        if self.job.device.type == "cuda":
            torch.cuda.synchronize(self.job.device)

    def device_memory(self) -> dict[str, float]:
        """Return the peak of a GPU's memory as a part of the sample, nothing on a processor."""
        if self.job.device.type != "cuda":
            return {}
        return {"gpu_memory_bytes": float(torch.cuda.max_memory_allocated(self.job.device))}

    def close(self) -> None:  # noqa: B027 - some have nothing to give back
        """Give back groups and hooks; called by every rank."""


def floats(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return data in the parameters' type; whole numbers (tokens, classes) stay."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
