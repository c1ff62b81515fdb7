"""Data-parallel training on real ranks. Parameters, gradients and momentum are each one flat buffer.

The gradient buffer is laid out in the order in which backward finishes (last layer first), so that a bucket is a slice.
Its tail carries what would otherwise cost messages of their own: the loss, the number of samples, and when each rank
arrived - which splits the time of an all-reduce into waiting for the slowest and moving bytes, without a barrier.

# P parameters, n active ranks, B samples of this rank
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from ...errors import DataError, LabError
from ...experiment import Spec
from ...ranks import nccl
from ...ranks.buffers import FlatBuffers
from ...ranks.collectives import allreduce
from ...ranks.node import Arrays, Node, Program
from ...ranks.overlap import Overlap
from ...workloads import nets
from .spec import TrainingSpec

#: Epochs of small data take milliseconds: those of this time are told together, the last one's number with them.
EPOCHS_EVERY_S = 0.2


class DataParallel(Program):
    """One rank's replica: its slice of the batch, its flat buffers, the all-reduce between backward and update."""

    agrees: ClassVar[bool] = True

    def __init__(self, spec: Spec, node: Node) -> None:
        assert isinstance(spec, TrainingSpec)
        self.spec, self.node, self.tick = spec, node, 0
        self.device = _device(spec.device, node)
        torch.set_num_threads(spec.threads_per_node)
        data_dir = Path(spec.data_dir).expanduser() if spec.data_dir else None
        self.work = nets.load(
            spec.workload, seed=spec.seed, width=spec.width, depth=spec.depth, data_dir=data_dir, cache=node.cache
        )
        self.net = self.work.module.to(self.device)
        self.train = tuple(t.to(self.device) for t in self.work.train)
        self.test = tuple(t.to(self.device) for t in self.work.test)
        self.flat = FlatBuffers(list(self.net.parameters()), tail=2 + 2 * node.world.size, device=self.device)
        self.accept(spec)
        self._order: Tensor | None = None
        self._epoch = -1
        self._epoch_losses: list[float] = []
        self._epoch_means: list[float] = []
        self._epoch_said_s = 0.0
        self._overlap: Overlap | None = None
        self._nccl: nccl.NcclSum | None = None
        self._staged = False
        self._share = slice(0, 0)

    # --- what the runtime asks ----------------------------------------------------------------------------------
    def state(self) -> Arrays:
        """Parameters and momentum, P float32 each."""
        if self.device.type != "cpu" and not self._staged:
            self.flat.stage_state()
            self._staged = True
        return {"parameters": self.flat.parameters_host, "momentum": self.flat.momentum_host}

    def accept(self, spec: Spec) -> None:
        """Refuse a batch that the person's own archive is too small for.

        Raises:
            DataError: With the number of samples there are.
        """
        assert isinstance(spec, TrainingSpec)
        if spec.global_batch > len(self.train[0]):
            found = f"{spec.data_dir or spec.workload} holds {len(self.train[0])} training samples"
            raise DataError(f"global_batch: got {spec.global_batch}; {found}; choose at most that")

    def join(self, spec: Spec) -> None:
        """Take the slice of the batch that belongs to this rank now."""
        assert isinstance(spec, TrainingSpec)
        self.spec, node = spec, self.node
        if self._staged:
            self.flat.unstage_state()
        self._share = slice(
            spec.global_batch * node.rank // node.size, spec.global_batch * (node.rank + 1) // node.size
        )
        node.link.latency_s, node.link.bandwidth_bytes_per_s = spec.link_latency_s, spec.link_bandwidth_bytes_per_s
        if self._overlap:
            self._overlap.remove()
        wanted = spec.overlap and node.size > 1 and self.device.type == "cpu"
        self._overlap = Overlap(node.comm, self.flat, node.link, spec.algorithm, spec.bucket_bytes) if wanted else None
        if self._nccl:
            self._nccl.close()
        direct = (
            self.device.type == "cuda"
            and node.size > 1
            and not node.link.active
            and nccl.possible(node.comm, self.device)
        )
        self._nccl = nccl.NcclSum(node.comm, self.device) if direct else None

    def advance(self) -> Mapping[str, float] | None:
        """One step: data, forward and backward, all-reduce, update."""
        spec, node, flat = self.spec, self.node, self.flat
        if self.tick >= spec.steps:
            return None
        clock, self._staged = time.perf_counter, False
        t0 = clock()
        x, y = self._batch()
        t1 = clock()
        flat.gradients.zero_()
        if self._overlap:
            self._overlap.arm()
        loss = self.work.loss_sum(self.net(x), y) / spec.global_batch
        loss.backward()
        self._sync_device()
        t2 = clock()
        slowed_s = self._slow_down(t2 - t1)
        arrived = t2 + slowed_s
        flat.put_tail(node.rank, node.size, float(loss.detach()), node.ballot, time.monotonic())
        sent = self._overlap.finish() if self._overlap else self._reduce()
        t3 = clock()
        self._update()
        self._sync_device()
        self.tick += 1
        t4 = clock()
        global_loss, node.verdict, latest_s = flat.read_tail(node.rank, node.size)
        during_s, link_s = t3 - arrived, node.link.take()
        wait_s = min(max(latest_s, 0.0), during_s)
        # A bandwidth or latency that was injected is not communication of this machine: it is shown as what it is.
        link_s = min(link_s, during_s - wait_s)
        exposed_s = during_s - wait_s - link_s
        return {
            "step_time_s": t4 - t0, "data_time_s": t1 - t0, "compute_time_s": (t2 - t1) + (t4 - t3), "exposed_comm_time_s": exposed_s,
            "straggler_wait_time_s": wait_s, "injected_time_s": slowed_s + link_s, "sent_bytes": float(sent), "loss": global_loss,
            **self._device_memory(),
        }  # fmt: skip

    def between(self) -> None:
        """Close an epoch; look at held-out data now and then: every rank takes its share of it."""
        self._epoch_losses.append(float(self.flat.tail_host[0]))
        if self.tick % self._steps_per_epoch() == 0:
            self._epoch_means.append(float(np.mean(self._epoch_losses)))
            self._epoch_losses.clear()
            if self.node.controller and time.monotonic() - self._epoch_said_s > EPOCHS_EVERY_S:
                self._epoch_said_s = time.monotonic()
                number = self.tick // self._steps_per_epoch()
                self.node.event("epoch", tick=self.tick, epoch=number, mean_losses=self._epoch_means)
                self._epoch_means.clear()
        every = self.spec.evaluate_every
        if every and self.tick % every == 0:
            self.evaluate()
        if not math.isfinite(float(self.flat.tail_host[0])):
            raise LabError(
                f"the loss is {float(self.flat.tail_host[0])} after step {self.tick}; lower learning_rate (now {self.spec.learning_rate:g})"
            )

    def evaluate(self) -> None:
        """Record held-out loss, and accuracy where the workload classifies, as an event of the controller."""
        node, (x, y) = self.node, self.test
        mine = slice(len(x) * node.rank // node.size, len(x) * (node.rank + 1) // node.size)
        with torch.no_grad():
            outputs = self.net(x[mine])
            loss = float(self.work.loss_sum(outputs, y[mine]))
            right = float((outputs.argmax(1) == y[mine]).sum()) if self.work.facts.task == "classification" else 0.0
        sums = np.array([loss, right, mine.stop - mine.start])
        node.comm.Allreduce(MPI.IN_PLACE, sums)
        if node.controller:
            found = {"held_out_loss": sums[0] / sums[2]}
            if self.work.facts.task == "classification":
                found["accuracy_frac"] = sums[1] / sums[2]
            node.event("evaluated", tick=self.tick, **found)

    # --- inside a step ------------------------------------------------------------------------------------------
    def _batch(self) -> tuple[Tensor, Tensor]:
        """Return B samples, the share of this rank in the tick's global batch; it is the same however many share it."""
        x, y = self.train
        count, batch = len(x), self.spec.global_batch
        epoch, place = divmod(self.tick, self._steps_per_epoch())
        if epoch != self._epoch or self._order is None:
            generator = torch.Generator().manual_seed(self.spec.seed * 1_000_003 + epoch)
            self._order, self._epoch = torch.randperm(count, generator=generator).to(self.device), epoch
        index = self._order[place * batch : (place + 1) * batch][self._share]
        return x[index], y[index]

    def _steps_per_epoch(self) -> int:
        """Whole batches in the training data; what is left over gets its turn in another epoch's order."""
        return max(1, len(self.train[0]) // self.spec.global_batch)

    def _slow_down(self, computed_s: float) -> float:
        """Sleep, on the node that the learner made slow; return the seconds injected."""
        if self.spec.slow_node != self.node.rank or self.spec.slow_factor <= 1:
            return 0.0
        begun = time.perf_counter()
        time.sleep(computed_s * (self.spec.slow_factor - 1))
        return time.perf_counter() - begun

    def _reduce(self) -> int:
        """Sum gradients and tail over the nodes; return the bytes handed to the network."""
        flat = self.flat
        if self._nccl:
            self._nccl.sum(flat.gradients)
            self._sync_device()
            tail = flat.bucket(flat.size, flat.size + 2 + 2 * self.node.size)
            allreduce(self.node.comm, tail, self.node.link)
            return 2 * (self.node.size - 1) * (flat.gradients.numel() * 4 + tail.nbytes) // self.node.size
        if self.device.type != "cpu":
            flat.gradients_host_tensor.copy_(flat.gradients)
        buffer = flat.reduced(self.node.size)
        sent = allreduce(self.node.comm, buffer, self.node.link, self.spec.algorithm)
        if self.device.type != "cpu":
            flat.gradients.copy_(flat.gradients_host_tensor)
        return sent

    def _update(self) -> None:
        flat = self.flat
        if self.spec.momentum:
            flat.momentum.mul_(self.spec.momentum).add_(flat.gradients)
            flat.parameters.add_(flat.momentum, alpha=-self.spec.learning_rate)
        else:
            flat.parameters.add_(flat.gradients, alpha=-self.spec.learning_rate)

    def _device_memory(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {}
        return {"gpu_memory_bytes": float(torch.cuda.max_memory_allocated(self.device))}

    def _sync_device(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _device(asked: str, node: Node) -> torch.device:
    """Choose this rank's device: GPUs are dealt out in turn; several ranks may share one.

    Raises:
        LabError: A GPU was asked for and there is none.
    """
    count = torch.cuda.device_count() if asked != "cpu" else 0
    if asked == "cuda" and not count:
        raise LabError("device: got 'cuda', but torch sees no GPU here; use device=cpu, or see: aiinfra doctor")
    return torch.device("cuda", node.id % count) if count else torch.device("cpu")
