"""What torch's own engines share here: batches, optimiser, the whole state, and the end of a step.

torch does not tell arithmetic and communication apart, so a step has one part, `engine_time_s`, besides data and the wait for
the slowest at its end. The lab measures no bytes that torch sends.

# n ranks, B samples of the global batch
"""

from __future__ import annotations

import copy
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..models.rank_grid import share
from ..ranks import failures
from .engine import EVALUATION_BATCH, Ask, Done, Engine, Job, Judged
from .layout import Whole
from .optimizer import AdamW, Optimizer, Sgd
from .plan import Plan
from .reference_world import TorchWorld

#: What torch calls the lab's state tensors.
_TORCH_NAMES = {
    Sgd: {"momentum": "momentum_buffer"},
    AdamW: {"momentum": "exp_avg", "variance": "exp_avg_sq"},
}


class TorchEngine(Engine):
    """One of torch's engines behind the lab's interface.

    Args:
        job, plan, comm: As for `Engine`; `reference.check` has passed.

    Attributes:
        replicas: Ranks that share the batch.
        trained: This rank's parameters by their name in the whole net; a DTensor where torch shards it.
    """

    replicated = False
    replicas = 1

    def __init__(self, job: Job, plan: Plan, comm: MPI.Intracomm) -> None:
        super().__init__(job, plan, comm)
        self.world = TorchWorld(comm, job.device)
        module = copy.deepcopy(job.work.module).to(device=job.device, dtype=job.dtype)
        found = dict(self.distribute(module).named_parameters())
        self.trained = {name: found[name] for name in job.layout.slices if name in found}
        self.optimizer = _optimizer(job.optimizer, list(self.trained.values()))
        self._loaded = False

    # --- what each engine has of its own ---------------------------------------------------------------------------
    @abstractmethod
    def distribute(self, module: nn.Sequential) -> nn.Module:
        """Hand the whole net over to torch; return the module with this rank's parameters under their names in the whole net."""

    @abstractmethod
    def train(self, x: Tensor, y: Tensor, batch: int) -> float:
        """Forward, backward and whatever torch sums; return this rank's part of the mean loss over the `batch` samples of all ranks."""

    @abstractmethod
    def outputs(self, x: Tensor) -> Tensor | None:
        """Return the net's outputs on ranks that count them, without gradients; every rank of a replica calls it alike."""

    # --- a step ----------------------------------------------------------------------------------------------------
    def step(self, ask: Ask) -> Done:
        """See `Engine`; the ranks agree before the update, so no rank is ahead of another when one dies."""
        clock, n, me = time.perf_counter, self.comm.size, self.comm.rank
        t0 = clock()
        x, y = self.job.train
        mine = ask.index[share(len(ask.index), self.replicas, me if self.replicas == n else 0)]
        x, y = x[mine], y[mine]
        t1, busy_s = clock(), time.thread_time()
        self._set(ask.learning_rate, ask.step)
        self.optimizer.zero_grad()
        with self._deaths(), self.autocast()():
            loss = self.train(x, y, len(ask.index))
            self.sync_device()
        injected_s = _slow_down((time.thread_time() - busy_s) * (ask.slow_factor - 1))
        everyone = np.empty((n, 3))
        arrived = clock()
        self.comm.Allgather(np.array([loss, ask.ballot, arrived]), everyone)
        wait_s = min(max(float(everyone[:, 2].max()) - arrived, 0.0), clock() - arrived)
        self.optimizer.step()
        self.sync_device()
        step_s, data_s = clock() - t0, t1 - t0
        loss, missing = float(everyone[:, 0].sum()), math.nan
        sample = {
            "step_time_s": step_s,
            "data_time_s": data_s,
            "engine_time_s": step_s - data_s - wait_s - injected_s,
            "straggler_wait_time_s": wait_s,
            "injected_time_s": injected_s,
            **dict.fromkeys(("compute_time_s", "exposed_comm_time_s", "bubble_time_s", "sent_bytes"), missing),
            "loss": loss,
        }
        return Done(loss, int(everyone[:, 1].sum()), sample | self.device_memory())

    def microbatches(self, x: Tensor, y: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """Yield this rank's batch in micro-batches, and whether it is the last one."""
        count = self.plan.num_microbatches
        for i in range(count):
            part = share(len(x), count, i)
            yield x[part], y[part], i == count - 1

    def loss(self, outputs: Tensor, y: Tensor, batch: int) -> Tensor:
        """Return a part of the mean loss over `batch` samples."""
        return self.job.work.loss_sum(outputs, y) / batch

    def autocast(self) -> Callable[[], AbstractContextManager[Any]]:
        """Return what makes the context of forward and loss."""
        if self.plan.precision != "bf16":
            return nullcontext
        return lambda: torch.autocast(self.job.device.type, torch.bfloat16)

    def _set(self, learning_rate: float, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._loaded:  # AdamW counts steps by itself from here on
            self._loaded = False
            for state in self.optimizer.state.values():
                if "step" in state:
                    state["step"].fill_(step - 1)

    @contextmanager
    def _deaths(self) -> Iterator[None]:
        """Tell a death as MPI would. torch says no more than that a connection was closed."""
        try:
            yield
        except RuntimeError as error:
            self.world.close()  # whoever waits for this rank shall not wait for ever
            if failures.is_loss(MPI.Exception(MPI.ERR_OTHER), self.comm) or self.comm.Is_revoked():
                raise MPI.Exception(MPI.ERR_PROC_FAILED) from error
            raise

    # --- the whole state -------------------------------------------------------------------------------------------
    @torch.no_grad()
    def load(self, whole: Whole) -> None:
        """See `Engine`."""
        layout, names = self.job.layout, _TORCH_NAMES[type(self.job.optimizer)]
        for name, parameter in self.trained.items():
            _fill(parameter, layout.view(whole["parameters"], name))
            state: dict[str, Tensor] = {}
            for ours, theirs in names.items():
                state[theirs] = torch.zeros_like(parameter, requires_grad=False)
                _fill(state[theirs], layout.view(whole[ours], name))
            if isinstance(self.job.optimizer, AdamW):
                state["step"] = torch.zeros(())
            self.optimizer.state[parameter] = state
        self._loaded = True

    @torch.no_grad()
    def whole(self) -> Whole:
        """See `Engine`."""
        layout, names = self.job.layout, _TORCH_NAMES[type(self.job.optimizer)]
        found = layout.empty(self.job.optimizer.state_names, self.job.dtype)
        for name, parameter in self.trained.items():
            layout.view(found["parameters"], name).copy_(_full(parameter))
            for ours, theirs in names.items():
                layout.view(found[ours], name).copy_(_full(self.optimizer.state[parameter][theirs]))
        return found

    def state_bytes(self) -> dict[str, int]:
        """See `Engine`; torch's own buffers beside these are not counted."""
        parameters: list[Tensor] = list(self.trained.values())
        optimizer = [t for s in self.optimizer.state.values() for k, t in s.items() if k != "step"]
        kinds: dict[str, list[Tensor]] = {
            "parameters": parameters,
            "gradients": [p.grad for p in parameters if p.grad is not None],
            "optimizer": optimizer,
        }
        return {kind: _storage_bytes(tensors) for kind, tensors in kinds.items()}

    # --- held-out data ---------------------------------------------------------------------------------------------
    @torch.no_grad()
    def evaluate(self, x: Tensor, y: Tensor) -> Judged:
        """See `Engine`."""
        found, work = Judged(), self.job.work
        mine = share(len(x), self.replicas, self.comm.rank if self.replicas == self.comm.size else 0)
        x, y = x[mine], y[mine]
        pieces = math.ceil(len(self.job.work.test[0]) / self.replicas / EVALUATION_BATCH)  # as many on every rank
        for i in range(pieces):
            rows = share(len(x), pieces, i)
            with self.autocast()():
                outputs = self.outputs(x[rows])
            if outputs is None:
                continue
            here = y[rows]
            found.add(work.facts.task, outputs, here, float(work.loss_sum(outputs, here)), rows.stop - rows.start)
        return found

    def close(self) -> None:
        """See `Engine`."""
        self.world.close()


def _optimizer(ours: Optimizer, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return torch's optimiser of the same rule; sharded tensors and plain ones in groups of their own, as torch asks."""
    kinds = (
        [p for p in parameters if isinstance(p, DTensor)],
        [p for p in parameters if not isinstance(p, DTensor)],
    )
    groups: list[dict[str, Any]] = [{"params": kind} for kind in kinds if kind]
    if isinstance(ours, AdamW):
        betas = (ours.beta1, ours.beta2)
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=ours.epsilon, weight_decay=ours.weight_decay)
    assert isinstance(ours, Sgd)
    return torch.optim.SGD(groups, lr=0.0, momentum=ours.momentum)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _full(tensor: Tensor) -> Tensor:
    """Return the whole tensor; a collective where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _fill(tensor: Tensor, whole: Tensor) -> None:
    """Copy this rank's share of `whole` into `tensor`; no communication."""
    whole = whole.to(device=tensor.device, dtype=tensor.dtype)
    if isinstance(tensor, DTensor):
        whole = distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None).to_local()
    _local(tensor).copy_(whole)


def _storage_bytes(tensors: list[Tensor]) -> int:
    storages = {(s := _local(t).untyped_storage()).data_ptr(): s.nbytes() for t in tensors}
    return sum(storages.values())


def _slow_down(seconds: float) -> float:
    """Sleep on the node that the learner made slow; return the seconds injected."""
    if seconds <= 0:
        return 0.0
    begun = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - begun
