"""Plain data parallelism at its fastest: parameters, gradients and the optimiser's state are each one flat buffer.

The gradient buffer is laid out in the order in which backward finishes (last layer first), so that a bucket is a slice.
Its tail carries what would otherwise cost messages of their own: the loss, the ballots, and when each rank arrived - which
splits the time of an all-reduce into waiting for the slowest and moving bytes, without a barrier.

# P parameters, n active ranks, B samples of this rank
"""

from __future__ import annotations

import time

import torch
from mpi4py import MPI
from torch import Tensor

from ..models.kinds import BACKWARD, COMMUNICATION, DATA, FORWARD, UPDATE, WAITING
from ..models.rank_grid import share
from ..ranks import nccl
from ..ranks.buffers import FlatBuffers
from ..ranks.collectives import allreduce
from ..ranks.overlap import Overlap
from .engine import Ask, Done, Engine, Job, Judged
from .layout import Whole
from .plan import Plan


class FlatEngine(Engine):
    """See `Engine`. Unlike others it can `join` other ranks and plans of its kind without being made anew.

    Args:
        job: What is trained; its module becomes this engine's.
        room: Most ranks that may ever be active.
    """

    def __init__(self, job: Job, room: int) -> None:
        self.job = job
        self.net = job.work.module.to(job.device)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        self.flat = FlatBuffers(trained, 2 + 2 * room, job.device, job.optimizer.state_names)
        self._overlap: Overlap | None = None
        self._nccl: nccl.NcclSum | None = None
        self._share = slice(0, 0)

    def join(self, plan: Plan, comm: MPI.Intracomm) -> None:
        """Take this rank's place on `comm`."""
        self.plan, self.comm = plan, comm
        device, link = self.job.device, self.job.link
        if self._overlap:
            self._overlap.remove()
        wanted = plan.overlap and comm.size > 1 and device.type == "cpu"
        self._overlap = Overlap(comm, self.flat, link, plan.algorithm, plan.bucket_bytes) if wanted else None
        if self._nccl:
            self._nccl.close()
        direct = device.type == "cuda" and comm.size > 1 and not link.active and plan.transport != "mpi"
        self._nccl = nccl.NcclSum(comm, device) if direct and nccl.possible(comm, device) else None

    def load(self, whole: Whole) -> None:
        """See `Engine`."""
        for name, tensor in self.flat.state.items():
            tensor.copy_(whole[name])

    def whole(self) -> Whole:
        """Return the live state: on a processor the very memory that is trained, so that writing into it restores it."""
        if self.job.device.type != "cpu":
            return {name: tensor.cpu() for name, tensor in self.flat.state.items()}
        return dict(self.flat.state)

    def step(self, ask: Ask) -> Done:
        """See `Engine`."""
        job, flat, comm, clock = self.job, self.flat, self.comm, time.perf_counter
        t0 = clock()
        x, y = job.train
        mine = ask.index[share(len(ask.index), comm.size, comm.rank)]
        x, y = x[mine], y[mine]
        t1 = clock()
        flat.gradients.zero_()
        if self._overlap:
            self._overlap.arm()
        loss = job.work.loss_sum(self.net(x), y) / len(ask.index)
        forward_s = clock()
        loss.backward()
        self.sync_device()
        t2 = clock()
        slowed_s = _sleep((t2 - t1) * (ask.slow_factor - 1))
        arrived = t2 + slowed_s
        flat.put_tail(comm.rank, comm.size, float(loss.detach()), ask.ballot, time.monotonic())
        sent = self._overlap.finish() if self._overlap else self._reduce()
        t3 = clock()
        job.optimizer.update(flat.parameters, flat.gradients, flat.optimizer_state, ask.learning_rate, ask.step)
        self.sync_device()
        t4 = clock()
        global_loss, verdict, latest_s = flat.read_tail(comm.rank, comm.size)
        during_s, link_s = t3 - arrived, job.link.take()
        wait_s = min(max(latest_s, 0.0), during_s)
        # A bandwidth or latency that was injected is not communication of this machine: it is shown as what it is.
        link_s = min(link_s, during_s - wait_s)
        sample = {
            "step_time_s": t4 - t0, "data_time_s": t1 - t0, "compute_time_s": (t2 - t1) + (t4 - t3),
            "exposed_comm_time_s": during_s - wait_s - link_s, "straggler_wait_time_s": wait_s, "bubble_time_s": 0.0,
            "injected_time_s": slowed_s + link_s, "engine_time_s": 0.0, "sent_bytes": float(sent), "transient_bytes": 0.0,
            "loss": global_loss, **self.device_memory(),
        }  # fmt: skip
        done = Done(global_loss, verdict, sample)
        if ask.tracing:
            moving_s = arrived + wait_s
            done.operations = [
                (DATA, 0, t0, t1), (FORWARD, 0, t1, forward_s), (BACKWARD, 0, forward_s, t2),
                (WAITING, 0, arrived, moving_s), (COMMUNICATION, 0, moving_s, t3), (UPDATE, 0, t3, t4),
            ]  # fmt: skip
        return done

    @torch.no_grad()
    def evaluate(self, x: Tensor, y: Tensor) -> Judged:
        """See `Engine`."""
        mine, task = share(len(x), self.comm.size, self.comm.rank), self.job.work.facts.task
        outputs, y = self.net(x[mine]), y[mine]
        found = Judged()
        found.add(task, outputs, y, float(self.job.work.loss_sum(outputs, y)), len(y))
        return found

    def state_bytes(self) -> dict[str, int]:
        """See `Engine`."""
        flat = self.flat
        optimizer = sum(t.nbytes for t in flat.optimizer_state.values())
        return {"parameters": flat.parameters.nbytes, "gradients": flat.gradients.nbytes, "optimizer": optimizer}

    def close(self) -> None:
        """See `Engine`."""
        if self._overlap:
            self._overlap.remove()
        if self._nccl:
            self._nccl.close()
        self._overlap = self._nccl = None

    def _reduce(self) -> int:
        """Sum gradients and tail over the ranks; return the bytes handed to the network."""
        flat, comm = self.flat, self.comm
        if self._nccl:
            self._nccl.sum(flat.gradients)
            self.sync_device()
            tail = flat.bucket(flat.size, flat.size + 2 + 2 * comm.size)
            allreduce(comm, tail, self.job.link)
            return 2 * (comm.size - 1) * (flat.gradients.numel() * 4 + tail.nbytes) // comm.size
        if self.job.device.type != "cpu":
            flat.gradients_host_tensor.copy_(flat.gradients)
        sent = allreduce(comm, flat.reduced(comm.size), self.job.link, self.plan.algorithm)
        if self.job.device.type != "cpu":
            flat.gradients.copy_(flat.gradients_host_tensor)
        return sent


def _sleep(seconds: float) -> float:
    """Sleep and return for how long; 0 does not even look at the clock."""
    if seconds <= 0:
        return 0.0
    begun = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - begun
